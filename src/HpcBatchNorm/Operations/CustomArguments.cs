using HpcBatchNorm.Interop;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>A dense tensor of single-precision values at an address that somebody keeps alive.</summary>
internal struct CustomTensor(string name, Shape shape)
{
    public readonly string Name => name;

    public readonly Shape Shape => shape;

    public nint Address { readonly get; set; }

    public readonly Span<float> Span => AlignedMemory.AsSpan<float>(Address, (int)shape.Count);
}

/// <summary>
/// What a call of an <see cref="ICustomFunction"/> works on: one object per kernel, whose addresses are set anew for each call, so that a call allocates
/// nothing.
/// </summary>
internal sealed class CustomArguments
{
    public CustomArguments(CustomSpec spec)
    {
        Spec = spec;
        Srcs = [.. spec.Srcs.Select((s, i) => new CustomTensor(Indexed("src", i, spec.Srcs.Count), s))];
        DiffSrcs = [.. spec.Srcs.Select((s, i) => new CustomTensor(Indexed("diffSrc", i, spec.Srcs.Count), s))];
        Dst = new CustomTensor("dst", spec.Dst);
        DiffDst = new CustomTensor("diffDst", spec.Dst);
        Parameters = Make(spec.Parameters);
        DiffParameters = Make(spec.Parameters);
        RunningStatistics = Make(spec.RunningStatistics);
        Saved = Make(spec.Saved);
    }

    public CustomSpec Spec { get; }

    public CustomTensor[] Srcs { get; }

    public CustomTensor[] DiffSrcs { get; }

    public CustomTensor[] Parameters { get; }

    public CustomTensor[] DiffParameters { get; }

    public CustomTensor[] RunningStatistics { get; }

    public CustomTensor[] Saved { get; }

    public CustomTensor Dst;

    public CustomTensor DiffDst;

    public BatchNormStatistics Statistics { get; set; }

    public bool Training { get; set; }

    public bool Population { get; set; }

    public long Step { get; set; }

    /// <summary>A learned parameter or a running statistic.</summary>
    public ReadOnlySpan<float> Parameter(string name)
    {
        foreach (ref CustomTensor tensor in RunningStatistics.AsSpan())
        {
            if (tensor.Name == name)
            {
                return tensor.Span;
            }
        }

        return Find(Parameters, name, "parameter").Span;
    }

    public static ref CustomTensor Find(CustomTensor[] tensors, string name, string what)
    {
        for (int i = 0; i < tensors.Length; i++)
        {
            if (tensors[i].Name == name)
            {
                return ref tensors[i];
            }
        }

        string known = tensors.Length == 0 ? "it declares none" : $"it declares {string.Join(", ", tensors.Select(t => $"'{t.Name}'"))}";
        throw new ArgumentException($"the layer declares no {what} '{name}'; {known}");
    }

    private static CustomTensor[] Make(IReadOnlyList<NamedShape> shapes) => [.. shapes.Select(s => new CustomTensor(s.Name, s.Shape))];

    private static string Indexed(string role, int index, int count) => count == 1 ? role : $"{role}{index}";
}
