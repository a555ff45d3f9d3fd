using HpcBatchNorm.Tests.Training;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Evaluation;

/// <summary>The tiny data set and two networks trained on it for some steps: one with batch normalization and weight averages, one without either.</summary>
public sealed class EvaluationFixture : IDisposable
{
    public EvaluationFixture()
    {
        First = Train(("batch-norm", "true"), ("average-decay", "0.5"));
        Second = Train(("batch-norm", "false"), ("seed", "2"));
    }

    public TrainingFixture Training { get; } = new();

    /// <summary>A checkpoint of inception-tiny.</summary>
    public string First { get; }

    /// <summary>A checkpoint of inception-tiny without batch normalization.</summary>
    public string Second { get; }

    public string Train(params (string Name, string Value)[] settings)
    {
        using var observer = new RecordingObserver();
        var request = new TrainingRequest { Flags = Training.Flags(Training.NewFolder(), [.. settings, ("steps", "7"), ("eval-every", "0"), ("threads", "1")]) };
        return TrainingFixture.Run(request, observer).Checkpoint;
    }

    public void Dispose() => Training.Dispose();
}
