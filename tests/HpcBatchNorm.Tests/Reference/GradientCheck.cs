using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Reference;

/// <summary>
/// Backward operations against finite differences of forward ones, for the scalar loss sum(dst * r) with random r, whose gradient with respect to
/// dst is r. Five-point central differences: truncation h^4, rounding 1e-16/h, both near 1e-12 for h = 1e-3. Inputs must stay 2h away from kinks.
/// </summary>
internal static class GradientCheck
{
    private const double H = 1e-3;

    /// <summary>PAPER bound: relative error 1e-6, of each element against itself or, where it is nearly zero, a thousandth of the largest.</summary>
    private const double Bound = 1e-6;

    /// <param name="forward">What the loss depends on.</param>
    /// <param name="backward">What computes the gradients from <paramref name="diffDst"/> and what the forward operations left.</param>
    /// <param name="inputs">All inputs of the forward operations with their values.</param>
    /// <param name="dst">What the loss is computed from.</param>
    /// <param name="diffDst">Gradient of the loss with respect to <paramref name="dst"/>.</param>
    /// <param name="gradients">For each input to check, the tensor its gradient is written to.</param>
    public static void Verify(
        IReadOnlyList<Operation> forward, IReadOnlyList<Operation> backward, IReadOnlyDictionary<Tensor, double[]> inputs, Tensor dst, Tensor diffDst,
        params (Tensor Input, Tensor Gradient)[] gradients)
    {
        double[] r = ReferenceRun.Random(dst, seed: 99);
        using ReferenceRun both = new([.. forward, .. backward]);
        Set(both, inputs);
        both[diffDst] = r;
        both.Execute();
        double[][] found = [.. gradients.Select(g => both[g.Gradient])];

        using ReferenceRun alone = new(forward);
        double Loss()
        {
            Set(alone, inputs);
            alone.Execute();
            return ReferenceRun.Dot(alone[dst], r);
        }

        for (int g = 0; g < gradients.Length; g++)
        {
            double[] values = inputs[gradients[g].Input];
            double[] differences = new double[values.Length];
            for (int i = 0; i < values.Length; i++)
            {
                double centre = values[i];
                double At(double offset)
                {
                    values[i] = centre + offset;
                    return Loss();
                }

                differences[i] = (8 * (At(H) - At(-H)) - (At(2 * H) - At(-2 * H))) / (12 * H);
                values[i] = centre;
            }

            double largest = differences.Max(Math.Abs);
            Assert.True(largest > 1e-3, $"{gradients[g].Input.Name}: the loss does not depend on it, so this would check nothing.");
            for (int i = 0; i < values.Length; i++)
            {
                double error = Math.Abs(found[g][i] - differences[i]) / Math.Max(Math.Abs(differences[i]), 1e-3 * largest);
                Assert.True(error <= Bound, FormattableString.Invariant(
                    $"{gradients[g].Gradient.Name}[{i}]: {found[g][i]:R}, by finite differences {differences[i]:R} (relative error {error:E2})"));
            }
        }
    }

    private static void Set(ReferenceRun run, IReadOnlyDictionary<Tensor, double[]> inputs)
    {
        foreach ((Tensor tensor, double[] values) in inputs)
        {
            run[tensor] = values;
        }
    }

    /// <summary>Values at least 0.05 away from 0 and from each other, in random order: safe for ReLU and for maxima.</summary>
    public static double[] AwayFromKinks(Tensor tensor, uint seed)
    {
        int count = (int)tensor.Shape.Count;
        double[] values = new double[count];
        RandomSequence random = new(seed, stream: 8);
        for (int i = 0; i < count; i++)
        {
            values[i] = 0.05 * (i - count / 2 + 0.5 + random.NextDouble(-0.1, 0.1)) * 2;
            uint other = random.NextBelow((uint)i + 1);
            (values[i], values[other]) = (values[other], values[i]);
        }

        return values;
    }
}
