using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>A nonlinearity in double precision: f(src), and diffSrc from what the forward pass kept (src or dst) and diffDst.</summary>
internal readonly record struct ReferenceFunction(Func<double, double> Value, Func<double, double, double> Gradient);

/// <summary>The reference's nonlinearities: the one place that lists them.</summary>
internal static class ReferenceActivations
{
    private static readonly double InverseRootTwoPi = 1 / Math.Sqrt(2 * Math.PI);

    /// <summary>What a function and its gradient are.</summary>
    /// <exception cref="NotSupportedException">The value is none of <see cref="ActivationKind"/>'s.</exception>
    public static ReferenceFunction Of(ActivationKind function) => function switch
    {
        ActivationKind.Relu => new(x => Math.Max(0, x), (y, g) => y <= 0 ? 0 : g), // behind a NaN the gradient passes
        ActivationKind.Sigmoid => new(Sigmoid, (y, g) => g * y * (1 - y)),
        ActivationKind.Tanh => new(Math.Tanh, (y, g) => g * (1 - y * y)),
        ActivationKind.Gelu => new(x => x * NormalDistribution(x), (x, g) => g * (NormalDistribution(x) + x * NormalDensity(x))),
        ActivationKind.Silu => new(x => x * Sigmoid(x), (x, g) => g * Sigmoid(x) * (1 + x * Sigmoid(-x))),
        ActivationKind.HardSwish => new(
            x => x * Math.Clamp(x + 3, 0, 6) / 6, (x, g) => x >= 3 ? g : x <= -3 ? 0 : g * (2 * x + 3) / 6),
        _ => throw ActivationKinds.Unknown(function, "the functions of backend reference"),
    };

    /// <summary>1 / (1 + exp(-x)).</summary>
    public static double Sigmoid(double x) => 1 / (1 + Math.Exp(-x));

    /// <summary>exp(-x^2/2) / sqrt(2 pi).</summary>
    public static double NormalDensity(double x) => Math.Exp(-0.5 * x * x) * InverseRootTwoPi;

    /// <summary>
    /// P(X &lt;= x) for a standard normal X, which is erfc(-x/sqrt(2))/2. Relative error below 1e-13 down to where the result is no longer a normal double.
    /// </summary>
    /// <remarks>
    /// With phi the density: within 3 deviations 1/2 + phi(x) * (x + x^3/3 + x^5/(3*5) + ...), all of one sign, so that only the sum with 1/2 cancels, and
    /// by no more than three digits; beyond, the tail is phi(x) / (x + 1/(x + 2/(x + 3/(x + ...)))), of which 100 levels are more than enough from 3 on
    /// (Abramowitz and Stegun, 26.2.11 and 26.2.14).
    /// </remarks>
    public static double NormalDistribution(double x)
    {
        double size = Math.Abs(x);
        if (double.IsNaN(x))
        {
            return x;
        }

        if (size < 3)
        {
            double term = x, sum = x;
            for (int n = 3; Math.Abs(term) > 1e-17 * Math.Abs(sum); n += 2)
            {
                term *= x * x / n;
                sum += term;
            }

            return 0.5 + NormalDensity(x) * sum;
        }

        double fraction = size;
        for (int n = 100; n > 0; n--)
        {
            fraction = size + n / fraction;
        }

        double tail = NormalDensity(x) / fraction;
        return x < 0 ? tail : 1 - tail;
    }
}
