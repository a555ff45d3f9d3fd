using System.Globalization;
using System.Text;

namespace HpcBatchNorm.Data;

/// <summary>
/// What a data set's layout holds and does not use, by reason: counted, and the first few named. Nothing is passed over without being told here.
/// </summary>
internal sealed class PassedOver
{
    /// <summary>Of many things with the same reason, so many are named.</summary>
    private const int MostNamed = 3;

    private const int LongestName = 100;

    private readonly Dictionary<string, (int Count, List<string> Names)> _reasons = new(StringComparer.Ordinal);

    /// <summary>How many things there are.</summary>
    public int Count { get; private set; }

    /// <summary>A line for each reason: <c>passed over links that lead to nothing in the archive (2): 'a/1.jpg', 'a/2.jpg'</c>.</summary>
    public string[] Lines => [.. _reasons.OrderBy(r => r.Key, StringComparer.Ordinal).Select(r => Line(r.Key, r.Value.Count, r.Value.Names))];

    /// <summary>Adds a thing.</summary>
    /// <param name="reason">What it is, in the plural, and why it is not used.</param>
    /// <param name="name">Its name.</param>
    public void Add(string reason, string name)
    {
        Count++;
        (int count, List<string> names) = _reasons.GetValueOrDefault(reason, (0, []));
        if (names.Count < MostNamed)
        {
            names.Add(Printable(name));
        }

        _reasons[reason] = (count + 1, names);
    }

    /// <inheritdoc cref="Add(string, string)"/>
    public void Add(string reason, ReadOnlySpan<byte> name) => Add(reason, ImageTable.Text(name));

    private static string Line(string reason, int count, List<string> names) =>
        string.Create(CultureInfo.InvariantCulture, $"passed over {reason} ({count}): '{string.Join("', '", names)}'{(count > names.Count ? ", ..." : "")}");

    private static string Printable(string name)
    {
        var text = new StringBuilder(name.Length);
        foreach (char c in name.Length > LongestName ? "..." + name[^LongestName..] : name)
        {
            text.Append(char.IsControl(c) ? '·' : c);
        }

        return text.ToString();
    }
}
