using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <content>
/// Batch statistics that ranks join, whose batches differ in size: the truth is the whole batch in one process. Numbers are random, since the mean of a
/// rank's part of whole numbers is none.
/// </content>
internal static partial class HardCases
{
    private static IEnumerable<VerificationCase> JoinedBatchNorms(Precision precision)
    {
        BatchNormForm plain = new() { Layout = TensorLayout.Plain };
        (string Name, int[] Images, BatchNormSpec Spec, BatchNormForm? Form)[] forms =
        [
            ("basic", [2, 2], new(new(4, 32, 8, 8)), null),
            ("unequal", [5, 1, 2], new(new(8, 32, 5, 3)), null),
            ("unequal-relu", [1, 4], new(new(5, 17, 5, 5), Relu: true), null),
            ("relu-mask-from-dst", [3, 1], new(new(4, 16, 4, 4), Relu: true), new() { MaskFromDst = true }),
            ("residual-relu", [1, 3], new(new(4, 32, 5, 5), Relu: true, Residual: true), null),
            ("residual-relu-two-gradients", [2, 1], new(new(3, 17, 9, 5), Relu: true, Residual: true), new() { SecondDiffDst = true }),
            ("one-value-each", [1, 1, 1], new(new(3, 32, 1, 1)), null),
            ("one-value-each-relu", [1, 2], new(new(3, 17, 1, 1), Relu: true), null),
            ("epsilon-1e-3", [2, 1], new(new(3, 16, 4, 4), Epsilon: 1e-3f), null),
            ("averaging-1", [1, 3], new(new(4, 16, 4, 4)), new() { AveragingFactor = 1 }),
            ("no-running", [1, 2], new(new(3, 16, 4, 4)), new() { Running = false }),
            ("per-activation", [5, 1, 2], new(new(8, 16, 3, 5), PerActivation: true, Relu: true), null),
            ("plain-vectors", [13, 7], new(new(20, 100, 1, 1)), plain),
            ("large-offset", [3, 1], new(new(4, 32, 8, 8)), new() { Src = Fills.Normal(1e4, 1) }),
            ("constant-src", [1, 2], new(new(3, 16, 4, 4)), new() { Src = Fills.Constant(5) }),
            ("constant-src-no-epsilon", [2, 1], new(new(3, 17, 4, 4), Epsilon: 0), new() { Src = Fills.Constant(5) }),

            // Every rank's values are close together and far from the others': nearly all of the variance is the distance of the means.
            ("means-far-apart", [2, 1, 4], new(new(7, 32, 6, 6)), new() { Src = Fills.ImagesApart(100) }),
        ];
        foreach ((string name, int[] images, BatchNormSpec spec, BatchNormForm? form) in forms)
        {
            yield return Case(precision, $"batch-norm/ranks-{name}", InputKind.Random).BatchNorm(spec, form).Build() with { RankImages = images };
        }
    }
}
