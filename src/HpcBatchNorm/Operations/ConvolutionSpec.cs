using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>
/// One two-dimensional convolution: dst[n,o,y,x] = bias[o] + sum over c,i,j of
/// weights[o,c,i,j] * src[n, g*C/G + c, y*stride - pad + i*dilation, x*stride - pad + j*dilation], where G = Groups and g is o's group.
/// Dilation 1 means adjacent taps.
/// </summary>
public readonly record struct ConvolutionSpec(
    Shape Src, int OutputChannels, int KernelH, int KernelW,
    int StrideH = 1, int StrideW = 1,
    int PadTop = 0, int PadLeft = 0, int PadBottom = 0, int PadRight = 0,
    int DilationH = 1, int DilationW = 1, int Groups = 1, bool Bias = false)
{
    /// <summary>A square kernel with one stride and the same padding on all sides.</summary>
    public static ConvolutionSpec Square(Shape src, int outputChannels, int kernel, int stride = 1, int pad = 0, int groups = 1, bool bias = false) =>
        new(src, outputChannels, kernel, kernel, stride, stride, pad, pad, pad, pad, 1, 1, groups, bias);

    /// <summary>Shape of the output.</summary>
    public Shape Dst => new(Src.N, OutputChannels,
        Window.Outputs(Src.H, KernelH, StrideH, PadTop, PadBottom, DilationH),
        Window.Outputs(Src.W, KernelW, StrideW, PadLeft, PadRight, DilationW));

    /// <summary>Shape of the weights, (OutputChannels, C/Groups, KernelH, KernelW).</summary>
    public Shape Weights => new(OutputChannels, Src.C / Groups, KernelH, KernelW);

    /// <summary>Shape of the bias, (1, OutputChannels, 1, 1).</summary>
    public Shape BiasShape => Shape.Vector(OutputChannels);

    /// <summary>Floating-point operations of one pass (forward, backward data or backward weights), two per multiply-add, padding counted.</summary>
    public long Flops => 2L * Dst.Count * Weights.ImageCount;

    /// <summary>Throws <see cref="ArgumentException"/> naming the first thing that cannot be.</summary>
    internal void Validate(string name)
    {
        SpecCheck.Shape(name, Src);
        SpecCheck.Positive(name, nameof(OutputChannels), OutputChannels);
        SpecCheck.Positive(name, nameof(Groups), Groups);
        if (Src.C % Groups != 0 || OutputChannels % Groups != 0)
        {
            throw new ArgumentException(
                $"Convolution '{name}': {Groups} groups must divide both {Src.C} input channels and {OutputChannels} output channels.");
        }

        Window.Validate(name, "rows", Src.H, KernelH, StrideH, PadTop, PadBottom, DilationH);
        Window.Validate(name, "columns", Src.W, KernelW, StrideW, PadLeft, PadRight, DilationW);
        SpecCheck.Shape(name, Dst);
    }
}
