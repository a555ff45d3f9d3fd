namespace HpcBatchNorm.Layers;

/// <summary>Rows and columns of a kernel, a stride or a dilation. A number means the same in both directions: <c>3</c> is <c>(3, 3)</c>.</summary>
/// <param name="Height">Along rows.</param>
/// <param name="Width">Along columns.</param>
public readonly record struct Extent(int Height, int Width)
{
    /// <summary>True when both directions are the same.</summary>
    public bool IsSquare => Height == Width;

    /// <summary>The same in both directions.</summary>
    public static implicit operator Extent(int both) => new(both, both);

    /// <summary>Height, width.</summary>
    public static implicit operator Extent((int Height, int Width) extent) => new(extent.Height, extent.Width);

    /// <summary>For example <c>3x3</c> or <c>1x7</c>.</summary>
    public override string ToString() => FormattableString.Invariant($"{Height}x{Width}");

    /// <summary>As a kernel and its stride stand in a description: <c>7x7/2</c>, <c>1x7</c>, <c>3x3/2x1</c>.</summary>
    internal string WithStride(Extent stride) => FormattableString.Invariant($"{this}{(stride == 1 ? "" : stride.IsSquare ? $"/{stride.Height}" : $"/{stride}")}");
}

/// <summary>
/// Padding of each side of an image. A number means all four sides, a pair rows (top and bottom) and columns (left and right): <c>1</c>, <c>(0, 3)</c>.
/// </summary>
/// <param name="Top">Rows above.</param>
/// <param name="Left">Columns on the left.</param>
/// <param name="Bottom">Rows below.</param>
/// <param name="Right">Columns on the right.</param>
public readonly record struct Padding(int Top, int Left, int Bottom, int Right)
{
    /// <summary>The same on all sides.</summary>
    public static implicit operator Padding(int all) => new(all, all, all, all);

    /// <summary>Top and bottom, left and right.</summary>
    public static implicit operator Padding((int Rows, int Columns) pad) => new(pad.Rows, pad.Columns, pad.Rows, pad.Columns);

    /// <summary>Top, left, bottom, right.</summary>
    public static implicit operator Padding((int Top, int Left, int Bottom, int Right) pad) => new(pad.Top, pad.Left, pad.Bottom, pad.Right);

    /// <summary>Top, left, bottom, right.</summary>
    public override string ToString() => FormattableString.Invariant($"({Top}, {Left}, {Bottom}, {Right})");
}
