using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>Derivatives of a single-precision forward pass, each with the error that it was measured to have; see <see cref="GradientCheck"/>.</summary>
internal sealed class FiniteDifferences
{
    private const int Steps = 8;
    private const double LargestStep = 0.25;

    /// <summary>Elements of a gradient that may lie at a kink.</summary>
    private const double AllowedKinks = 0.02;

    private readonly GradientRun _run;
    private readonly BatchNormStatistics _statistics;
    private readonly double _noise;

    public FiniteDifferences(GradientRun run, BatchNormStatistics statistics)
    {
        (_run, _statistics) = (run, statistics);
        _noise = Noise();
    }

    /// <summary>Compares gradients of all inputs, then of all parameters, with differences.</summary>
    public void Compare(float[][] analytic, List<TensorResult> results, List<string> problems, List<string> notes)
    {
        float[][] variables = [.. _run.Srcs, .. _run.Parameters];
        (double Value, double Error)[][] differences = [.. variables.Select(Derivatives)];
        double[] largest = [.. differences.Select(d => d.Max(e => Math.Abs(e.Value)))];
        string mode = _statistics == BatchNormStatistics.Batch ? "with batch statistics" : "with running statistics";
        if (largest.Max() < 100 * _noise)
        {
            problems.Add($"The output does not depend on any input or parameter {mode}, so there is nothing to check.");
            return;
        }

        for (int g = 0; g < variables.Length; g++)
        {
            string name = _run.NameOf(g);
            double settled = Math.Max(0.01 * largest[g], 1e-4 * largest.Max());
            double[] expected = [.. differences[g].Select(d => d.Value)];
            double[] bound = [.. differences[g].Select(d => d.Error + 1e-4 * largest[g])];
            int open = bound.Count(b => b > settled), count = bound.Length;
            if (open > AllowedKinks * count)
            {
                problems.Add(
                    $"{name} {mode}: finite differences do not settle at {open} of {count} elements. The forward pass has kinks or jumps near the inputs, or rounds more than single precision does; " +
                    "try another seed or other shapes.");
            }
            else if (open > 0)
            {
                notes.Add($"{name} {mode}: {open} of {count} elements lie near a kink and were left out.");
            }

            if (differences[g].All(d => Math.Abs(d.Value) <= d.Error))
            {
                notes.Add($"The loss does not depend on {Variable(g)} {mode}: only that its gradient is zero was checked.");
            }

            bound = Array.ConvertAll(bound, b => b > settled ? double.PositiveInfinity : b);
            Tensor tensor = new(Variable(g), _run.ShapeOf(g), TensorRole.Gradient);
            results.Add(TensorResult.Compare(
                mode, name, tensor, _run.Spec.Function.FunctionName, Array.ConvertAll(analytic[g], v => (double)v), expected, bound));
        }
    }

    private string Variable(int gradient) =>
        gradient >= _run.Srcs.Length ? $"'{_run.Spec.Parameters[gradient - _run.Srcs.Length].Name}'" : _run.Srcs.Length == 1 ? "src" : $"src{gradient}";

    private (double Value, double Error)[] Derivatives(float[] variable)
    {
        (double Value, double Error)[] derivatives = new (double, double)[variable.Length];
        double[] central = new double[Steps], bend = new double[Steps], combined = new double[Steps - 1];
        double middle = _run.Loss(_statistics);
        for (int i = 0; i < variable.Length; i++)
        {
            float centre = variable[i];
            for (int k = 0; k < Steps; k++)
            {
                double h = Math.ScaleB(LargestStep, -k);
                variable[i] = (float)(centre + h);
                double above = _run.Loss(_statistics);
                variable[i] = (float)(centre - h);
                double below = _run.Loss(_statistics);
                central[k] = (above - below) / (2 * h);
                bend[k] = (above - 2 * middle + below) / h;
            }

            variable[i] = centre;
            for (int k = 0; k < combined.Length; k++)
            {
                combined[k] = (4 * central[k + 1] - central[k]) / 3;
            }

            derivatives[i] = (combined[0], double.PositiveInfinity);
            for (int k = 0; k + 1 < combined.Length; k++)
            {
                // The slopes to the left and right differ by h * f'' where the function is smooth, by a constant where it has a kink within h.
                double kink = Math.Abs(2 * bend[k + 2] - bend[k + 1]);
                double error = 4 * Math.Abs(combined[k] - combined[k + 1]) + kink + 16 * _noise / Math.ScaleB(LargestStep, -k);
                if (error < derivatives[i].Error)
                {
                    derivatives[i] = (combined[k], error);
                }
            }
        }

        return derivatives;
    }

    /// <summary>
    /// Deviation of the loss's rounding errors: fourth differences of values at equal steps so small that nothing smooth is left in them have 70 times its
    /// square (Hamming 1962). The median of several directions, because a kink may lie in one.
    /// </summary>
    private double Noise()
    {
        const double Step = GradientRun.Grid;
        const int Points = 9, Directions = 5;
        float[][] variables = [.. _run.Srcs, .. _run.Parameters];
        float[][] centres = [.. variables.Select(v => v.ToArray())];
        double[] noises = new double[Directions], losses = new double[Points];
        for (int d = 0; d < Directions; d++)
        {
            for (int p = 0; p < Points; p++)
            {
                var random = new RandomSequence((ulong)d, stream: 2000);
                for (int v = 0; v < variables.Length; v++)
                {
                    for (int i = 0; i < variables[v].Length; i++)
                    {
                        variables[v][i] = (float)(centres[v][i] + (random.NextBelow(2) == 0 ? p : -p) * Step);
                    }
                }

                losses[p] = _run.Loss(_statistics);
            }

            double sum = 0;
            for (int p = 0; p + 4 < Points; p++)
            {
                double fourth = losses[p] - 4 * losses[p + 1] + 6 * losses[p + 2] - 4 * losses[p + 3] + losses[p + 4];
                sum += fourth * fourth;
            }

            noises[d] = Math.Sqrt(sum / (Points - 4) / 70);
        }

        for (int v = 0; v < variables.Length; v++)
        {
            centres[v].CopyTo(variables[v], 0);
        }

        // At least the rounding of the output itself, which may be exact in these directions by chance.
        _run.Loss(_statistics);
        double rounding = 0;
        for (int i = 0; i < _run.Dst.Length; i++)
        {
            double term = (double)_run.Dst[i] * _run.DiffDst[i];
            rounding += term * term;
        }

        Array.Sort(noises);
        return Math.Max(noises[Directions / 2], Math.Sqrt(rounding) / (1 << 24));
    }
}
