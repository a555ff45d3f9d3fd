namespace HpcBatchNorm.Tensors;

/// <summary>
/// The logical extent of every tensor in this library: N images, C channels, H rows, W columns (NCHW order).
/// Convolution weights use the same four axes as (output channels, input channels per group, kernel rows, kernel columns);
/// per-channel vectors are (1, C, 1, 1); matrices are (rows, columns, 1, 1).
/// </summary>
public readonly record struct Shape(int N, int C, int H, int W)
{
    /// <summary>A per-channel vector, (1, <paramref name="channels"/>, 1, 1).</summary>
    public static Shape Vector(int channels) => new(1, channels, 1, 1);

    /// <summary>A matrix, (<paramref name="rows"/>, <paramref name="columns"/>, 1, 1).</summary>
    public static Shape Matrix(int rows, int columns) => new(rows, columns, 1, 1);

    /// <summary>Number of elements, N*C*H*W.</summary>
    public long Count => (long)N * C * H * W;

    /// <summary>Positions of one channel of one image, H*W.</summary>
    public int Area => H * W;

    /// <summary>Elements of one image, C*H*W.</summary>
    public int ImageCount => C * H * W;

    /// <summary>True when every extent is at least one.</summary>
    public bool IsValid => N > 0 && C > 0 && H > 0 && W > 0;

    /// <summary>The same shape with <paramref name="channels"/> channels.</summary>
    public Shape WithChannels(int channels) => this with { C = channels };

    /// <summary>For example <c>32x64x56x56</c>.</summary>
    public override string ToString() => FormattableString.Invariant($"{N}x{C}x{H}x{W}");
}
