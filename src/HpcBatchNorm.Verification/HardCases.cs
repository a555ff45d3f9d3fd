using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>
/// Every operation in both directions where implementations go wrong: odd channel counts, single pixels, stride, padding and dilation edges, groups,
/// slices, in-place forms, tiny batches, large offsets, ties. Small tensors: the whole list takes seconds.
/// </summary>
internal static partial class HardCases
{
    // Divisible by no vector length, and one that fills blocks exactly.
    private static readonly int[] OddChannels = [1, 3, 17, 63];

    private static readonly InputKind[] Kinds = [InputKind.Exact, InputKind.Random];

    /// <summary>
    /// The list, in a fixed order, for a backend with these traits (they decide where slices may lie). In 16 bits it has everything that touches a 16-bit
    /// tensor.
    /// </summary>
    public static IReadOnlyList<VerificationCase> For(BackendTraits traits, Precision precision = Precision.Fp32) =>
        traits.TrainingVariants ? All(traits, precision) : [.. All(traits, precision).Where(c => !c.Operations.Any(IsTrainingVariant))];

    /// <summary>What <see cref="BackendTraits.TrainingVariants"/> is about.</summary>
    private static bool IsTrainingVariant(Operation operation) =>
        operation is AdamUpdate { TrustRatio: true } or SoftmaxCrossEntropy { Binary: true } or SoftmaxCrossEntropy { SecondLabels: not null };

    private static IReadOnlyList<VerificationCase> All(BackendTraits traits, Precision precision) =>
    [
        .. Convolutions(precision), .. NormalizingConvolutions(precision, traits), .. BatchNorms(precision, traits), .. traits.CustomOperations ? JoinedBatchNorms(precision) : [],
        .. Activations(precision), .. Poolings(precision, traits), .. LocalResponses(precision),
        .. Dropouts(precision), .. InnerProducts(precision), .. Copies(precision, traits), .. Sums(precision, traits), .. Inputs(precision), .. Losses(precision),
        .. precision.ActivationType().IsNarrow() ? Conversions(precision) : Optimizers(precision),
        .. traits.LossScaling ? LossScaling(precision) : [], .. NotFinite(precision, traits),
    ];

    private static CaseBuilder Case(Precision precision, string name, InputKind kind) => new($"{name}/{(kind == InputKind.Exact ? "exact" : "random")}", kind, precision);

    private static IEnumerable<VerificationCase> Convolutions(Precision precision)
    {
        (string Name, ConvolutionSpec Spec)[] specs =
        [
            ("1x1", ConvolutionSpec.Square(new(2, 32, 7, 7), 48, 1)),
            ("1x1-stride2", ConvolutionSpec.Square(new(2, 32, 9, 9), 32, 1, stride: 2)),
            ("1x1-one-pixel", ConvolutionSpec.Square(new(3, 64, 1, 1), 32, 1)),
            ("3x3", ConvolutionSpec.Square(new(2, 32, 14, 14), 48, 3, pad: 1)),
            ("3x3-7px", ConvolutionSpec.Square(new(2, 64, 7, 7), 32, 3, pad: 1)),
            ("3x3-odd-image", ConvolutionSpec.Square(new(1, 16, 13, 9), 32, 3, pad: 1)),
            ("3x3-no-padding", ConvolutionSpec.Square(new(2, 16, 9, 9), 16, 3)),
            ("3x3-one-pixel", ConvolutionSpec.Square(new(2, 16, 1, 1), 16, 3, pad: 1)),

            // Winograd's tiles of 4x4: whole ones, one of one row and column, an image that is less than one; every padding a tile can have; panels of
            // filters of one, two and three blocks, and a sum over tiles that is cut into parts.
            ("3x3-one-tile", ConvolutionSpec.Square(new(1, 16, 4, 4), 40, 3, pad: 1)),
            ("3x3-13x5", ConvolutionSpec.Square(new(3, 24, 13, 5), 24, 3, pad: 1)),
            ("3x3-one-pixel-padding2", ConvolutionSpec.Square(new(1, 8, 1, 1), 8, 3, pad: 2)),
            ("3x3-padding2", ConvolutionSpec.Square(new(2, 16, 5, 9), 32, 3, pad: 2)),
            ("3x3-padding-each-side-its-own", ConvolutionSpec.Square(new(2, 16, 8, 7), 64, 3) with { PadLeft = 2, PadBottom = 1, PadRight = 1 }),
            ("3x3-many-tiles", ConvolutionSpec.Square(new(2, 8, 96, 96), 16, 3, pad: 1)),
            ("3x3-odd-channels-bias", ConvolutionSpec.Square(new(3, 37, 7, 7), 21, 3, pad: 1, bias: true)),
            ("3x3-stride2", ConvolutionSpec.Square(new(2, 32, 14, 14), 32, 3, stride: 2, pad: 1)),
            ("3x3-stride2-odd-image", ConvolutionSpec.Square(new(2, 16, 13, 15), 16, 3, stride: 2, pad: 1)),
            ("1x1-wide", ConvolutionSpec.Square(new(2, 133, 9, 7), 145, 1)),
            ("1x1-wide-many-positions", ConvolutionSpec.Square(new(2, 128, 65, 64), 128, 1)),
            ("3x3-stride2-wide", ConvolutionSpec.Square(new(2, 133, 9, 7), 145, 3, stride: 2, pad: 1)),
            ("5x5-stride3-wide", ConvolutionSpec.Square(new(1, 136, 10, 8), 128, 5, stride: 3, pad: 2)),
            ("3x3-stride3-unread-edge", ConvolutionSpec.Square(new(1, 16, 12, 12), 16, 3, stride: 3)),
            ("3x3-dilation2", ConvolutionSpec.Square(new(1, 16, 12, 12), 16, 3, pad: 2) with { DilationH = 2, DilationW = 2 }),
            ("3x3-uneven-padding", ConvolutionSpec.Square(new(2, 16, 10, 10), 16, 3, stride: 2) with { PadBottom = 1, PadRight = 1 }),
            ("2x5-uneven", new ConvolutionSpec(new(2, 16, 8, 11), 32, 2, 5, 1, 2, 1, 2, 0, 1)),
            ("5x5", ConvolutionSpec.Square(new(1, 16, 8, 8), 16, 5, pad: 2)),
            ("7x7-stride2-image", ConvolutionSpec.Square(new(2, 3, 32, 32), 64, 7, stride: 2, pad: 3)),
            ("full-window", ConvolutionSpec.Square(new(2, 16, 7, 7), 32, 7)),
            ("groups2", ConvolutionSpec.Square(new(2, 32, 8, 8), 64, 3, pad: 1, groups: 2)),
            ("groups3-odd", ConvolutionSpec.Square(new(1, 9, 6, 6), 12, 3, pad: 1, groups: 3)),
            ("depthwise", ConvolutionSpec.Square(new(2, 32, 9, 9), 32, 3, pad: 1, groups: 32)),
            ("depthwise-multiplier8", ConvolutionSpec.Square(new(2, 3, 24, 24), 24, 7, stride: 2, pad: 3, groups: 3)),
            ("bias", ConvolutionSpec.Square(new(2, 16, 6, 6), 32, 3, pad: 1, bias: true)),
            ("bias-odd", ConvolutionSpec.Square(new(2, 5, 6, 7), 7, 3, pad: 1, bias: true)),
            .. OddChannels.Select(c => ($"channels{c}", ConvolutionSpec.Square(new(2, c, 6, 6), 64 - c, 3, pad: 1))),
        ];
        foreach ((string name, ConvolutionSpec spec) in specs)
        {
            foreach (InputKind kind in Kinds)
            {
                yield return Case(precision, $"convolution/{name}", kind).Convolution(spec).Build();
            }
        }

        // A large common offset, which transforms cancel and must not lose more than its own rounding.
        yield return Case(precision, "convolution/3x3-large-offset", InputKind.Random).Convolution(
            ConvolutionSpec.Square(new(2, 32, 12, 12), 32, 3, pad: 1), src: Fills.Normal(precision == Precision.Fp16 ? 300 : 1e4, 1)).Build();
        foreach (InputKind kind in Kinds)
        {
            yield return Case(precision, "convolution/plain-src", kind).Convolution(
                ConvolutionSpec.Square(new(2, 3, 19, 17), 32, 7, stride: 2, pad: 3), backwardData: false, srcLayout: TensorLayout.Plain).Build();
            yield return Case(precision, "convolution/bias-relu", kind).Convolution(
                ConvolutionSpec.Square(new(2, 32, 7, 7), 32, 3, pad: 1, bias: true), backward: false, relu: true).Build();
            yield return Case(precision, "convolution/3x3-slices-bias-relu", kind).Convolution(
                ConvolutionSpec.Square(new(2, 32, 9, 6), 32, 3, pad: 1, bias: true), backward: false, relu: true, sliceOffset: 32).Build();
            yield return Case(precision, "convolution/1x1-slices-bias-relu", kind).Convolution(
                ConvolutionSpec.Square(new(2, 32, 9, 6), 48, 1, bias: true), backward: false, relu: true, sliceOffset: 32).Build();

            // Blocks of one image lie in a wider tensor as in one of their own.
            yield return Case(precision, "convolution/1x1-slices-one-image", kind).Convolution(
                ConvolutionSpec.Square(new(1, 32, 9, 6), 48, 1, bias: true), backward: false, relu: true, sliceOffset: 32).Build();
            yield return Case(precision, "convolution/3x3-stride2-slices-one-image", kind).Convolution(
                ConvolutionSpec.Square(new(1, 32, 9, 6), 32, 3, stride: 2, pad: 1, bias: true), backward: false, relu: true, sliceOffset: 32).Build();
            yield return Case(precision, "convolution/relu", kind).Convolution(
                ConvolutionSpec.Square(new(2, 17, 5, 5), 33, 1), backward: false, relu: true).Build();
            foreach (bool inPlace in new[] { false, true })
            {
                string where = inPlace ? "in-place" : "beside";
                yield return Case(precision, $"convolution/residual-{where}", kind).ConvolutionOnto(
                    ConvolutionSpec.Square(new(2, 32, 7, 7), 64, 1), inPlace, relu: false).Build();
                yield return Case(precision, $"convolution/residual-bias-relu-{where}", kind).ConvolutionOnto(
                    ConvolutionSpec.Square(new(2, 32, 14, 14), 32, 3, pad: 1, bias: true), inPlace, relu: true).Build();
                yield return Case(precision, $"convolution/residual-odd-{where}", kind).ConvolutionOnto(
                    ConvolutionSpec.Square(new(1, 5, 9, 7), 17, 3, stride: 2, pad: 1, bias: true), inPlace, relu: true).Build();
                yield return Case(precision, $"convolution/residual-uneven-padding-{where}", kind).ConvolutionOnto(
                    ConvolutionSpec.Square(new(2, 16, 10, 10), 16, 3, stride: 2) with { PadBottom = 1, PadRight = 1 }, inPlace, relu: true).Build();
            }
        }
    }

    private static IEnumerable<VerificationCase> BatchNorms(Precision precision, BackendTraits traits)
    {
        int block = Math.Max(traits.ChannelBlock, 8);
        BatchNormForm running = new() { Statistics = BatchNormStatistics.Running };
        BatchNormForm plain = new() { Layout = TensorLayout.Plain };
        List<(string Name, BatchNormSpec Spec, BatchNormForm? Form)> forms =
        [
            ("basic", new(new(4, 32, 8, 8)), null),
            ("relu", new(new(4, 32, 8, 8), Relu: true), null),
            ("relu-mask-from-dst", new(new(4, 32, 8, 8), Relu: true), new() { MaskFromDst = true }),
            ("residual", new(new(2, 32, 5, 5), Residual: true), null),
            ("residual-relu", new(new(2, 32, 5, 5), Relu: true, Residual: true), null),
            ("residual-relu-over", new(new(2, 17, 9, 9), Relu: true, Residual: true), new() { DiffSrcOverSrc = true, DiffResidualOverDiffDst = true }),
            ("residual-relu-two-gradients", new(new(2, 32, 7, 7), Relu: true, Residual: true), new() { SecondDiffDst = true }),
            ("residual-relu-two-gradients-over", new(new(3, 17, 9, 5), Relu: true, Residual: true),
                new() { SecondDiffDst = true, DiffSrcOverSrc = true, DiffResidualOverDiffDst = true }),
            ("residual-two-gradients", new(new(2, 16, 5, 5), Residual: true), new() { SecondDiffDst = true }),
            ("residual-two-gradients-vectors", new(new(20, 100, 1, 1), Relu: true, Residual: true), plain with { SecondDiffDst = true, DiffResidualOverDiffDst = true }),
            ("residual-relu-per-activation", new(new(6, 16, 3, 5), PerActivation: true, Relu: true, Residual: true), new() { SecondDiffDst = true, DiffResidualOverDiffDst = true }),
            ("tiny-batch", new(new(2, 32, 1, 1)), null),
            ("tiny-batch-relu", new(new(1, 16, 1, 2), Relu: true), null),
            ("m3", new(new(3, 17, 1, 1)), null),
            ("one-image", new(new(1, 32, 7, 7), Relu: true), null),
            ("epsilon-1e-3", new(new(2, 16, 4, 4), Epsilon: 1e-3f), null),
            ("averaging-1", new(new(2, 16, 4, 4)), new() { AveragingFactor = 1 }),
            ("averaging-0", new(new(2, 16, 4, 4)), new() { AveragingFactor = 0 }),
            ("no-running", new(new(2, 16, 4, 4)), new() { Running = false }),
            ("large-map", new(new(2, 16, 56, 56), Relu: true), null),
            ("per-activation", new(new(8, 16, 3, 5), PerActivation: true, Relu: true), null),
            ("per-activation-odd", new(new(5, 17, 2, 2), PerActivation: true), null),
            ("running", new(new(3, 32, 5, 5)), running),
            ("running-relu", new(new(3, 17, 5, 5), Relu: true), running),
            ("running-one-value", new(new(1, 16, 1, 1)), running),
            ("running-residual-relu", new(new(3, 32, 5, 5), Relu: true, Residual: true), running),
            ("plain-vectors", new(new(20, 100, 1, 1)), plain),
            ("plain-vectors-relu", new(new(7, 10, 1, 1), Relu: true), plain),
            // Images whose area no vector divides: 25 and 21 positions, a tail of one and of five.
            ("plain-images", new(new(3, 5, 5, 5)), plain),
            ("plain-images-relu", new(new(2, 3, 3, 7), Relu: true), plain),
            ("plain-images-residual-relu", new(new(2, 5, 5, 5), Relu: true, Residual: true), plain),
            ("in-place", new(new(2, 32, 6, 6), Relu: true), new() { DstOverSrc = true }),
            ("running-in-place", new(new(2, 17, 6, 6)), running with { DstOverSrc = true }),
            ("diffSrc-over-src", new(new(2, 32, 6, 6), Relu: true), new() { DiffSrcOverSrc = true }),
            ("diffSrc-over-diffDst", new(new(2, 32, 6, 6), Relu: true), new() { DiffSrcOverDiffDst = true }),
            .. OddChannels.Select(c => ($"channels{c}", new BatchNormSpec(new(3, c, 5, 3), Relu: true), (BatchNormForm?)null)),
        ];
        if (traits.BatchNormTakesSlices)
        {
            forms.Add(("slice", new(new(3, 2 * block, 5, 5)), new() { SliceOffset = block }));
            forms.Add(("slice-relu", new(new(3, 2 * block, 5, 5), Relu: true), new() { SliceOffset = block }));
            forms.Add(("slice-residual-relu", new(new(3, 2 * block, 5, 5), Relu: true, Residual: true), new() { SliceOffset = block }));
            forms.Add(("slice-running", new(new(3, 2 * block, 5, 5), Relu: true), running with { SliceOffset = block }));
            forms.Add(("slice-diffSrc-over-src", new(new(2, block, 4, 4), Relu: true), new() { SliceOffset = 2 * block, DiffSrcOverSrc = true }));
        }

        if (traits.BatchNormVariants)
        {
            BatchNormForm renorm = new() { Renormalization = new BatchRenormalization(1.5f, 0.5f, 0, 0, 0) };
            forms.AddRange(
            [
                ("ghost", new(new(6, 32, 5, 5), GhostBatch: 2), null),
                ("ghost-relu-odd", new(new(6, 17, 3, 5), Relu: true, GhostBatch: 3), null),
                ("ghost-one-image", new(new(4, 16, 4, 4), Relu: true, GhostBatch: 1), new() { DiffSrcOverSrc = true }),
                ("ghost-residual-relu", new(new(4, 32, 5, 5), Relu: true, Residual: true, GhostBatch: 2), null),
                ("ghost-residual-two-gradients", new(new(4, 32, 5, 5), Relu: true, Residual: true, GhostBatch: 2), new() { SecondDiffDst = true, DiffResidualOverDiffDst = true }),
                ("ghost-per-activation", new(new(8, 17, 2, 3), PerActivation: true, Relu: true, GhostBatch: 4), null),
                ("ghost-plain-vectors", new(new(20, 100, 1, 1), GhostBatch: 10), plain),
                ("renorm", new(new(4, 32, 5, 5)), renorm),
                ("renorm-relu-odd", new(new(3, 17, 5, 3), Relu: true), renorm),
                ("renorm-in-range", new(new(4, 16, 6, 6), Relu: true), new() { Renormalization = new BatchRenormalization(100, 100, 0, 0, 0) }),
                ("renorm-per-activation", new(new(8, 16, 3, 2), PerActivation: true, Relu: true), renorm),
                ("renorm-plain-vectors", new(new(20, 100, 1, 1)), plain with { Renormalization = renorm.Renormalization }),
                ("renorm-residual-relu", new(new(4, 32, 5, 5), Relu: true, Residual: true), renorm with { DiffResidualOverDiffDst = true }),
                ("renorm-ghost", new(new(6, 33, 4, 4), Relu: true, GhostBatch: 2), renorm),
            ]);
            if (traits.BatchNormTakesSlices)
            {
                forms.Add(("ghost-slice-relu", new(new(4, 2 * block, 5, 5), Relu: true, GhostBatch: 2), new() { SliceOffset = block }));
                forms.Add(("renorm-slice-relu", new(new(3, 2 * block, 5, 5), Relu: true), renorm with { SliceOffset = block }));
            }
        }

        foreach ((string name, BatchNormSpec spec, BatchNormForm? form) in forms)
        {
            foreach (InputKind kind in form?.Renormalization is not null || spec.GhostBatch > 0 ? [InputKind.Random] : Kinds)
            {
                yield return Case(precision, $"batch-norm/{name}", kind).BatchNorm(spec, form).Build();
            }
        }

        // E[x^2] - E[x]^2 without a shift loses everything here: 1e8 carries 7 digits, the variance is 1.
        yield return Case(precision, "batch-norm/large-offset", InputKind.Random).BatchNorm(new(new(4, 32, 8, 8)), new() { Src = Fills.Normal(1e4, 1) }).Build();
        yield return Case(precision, "batch-norm/large-offset-relu", InputKind.Random).BatchNorm(
            new(new(4, 17, 8, 8), Relu: true), new() { Src = Fills.Normal(1e4, 1) }).Build();
        yield return Case(precision, "batch-norm/negative-offset", InputKind.Random).BatchNorm(new(new(2, 16, 6, 6)), new() { Src = Fills.Normal(-300, 0.5) }).Build();

        // No spread at all: the variance is exactly 0 and 1/sqrt(epsilon) is all that scales.
        yield return Case(precision, "batch-norm/constant-src", InputKind.Exact).BatchNorm(new(new(2, 16, 4, 4)), new() { Src = Fills.Constant(5) }).Build();

        // Nor an epsilon: a channel of equal values becomes its shift and has no gradient; the limit, not 0 times infinity.
        foreach ((string name, BatchNormSpec spec, BatchNormForm form) in new[]
        {
            ("", new BatchNormSpec(new(2, 17, 4, 4), Epsilon: 0), new BatchNormForm()), ("-relu", new(new(2, 16, 4, 4), Epsilon: 0, Relu: true), new()),
            ("-per-activation", new(new(4, 16, 2, 2), Epsilon: 0, PerActivation: true), new()), ("-plain-vectors", new(new(5, 10, 1, 1), Epsilon: 0), plain),
        })
        {
            yield return Case(precision, $"batch-norm/constant-src-no-epsilon{name}", InputKind.Exact).BatchNorm(spec, form with { Src = Fills.Constant(5) }).Build();
        }

        // Pre-activations that are exactly 0 have no gradient.
        yield return Case(precision, "batch-norm/relu-zeros", InputKind.Random).BatchNorm(
            new(new(2, 16, 4, 4), Relu: true), new() { Src = Fills.Ties, MaskFromDst = true }).Build();
    }
}
