using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <content>
/// A value that is not a number, or infinite, in every input of every operation, one at a time. It must come out where the reference has it: at the loss it is
/// noticed, whereas a maximum, a comparison or a conversion that drops it makes a finite result of nothing.
/// </content>
internal static partial class HardCases
{
    private static readonly (string Name, double Value)[] Specials =
        [("nan", double.NaN), ("infinity", double.PositiveInfinity), ("minus-infinity", double.NegativeInfinity)];

    private static IEnumerable<VerificationCase> NotFinite(Precision precision, BackendTraits traits)
    {
        foreach ((VerificationCase plain, string[] inputs) in NotFiniteCases(precision, traits))
        {
            foreach (Tensor tensor in plain.Inputs.Keys.Where(t => t.DataType.IsFloat() && (inputs.Length == 0 || inputs.Contains(t.Name))))
            {
                foreach ((string word, double special) in Specials)
                {
                    TensorFill fill = plain.Inputs[tensor];
                    yield return plain with
                    {
                        Name = $"not-finite/{plain.Name}/{tensor.Name}-{word}",
                        Inputs = new Dictionary<Tensor, TensorFill>(plain.Inputs, ReferenceEqualityComparer.Instance)
                        {
                            [tensor] = (shape, random, values) =>
                            {
                                fill(shape, random, values);
                                values[(values.Length / 2 + 5) % values.Length] = special;
                            },
                        },
                    };
                }
            }
        }
    }

    /// <summary>Small forms of every operation, with the inputs that take a special value; none named: all of them.</summary>
    private static IEnumerable<(VerificationCase Case, string[] Inputs)> NotFiniteCases(Precision precision, BackendTraits traits)
    {
        CaseBuilder Of(string name) => new(name, InputKind.NotFinite, precision);

        // Padding is zeros that the reference multiplies and others leave out: beside padding only the data is compared.
        yield return (Of("convolution/1x1").Convolution(ConvolutionSpec.Square(new(2, 24, 5, 5), 32, 1)).Build(), []);
        yield return (Of("convolution/3x3").Convolution(ConvolutionSpec.Square(new(2, 17, 6, 6), 24, 3, bias: true)).Build(), []);
        yield return (Of("convolution/stride2").Convolution(ConvolutionSpec.Square(new(2, 3, 11, 11), 16, 3, stride: 2)).Build(), []);
        yield return (Of("convolution/depthwise").Convolution(ConvolutionSpec.Square(new(2, 16, 5, 5), 16, 3, groups: 16)).Build(), []);
        yield return (Of("convolution/padded").Convolution(ConvolutionSpec.Square(new(2, 16, 7, 7), 16, 3, pad: 1)).Build(), ["src"]);
        yield return (Of("convolution/padded-relu").Convolution(ConvolutionSpec.Square(new(2, 16, 14, 14), 32, 3, pad: 1), backward: false, relu: true).Build(), ["src"]);
        yield return (Of("convolution/relu").Convolution(ConvolutionSpec.Square(new(2, 17, 5, 5), 33, 1, bias: true), backward: false, relu: true).Build(), []);
        yield return (Of("convolution/uneven-relu").Convolution(
            ConvolutionSpec.Square(new(2, 16, 8, 8), 16, 3, stride: 2) with { PadBottom = 1, PadRight = 1 }, backward: false, relu: true).Build(), ["src"]);
        yield return (Of("convolution/image-relu").Convolution(
            ConvolutionSpec.Square(new(2, 3, 19, 17), 32, 7, stride: 2), backward: false, relu: true, srcLayout: TensorLayout.Plain).Build(), []);
        foreach (bool inPlace in new[] { false, true })
        {
            yield return (Of($"convolution/residual-relu{(inPlace ? "-in-place" : "")}").ConvolutionOnto(ConvolutionSpec.Square(new(2, 16, 5, 5), 24, 1, bias: true), inPlace, relu: true).Build(), []);
        }

        foreach ((string name, BatchNormSpec spec, BatchNormForm? form) in NotFiniteBatchNorms(traits))
        {
            yield return (Of($"batch-norm/{name}").BatchNorm(spec, form).Build(), []);
        }

        foreach (ActivationKind function in Enum.GetValues<ActivationKind>())
        {
            yield return (NotFinite(Activation(precision, $"activation/{function.Name()}", function, new(2, 17, 4, 3), TensorLayout.Blocked, Fills.Uniform(-4, 4), inPlace: false)), []);
            yield return (NotFinite(Activation(precision, $"activation/{function.Name()}-in-place", function, new(5, 10, 1, 1), TensorLayout.Plain, Fills.Uniform(-4, 4), inPlace: true)), []);
        }

        foreach (PoolingKind kind in Enum.GetValues<PoolingKind>())
        {
            yield return (Of($"pooling/{kind}").Pooling(PoolingSpec.Square(new(2, 17, 7, 7), kind, 3, 2)).Build(), []);
            yield return (Of($"pooling/{kind}-padded").Pooling(PoolingSpec.Square(new(2, 16, 6, 6), kind, 3, 1, pad: 1)).Build(), []);
            yield return (Of($"pooling/{kind}-whole").Pooling(PoolingSpec.GlobalAverage(new(2, 24, 4, 4)) with { Kind = kind }).Build(), []);
        }

        yield return (Of("lrn").LocalResponse(new LrnSpec(new(2, 17, 3, 3))).Build(), []);
        yield return (Of("inner-product").InnerProduct(new InnerProductSpec(new(3, 33, 1, 1), 17)).Build(), []);
        foreach (IEnumerable<VerificationCase> cases in new[] { Dropouts(precision), Copies(precision, traits), Sums(precision, traits), Losses(precision) })
        {
            foreach (VerificationCase found in cases.Where(c => c.Kind == InputKind.Random))
            {
                yield return (NotFinite(found), []);
            }
        }

        if (precision.ActivationType().IsNarrow())
        {
            foreach (VerificationCase found in Conversions(precision).Where(c => c.Name is "convert-parameters/uniform/random" || c.Name.StartsWith("copy/", StringComparison.Ordinal)))
            {
                yield return (NotFinite(found), []);
            }
        }
        else
        {
            foreach (VerificationCase found in Optimizers(precision).Where(c => !c.Name.Contains("convolution", StringComparison.Ordinal)))
            {
                yield return (NotFinite(found), []);
            }
        }
    }

    private static IEnumerable<(string Name, BatchNormSpec Spec, BatchNormForm? Form)> NotFiniteBatchNorms(BackendTraits traits)
    {
        BatchNormForm running = new() { Statistics = BatchNormStatistics.Running };
        BatchNormForm plain = new() { Layout = TensorLayout.Plain };
        yield return ("plain", new(new(3, 17, 3, 3)), null);
        yield return ("relu", new(new(3, 17, 3, 3), Relu: true), null);
        yield return ("relu-mask-from-dst", new(new(2, 16, 4, 4), Relu: true), new() { MaskFromDst = true });
        yield return ("residual-relu", new(new(2, 16, 3, 3), Relu: true, Residual: true), new() { SecondDiffDst = true });
        yield return ("running-relu", new(new(2, 17, 3, 3), Relu: true), running);
        yield return ("running-residual-relu", new(new(2, 16, 3, 3), Relu: true, Residual: true), running);
        yield return ("per-activation-relu", new(new(4, 17, 2, 2), PerActivation: true, Relu: true), null);
        yield return ("plain-vectors-relu", new(new(7, 10, 1, 1), Relu: true), plain);
        yield return ("plain-relu", new(new(2, 5, 5, 5), Relu: true), plain);
        if (traits.BatchNormVariants)
        {
            yield return ("ghost-relu", new(new(4, 17, 3, 3), Relu: true, GhostBatch: 2), null);
            yield return ("renorm-relu", new(new(4, 16, 3, 3), Relu: true), new() { Renormalization = new BatchRenormalization(1.5f, 0.5f, 0, 0, 0) });
        }
    }

    private static VerificationCase NotFinite(VerificationCase plain) => plain with { Name = plain.Name.Replace("/random", "", StringComparison.Ordinal), Kind = InputKind.NotFinite };
}
