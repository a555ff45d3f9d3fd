using System.Globalization;
using System.Text;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>One element of an output beside its bound.</summary>
/// <param name="Position">Its place as n,c,h,w.</param>
/// <param name="Actual">What the backend computed.</param>
/// <param name="Expected">What the reference computed from the same inputs.</param>
/// <param name="Bound">The largest |actual - expected| allowed.</param>
public readonly record struct ElementResult(string Position, double Actual, double Expected, double Bound)
{
    /// <summary>|actual - expected|; NaN when either is not a number.</summary>
    public double Error => Actual == Expected ? 0 : Math.Abs(Actual - Expected);

    /// <summary>Error in units of the bound: above 1 is a failure; infinite when the error is not a number or the bound is 0.</summary>
    public double Ratio => Error == 0 ? 0 : Error / Bound is var ratio && double.IsNaN(ratio) ? double.PositiveInfinity : ratio;

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"[{Position}] actual {Actual:g9} expected {Expected:g9} error {Error:g3} bound {Bound:g3}");
}

/// <summary>One output of one operation of a case, compared element by element.</summary>
/// <param name="Operation">The operation's kind and name, e.g. <c>convolution forward 'conv'</c>.</param>
/// <param name="Role">The output's role: <c>dst</c>, <c>diffSrc</c>, <c>running variance</c>, ...</param>
/// <param name="Tensor">The tensor's name.</param>
/// <param name="Implementation">What computed it, in the backend's words.</param>
/// <param name="Elements">Elements compared.</param>
/// <param name="Failed">Elements outside their bounds.</param>
/// <param name="Worst">The element with the largest error in units of its bound.</param>
/// <param name="FirstFailed">The first few failed elements, in memory order.</param>
public sealed record TensorResult(
    string Operation, string Role, string Tensor, string Implementation, long Elements, long Failed, ElementResult Worst, IReadOnlyList<ElementResult> FirstFailed)
{
    private const int FailedKept = 5;

    /// <summary>Compares all elements: |actual - expected| &lt;= bound, each with its own bound; a value that is not a number fails.</summary>
    internal static TensorResult Compare(
        string operation, string role, Tensor tensor, string implementation, double[] actual, double[] expected, double[] bound)
    {
        ElementResult Element(int i)
        {
            Shape s = tensor.Shape;
            string position = string.Create(CultureInfo.InvariantCulture, $"{i / s.ImageCount},{i / s.Area % s.C},{i / s.W % s.H},{i % s.W}");
            return new ElementResult(position, actual[i], expected[i], bound[i]);
        }

        long failed = 0;
        int worst = 0;
        double worstRatio = -1;
        List<ElementResult> first = [];
        for (int i = 0; i < actual.Length; i++)
        {
            double ratio = new ElementResult("", actual[i], expected[i], bound[i]).Ratio;
            if (ratio > worstRatio)
            {
                (worst, worstRatio) = (i, ratio);
            }

            if (ratio > 1)
            {
                failed++;
                if (first.Count < FailedKept)
                {
                    first.Add(Element(i));
                }
            }
        }

        return new TensorResult(operation, role, tensor.Name, implementation, actual.Length, failed, Element(worst), first);
    }

    /// <summary>Adds a line for every problem, and for every failed output lines with its worst and first failed elements.</summary>
    internal static void DescribeFailures(
        StringBuilder text, IReadOnlyList<string> problems, IEnumerable<TensorResult> outputs, Func<TensorResult, string> name, string expected = "")
    {
        foreach (string problem in problems)
        {
            text.Append(CultureInfo.InvariantCulture, $"\n  {problem}");
        }

        foreach (TensorResult output in outputs.Where(o => o.Failed > 0))
        {
            text.Append(CultureInfo.InvariantCulture, $"\n  {name(output)}: {output.Failed} of {output.Elements} elements outside their bounds{expected}");
            text.Append(CultureInfo.InvariantCulture, $"\n    worst {output.Worst}");
            foreach (ElementResult element in output.FirstFailed)
            {
                text.Append(CultureInfo.InvariantCulture, $"\n    {element}");
            }
        }
    }

    /// <summary>
    /// Compares what kind of value each element is. What is not finite stays so: whether it is NaN or infinite depends on the order of sums (an infinity may
    /// meet its opposite or a zero), only the opposite infinity is wrong. A number is a number, unless the algorithm <paramref name="spreads"/> what is not
    /// finite over its neighbours.
    /// </summary>
    internal static TensorResult CompareKinds(string operation, Tensor tensor, string implementation, double[] actual, double[] expected, bool spreads)
    {
        bool Agree(int i) => double.IsFinite(expected[i])
            ? spreads || double.IsFinite(actual[i])
            : !double.IsFinite(actual[i]) && (double.IsNaN(actual[i]) || actual[i] != -expected[i]);

        bool[] agree = [.. Enumerable.Range(0, actual.Length).Select(Agree)];
        return Compare(operation, tensor.Name, tensor, implementation,
            [.. actual.Select((a, i) => agree[i] ? 0 : a)], [.. expected.Select((e, i) => agree[i] ? 0 : e)], new double[actual.Length]);
    }
}

/// <summary>The answer to one case.</summary>
/// <param name="Case">The case.</param>
/// <param name="Backend">Name of the backend under test.</param>
/// <param name="Tensors">Every output of every operation, in order.</param>
/// <param name="Problems">What went wrong apart from values: an exception, a changed input, a result that did not repeat.</param>
/// <param name="Elapsed">Time taken, the reference included.</param>
public sealed record CaseResult(
    VerificationCase Case, string Backend, IReadOnlyList<TensorResult> Tensors, IReadOnlyList<string> Problems, TimeSpan Elapsed)
{
    /// <summary>True when every element is within its bound and nothing else went wrong.</summary>
    public bool Passed => Problems.Count == 0 && Tensors.All(t => t.Failed == 0);

    /// <summary>The output with the largest error in units of its bound; null when nothing was compared.</summary>
    public TensorResult? Worst => Tensors.MaxBy(t => t.Worst.Ratio);

    /// <summary>The command that runs this case alone.</summary>
    public string Reproduce => Case.Reproduce(Backend);

    /// <summary>Some lines for people: every failed output with its worst and first failed elements, and the command to reproduce; one line when passed.</summary>
    public string Describe()
    {
        if (Passed)
        {
            return $"{Case.Name}: passed" + (Worst is null ? "" : $", worst {Worst.Role} of {Worst.Operation} {Worst.Worst}");
        }

        StringBuilder text = new();
        text.Append(CultureInfo.InvariantCulture, $"{Case.Name}: FAILED");
        TensorResult.DescribeFailures(text, Problems, Tensors, t => $"{t.Role} of {t.Operation} ({t.Implementation})");
        return text.Append(CultureInfo.InvariantCulture, $"\n  reproduce: {Reproduce}").ToString();
    }
}

/// <summary>A row of the table <c>hpcbn verify</c> prints: a case, its worst output, and whether it passed.</summary>
internal sealed record VerificationRow(string Case, string Tensor, string Error, string Bound, string Verdict);

/// <summary>The answers of a backend to a list of cases.</summary>
/// <param name="Backend">Name of the backend under test.</param>
/// <param name="Precision">The precision it computed in, <c>fp32</c>.</param>
/// <param name="Results">One per case, in the order of the list.</param>
internal sealed record VerificationReport(string Backend, string Precision, IReadOnlyList<CaseResult> Results)
{
    /// <summary>Number of cases.</summary>
    public int Cases => Results.Count;

    /// <summary>Number of cases that did not pass.</summary>
    public int Failed => Results.Count(r => !r.Passed);

    /// <summary>
    /// The case with the largest error in units of its bound; failed cases come before passed ones. Null for an empty list.
    /// </summary>
    public CaseResult? Worst => Results.MaxBy(r => (r.Passed ? 0 : 1, r.Worst?.Worst.Ratio ?? -1));

    /// <summary>One row per case, worst output each; only the failed ones when asked.</summary>
    public IEnumerable<VerificationRow> Rows(bool failedOnly = false) => Results.Where(r => !failedOnly || !r.Passed).Select(r =>
    {
        ElementResult? worst = r.Worst?.Worst;
        return new VerificationRow(r.Case.Name, r.Worst?.Role ?? "",
            worst?.Error.ToString("g3", CultureInfo.InvariantCulture) ?? "", worst?.Bound.ToString("g3", CultureInfo.InvariantCulture) ?? "",
            r.Passed ? "ok" : r.Problems.Count > 0 ? r.Problems[0] : "FAILED");
    });

    /// <summary>For people: every failed case in full, then one line of totals.</summary>
    public string Describe()
    {
        StringBuilder text = new();
        foreach (CaseResult result in Results.Where(r => !r.Passed))
        {
            text.Append(result.Describe()).Append('\n');
        }

        text.Append(CultureInfo.InvariantCulture, $"{Backend} {Precision}: {Cases} cases, {Failed} failed");
        if (Worst?.Worst is { } worst)
        {
            text.Append(CultureInfo.InvariantCulture, $"; worst {worst.Role} of {Worst.Case.Name}, error {worst.Worst.Error:g3} of bound {worst.Worst.Bound:g3}");
        }

        return text.ToString();
    }
}
