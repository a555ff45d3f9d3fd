using static System.FormattableString;

namespace HpcBatchNorm.Experiments;

/// <summary>What the experiments on digits have in common.</summary>
internal abstract class MlpExperiment : Experiment
{
    /// <summary>Points of accuracy, in findings.</summary>
    protected const string Points = "0.00 'points'";

    /// <summary>Test images of the short form.</summary>
    protected const int QuickTestImages = 2000;

    /// <summary>Both values of a switch, off first.</summary>
    protected static readonly bool[] WithoutAndWith = [false, true];

    /// <summary>Both values of a switch, on first.</summary>
    protected static readonly bool[] WithAndWithout = [true, false];

    /// <inheritdoc/>
    public sealed override ExperimentData Data => ExperimentData.Mnist;

    /// <summary>Trains all and gives the results by key.</summary>
    protected static IReadOnlyDictionary<string, MlpRun> Train(ExperimentContext context, IEnumerable<(string Key, MlpSettings Settings)> runs)
    {
        var data = MlpTraining.Data(context);
        (string Key, MlpSettings Settings)[] all = [.. runs];
        IReadOnlyList<MlpRun> done = context.All([.. all.Select(r => MlpTraining.Run(context, r.Key, r.Settings with { TestImages = context.Quick ? QuickTestImages : 0 }, data))]);
        return all.Zip(done).ToDictionary(p => p.First.Key, p => p.Second, StringComparer.Ordinal);
    }

    /// <summary>"3 seeds".</summary>
    protected static string Count(int seeds) => seeds == 1 ? "1 seed" : Invariant($"{seeds} seeds");

    /// <summary>An accuracy for a table.</summary>
    protected static string Percent(double value) => double.IsFinite(value) ? Invariant($"{value:0.00}") : "-";

    /// <summary>A run's accuracy for a table, or where it diverged.</summary>
    protected static string Percent(MlpRun run, double accuracy) => run.Diverged ? Invariant($"diverged at step {run.DivergedAt}") : Percent(accuracy);

    /// <summary>The mean over the runs that did not diverge: a diverged run has no accuracy. Not a number when all did.</summary>
    protected static double Mean(IReadOnlyList<MlpRun> runs, Func<MlpRun, double> of) => runs.Where(r => !r.Diverged).Select(of).DefaultIfEmpty(double.NaN).Average();

    /// <summary>
    /// Twice the standard error of the difference of the means of two groups of runs' last accuracies (Welch's): what differences of means must exceed to be more than
    /// the seeds' luck. Not a number where a group has fewer than two runs that did not diverge.
    /// </summary>
    protected static double TwoErrors(IReadOnlyList<MlpRun> a, IReadOnlyList<MlpRun> b) => 2 * Math.Sqrt(SquaredError(a) + SquaredError(b));

    /// <summary>The mean curve of runs of several seeds, measured at the same steps; of those that did not diverge, and empty when all did.</summary>
    protected static FigureSeries Mean(string name, IReadOnlyList<MlpRun> runs, int style, bool dashed = false)
    {
        MlpRun[] finite = [.. runs.Where(r => !r.Diverged)];
        return FigureSeries.Of(name, finite.Length == 0 ? [] : finite[0].Steps.Select((s, i) => ((double)s, finite.Average(r => r.Accuracy[i]))), style, dashed);
    }

    /// <summary>A curve from where it has learned most, so that small differences can be seen.</summary>
    protected static FigureSeries Late(FigureSeries series)
    {
        const double From = 85;
        return series with { X = [.. series.X.Where((_, i) => series.Y[i] >= From)], Y = [.. series.Y.Where(y => y >= From)] };
    }

    /// <summary>Accuracies of the last step, for a table: each seed's and the mean of those that did not diverge.</summary>
    protected static IReadOnlyList<string> Row(string name, IReadOnlyList<MlpRun> runs) =>
        [name, string.Join(" / ", runs.Select(r => Percent(r, r.FinalAccuracy))), Percent(Mean(runs, r => r.FinalAccuracy))];

    private static double SquaredError(IReadOnlyList<MlpRun> runs)
    {
        double[] values = [.. runs.Where(r => !r.Diverged).Select(r => r.FinalAccuracy)];
        double mean = values.DefaultIfEmpty(double.NaN).Average();
        return values.Sum(v => (v - mean) * (v - mean)) / (values.Length - 1.0) / values.Length;
    }
}
