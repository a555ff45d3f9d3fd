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
    protected static string Count(IReadOnlyList<ulong> seeds) => seeds.Count == 1 ? "1 seed" : Invariant($"{seeds.Count} seeds");

    /// <summary>An accuracy for a table.</summary>
    protected static string Percent(double value) => Invariant($"{value:0.00}");

    /// <summary>The mean curve of runs of several seeds, measured at the same steps.</summary>
    protected static FigureSeries Mean(string name, IReadOnlyList<MlpRun> runs, int style, bool dashed = false) => FigureSeries.Of(
        name, runs[0].Steps.Select((s, i) => ((double)s, runs.Average(r => r.Accuracy[i]))), style, dashed);

    /// <summary>A curve from where it has learned most, so that small differences can be seen.</summary>
    protected static FigureSeries Late(FigureSeries series)
    {
        const double From = 85;
        return series with { X = [.. series.X.Where((_, i) => series.Y[i] >= From)], Y = [.. series.Y.Where(y => y >= From)] };
    }

    /// <summary>Accuracies of the last step, for a table: each seed's and their mean.</summary>
    protected static IReadOnlyList<string> Row(string name, IReadOnlyList<MlpRun> runs) =>
        [name, string.Join(" / ", runs.Select(r => Percent(r.FinalAccuracy))), Percent(runs.Average(r => r.FinalAccuracy))];
}
