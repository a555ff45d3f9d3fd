namespace HpcBatchNorm.Cli;

/// <summary>A plain table, readable on a terminal and by grep and awk alike: columns as wide as their widest cell, numbers to the right.</summary>
internal sealed class TextTable(params string[] head)
{
    private readonly List<string[]> _rows = [];

    public void Add(params string[] cells) => _rows.Add(cells);

    public void Write(TextWriter output)
    {
        int[] widths = [.. head.Select((h, i) => _rows.Select(r => r[i].Length).Append(h.Length).Max())];
        bool[] numeric = [.. head.Select((_, i) => _rows.Count > 0 && _rows.All(r => r[i].Length == 0 || (char.IsAsciiDigit(r[i][0]) && r[i].All(c => char.IsAsciiDigit(c) || c is '.' or ',' or '-'))))];
        foreach (string[] row in _rows.Prepend(head))
        {
            output.WriteLine(string.Join("  ", row.Select((cell, i) => numeric[i] ? cell.PadLeft(widths[i]) : cell.PadRight(widths[i]))).TrimEnd());
        }
    }
}
