using System.Globalization;
using System.Text;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>What <see cref="GradientCheck"/> found.</summary>
/// <param name="Layer">The layer, in its own words.</param>
/// <param name="Gradients">
/// Every gradient, once with the statistics of the batch and, where the layer has running statistics, once with those: what Backward computed is called
/// actual, the finite difference expected. An element at which differences do not settle has an infinite bound.
/// </param>
/// <param name="Problems">What is wrong apart from values, each a sentence.</param>
/// <param name="Notes">What the check could not see, each a sentence.</param>
public sealed record GradientCheckResult(string Layer, IReadOnlyList<TensorResult> Gradients, IReadOnlyList<string> Problems, IReadOnlyList<string> Notes)
{
    /// <summary>True when every gradient is within its bounds and nothing else is wrong.</summary>
    public bool Passed => Problems.Count == 0 && Gradients.All(g => g.Failed == 0);

    /// <summary>The gradient with the largest error in units of its bound; null when none could be computed.</summary>
    public TensorResult? Worst => Gradients.MaxBy(g => g.Worst.Ratio);

    /// <summary>Some lines for people: every problem, every failed gradient with its worst and first failed elements; one line and notes when passed.</summary>
    public string Describe()
    {
        StringBuilder text = new();
        text.Append(CultureInfo.InvariantCulture, $"{Layer}: {(Passed ? "passed" : "FAILED")}");
        if (Passed && Worst is { } best)
        {
            text.Append(CultureInfo.InvariantCulture, $", {Gradients.Sum(g => g.Elements)} derivatives, worst {best.Role} {best.Operation} {best.Worst}");
        }

        TensorResult.DescribeFailures(text, Problems, Gradients, g => $"{g.Role} {g.Operation}", " (expected: by finite differences)");
        foreach (string note in Notes)
        {
            text.Append(CultureInfo.InvariantCulture, $"\n  note: {note}");
        }

        return text.ToString();
    }
}

/// <summary>
/// Checks a layer of one's own: its gradients against finite differences of its forward pass, and the rules that Forward and Backward keep (everything set,
/// nothing read that was not, the same bits each time, nothing remembered between calls, images independent of one another at inference).
/// </summary>
/// <remarks>
/// The loss is sum(r * dst) with random r, summed in double precision; its derivative by one element x is estimated by central differences with steps h from
/// 1/4 down to 1/512, each pair combined to fourth order (Richardson): R(h) = (4 D(h/2) - D(h)) / 3. The code computes in single precision, so there are two
/// errors, and both are measured: truncation by |R(h) - R(h/2)|, and the loss's rounding noise s from fourth differences of 9 points close together (Hamming), which
/// R(h) amplifies to about 2 s/h. A kink shows in the slopes to the left and right, whose difference halves with h only where there is none. For every element
/// the h with the smallest sum of all three is taken. The bound is four times the first, 16 s/h, the third, and
/// 1e-4 of the gradient's largest element for the rounding of Backward itself. Where a bound exceeds 1 % of the gradient's largest element (or 1e-4 of the
/// largest of all) the differences have not settled: a kink or a jump is near. Up to 2 % of a gradient's elements may be such and are left out.
/// So a fault shows when it changes some element by more than 1 % of the largest, and mostly from 0.1 % on.
/// </remarks>
public static class GradientCheck
{
    /// <summary>
    /// Checks a layer on random inputs, normal with mean 0 and deviation 1, and parameters moved away from their initial values, which often hide a fault
    /// (a scale of 1, a shift of 0).
    /// </summary>
    /// <param name="layer">The layer.</param>
    /// <param name="inputs">Shapes of its inputs: small ones (some hundred elements; two images and more), for every element takes 16 forward passes.</param>
    /// <param name="seed">Chooses the random numbers.</param>
    /// <returns>What was found; exceptions of the layer's code are problems too.</returns>
    /// <exception cref="ArgumentException">The shapes do not fit the layer, or have more than 100,000 elements.</exception>
    public static GradientCheckResult Run(CustomLayer layer, IReadOnlyList<Shape> inputs, ulong seed = 1)
    {
        ArgumentNullException.ThrowIfNull(layer);
        CustomSpec spec = layer.Spec(layer.Type, inputs);
        if (inputs.Sum(s => s.Count) > 100_000)
        {
            throw new ArgumentException($"{layer.Type} is to be checked on {string.Join(", ", inputs)}; every element takes 16 forward passes, so use shapes of some hundred elements.", nameof(inputs));
        }

        List<TensorResult> gradients = [];
        List<string> problems = [], notes = [];
        try
        {
            GradientRun run = new(layer, spec, seed, problems);
            run.CheckForward(BatchNormStatistics.Batch, training: true);
            run.CheckForward(BatchNormStatistics.Running, training: false);
            run.CheckIndependence();
            BatchNormStatistics[] modes = spec.RunningStatistics.Count > 0
                ? [BatchNormStatistics.Batch, BatchNormStatistics.Running] : [BatchNormStatistics.Batch];
            foreach (BatchNormStatistics statistics in modes)
            {
                if (run.Backward(statistics) is { } analytic)
                {
                    new FiniteDifferences(run, statistics).Compare(analytic, gradients, problems, notes);
                }
            }
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            problems.Add($"It threw {e.GetType().Name}: {e.Message}");
        }

        return new GradientCheckResult($"{layer.Description} of {string.Join(", ", inputs)}", gradients, problems, notes);
    }
}
