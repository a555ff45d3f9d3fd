using System.Globalization;
using System.Text.Json.Serialization;

namespace HpcBatchNorm.Experiments;

/// <summary>What data an experiment trains on.</summary>
internal enum ExperimentData
{
    /// <summary>None: everything is drawn from a seed.</summary>
    None,

    /// <summary>MNIST's IDX files.</summary>
    Mnist,

    /// <summary>Any data set in one of ImageNet's layouts.</summary>
    ImageNet,
}

/// <summary>
/// A claim of the paper (Ioffe and Szegedy, arXiv 1502.03167v3) as something that can be run: what it takes, what is measured, and what must come out for
/// the claim to hold. Deterministic in its settings, and resumable: what a run has computed is kept (<see cref="ExperimentContext.Once"/>).
/// </summary>
internal abstract class Experiment
{
    /// <summary>The name on the command line: <c>learning-rate</c>.</summary>
    public abstract string Name { get; }

    /// <summary>A heading.</summary>
    public abstract string Title { get; }

    /// <summary>The claim in one sentence, with the paper's section.</summary>
    public abstract string Claim { get; }

    /// <summary>What data it needs.</summary>
    public abstract ExperimentData Data { get; }

    /// <summary>About how long it takes on one core of a current processor, in minutes; half of that with two jobs.</summary>
    public abstract double Minutes { get; }

    /// <summary>Runs what is not there yet, and judges.</summary>
    /// <exception cref="UserErrorException">The data is missing or unfit, or a setting makes no sense.</exception>
    /// <exception cref="OperationCanceledException">It was stopped; what is complete is kept.</exception>
    public abstract ExperimentResult Run(ExperimentContext context);
}

/// <summary>What a number says of a claim.</summary>
public enum Verdict
{
    /// <summary>It is not seen here: the opposite came out, or what should have happened did not.</summary>
    NotShown,

    /// <summary>The number lies on the claim's side, but by less than noise or the margin that was set beforehand.</summary>
    NotContradicted,

    /// <summary>The number is what the claim says, by more than noise or the margin that was set beforehand.</summary>
    Shown,
}

/// <summary>One number of an experiment beside the paper's, and what it says of the claim.</summary>
/// <param name="Quantity">What was measured, with its unit.</param>
/// <param name="Paper">The paper's number or statement.</param>
/// <param name="Ours">Ours.</param>
/// <param name="Acceptance">What ours must be to show the claim, and, where that is less, not to contradict it.</param>
/// <param name="Verdict">What ours says of the claim.</param>
internal sealed record Finding(string Quantity, string Paper, string Ours, string Acceptance, [property: JsonRequired] Verdict Verdict)
{
    /// <summary>A number that shows the claim when it is large enough. <paramref name="format"/> is a .NET number format, unit included: <c>0.0 '%'</c>.</summary>
    /// <param name="quantity">What was measured.</param>
    /// <param name="paper">The paper's number.</param>
    /// <param name="value">Ours; not a number where there is none, which shows nothing.</param>
    /// <param name="least">The smallest value that shows the claim.</param>
    /// <param name="format">How numbers are written.</param>
    /// <param name="side">The smallest value that lies on the claim's side, at most <paramref name="least"/>; without it there is nothing between shown and not shown.</param>
    public static Finding AtLeast(string quantity, string paper, double value, double least, string format = "0.00", double? side = null) =>
        new(quantity, paper, Text(value, format), Bound("at least", least, side, format), Judge(value >= least, value >= side));

    /// <summary>A number that shows the claim when it is small enough; as <see cref="AtLeast"/>.</summary>
    public static Finding AtMost(string quantity, string paper, double value, double most, string format = "0.00", double? side = null) =>
        new(quantity, paper, Text(value, format), Bound("at most", most, side, format), Judge(value <= most, value <= side));

    /// <summary>The verdict of a number that may show a claim, or may at least lie on its side.</summary>
    public static Verdict Judge(bool shows, bool onItsSide) => shows ? Verdict.Shown : onItsSide ? Verdict.NotContradicted : Verdict.NotShown;

    private static string Bound(string word, double bound, double? side, string format) =>
        $"{word} {Text(bound, format)}{(side is double other ? $"; {word} {Text(other, format)} does not contradict" : "")}";

    private static string Text(double value, string format) =>
        double.IsFinite(value) ? value.ToString(format, CultureInfo.InvariantCulture) : double.IsNaN(value) ? "none" : "infinite";
}

/// <summary>Verdicts in words.</summary>
internal static class VerdictText
{
    /// <summary><c>shown</c>, <c>not contradicted</c> or <c>not shown</c>.</summary>
    public static string Word(this Verdict verdict) => verdict switch
    {
        Verdict.Shown => "shown",
        Verdict.NotContradicted => "not contradicted",
        _ => "not shown",
    };

    /// <summary>How many findings have which verdict: <c>3 shown, 1 not contradicted, 1 not shown</c>; verdicts that none has are left out.</summary>
    public static string Count(IEnumerable<Finding> findings) => string.Join(", ", findings.GroupBy(f => f.Verdict).OrderByDescending(g => g.Key)
        .Select(g => string.Create(CultureInfo.InvariantCulture, $"{g.Count()} {g.Key.Word()}")));
}

/// <summary>A table of an experiment. Every row has as many cells as the head.</summary>
internal sealed record ResultTable(string Title, IReadOnlyList<string> Head, IReadOnlyList<IReadOnlyList<string>> Rows);

/// <summary>What an experiment found.</summary>
internal sealed record ExperimentResult
{
    /// <summary>The numbers that decide.</summary>
    public required IReadOnlyList<Finding> Findings { get; init; }

    /// <summary>What belongs to the experiment but cannot run here, a sentence each that names it and says why. It has no finding.</summary>
    public IReadOnlyList<string> NotRun { get => field ?? []; init; } // null in results kept before there was this member

    /// <summary>Figures, in the paper's form where it has one.</summary>
    public IReadOnlyList<Figure> Figures { get; init; } = [];

    /// <summary>Tables, in the paper's form where it has one.</summary>
    public IReadOnlyList<ResultTable> Tables { get; init; } = [];

    /// <summary>What a reader must know to judge the numbers: the setup, what the paper leaves open, caveats.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];

    /// <summary>False when a finding is not shown.</summary>
    public bool Passed => Findings.All(f => f.Verdict != Verdict.NotShown);
}

/// <summary>A result as it is kept in a file, with the circumstances.</summary>
/// <param name="Experiment">The experiment's name.</param>
/// <param name="Title">Its heading.</param>
/// <param name="Claim">The claim.</param>
/// <param name="Result">What was found.</param>
/// <param name="Conditions">Name and value: backend, processor, data, date.</param>
/// <param name="Quick">The short form, whose numbers only show a direction.</param>
internal sealed record ExperimentRecord(
    string Experiment, string Title, string Claim, ExperimentResult Result, IReadOnlyList<KeyValuePair<string, string>> Conditions, bool Quick);
