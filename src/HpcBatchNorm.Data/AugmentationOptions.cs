namespace HpcBatchNorm.Data;

/// <summary>How training images are varied. The defaults are GoogLeNet's sampling without photometric distortion.</summary>
public sealed record AugmentationOptions
{
    /// <summary>Images as they are: a square one is taken whole, of others the largest square in the middle. Nothing is mirrored or distorted.</summary>
    public static AugmentationOptions None { get; } = new() { MinArea = 1, MinAspect = 1, MaxAspect = 1, Mirror = false };

    /// <summary>Smallest crop as a fraction of the image's area; crops are uniform between it and 1.</summary>
    public double MinArea { get; init; } = 0.08;

    /// <summary>Smallest aspect ratio (width / height) of a crop.</summary>
    public double MinAspect { get; init; } = 3.0 / 4;

    /// <summary>Largest aspect ratio (width / height) of a crop.</summary>
    public double MaxAspect { get; init; } = 4.0 / 3;

    /// <summary>Exchange left and right with probability 1/2.</summary>
    public bool Mirror { get; init; } = true;

    /// <summary>
    /// Strength s of the photometric distortion (Howard 2013), 0 for none, 1 for the published range: brightness, contrast and saturation, in random
    /// order, are each scaled by a factor uniform in [1 - s/2, 1 + s/2]. The paper reduces it for batch-normalized networks (section 4.2.1) without a figure.
    /// </summary>
    public double PhotometricStrength { get; init; }

    /// <summary>
    /// Add AlexNet's lighting noise after the photometric distortion: the principal components of ImageNet's colours, each times a normal draw of
    /// deviation 0.1 * <see cref="PhotometricStrength"/>.
    /// </summary>
    public bool LightingNoise { get; init; }

    /// <summary>What else is done to images, after mirroring and before the photometric distortion.</summary>
    public AutomaticPolicy Policy { get; init; }

    /// <summary><see cref="AutomaticPolicy.Rand"/>: operations of each image, one after the other.</summary>
    public int RandOperations { get; init; } = 2;

    /// <summary><see cref="AutomaticPolicy.Rand"/>: magnitude of the operations, 0 to 10.</summary>
    public double RandMagnitude { get; init; } = 9;

    /// <summary><see cref="AutomaticPolicy.Rand"/>: standard deviation of the magnitude.</summary>
    public double RandDeviation { get; init; } = 0.5;

    /// <summary>
    /// Probability of random erasing (Zhong et al., 1708.04896): a rectangle of 2 to 33 % of the area, of an aspect ratio of 0.3 to 1/0.3, becomes grey
    /// (128, which the usual normalization makes 0), after everything else.
    /// </summary>
    public double ErasingProbability { get; init; }

    /// <summary>Throws when a setting is out of its range.</summary>
    /// <exception cref="UserErrorException">The line names the setting, its range and its value.</exception>
    internal void Validate()
    {
        Check(MinArea is > 0 and <= 1, "minimum crop area", "greater than 0 and at most 1", MinArea);
        Check(MinAspect > 0 && MinAspect <= MaxAspect, "minimum aspect ratio", "greater than 0 and at most the maximum", MinAspect);
        Check(double.IsFinite(MaxAspect), "maximum aspect ratio", "finite", MaxAspect);
        Check(ErasingProbability is >= 0 and <= 1, "probability of random erasing", "between 0 and 1", ErasingProbability);
        Check(Enum.IsDefined(Policy), "automatic policy", "None, Trivial or Rand", (int)Policy);
        Check(RandOperations is >= 1 and <= 10, "number of RandAugment's operations", "between 1 and 10", RandOperations);
        Check(RandMagnitude is >= 0 and <= 10, "magnitude of RandAugment", "between 0 and 10", RandMagnitude);
        Check(RandDeviation is >= 0 and <= 10, "deviation of RandAugment's magnitude", "between 0 and 10", RandDeviation);
        Check(PhotometricStrength is >= 0 and <= 1, "photometric strength", "between 0 and 1", PhotometricStrength);
    }

    private static void Check(bool valid, string name, string range, double value)
    {
        if (!valid)
        {
            throw new UserErrorException(FormattableString.Invariant($"the {name} must be {range}; it is {value}."));
        }
    }
}
