using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Verification;

/// <content>
/// Nonlinearities. A table gives, for each function and direction, the magnitude that suffers the roundings of <see cref="Tolerances"/>, and what is allowed
/// besides; null where the function selects one of its inputs.
/// </content>
internal static partial class ErrorModel
{
    /// <summary>The magnitude that is rounded, and an error that has nothing to do with rounding.</summary>
    private readonly record struct Rounded(double Magnitude, double Besides = 0);

    private static IEnumerable<OutputBound> Activation(ActivationForward o, OperationValues values)
    {
        Func<double, double, Rounded>? rounded = o.Function switch
        {
            ActivationKind.Relu => null,

            // exp(x) has the relative error of its argument, |x|*u; sigmoid inherits (1-y) of it.
            ActivationKind.Sigmoid => (x, y) => new(y * (1 + (1 - y) * Math.Abs(x))),

            // Computed as 1 - 2/(1+exp(2x)) or as a rational function: an error of u at magnitude 1, except that near 0, where |x| itself is the
            // magnitude, good libraries keep it relative.
            ActivationKind.Tanh => (x, _) => new(Math.Min(1, Math.Abs(x) + 0.25)),

            // x/2 * (1 + erf(x/sqrt 2)): the sum is rounded at up to 2, and the usual rational function for erf (Abramowitz and Stegun, 7.1.26) is
            // wrong by up to 1.5e-7 = 2.5u, halved; both are multiplied by |x|, also in the lower tail where the sum is next to nothing.
            ActivationKind.Gelu => (x, _) => new(Math.Abs(x)),

            // As the sigmoid, times x. A sigmoid so small that it is flushed to zero is missed by |x| times that.
            ActivationKind.Silu => (x, y) => new(Math.Abs(y) * (1 + Math.Abs(x) / (1 + Math.Exp(x))), Math.Abs(x) * Tolerance.Floor),

            // x * (x/6 + 1/2), with 1/6 rounded: the sum cancels near -3, and |x| is the magnitude up to there. Beyond, the product is with 0.
            ActivationKind.HardSwish => (x, _) => new(x < -3.0001 ? 0 : Math.Abs(x)),
            _ => throw ActivationKinds.Unknown(o.Function, "the error model"),
        };
        if (rounded is null)
        {
            return [Selected(o, "relu", "dst", o.Dst)];
        }

        Tolerance tolerance = Tolerances.Of(o.Kind, "dst");
        double[] src = values.Inputs[o.Src];
        return [new OutputBound("dst", o.Dst, Map(values.Expected[o.Dst], (y, i) => Bound(tolerance, values.Kind, rounded(src[i], y))))];
    }

    private static IEnumerable<OutputBound> Activation(ActivationBackward o, OperationValues values)
    {
        // From what was kept, src or dst, for a gradient of 1.
        Func<double, Rounded>? rounded = o.Function switch
        {
            ActivationKind.Relu => null,

            // y*(1-y) or 1-y^2, also as y - y^2: rounded at the magnitude before the subtraction.
            ActivationKind.Sigmoid => y => new(Math.Abs(y) + y * y),
            ActivationKind.Tanh => y => new(1 + y * y),
            ActivationKind.Gelu => GeluGradient,
            ActivationKind.Silu => SiluGradient,
            ActivationKind.HardSwish => HardSwishGradient,
            _ => throw ActivationKinds.Unknown(o.Function, "the error model"),
        };
        if (rounded is null)
        {
            return [Selected(o, "relu", "diffSrc", o.DiffSrc)];
        }

        Tolerance tolerance = Tolerances.Of(o.Kind, o.Function.GradientReadsSrc() ? "diffSrc from src" : "diffSrc");
        double[] kept = values.Inputs[o.Kept];
        return [new OutputBound("diffSrc", o.DiffSrc, Map(values.Inputs[o.DiffDst], (g, i) =>
        {
            Rounded one = rounded(kept[i]);
            return Bound(tolerance, values.Kind, new(Math.Abs(g) * one.Magnitude, Math.Abs(g) * one.Besides));
        }))];
    }

    private static double Bound(Tolerance tolerance, InputKind kind, Rounded rounded) => tolerance.Bound(kind, rounded.Magnitude, 0, 1) + rounded.Besides;

    /// <summary>(1 + erf(x/sqrt 2))/2 + x*density(x): the first as in the forward pass, at magnitude 1; the second inherits the rounding of the exponential's argument, x^2/2.</summary>
    private static Rounded GeluGradient(double x)
    {
        double density = Math.Exp(-0.5 * x * x) / Math.Sqrt(2 * Math.PI);
        return new(1 + Math.Abs(x) * density * (1 + x * x), Math.Abs(x) * Tolerance.Floor);
    }

    /// <summary>
    /// s*(1 + x*(1-s)), s the sigmoid. With t = 1-s, s has the relative error e = 1 + t|x|, and 1-s, formed by a subtraction, the absolute error of s (s*e) and
    /// a rounding of its own (t): e*s + |x|*s*(t*e + t + s*e), which is at most e*s*(1 + |x|*(2t + s)), and 2t + s = 1 + t. So 1-s is wrong by u where
    /// s is next to 1, and x times that counts. A sigmoid flushed to zero takes the sum with it.
    /// </summary>
    private static Rounded SiluGradient(double x)
    {
        double size = Math.Abs(x), s = 1 / (1 + Math.Exp(-x)), t = 1 / (1 + Math.Exp(x));
        return new(s * (1 + t * size) * (1 + size * (1 + t)), (1 + size) * Tolerance.Floor);
    }

    /// <summary>
    /// x/3 + 1/2 between the corners, rounded at |x|/3 + 1/2, which is at most 3/2. At a corner the gradient jumps by 1/2, and x/6 + 1/2, compared with 0 and 1,
    /// does not tell x from the corner within three roundings of 1; on the corner itself every form gives the outer side.
    /// </summary>
    private static Rounded HardSwishGradient(double x)
    {
        double distance = Math.Abs(Math.Abs(x) - 3);
        return new(x < -3.0001 ? 0 : 1.5, distance > 0 && distance <= 6 * 3 * Tolerance.UnitRoundoff ? 0.5 : 0);
    }
}
