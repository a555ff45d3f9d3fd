namespace HpcBatchNorm.Sessions;

/// <summary>What mixed images show: two classes each, and the weight of the first; that of the second is the rest to 1.</summary>
/// <param name="first">A class index per image.</param>
/// <param name="second">Another one per image.</param>
/// <param name="weights">The weight of the first per image, 0 to 1.</param>
public readonly ref struct MixedLabels(ReadOnlySpan<int> first, ReadOnlySpan<int> second, ReadOnlySpan<float> weights)
{
    /// <summary>A class index per image.</summary>
    public ReadOnlySpan<int> First { get; } = first;

    /// <summary>Another one per image.</summary>
    public ReadOnlySpan<int> Second { get; } = second;

    /// <summary>The weight of the first per image.</summary>
    public ReadOnlySpan<float> Weights { get; } = weights;
}
