using System.Globalization;

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

/// <summary>One number of an experiment beside the paper's, and whether it is what it must be.</summary>
/// <param name="Quantity">What was measured, with its unit.</param>
/// <param name="Paper">The paper's number or statement.</param>
/// <param name="Ours">Ours.</param>
/// <param name="Acceptance">What ours must be.</param>
/// <param name="Passed">Whether it is.</param>
internal sealed record Finding(string Quantity, string Paper, string Ours, string Acceptance, bool Passed)
{
    /// <summary>A number that must be large enough. <paramref name="format"/> is a .NET number format, unit included: <c>0.0 '%'</c>.</summary>
    public static Finding AtLeast(string quantity, string paper, double value, double least, string format = "0.00") =>
        new(quantity, paper, Text(value, format), $"at least {Text(least, format)}", value >= least);

    /// <summary>A number that must be small enough. <paramref name="format"/> as for <see cref="AtLeast"/>.</summary>
    public static Finding AtMost(string quantity, string paper, double value, double most, string format = "0.00") =>
        new(quantity, paper, Text(value, format), $"at most {Text(most, format)}", value <= most);

    private static string Text(double value, string format) =>
        double.IsFinite(value) ? value.ToString(format, CultureInfo.InvariantCulture) : double.IsNaN(value) ? "none" : "infinite";
}

/// <summary>A table of an experiment. Every row has as many cells as the head.</summary>
internal sealed record ResultTable(string Title, IReadOnlyList<string> Head, IReadOnlyList<IReadOnlyList<string>> Rows);

/// <summary>What an experiment found.</summary>
internal sealed record ExperimentResult
{
    /// <summary>The numbers that decide.</summary>
    public required IReadOnlyList<Finding> Findings { get; init; }

    /// <summary>What belongs to the experiment but cannot run here, a sentence each that names it and says why. It has no finding, neither passed nor not passed.</summary>
    public IReadOnlyList<string> NotRun { get => field ?? []; init; } // null in results kept before there was this member

    /// <summary>Figures, in the paper's form where it has one.</summary>
    public IReadOnlyList<Figure> Figures { get; init; } = [];

    /// <summary>Tables, in the paper's form where it has one.</summary>
    public IReadOnlyList<ResultTable> Tables { get; init; } = [];

    /// <summary>What a reader must know to judge the numbers: the setup, what the paper leaves open, caveats.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];

    /// <summary>True when every finding is as it must be.</summary>
    public bool Passed => Findings.All(f => f.Passed);
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
