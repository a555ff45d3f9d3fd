using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>Element-wise nonlinearities.</summary>
public enum ActivationKind
{
    /// <summary>max(0, x); the derivative at 0 is 0.</summary>
    Relu,

    /// <summary>1 / (1 + exp(-x)).</summary>
    Sigmoid,

    /// <summary>tanh(x).</summary>
    Tanh,

    /// <summary>x * P(X &lt;= x) for a standard normal X, in its exact form x/2 * (1 + erf(x/sqrt(2))) (Hendrycks and Gimpel, 1606.08415).</summary>
    Gelu,

    /// <summary>x * sigmoid(x), also called swish (1710.05941).</summary>
    Silu,

    /// <summary>x * clamp(x + 3, 0, 6) / 6 (1905.02244); the derivative is 0 at -3 and 1 at 3.</summary>
    HardSwish,
}

/// <summary>
/// What holds of an element-wise nonlinearity on every backend. What a backend computes for it is in one table of that backend, which throws for what it
/// does not list.
/// </summary>
public static class ActivationKinds
{
    /// <summary>All names as settings and layers write them: <c>relu</c>, <c>hardswish</c>, ...</summary>
    internal static IReadOnlyList<string> Names { get; } = [.. Enum.GetValues<ActivationKind>().Select(Name)];

    /// <summary>The name as settings and layers write it.</summary>
    public static string Name(this ActivationKind function) => function.ToString().ToLowerInvariant();

    /// <summary>
    /// Whether the gradient is computed from src (then src must be kept for the backward pass) or from dst, which the function may then write over src.
    /// </summary>
    /// <exception cref="NotSupportedException">The value is none of <see cref="ActivationKind"/>'s.</exception>
    internal static bool GradientReadsSrc(this ActivationKind function) => function switch
    {
        ActivationKind.Relu or ActivationKind.Sigmoid or ActivationKind.Tanh => false,
        ActivationKind.Gelu or ActivationKind.Silu or ActivationKind.HardSwish => true,
        _ => throw Unknown(function, "the list of functions and what their gradients read"),
    };

    /// <summary>The exception of a table that does not list a function.</summary>
    internal static NotSupportedException Unknown(ActivationKind function, string where) =>
        new($"The nonlinearity '{function}' is not in {where}. Those known are {string.Join(", ", Names)}; a new one needs an entry in every table of functions (CONTRIBUTING.md).");
}

/// <summary>
/// Batch normalization (Algorithm 1; section 3.2 for the convolutional form):
/// dst = scale * (src - mean) / sqrt(variance + Epsilon) + shift, optionally plus a residual, optionally followed by ReLU.
/// Convolutional: one mean, variance, scale and shift per channel, statistics over m = N*H*W values.
/// Per activation: one of each per (channel, row, column), statistics over m = N values.
/// With <paramref name="GhostBatch"/> above 0 ("ghost" or virtual batches, Hoffer et al. 2017, 1705.08741) every GhostBatch consecutive images have statistics
/// of their own, and N counts those.
/// </summary>
public readonly record struct BatchNormSpec(
    Shape Src, float Epsilon = 1e-5f, bool PerActivation = false, bool Relu = false, bool Residual = false, int GhostBatch = 0)
{
    /// <summary>Groups of images with statistics of their own.</summary>
    public int Groups => GhostBatch > 0 ? Src.N / GhostBatch : 1;

    /// <summary>Shape of mean and variance: one <see cref="Parameters"/> per group.</summary>
    public Shape Statistics => Parameters with { N = Groups };

    /// <summary>Shape of scale, shift and running statistics.</summary>
    public Shape Parameters => PerActivation ? Src with { N = 1 } : Shape.Vector(Src.C);

    /// <summary>m, the number of values behind each statistic.</summary>
    public long StatisticCount => (long)(Src.N / Groups) * (PerActivation ? 1 : Src.Area);

    /// <summary>m/(m-1), which turns the biased batch variance into the unbiased one that running statistics keep; 1 when m is 1.</summary>
    public double UnbiasedFactor => StatisticCount > 1 ? StatisticCount / (StatisticCount - 1.0) : 1.0;

    /// <summary>
    /// 1 / sqrt(variance + epsilon); 0 where both are 0, so that a channel of equal values without an epsilon becomes its shift, the limit for epsilon towards 0
    /// (PyTorch does the same), and not NaN.
    /// </summary>
    public double InverseDeviation(double variance) => variance + Epsilon == 0 ? 0 : 1 / Math.Sqrt(variance + Epsilon);

    /// <summary>Throws <see cref="ArgumentException"/> naming the first thing that cannot be.</summary>
    internal void Validate(string name)
    {
        SpecCheck.Shape(name, Src);
        if (GhostBatch < 0 || (GhostBatch > 0 && Src.N % GhostBatch != 0))
        {
            throw new ArgumentException($"Batch normalization '{name}': {Src.N} images do not divide into ghost batches of {GhostBatch}.");
        }

        if (!(Epsilon >= 0) || float.IsInfinity(Epsilon))
        {
            throw new ArgumentException(FormattableString.Invariant($"Batch normalization '{name}': epsilon is {Epsilon}; it must be finite and not negative."));
        }
    }

    /// <summary>Throws when a single value stands behind each statistic, so that training would normalise everything to zero.</summary>
    internal void ValidateForTraining(string name)
    {
        Validate(name);
        if (StatisticCount < 2)
        {
            throw new ArgumentException(
                $"Batch normalization '{name}' sees one value per statistic ({Src.N / Groups} image of {Src.H}x{Src.W}); training needs at least 2. Use a larger batch or a larger image.");
        }
    }
}

/// <summary>How a pooling window is reduced.</summary>
public enum PoolingKind
{
    /// <summary>The largest value; the first one (row-major) wins ties.</summary>
    Max,

    /// <summary>Mean over the whole window, padding counted as zeros.</summary>
    AverageIncludePadding,

    /// <summary>Mean over the part of the window inside the image.</summary>
    AverageExcludePadding,
}

/// <summary>Max or average pooling over KernelH x KernelW windows. Padding never wins a maximum.</summary>
public readonly record struct PoolingSpec(
    Shape Src, PoolingKind Kind, int KernelH, int KernelW, int StrideH, int StrideW, int PadTop, int PadLeft, int PadBottom, int PadRight)
{
    /// <summary>A square window; <paramref name="ceil"/> rounds the number of outputs up by padding bottom and right further.</summary>
    public static PoolingSpec Square(Shape src, PoolingKind kind, int kernel, int stride, int pad = 0, bool ceil = false) =>
        new PoolingSpec(src, kind, kernel, kernel, stride, stride, pad, pad, pad, pad).Rounded(ceil);

    /// <summary>With <paramref name="up"/>: as many outputs as fit when their number is rounded up instead of down, by other padding at bottom and right.</summary>
    internal PoolingSpec Rounded(bool up) => !up ? this : this with
    {
        PadBottom = Window.CeilPadAfter(Src.H, KernelH, StrideH, PadTop, PadBottom),
        PadRight = Window.CeilPadAfter(Src.W, KernelW, StrideW, PadLeft, PadRight),
    };

    /// <summary>The mean over all positions of each channel.</summary>
    public static PoolingSpec GlobalAverage(Shape src) => new(src, PoolingKind.AverageExcludePadding, src.H, src.W, 1, 1, 0, 0, 0, 0);

    /// <summary>Shape of the output.</summary>
    public Shape Dst => new(Src.N, Src.C,
        Window.Outputs(Src.H, KernelH, StrideH, PadTop, PadBottom),
        Window.Outputs(Src.W, KernelW, StrideW, PadLeft, PadRight));

    /// <summary>Throws <see cref="ArgumentException"/> naming the first thing that cannot be.</summary>
    internal void Validate(string name)
    {
        SpecCheck.Shape(name, Src);
        Window.Validate(name, "rows", Src.H, KernelH, StrideH, PadTop, PadBottom);
        Window.Validate(name, "columns", Src.W, KernelW, StrideW, PadLeft, PadRight);
        SpecCheck.Shape(name, Dst);
        if (PadTop >= KernelH || PadLeft >= KernelW || PadBottom >= KernelH || PadRight >= KernelW)
        {
            throw new ArgumentException(
                $"Pooling '{name}': padding {PadTop},{PadLeft},{PadBottom},{PadRight} must be smaller than the {KernelH}x{KernelW} window, else a window may see only padding.");
        }
    }
}

/// <summary>
/// Local response normalization across channels (GoogLeNet):
/// dst[c] = src[c] * (K + Alpha/Size * sum of src[c']^2 over the Size channels around c)^(-Beta). Size is odd.
/// </summary>
public readonly record struct LrnSpec(Shape Src, int Size = 5, float Alpha = 1e-4f, float Beta = 0.75f, float K = 1f)
{
    /// <summary>Throws <see cref="ArgumentException"/> naming the first thing that cannot be.</summary>
    internal void Validate(string name)
    {
        SpecCheck.Shape(name, Src);
        if (Size < 1 || Size % 2 == 0)
        {
            throw new ArgumentException($"Local response normalization '{name}': size is {Size}; it must be odd and positive.");
        }

        // The base of the power is K + a sum of squares.
        if (!(Alpha >= 0) || !(K > 0) || !float.IsFinite(Alpha + K) || !float.IsFinite(Beta))
        {
            throw new ArgumentException(FormattableString.Invariant(
                $"Local response normalization '{name}': alpha is {Alpha}, beta {Beta}, k {K}; all must be finite, alpha not negative and k positive, or the power is not a number."));
        }
    }
}

/// <summary>
/// Dropout with a counter-based mask: element i (NCHW order) of step s is kept when word i%4 of
/// Philox4x32-10(counter = (i/4, Stream, s low, s high), key = (Seed low, Seed high)) is at least Ratio * 2^32; kept values are divided by 1 - Ratio.
/// The mask is a pure function of these numbers, so it is the same on every backend and is never stored.
/// </summary>
public readonly record struct DropoutSpec(Shape Src, float Ratio, ulong Seed, uint Stream)
{
    /// <summary>Words below this drop their element: round(Ratio * 2^32), at most 2^32 - 1.</summary>
    internal uint Threshold => (uint)Math.Min(uint.MaxValue, Math.Round(Ratio * 4294967296.0));

    /// <summary>1 / (1 - Ratio).</summary>
    internal float KeptScale => 1f / (1f - Ratio);

    /// <summary>Throws <see cref="ArgumentException"/> naming the first thing that cannot be.</summary>
    internal void Validate(string name)
    {
        SpecCheck.Shape(name, Src);
        if (!(Ratio >= 0 && Ratio < 1))
        {
            throw new ArgumentException(FormattableString.Invariant($"Dropout '{name}': ratio is {Ratio}; it must be in [0, 1)."));
        }
    }
}

/// <summary>
/// A fully connected layer: dst[n,o] = bias[o] + sum over i of weights[o,i] * src[n,i], where i runs over (C,H,W) of the input in that order.
/// </summary>
public readonly record struct InnerProductSpec(Shape Src, int Outputs, bool Bias = true)
{
    /// <summary>Shape of the output, (N, Outputs, 1, 1).</summary>
    public Shape Dst => new(Src.N, Outputs, 1, 1);

    /// <summary>Shape of the weights, (Outputs, C, H, W).</summary>
    public Shape Weights => new(Outputs, Src.C, Src.H, Src.W);

    /// <summary>Shape of the bias, (1, Outputs, 1, 1).</summary>
    public Shape BiasShape => Shape.Vector(Outputs);

    /// <summary>Floating-point operations of one pass, two per multiply-add.</summary>
    public long Flops => 2L * Src.N * Outputs * Src.ImageCount;

    /// <summary>Throws <see cref="ArgumentException"/> naming the first thing that cannot be.</summary>
    internal void Validate(string name)
    {
        SpecCheck.Shape(name, Src);
        SpecCheck.Positive(name, nameof(Outputs), Outputs);
    }
}
