using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Verification;

/// <content>Convolutions that normalize what they read.</content>
internal static partial class HardCases
{
    /// <summary>
    /// Each shape where our own Winograd convolution reads src and each where the library's does, with and without ReLU: padding must be zero behind the
    /// normalization, not before it; padded channels must stay zero; a slice is read in its place.
    /// </summary>
    private static IEnumerable<VerificationCase> NormalizingConvolutions(Precision precision, BackendTraits traits)
    {
        if (!traits.Normalizes(precision.ActivationType()))
        {
            yield break;
        }

        (string Name, ConvolutionSpec Spec)[] specs =
        [
            ("3x3", ConvolutionSpec.Square(new(2, 64, 14, 14), 96, 3, pad: 1)),
            ("3x3-7px", ConvolutionSpec.Square(new(4, 96, 7, 7), 64, 3, pad: 1)),
            ("3x3-padding2", ConvolutionSpec.Square(new(2, 48, 13, 9), 48, 3, pad: 2)),
            ("3x3-no-padding", ConvolutionSpec.Square(new(2, 64, 18, 10), 64, 3)),
            ("3x3-odd-channels-bias", ConvolutionSpec.Square(new(3, 61, 12, 12), 77, 3, pad: 1, bias: true)),
            ("3x3-stride2", ConvolutionSpec.Square(new(2, 32, 13, 13), 48, 3, stride: 2, pad: 1)),
            ("3x3-stride2-wide", ConvolutionSpec.Square(new(2, 136, 7, 7), 128, 3, stride: 2, pad: 1)),
            ("1x1-wide", ConvolutionSpec.Square(new(2, 133, 7, 7), 144, 1)),
            ("1x1", ConvolutionSpec.Square(new(2, 37, 7, 7), 48, 1)),
            ("1x1-stride2", ConvolutionSpec.Square(new(2, 32, 9, 9), 32, 1, stride: 2)),
            ("groups2", ConvolutionSpec.Square(new(2, 32, 8, 8), 64, 3, pad: 1, groups: 2)),
        ];
        foreach ((string name, ConvolutionSpec spec) in specs)
        {
            foreach (bool relu in new[] { false, true })
            {
                yield return Case(precision, $"convolution/normalizing-{name}{(relu ? "-relu" : "")}", InputKind.Random).NormalizingConvolution(spec, relu).Build();
            }
        }

        // Values far from zero, of which normalization leaves their differences; a slice of a wider tensor, as of a module's parallel convolutions.
        foreach ((string name, ConvolutionSpec spec) in specs.Where(s => s.Name is "3x3" or "1x1" or "3x3-stride2"))
        {
            ConvolutionSpec whole = spec with { Src = spec.Src with { C = 64 } };
            yield return Case(precision, $"convolution/normalizing-{name}-large-offset", InputKind.Random)
                .NormalizingConvolution(spec, relu: true, Fills.Normal(1e4, 1)).Build();
            yield return Case(precision, $"convolution/normalizing-{name}-slice", InputKind.Random).NormalizingConvolution(whole, relu: true, sliceOffset: 32).Build();
        }

        // Constant channels without epsilon: they become their shift.
        yield return Case(precision, "convolution/normalizing-constant-no-epsilon", InputKind.Random)
            .NormalizingConvolution(specs[0].Spec, relu: true, Fills.Constant(5), epsilon: 0).Build();
    }
}
