using System.Globalization;
using System.Text.RegularExpressions;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>One line of a shape file: a convolution or a batch normalization.</summary>
/// <param name="Name">The quoted name without its count, or the line's own text when it has none.</param>
/// <param name="Count">How often the shape occurs in its network, from <c>*N</c>; 1 when not said.</param>
/// <param name="Convolution">The convolution, or null.</param>
/// <param name="BatchNorm">The batch normalization, or null.</param>
internal sealed record ShapeProblem(string Name, int Count, ConvolutionSpec? Convolution, BatchNormSpec? BatchNorm);

/// <summary>
/// Reads benchdnn problem lines, so that oneDNN's published shape lists work as they are. A line is a run of fields, each letters and a number, in any
/// order, with or without underscores between them, ending in an optional name: <c>mb32ic64ih56oc192oh56kh3ph1n"conv2/3x3"</c> is a convolution,
/// <c>mb32_ic64_ih56_n"conv2/bn*2"</c> a batch normalization.
/// </summary>
/// <remarks>
/// Convolution: <c>g</c> groups (1), <c>mb</c> images (2), <c>ic oc</c> channels in all groups together, <c>ih iw</c> image, <c>oh ow</c> output
/// (follows from the rest), <c>kh kw</c> kernel, <c>sh sw</c> stride (1), <c>ph pw</c> padding before (0; from the output when that is given),
/// <c>dh dw</c> dilation, 0 meaning none (0). Padding after follows from the output. Batch normalization: <c>mb ic ih iw eps</c>. Widths default to heights.
/// Text after <c>#</c> is a comment. A line is a convolution when it names <c>oc</c> or <c>kh</c>.
/// </remarks>
internal static partial class ShapeFile
{
    private const int DefaultBatch = 2;

    private static readonly string[] ConvolutionFields = ["g", "mb", "ic", "ih", "iw", "oc", "oh", "ow", "kh", "kw", "sh", "sw", "ph", "pw", "dh", "dw"];
    private static readonly string[] BatchNormFields = ["mb", "ic", "ih", "iw", "eps"];

    /// <summary>Reads a file.</summary>
    /// <param name="path">The file.</param>
    /// <param name="batch">Images per problem instead of each line's <c>mb</c>; 0 keeps those.</param>
    /// <param name="note">Told how many lines are left out; may be null.</param>
    /// <exception cref="UserErrorException">The file cannot be read or a line is wrong; the message names file, line and what is wrong.</exception>
    public static IReadOnlyList<ShapeProblem> Read(string path, int batch = 0, Action<string>? note = null)
    {
        string[] lines;
        try
        {
            lines = [.. TextFile.ReadLines(path)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"{path}: the shape file cannot be read: {e.Message}", e);
        }

        return Parse(lines, path, batch, note);
    }

    /// <summary>Reads lines; <paramref name="source"/> is what error messages call them. Problems with three dimensions, or one, are left out and counted.</summary>
    /// <exception cref="UserErrorException">A line is wrong, or there is no problem at all.</exception>
    public static IReadOnlyList<ShapeProblem> Parse(IEnumerable<string> lines, string source, int batch = 0, Action<string>? note = null)
    {
        List<ShapeProblem> problems = [];
        List<int> others = [];
        int number = 0;
        foreach (string line in lines)
        {
            number++;
            string text = CommentPattern().Replace(line, "$1").Trim();
            if (text.Length == 0)
            {
                continue;
            }

            try
            {
                if (ParseLine(text, batch) is { } problem)
                {
                    problems.Add(problem);
                }
                else
                {
                    others.Add(number);
                }
            }
            catch (Exception e) when (e is ArgumentException or FormatException or OverflowException)
            {
                throw new UserErrorException($"{source}:{number}: {e.Message}", e);
            }
        }

        string leftOut = others.Count == 0 ? "" : FormattableString.Invariant(
            $"{others.Count} problems are not of images (ih, iw) but have one or three dimensions, and are left out; the first is line {others[0]}.");
        if (problems.Count == 0)
        {
            throw new UserErrorException($"{source}: no problem line; expected lines like mb32ic64ih56oc192oh56kh3ph1n\"name\".{(leftOut.Length > 0 ? " " : "")}{leftOut}");
        }

        if (leftOut.Length > 0)
        {
            note?.Invoke($"{source}: {leftOut}");
        }

        return problems;
    }

    /// <summary>Null for a problem that is not of images.</summary>
    private static ShapeProblem? ParseLine(string text, int batch)
    {
        if (text.StartsWith("--", StringComparison.Ordinal))
        {
            throw new FormatException($"'{UserErrorException.Excerpt(text)}' is a benchdnn option; only problem lines are read. Remove it.");
        }

        (string fields, string name, int count) = SplitName(text);
        Dictionary<string, string> values = ParseFields(fields);
        bool convolution = values.ContainsKey("oc") || values.ContainsKey("kh");
        string[] known = convolution ? ConvolutionFields : BatchNormFields;
        string kind = convolution ? "convolution" : "batch normalization";
        if (values.Keys.Any(f => f is "id" or "od" or "kd" or "sd" or "pd" or "dd") || (values.ContainsKey("iw") && !values.ContainsKey("ih")))
        {
            return null;
        }

        foreach (string field in values.Keys)
        {
            if (!known.Contains(field))
            {
                throw new FormatException($"'{field}' is not a field of a {kind}; it has {string.Join(" ", known)}.");
            }
        }

        Fields f = new(values, kind);
        Shape src = new(batch > 0 ? batch : f.Get("mb", DefaultBatch), f.Required("ic"), f.Required("ih"), f.Get("iw", f.Required("ih")));
        if (convolution)
        {
            ConvolutionSpec spec = Convolution(f, src);
            spec.Validate(name);
            return new ShapeProblem(name, count, spec, null);
        }

        BatchNormSpec batchNorm = new(src);
        if (values.TryGetValue("eps", out string? epsilon))
        {
            batchNorm = batchNorm with { Epsilon = float.Parse(epsilon, CultureInfo.InvariantCulture) };
        }

        batchNorm.ValidateForTraining(name);
        return new ShapeProblem(name, count, null, batchNorm);
    }

    private static ConvolutionSpec Convolution(Fields f, Shape src)
    {
        int kh = f.Required("kh"), sh = f.Get("sh", 1), dh = f.Get("dh", 0);
        (int padTop, int padBottom) = Padding("h", src.H, f.Get("oh", 0), kh, sh, dh, f.Get("ph", -1));
        int kw = f.Get("kw", kh), sw = f.Get("sw", sh), dw = f.Get("dw", dh);

        // A width that is not given is the height's, output and padding included; but once the image or kernel width is, oh says nothing about ow.
        bool square = src.W == src.H && kw == kh && sw == sh && dw == dh;
        (int padLeft, int padRight) = Padding("w", src.W, f.Get("ow", square ? f.Get("oh", 0) : 0), kw, sw, dw, f.Get("pw", f.Get("ph", square ? padTop : -1)));
        return new ConvolutionSpec(src, f.Required("oc"), kh, kw, sh, sw, padTop, padLeft, padBottom, padRight, checked(dh + 1), checked(dw + 1), f.Get("g", 1));
    }

    /// <summary>Padding before and after one axis; -1 and 0 mean that padding and output were not given.</summary>
    private static (int Before, int After) Padding(string axis, int extent, int output, int kernel, int stride, int dilation, int before)
    {
        if (stride < 1 || kernel < 1)
        {
            throw new FormatException($"s{axis}{stride} k{axis}{kernel}: kernel and stride must be at least 1.");
        }

        if (output <= 0)
        {
            return (Math.Max(before, 0), Math.Max(before, 0));
        }

        int total = checked((output - 1) * stride + (kernel - 1) * (dilation + 1) + 1 - extent);
        if (before < 0)
        {
            before = Math.Max(0, total / 2);
        }

        // A negative remainder means that the last rows are not read at all, which needs no padding as long as they are fewer than a stride.
        int after = Math.Max(0, total - before);
        int actual = Window.Outputs(extent, kernel, stride, before, after, dilation + 1);
        return actual == output
            ? (before, after)
            : throw new FormatException($"o{axis}{output} does not fit: i{axis}{extent} k{axis}{kernel} s{axis}{stride} p{axis}{before} d{axis}{dilation} give {actual}.");
    }

    private static (string Fields, string Name, int Count) SplitName(string text)
    {
        Match match = NamePattern().Match(text);
        if (!match.Success)
        {
            return text.Contains('"', StringComparison.Ordinal)
                ? throw new FormatException($"the name in '{UserErrorException.Excerpt(text)}' must end the line as n\"name\" or n\"name*count\".")
                : (text, text, 1);
        }

        string counted = match.Groups["inner"].Success ? match.Groups["inner"].Value : match.Groups["outer"].Value;
        int count = counted.Length == 0 ? 1 : int.Parse(counted, CultureInfo.InvariantCulture);
        return count > 0 ? (match.Groups["fields"].Value, match.Groups["name"].Value, count) : throw new FormatException("a count *N must be at least 1.");
    }

    private static Dictionary<string, string> ParseFields(string text)
    {
        Dictionary<string, string> values = [];
        int position = 0;
        foreach (Match match in FieldPattern().Matches(text))
        {
            if (match.Index != position)
            {
                break;
            }

            if (!values.TryAdd(match.Groups["key"].Value, match.Groups["value"].Value))
            {
                throw new FormatException($"'{match.Groups["key"].Value}' is given twice.");
            }

            position += match.Length;
        }

        return text.AsSpan(position).Trim('_').IsEmpty
            ? values
            : throw new FormatException($"cannot read '{UserErrorException.Excerpt(text[position..])}' at column {position + 1}; expected a field and a number, such as ic64.");
    }

    private readonly record struct Fields(Dictionary<string, string> Values, string Kind)
    {
        public int Get(string field, int otherwise) => !Values.TryGetValue(field, out string? text) ? otherwise
            : int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int value) ? value
            : throw new FormatException($"'{field}{text}': {field} must be a whole number.");

        public int Required(string field) =>
            Values.ContainsKey(field) ? Get(field, 0) : throw new FormatException($"the {Kind} lacks '{field}'.");
    }

    [GeneratedRegex("^((?:[^#\"]|\"[^\"]*(?:\"|$))*)#.*$")]
    private static partial Regex CommentPattern();

    [GeneratedRegex("^(?<fields>[^\"]*?)_?n\"(?<name>[^\"]*?)(?:\\*(?<inner>[0-9]{1,6}))?\"(?:\\*(?<outer>[0-9]{1,6}))?$")]
    private static partial Regex NamePattern();

    [GeneratedRegex("_*(?:(?<key>eps)(?<value>[0-9.]+(?:e-?[0-9]+)?)|(?<key>[a-z]+)(?<value>[0-9]+))")]
    private static partial Regex FieldPattern();
}
