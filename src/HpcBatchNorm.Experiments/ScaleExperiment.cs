using HpcBatchNorm.Backends;
using static System.FormattableString;

namespace HpcBatchNorm.Experiments;

/// <summary>Section 3.3: BN((aW)u) = BN(Wu), and what follows for the gradients.</summary>
internal sealed class ScaleExperiment : Experiment
{
    private const double Exact = 1e-10;
    private static readonly double[] Factors = [1e-3, 0.1, 10, 1e3], WithEpsilon = [0.5, 2, 10, 1e3];

    /// <inheritdoc/>
    public override string Name => "scale-invariance";

    /// <inheritdoc/>
    public override string Title => "The scale of weights";

    /// <inheritdoc/>
    public override string Claim =>
        "Section 3.3: the scale of a layer's weights changes neither its normalized output nor the gradient it passes on, and larger weights get smaller gradients.";

    /// <inheritdoc/>
    public override ExperimentData Data => ExperimentData.None;

    /// <inheritdoc/>
    public override double Minutes => 0;

    /// <inheritdoc/>
    public override ExperimentResult Run(ExperimentContext context)
    {
        const string Algebra = "equal";
        using Backend backend = Backend.Create("reference");
        List<Finding> findings = [];
        List<FigureSeries> curves = [];
        List<IReadOnlyList<string>> rows = [];
        foreach (bool convolutional in new[] { false, true })
        {
            string layer = convolutional ? "3x3 convolution" : "fully connected";
            using NormalizedLayer exact = new(backend, convolutional, 0), rounded = new(backend, convolutional, 1e-5f);
            Errors[] errors = [.. Factors.Select(a => Compare(exact, a))], withEpsilon = [.. WithEpsilon.Select(a => Compare(rounded, a))];
            findings.Add(Finding.AtMost($"{layer}: BN((aW)u) and BN(Wu), largest relative difference", Algebra, errors.Max(e => e.Forward), Exact, "0.0e+0"));
            findings.Add(Finding.AtMost($"{layer}: gradient with respect to u", Algebra, errors.Max(e => e.ToSrc), Exact, "0.0e+0"));
            findings.Add(Finding.AtMost($"{layer}: gradient with respect to aW, times a", Algebra, errors.Max(e => e.ToWeights), Exact, "0.0e+0"));
            findings.Add(Finding.AtMost($"{layer}: a filter times its gradient, over their norms", "0 (follows)", errors.Max(e => e.Along), Exact, "0.0e+0"));
            findings.Add(Finding.AtMost($"{layer}: all of these with epsilon 1e-5, a from 0.5 on", Algebra, withEpsilon.Max(e => new[] { e.Forward, e.ToSrc, e.ToWeights }.Max()), 1e-4, "0.0e+0"));
            // Nothing at all has no place on a logarithmic axis.
            curves.Add(FigureSeries.Of($"{layer}, epsilon 0", Factors.Zip(errors, (a, e) => (a, Math.Max(1e-17, Math.Max(e.Forward, e.ToWeights)))), convolutional ? 1 : 0));
            curves.Add(FigureSeries.Of($"{layer}, epsilon 1e-5", WithEpsilon.Zip(withEpsilon, (a, e) => (a, Math.Max(1e-17, Math.Max(e.Forward, e.ToWeights)))), convolutional ? 1 : 0, dashed: true));
            rows.AddRange(Factors.Zip(errors, (a, e) => (IReadOnlyList<string>)[layer, Invariant($"{a}"), Number(e.Forward), Number(e.ToSrc), Number(e.ToWeights), Number(e.Along)]));
        }

        return new ExperimentResult
        {
            Findings = findings,
            Figures =
            [
                new Figure(Name, "What scaling the weights changes", "factor a of the weights (logarithmic)", "largest relative difference (logarithmic)")
                {
                    Series = curves,
                    LogarithmicX = true,
                    LogarithmicY = true,
                    Marks = [new FigureMark("acceptance, epsilon 0", Y: Exact)],
                },
            ],
            Tables = [new ResultTable("Epsilon 0: largest relative differences", ["layer", "a", "output", "gradient to u", "a times gradient to aW", "filter along its gradient"], rows)],
            Notes = ["Random inputs, weights and gradients in double precision on the reference backend. The identities are exact for epsilon 0; with an epsilon the difference is of the order of epsilon over the variance."],
        };
    }

    private sealed record Errors(double Forward, double ToSrc, double ToWeights, double Along);

    private static Errors Compare(NormalizedLayer layer, double factor)
    {
        var plain = layer.Run(1);
        var scaled = layer.Run(factor);
        double[] weights = layer.Weights;
        int filter = weights.Length / NormalizedLayer.Outputs;
        double along = weights.Chunk(filter).Zip(plain.DiffWeights.Chunk(filter), (w, g) => Math.Abs(w.Zip(g, (a, b) => a * b).Sum()) / (Norm(w) * Norm(g))).Max();
        return new Errors(Difference(plain.Dst, scaled.Dst), Difference(plain.DiffSrc, scaled.DiffSrc), Difference(plain.DiffWeights, [.. scaled.DiffWeights.Select(g => factor * g)]), along);
    }

    private static double Difference(double[] expected, double[] actual) => expected.Zip(actual, (e, a) => Math.Abs(e - a)).Max() / expected.Max(Math.Abs);

    private static double Norm(double[] values) => Math.Sqrt(values.Sum(v => v * v));

    private static string Number(double value) => Invariant($"{value:0.0e+0}");
}
