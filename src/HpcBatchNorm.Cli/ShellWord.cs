namespace HpcBatchNorm.Cli;

/// <summary>Commands that are printed to be copied.</summary>
internal static class ShellWord
{
    /// <summary>The text as one word of a POSIX shell; most paths stay as they are.</summary>
    public static string Quote(string text) => text.Length > 0 && text.All(c => char.IsLetterOrDigit(c) || c is '/' or '.' or '_' or '-' or '+' or ':' or '=' or '@' or '%' or ',')
        ? text
        : "'" + text.Replace("'", "'\\''", StringComparison.Ordinal) + "'";
}
