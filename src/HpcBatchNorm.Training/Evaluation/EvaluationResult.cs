namespace HpcBatchNorm.Training.Evaluation;

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

    /// <summary>Standard error of <see cref="Top1"/>, sqrt(p (1 - p) / images): two runs on other images of the same kind would differ by about this.</summary>
    public double Top1StandardError => StandardError(Top1, Images);

    /// <summary>Standard error of <see cref="Top5"/>.</summary>
    public double Top5StandardError => StandardError(Top5, Images);

    /// <summary>Every class of the data set in order, those without images included.</summary>
    public IReadOnlyList<ClassAccuracy> Classes { get; init; } = [];

    /// <summary>Every pair of classes that was confused at least once, the most frequent first, then by label and prediction.</summary>
    public IReadOnlyList<Confusion> Confusions { get; init; } = [];

    /// <summary>Of an ensemble, what each member found by itself on the same views, in order; empty for a single network.</summary>
    public IReadOnlyList<EvaluationResult> Members { get; init; } = [];

    /// <summary>True when all figures agree, those of the classes and members included.</summary>
    public bool Equals(EvaluationResult? other) =>
        other is not null
        && (Images, Top1, Top5, Loss, Seconds).Equals((other.Images, other.Top1, other.Top5, other.Loss, other.Seconds))
        && Classes.SequenceEqual(other.Classes) && Confusions.SequenceEqual(other.Confusions) && Members.SequenceEqual(other.Members);

    /// <inheritdoc/>
    public override int GetHashCode() => HashCode.Combine(Images, Top1, Top5, Loss, Seconds);

    private static double StandardError(double share, long images) => images > 0 ? Math.Sqrt(share * (1 - share) / images) : double.NaN;
}

/// <summary>Accuracy over the images of one class.</summary>
/// <param name="Index">Index of the class.</param>
/// <param name="Name">WNID or folder name.</param>
/// <param name="Description">The synset's words; empty where unknown.</param>
/// <param name="Images">Images of this class.</param>
/// <param name="Top1Images">Those whose most probable class it is.</param>
/// <param name="Top5Images">Those for which it is among the five most probable classes.</param>
public sealed record ClassAccuracy(int Index, string Name, string Description, long Images, long Top1Images, long Top5Images)
{
    /// <summary>Share of the images whose most probable class it is; NaN when there are none.</summary>
    public double Top1 => (double)Top1Images / Images;

    /// <summary>Share of the images for which it is among the five most probable classes; NaN when there are none.</summary>
    public double Top5 => (double)Top5Images / Images;

    /// <summary>Name, and the first of the synset's words where known.</summary>
    public string Title => Description.Length > 0 ? $"{Name} {Description.Split(',')[0]}" : Name;
}

/// <summary>How many images of one class were taken for another.</summary>
/// <param name="Label">The class they are of.</param>
/// <param name="Predicted">The class that was most probable.</param>
/// <param name="Images">How many.</param>
public sealed record Confusion(ClassAccuracy Label, ClassAccuracy Predicted, long Images);

/// <summary>Where an evaluation stands.</summary>
/// <param name="Images">Images done.</param>
/// <param name="Total">Images in all, unreadable ones included.</param>
/// <param name="Top1">Top-1 accuracy so far.</param>
/// <param name="Top5">Top-5 accuracy so far.</param>
/// <param name="Seconds">Time taken so far.</param>
public readonly record struct EvaluationProgress(long Images, long Total, double Top1, double Top5, double Seconds)
{
    /// <summary>Images divided by seconds.</summary>
    public double ImagesPerSecond => Seconds > 0 ? Images / Seconds : 0;

    /// <summary>Estimated time to the end.</summary>
    public TimeSpan Remaining => Images > 0 ? TimeSpan.FromSeconds(Seconds / Images * Math.Max(0, Total - Images)) : TimeSpan.Zero;
}
