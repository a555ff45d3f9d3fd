using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>Cases made from layers of networks at full size: from a plan's operations, or from a shape file.</summary>
internal static class LayerCases
{
    /// <summary>
    /// Every distinct convolution, batch normalization, pooling, local response normalization and fully connected layer among
    /// <paramref name="operations"/>, forward and backward, on random inputs, in the order of their first occurrence and under its name.
    /// </summary>
    /// <param name="operations">A plan's operations; the forward ones say what there is.</param>
    /// <param name="traits">The backend's, for batch normalizations that write slices.</param>
    /// <param name="options">What selects this list on the command line, e.g. <c>--network bn-inception</c>.</param>
    /// <param name="precision">What to compute in, whatever the plan was made for.</param>
    public static IReadOnlyList<VerificationCase> FromOperations(
        IEnumerable<Operation> operations, BackendTraits traits, string options, Precision precision = Precision.Fp32)
    {
        HashSet<object> seen = [];
        List<VerificationCase> cases = [];
        foreach (Operation operation in operations)
        {
            // Two layers are the same case when spec and form agree; the name is the first one's.
            (object Key, Action<CaseBuilder> Fill)? layer = operation switch
            {
                ConvolutionForward { Normalization: { } n } o => ((o.Spec, n.Spec), b => b.NormalizingConvolution(o.Spec, n.Spec.Relu, epsilon: n.Spec.Epsilon)),
                ConvolutionForward o => ((o.Spec, o.Relu, o.Src.Layout), b => b.Convolution(
                    o.Spec, backwardData: o.Src.Layout == TensorLayout.Blocked, backward: !o.Relu, o.Relu, o.Src.Layout)),
                BatchNormForward o => ((o.Spec, o.Statistics, o.Dst is null, o.Dst is { IsSlice: true }, o.Src.Layout), b => b.BatchNorm(
                    o.Spec, new() { Statistics = o.Statistics, SliceOffset = o.Dst is { IsSlice: true } ? traits.ChannelBlock : 0, Layout = o.Src.Layout, StatisticsAlone = o.Dst is null })),
                PoolingForward o => (o.Spec, b => b.Pooling(o.Spec)),
                LrnForward o => (o.Spec, b => b.LocalResponse(o.Spec)),
                InnerProductForward o => (o.Spec, b => b.InnerProduct(o.Spec)),
                _ => null,
            };
            if (layer is { } found && seen.Add(found.Key))
            {
                CaseBuilder builder = new($"{operation.Name}", InputKind.Random, precision);
                found.Fill(builder);
                cases.Add(builder.Build(options));
            }
        }

        return cases;
    }

    /// <summary>A case per problem of a shape file, forward and backward: exact inputs and random ones.</summary>
    /// <param name="problems">The problems.</param>
    /// <param name="options">What selects this list on the command line, <c>--shapes FILE</c>.</param>
    /// <param name="precision">What to compute in.</param>
    public static IReadOnlyList<VerificationCase> FromShapes(IReadOnlyList<ShapeProblem> problems, string options, Precision precision = Precision.Fp32)
    {
        List<VerificationCase> cases = [];
        Dictionary<string, int> used = [];
        foreach (ShapeProblem problem in problems)
        {
            int repeat = used[problem.Name] = used.GetValueOrDefault(problem.Name) + 1;
            string name = repeat == 1 ? problem.Name : $"{problem.Name}#{repeat}";
            foreach (InputKind kind in new[] { InputKind.Exact, InputKind.Random })
            {
                CaseBuilder builder = new($"{name}/{(kind == InputKind.Exact ? "exact" : "random")}", kind, precision);
                if (problem.Convolution is { } convolution)
                {
                    builder.Convolution(convolution);
                }
                else
                {
                    builder.BatchNorm(problem.BatchNorm!.Value);
                }

                cases.Add(builder.Build(options));
            }
        }

        return cases;
    }
}
