using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Training;

/// <summary>Where a step stands: reported after every step, without allocating.</summary>
/// <param name="Step">Steps done, counting those before a resume.</param>
/// <param name="TotalSteps">Steps of the whole run.</param>
/// <param name="StepsPerEpoch">Steps of one epoch.</param>
/// <param name="Loss">Mean loss of this step's batch, without weight decay.</param>
/// <param name="MeanLoss">Mean loss of the steps since the last log line.</param>
/// <param name="LearningRate">The step's learning rate.</param>
/// <param name="ImagesPerSecond">Images divided by elapsed seconds since the last log line; evaluation and checkpoints are not in it.</param>
/// <param name="DataWaitShare">Share of those seconds spent waiting for images, 0 to 1.</param>
/// <param name="Remaining">Estimated time to the end of the run.</param>
/// <param name="IsLogStep">True every <see cref="RunConfig.LogEvery"/> steps and on the last.</param>
/// <param name="LossScale">Where loss scaling stands; null in all precisions but fp16, and on steps that are no log step.</param>
public readonly record struct StepReport(
    long Step, long TotalSteps, long StepsPerEpoch, float Loss, double MeanLoss, float LearningRate, double ImagesPerSecond, double DataWaitShare,
    TimeSpan Remaining, bool IsLogStep, LossScale? LossScale = null)
{
    private readonly IReadOnlyDictionary<string, double>? _metrics;

    /// <summary>
    /// <see cref="Step"/> minus the steps of <see cref="StepsPerEpoch"/> that the place in the data is after: 0 unless the run was resumed with another number of
    /// images per step.
    /// </summary>
    public long Offset { get; init; }

    /// <summary>A time in seconds as far as it can be told: the longest there is for what is longer, zero for what is no number.</summary>
    internal static TimeSpan Duration(double seconds) =>
        seconds >= TimeSpan.MaxValue.TotalSeconds ? TimeSpan.MaxValue : seconds > 0 ? TimeSpan.FromSeconds(seconds) : TimeSpan.Zero;

    /// <summary>Epochs done, with their fraction.</summary>
    public double Epoch => (double)(Step - Offset) / StepsPerEpoch;

    /// <summary>What the observer has added since the last line; only sinks are told.</summary>
    public IReadOnlyDictionary<string, double> Metrics
    {
        get => _metrics ?? NoMetrics.Value;
        init => _metrics = value;
    }
}

/// <summary>What an evaluation during training found.</summary>
/// <param name="Step">Steps done when it was made.</param>
/// <param name="Epoch">Epochs done, with their fraction.</param>
/// <param name="TrainLoss">Mean training loss since the last evaluation.</param>
/// <param name="Validation">The evaluation.</param>
/// <param name="IsBest">True when top-1 accuracy is the highest so far.</param>
public readonly record struct EvaluationReport(long Step, double Epoch, double TrainLoss, EvaluationResult Validation, bool IsBest)
{
    private readonly IReadOnlyDictionary<string, double>? _metrics;

    /// <summary>What the observer has added to this evaluation; only sinks are told.</summary>
    public IReadOnlyDictionary<string, double> Metrics
    {
        get => _metrics ?? NoMetrics.Value;
        init => _metrics = value;
    }
}

/// <summary>How a run ended.</summary>
public enum TrainingOutcome
{
    /// <summary>All steps are done.</summary>
    Completed,

    /// <summary>The run that was to be resumed had already done all its steps.</summary>
    AlreadyComplete,

    /// <summary>It was asked to stop; its state is saved.</summary>
    Interrupted,

    /// <summary>Its time limit (<see cref="RunConfig.MaxTime"/>) has been reached; its state is saved.</summary>
    TimeLimit,

    /// <summary>The observer has ended it (<see cref="TrainingControl.RequestStop"/>); its state is saved.</summary>
    StoppedEarly,

    /// <summary>The loss became infinite or not a number; the last good checkpoint is kept.</summary>
    LossNotFinite,
}

/// <summary>Where a run stopped being finite.</summary>
/// <param name="Step">The step, counted from 1.</param>
/// <param name="Layer">The first layer whose output was not finite; empty when it is not known.</param>
/// <param name="Description">What was found, in sentences for people.</param>
public sealed record Divergence(long Step, string Layer, string Description);

/// <summary>What a run leaves behind.</summary>
public sealed record TrainingResult
{
    /// <summary>How it ended.</summary>
    public required TrainingOutcome Outcome { get; init; }

    /// <summary>Steps done since the start of the run, those before a resume included.</summary>
    public required long Steps { get; init; }

    /// <summary>Images trained on by this process.</summary>
    public required long Images { get; init; }

    /// <summary>Seconds of training by this process; evaluation and checkpoints are not in it.</summary>
    public required double Seconds { get; init; }

    /// <summary>Images per second: <see cref="Images"/> divided by <see cref="Seconds"/>.</summary>
    public double ImagesPerSecond => Seconds > 0 ? Images / Seconds : 0;

    /// <summary>Share of <see cref="Seconds"/> spent waiting for images.</summary>
    public required double DataWaitShare { get; init; }

    /// <summary>Peak resident memory of the process in MB (10^6 bytes).</summary>
    public required double PeakMemoryMb { get; init; }

    /// <summary>Mean training loss since the last evaluation but one, or of the whole run when none was made.</summary>
    public required double TrainLoss { get; init; }

    /// <summary>The last evaluation; null when none was made.</summary>
    public required EvaluationResult? Validation { get; init; }

    /// <summary>Highest top-1 accuracy, a fraction; NaN when no evaluation was made.</summary>
    public required double BestTop1 { get; init; }

    /// <summary>All evaluations of the run in order, those before a resume included.</summary>
    public required IReadOnlyList<EvaluationPoint> Evaluations { get; init; }

    /// <summary>The newest checkpoint; empty when none was written.</summary>
    public required string Checkpoint { get; init; }

    /// <summary>The report; empty when none was written.</summary>
    public required string Report { get; init; }

    /// <summary>The folder of the run.</summary>
    public required string RunDirectory { get; init; }

    /// <summary>Why the observer has ended the run; null unless the outcome is <see cref="TrainingOutcome.StoppedEarly"/>.</summary>
    public string? StopReason { get; init; }

    /// <summary>Where and how the run diverged; null unless the outcome is <see cref="TrainingOutcome.LossNotFinite"/>.</summary>
    public Divergence? Divergence { get; init; }
}
