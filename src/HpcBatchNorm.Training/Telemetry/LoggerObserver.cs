using HpcBatchNorm.Training.Evaluation;
using Microsoft.Extensions.Logging;

namespace HpcBatchNorm.Training;

/// <summary>
/// Writes a run to an <see cref="ILogger"/>: start, log steps, evaluations and checkpoints as information, notes as information (warnings where they
/// begin with that word). Other steps are written at debug level. Nothing is formatted, or allocated per step, for a level that is off.
/// </summary>
/// <param name="logger">Takes the lines.</param>
/// <param name="next">Told everything too; may be null.</param>
public sealed partial class LoggerObserver(ILogger logger, ITrainingObserver? next = null) : ITrainingObserver
{
    private const string Warning = "warning: ";

    /// <inheritdoc/>
    public void Note(string message)
    {
        if (message.StartsWith(Warning, StringComparison.Ordinal))
        {
            LogWarning(message[Warning.Length..]);
        }
        else
        {
            LogNote(message);
        }

        next?.Note(message);
    }

    /// <inheritdoc/>
    public void Started(IReadOnlyList<(string Name, string Value)> facts, long firstStep, long totalSteps)
    {
        LogStarted(firstStep, totalSteps);
        foreach ((string name, string value) in facts)
        {
            LogFact(name, value);
        }

        next?.Started(facts, firstStep, totalSteps);
    }

    /// <inheritdoc/>
    public void Stepped(in StepReport report)
    {
        if (report.IsLogStep)
        {
            LogStep(report.Step, report.TotalSteps, report.MeanLoss, report.LearningRate, report.ImagesPerSecond, report.DataWaitShare);
        }
        else
        {
            LogQuietStep(report.Step, report.Loss, report.LearningRate);
        }

        next?.Stepped(report);
    }

    /// <inheritdoc/>
    public void Evaluating(in EvaluationProgress progress) => next?.Evaluating(progress);

    /// <inheritdoc/>
    public void Evaluated(in EvaluationReport report)
    {
        LogEvaluation(report.Step, report.Validation.Top1, report.Validation.Top5, report.Validation.Loss, report.IsBest);
        next?.Evaluated(report);
    }

    /// <inheritdoc/>
    public void Saved(string checkpoint)
    {
        LogSaved(checkpoint);
        next?.Saved(checkpoint);
    }

    [LoggerMessage(1, LogLevel.Information, "Training from step {FirstStep} to {TotalSteps}.")]
    private partial void LogStarted(long firstStep, long totalSteps);

    [LoggerMessage(2, LogLevel.Information, "{Fact}: {Value}")]
    private partial void LogFact(string fact, string value);

    [LoggerMessage(3, LogLevel.Information, "Step {Step} of {TotalSteps}: loss {Loss}, learning rate {LearningRate}, {ImagesPerSecond} images per second, {DataWaitShare} of the time waiting for images.")]
    private partial void LogStep(long step, long totalSteps, double loss, float learningRate, double imagesPerSecond, double dataWaitShare);

    [LoggerMessage(4, LogLevel.Debug, "Step {Step}: loss {Loss}, learning rate {LearningRate}.")]
    private partial void LogQuietStep(long step, float loss, float learningRate);

    [LoggerMessage(5, LogLevel.Information, "Evaluation after step {Step}: top-1 {Top1}, top-5 {Top5}, loss {Loss}, best {IsBest}.")]
    private partial void LogEvaluation(long step, double top1, double top5, double loss, bool isBest);

    [LoggerMessage(6, LogLevel.Information, "Checkpoint {Checkpoint} is on the disk.")]
    private partial void LogSaved(string checkpoint);

    [LoggerMessage(7, LogLevel.Information, "{Note}")]
    private partial void LogNote(string note);

    [LoggerMessage(8, LogLevel.Warning, "{Note}")]
    private partial void LogWarning(string note);
}
