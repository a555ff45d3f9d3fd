using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>How a kernel computes, where that decides its error: found from <c>Kernel.Implementation</c>.</summary>
public enum Arithmetic
{
    /// <summary>Products and sums as the definition says, in any order, accumulated in single precision or better.</summary>
    Ordinary,

    /// <summary>Winograd's F(4x4, 3x3) of a library, on points 0, +-1, +-2 and infinity: transforms with constants up to 21/4 and 1/90 around the products.</summary>
    Winograd,

    /// <summary>Our own Winograd F(4x4, 3x3), on points 0, +-5/8, +-3/2 and infinity, which loses less.</summary>
    NativeWinograd,

    /// <summary>Batch statistics summed without a shift (a library's own batch normalization): robust only when |mean| is of the order of the deviation.</summary>
    UnshiftedStatistics,

    /// <summary>
    /// Sums over a batch made term after term in single precision (a library's own batch normalization, backward). The terms may all be equal (behind
    /// a global average pooling they are); their roundings then go one way, and only the worst case m*u*sum|t| is a bound. oneDNN 3.7 has been seen at a quarter of it.
    /// </summary>
    RunningSums,

    /// <summary>
    /// Intermediate results kept in the 16-bit type of the output (oneDNN's gradients of pooling and of local response normalization). In single
    /// precision there is no difference.
    /// </summary>
    NarrowIntermediates,
}

/// <summary>
/// The bound of one output element: u * (<see cref="Rounding"/> * rounded + <see cref="Growth"/> * sqrt(length) * accumulated), u = 2^-24, where
/// <c>rounded</c> is the magnitude that suffers a fixed number of roundings and <c>accumulated</c> the sum of the magnitudes of the
/// <c>length</c> terms of the reduction behind the element (sum |a||b| for a convolution). With exact inputs reductions have no error and
/// the bound is u * <see cref="Exact"/> * rounded.
/// </summary>
/// <remarks>
/// Why sqrt(length): the worst case of a sum of L terms is L*u*sum|t|, but rounding errors behave as independent and of mean zero, and then
/// |error| &lt;= lambda*sqrt(L)*u*sum|t| except with probability 2*exp(-lambda^2/2) (Higham and Mary, 2019, theorem 3.1). That theorem allows every
/// rounding to reach u*sum|t|; a running sum of equal terms reaches it only at the end, which takes 1/sqrt(3) off, and the roundings are uniform
/// rather than extreme, which takes another 1/sqrt(3) off: the standard deviation is at most sqrt(L)*u*sum|t|/3. Growth = 2 is therefore six
/// standard deviations: 2e-9 per element.
/// </remarks>
/// <param name="Rounding">Roundings, in units of u, on the fixed part.</param>
/// <param name="Growth">Factor of the sqrt(length) law; 0 where nothing is accumulated.</param>
/// <param name="Exact">Roundings left when inputs are exact.</param>
internal readonly record struct Tolerance(double Rounding, double Growth, double Exact)
{
    /// <summary>Half the distance between 1 and the next single: the largest relative error of one rounding.</summary>
    public const double UnitRoundoff = 1.0 / (1 << 24);

    /// <summary>
    /// Twice the smallest normal single: backends may flush below that to zero, and vector exponentials build 2^(n-1) first and double it.
    /// </summary>
    public const double Floor = 2.350988701644575e-38;

    /// <summary>The bound of an element, see <see cref="Tolerance"/>. Never narrower than <see cref="Floor"/>.</summary>
    public double Bound(InputKind kind, double rounded, double accumulated, double length) =>
        Floor + UnitRoundoff * (kind == InputKind.Exact ? Exact * rounded : Rounding * rounded + Growth * Math.Sqrt(length) * accumulated);
}

/// <summary>
/// Every bound of the verification, in one table. The magnitudes it multiplies come from <see cref="ErrorModel"/>. Widening an entry needs a reason here.
/// </summary>
internal static class Tolerances
{
    /// <summary>
    /// Largest relative difference of a loss in a ten-step training of a small network. Rounding differs by about 1e-6 of a gradient per layer and is fed
    /// back ten times: 1e-4 where the network is smooth. A kink (ReLU, max pooling) turns one rounding into another path, whatever its size; how far
    /// apart such paths have come by a step is measured, <paramref name="drift"/>: the largest relative difference up to this step of the reference's
    /// losses from those of <see cref="LossReplayPaths"/> more trainings of the reference from parameters moved by <see cref="LossReplayMove"/>. The
    /// backend is one more such path: twice the largest. Never more than 1e-3, as a wrong convention (a biased variance, a forgotten decay) moves the loss by
    /// that and more. In 16 bits the reference rounds where the backend does, so that most elements agree to the last bit; but a sum that falls near the
    /// middle of two neighbours goes either way, and one such step is as large as two unit roundoffs.
    /// </summary>
    public static double LossReplay(Precision precision, double drift = 0) =>
        precision.ActivationType().IsNarrow() ? 2 * precision.ActivationType().UnitRoundoff() : Math.Clamp(2 * drift, 1e-4, 1e-3);

    /// <summary>By how much of itself a parameter is moved, up or down: about the difference that rounding makes in a layer, 2^-20.</summary>
    public const float LossReplayMove = 9.5367431640625e-7f;

    /// <summary>How many trainings from moved parameters are compared; inception-tiny's drift by step 10 is between 2e-5 and 3e-4. In 16 bits, none.</summary>
    public static int LossReplayPaths(Precision precision) => precision.ActivationType().IsNarrow() ? 0 : 3;

    /// <summary>
    /// The bound of an element that is stored in 16 bits, from its bound in single precision. Both sides round once more, each by at most the type's unit
    /// roundoff times what it rounds. Where single precision leaves no error at all (selections, exact inputs) both round the same number,
    /// and there is one right answer.
    /// </summary>
    public static double Stored(DataType type, double bound, double expected)
    {
        double unit = type.UnitRoundoff(), subnormal = type == DataType.Float16 ? HalfSubnormal : 0;
        return bound <= Tolerance.Floor ? bound : bound + unit * (2 * Math.Abs(expected) * (1 + unit) + bound) + 2 * subnormal;
    }

    /// <summary>
    /// What is added to the bound in single precision of a 16-bit output when an operation keeps intermediate results in 16 bits too
    /// (<see cref="Arithmetic.NarrowIntermediates"/>): that many more roundings, each at most the type's unit roundoff times the sum of the magnitudes.
    /// </summary>
    public static double Intermediate(DataType type, Arithmetic arithmetic, double roundings, double accumulated) =>
        type.IsNarrow() && arithmetic == Arithmetic.NarrowIntermediates ? roundings * type.UnitRoundoff() * accumulated : 0;

    /// <summary>Half the distance of half precision's subnormal numbers, the absolute error of rounding to one; bfloat16's are as small as single precision's.</summary>
    internal const double HalfSubnormal = 1.0 / (1 << 25);

    /// <summary>What an implementation's name says when it rounds a single-precision result to 16 bits on its way.</summary>
    internal const string NarrowResult = "16-bit-result";

    /// <summary>The entry of an output, by the operation's <c>Kind</c> and the output's role in it.</summary>
    /// <exception cref="ArgumentException">The table has no such entry.</exception>
    public static Tolerance Of(string kind, string role, Arithmetic arithmetic = Arithmetic.Ordinary) => (kind, role) switch
    {
        // Winograd: the error of F(4x4,3x3) is that of the sums over channels, amplified by the transforms. One dimension multiplies the
        // relative error by about |A^T|(|B^T x| |G w|) / (|x| |w|), between 4 and 12 for points 0, +-1, +-2; two dimensions by the square of its
        // typical 4.5, near 20. oneDNN 2.6 reaches a fifth of this bound, on 2x2 images seven
        // tenths. Transforms round even exact integers (G has sixths), so inputs are never exact.
        ("convolution forward" or "convolution backward-data" or "convolution backward-weights", "dst" or "diffSrc" or "diffWeights")
            when arithmetic == Arithmetic.Winograd => new(Rounding: 40, Growth: 4, Exact: 80),

        // Points 0, +-5/8, +-3/2. Growth: the root of the sum over points of (A^T)^2 |G|^2 |B^T|^2, over that of 3 taps, is what the independent errors of the
        // points' sums come to: per dimension at most 2.9 (0, +-1, +-2: 5.6), in both 8.2 of what a direct sum of 9 times the terms has, whose root takes 3 off: half of
        // the above, and no less than direct convolution, whose sums over channels these are. Rounding: where a sum has few terms the transforms' own
        // roundings are left. One value against a whole tile is the worst case, a root of squares of 16.8 in both dimensions; five roundings of standard
        // deviation u/sqrt(3) and values of 0.58 of the largest make that 12.6 u at most, observed are 8 (one pixel, padded by 2). With the growth
        // of one tile's 36 terms the bound is 40 + 2*6 = 52, four of the former and six of the latter.
        ("convolution forward" or "convolution backward-data" or "convolution backward-weights", "dst" or "diffSrc" or "diffWeights")
            when arithmetic == Arithmetic.NativeWinograd => new(Rounding: 40, Growth: 2, Exact: 80),

        // Products and sums: the law of the sum, two roundings on top (the product, the bias or the store). Integer inputs: no error at all.
        ("convolution forward" or "inner-product forward", "dst") => new(2, 2, 0),
        ("convolution backward-data" or "inner-product backward-data", "diffSrc") => new(2, 2, 0),
        ("convolution backward-weights" or "inner-product backward-weights", "diffWeights" or "diffBias") => new(2, 2, 0),

        // rounded = |mean| + E|x-x0|, accumulated = E|x-x0|, x0 what the sum is shifted by: the first value of the channel, or of each of its chunks, whichever
        // is further away (ErrorModel). The shift, the division and the addition of x0 round; the sum follows the law. Exact: the sum has no error, the same roundings remain.
        ("batch-norm forward", "mean") => new(2, 2, 2),

        // rounded = accumulated = E(x-x0)^2, variance + (mean-x0)^2 for one x0: square, division, the subtraction of (mean-x0)^2 and its own two roundings.
        // Exact: squares and their sum have no error, five roundings of at most this magnitude remain.
        ("batch-norm forward", "variance") => new(6, 2, 6),

        // rounded = |(1-a)*old| + |a*new|: 1-a, two products, one sum, m/(m-1), and the reference's own rounding of state to single precision.
        // The error of the batch statistic itself is measured and added.
        ("batch-norm forward", "running mean" or "running variance") => new(5, 0, 5),

        // rounded = |scale|/sqrt(variance+eps) * |x-mean| + |shift| + |residual|: the factor is rounded 4 times (sum, root, quotient, product; a
        // reciprocal root by Newton's step counts 2 more), the difference, the product and the two sums once each, none of these at a larger magnitude.
        // Errors of the stored mean and variance are measured and added. The form x*a + (shift - mean*a) is deliberately not good enough: it
        // rounds at the magnitude of mean*a, which an offset makes large.
        ("batch-norm forward", "dst") => new(6, 0, 6),

        // Batch renormalization. r: two sums, two roots, the quotient and the store, of which the roots halve what is before them; errors of the
        // variances are measured and added. rounded = (|mean|+|running mean|)/sigma for d: the stored means, the difference, the quotient, the store.
        // correction: scale*r, scale*d and their sum with shift, on |slope*(x-mean)| + |shift| + |scale*d|.
        ("batch-norm forward", "r") => new(5, 0, 5),
        ("batch-norm forward", "d") => new(5, 0, 5),
        ("batch-norm forward", "correction") => new(4, 0, 4),

        // accumulated = sum |g| and sum |g*xhat|; xhat carries four roundings (mean is an input, the difference, the root, the product).
        // Elements whose ReLU mask is undecidable add their |g| and |g*xhat| (ErrorModel).
        ("batch-norm backward", "diffShift") => new(2, 2, 0),
        ("batch-norm backward", "diffScale") => new(6, 2, 6),

        // rounded = |a|*(|g| + |sum g|/m + |xhat|*|sum g*xhat|/m): each term has at most eight roundings on its way. Errors of the two sums are
        // measured and added, and so is the effect of the mean's own rounding, on which the printed and the simplified formula disagree (ErrorModel).
        ("batch-norm backward", "diffSrc") => new(8, 0, 8),

        // The masked diffDst, with the mask read from dst: a copy.
        ("batch-norm backward", "diffResidual") => new(0, 0, 0),

        // rounded: see ErrorModel. ReLU selects; exponentials of vector libraries are good to 2-4 units plus the rounding of their argument.
        ("activation forward", "relu") => new(0, 0, 0),
        ("activation forward", "dst") => new(8, 0, 8),
        ("activation backward", "relu") => new(0, 0, 0),
        ("activation backward", "diffSrc") => new(4, 0, 4),

        // From src the function is computed again: the forward pass's roundings, of which the products come on top of one of its terms only.
        ("activation backward", "diffSrc from src") => new(8, 0, 8),

        // A maximum selects. Averages: the law of the sum, the division and the store; exact sums leave these two. Backward the shares are divided
        // before they are added, so exact inputs do not stay exact: the reciprocal, the product, the law of the sum.
        ("pooling forward", "max") => new(0, 0, 0),
        ("pooling forward", "dst") => new(2, 2, 2),
        ("pooling backward", "max") => new(1, 2, 0),
        ("pooling backward", "diffSrc") => new(3, 2, 3),

        // (K + alpha/n*sum)^-beta: the base has 5 roundings, times beta; power functions of vector libraries are good to 4 units or do two roots; two products.
        ("lrn forward", "dst") => new(16, 0, 16),
        ("lrn backward", "diffSrc") => new(24, 2, 24),

        // One product, and the factor 1/(1-ratio) is itself rounded. A dropped element is exactly 0 because its magnitude is.
        ("dropout forward" or "dropout backward", "dst") => new(2, 0, 2),

        ("copy" or "reorder", "dst") => new(0, 0, 0),
        ("sum", "dst") => new(1, 2, 0),

        // rounded = (|x|+|mean|)*|inverse deviation|: difference and product, or product and fused sum with a rounded mean*inverse.
        ("prepare input", "dst") => new(3, 0, 3),

        // rounded = p*(1+|x-max|): the exponential's argument is rounded at |x-max|, the exponential to 4 units, the quotient once;
        // the sum over classes follows the law with accumulated = p.
        ("softmax" or "softmax cross-entropy" or "binary cross-entropy", "probabilities") => new(8, 2, 8),

        // rounded = Weight * mean over images of (sum t*|x-max| + |log sum exp| + 1); the mean over the batch follows the law.
        ("softmax cross-entropy", "loss") => new(8, 2, 8),

        // The same with max(x, 0), x*t and the logarithm of each class, and with the sigmoid's own error, which is that of an exponential and a quotient.
        ("binary cross-entropy", "loss") => new(8, 2, 8),
        ("binary cross-entropy", "diffLogits") => new(8, 0, 8),

        // rounded = Weight/N*(p+t); the error of p is bounded by its own entry and added.
        ("softmax cross-entropy", "diffLogits") => new(3, 0, 3),

        // rounded = |mu*v| + e*(|s*g| + |wd*p|): three roundings per product chain, two sums, and the reference's own
        // rounding of state; in PyTorch's form e multiplies their sum instead, one product more for the parameter. The parameter adds what Nesterov's step adds, and twice its own magnitude: the backend's rounding and the reference's.
        ("sgd update", "momentum") => new(6, 0, 6),
        ("sgd update", "parameter step") => new(7, 0, 7),
        ("sgd update", "parameter") => new(2, 0, 2),

        // rounded = |b1*m| + (1-b1)*|s*g|, or the second moment, all of whose summands are positive: beta and its rest, the scaled gradient (twice in the square),
        // the products, the sum and the reference's rounding of state. A step divides the first moment by the root of the second, whose error the root halves:
        // 6 + 4, the two corrections and their products, root, sum with epsilon, quotient, decay, and the rate with its factor and product. LAMB's ratio has the
        // error of the steps' norm, which is that of the steps: it stands in the magnitude.
        ("adam update" or "lamb update", "first moment") => new(7, 0, 7),
        ("adam update" or "lamb update", "second moment") => new(8, 0, 8),
        ("adam update" or "lamb update", "parameter step") => new(22, 0, 22),
        ("adam update" or "lamb update", "parameter") => new(2, 0, 2),

        // sqrt halves the relative error of the sum of squares; scale = maximum/norm adds the quotient.
        // A factor for the gradients adds a product to each.
        ("clip gradients", "norm") => new(3, 1, 3),
        ("clip gradients", "gradientScale") => new(4, 1, 4),

        // One division.
        ("update loss scale", "unscale") => new(1, 0, 1),

        // rounded = |sum| + |gradient|/count: 1/count, the product, the sum.
        ("accumulate gradients", "sum") => new(3, 0, 3),

        // rounded = |decay*average| + |(1-decay)*source|: 1-decay, the product, the sum, and the reference's own rounding of state.
        ("update average", "average") => new(4, 0, 4),

        // The same code on the same values on both sides (ErrorModel).
        ("custom forward", "dst" or "saved" or "running statistic") => new(0, 0, 0),
        ("custom backward", "diffSrc" or "diffParameter") => new(0, 0, 0),

        // Rounding to a given type is exact: there is one right answer.
        ("convert parameters", "copy") => new(0, 0, 0),

        _ => throw new ArgumentException($"The tolerance table has no entry for {role} of {kind}."),
    };

    /// <summary>What an implementation's name says about its arithmetic.</summary>
    public static Arithmetic ArithmeticOf(string kind, string implementation) =>
        implementation.StartsWith("winograd:hbn", StringComparison.Ordinal) ? Arithmetic.NativeWinograd
        : implementation.Contains("wino", StringComparison.OrdinalIgnoreCase) ? Arithmetic.Winograd
        : implementation.Contains("native", StringComparison.Ordinal) || implementation.Contains("reference", StringComparison.Ordinal) ? Arithmetic.Ordinary
        : kind == "batch-norm forward" ? Arithmetic.UnshiftedStatistics
        : kind == "batch-norm backward" ? Arithmetic.RunningSums
        : kind is "pooling backward" or "lrn backward" ? Arithmetic.NarrowIntermediates
        : Arithmetic.Ordinary;
}
