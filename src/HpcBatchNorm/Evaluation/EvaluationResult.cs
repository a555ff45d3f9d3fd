namespace HpcBatchNorm.Evaluation;

/// <summary>Accuracy over a set of images, each counted once.</summary>
/// <param name="Images">Images evaluated.</param>
/// <param name="Top1">Share whose most probable class is the label.</param>
/// <param name="Top5">Share whose label is among the five most probable classes.</param>
/// <param name="Loss">Mean cross-entropy in nats.</param>
/// <param name="Seconds">Time taken, decoding included.</param>
public sealed record EvaluationResult(long Images, double Top1, double Top5, double Loss, double Seconds)
{
    /// <summary>Images divided by seconds.</summary>
    public double ImagesPerSecond => Seconds > 0 ? Images / Seconds : 0;
}
