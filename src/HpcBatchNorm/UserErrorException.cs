using System.Text;

namespace HpcBatchNorm;

/// <summary>
/// Something the user can put right: a path, a file, a setting. The message is one line that names the thing, what was expected, what was found
/// and the fix; the command prints it without a stack trace and exits with 1. Control characters, which a damaged file may put into a message and a
/// terminal would obey, are shown as dots or spaces, and what is too long for a line is cut.
/// </summary>
public class UserErrorException : Exception
{
    private const int LongestMessage = 4000, LongestExcerpt = 120;

    /// <summary>Creates the error with its line.</summary>
    public UserErrorException(string message)
        : base(Printable(message, LongestMessage, keepLines: true))
    {
    }

    /// <summary>Creates the error with its line and what caused it. Whose words may have quoted a file, line ends and all: they are made spaces.</summary>
    public UserErrorException(string message, Exception innerException)
        : base(Printable(message, LongestMessage, keepLines: false), innerException)
    {
    }

    /// <summary>Creates an error without a message; exists because every exception has this constructor.</summary>
    public UserErrorException()
    {
    }

    /// <summary>What a file says, as a message may quote it: one line, no longer than a line.</summary>
    internal static string Excerpt(string text) => Printable(text, LongestExcerpt, keepLines: false);

    /// <param name="text">The text.</param>
    /// <param name="longest">Characters that are kept.</param>
    /// <param name="keepLines">Keep line ends, which a few messages have on purpose.</param>
    private static string Printable(string text, int longest, bool keepLines)
    {
        bool IsKept(char c) => !char.IsControl(c) || (keepLines && c == '\n');
        if (text.Length <= longest && text.All(IsKept))
        {
            return text;
        }

        var line = new StringBuilder(Math.Min(text.Length, longest) + 3);
        foreach (char c in text.AsSpan(0, Math.Min(text.Length, longest)))
        {
            line.Append(IsKept(c) ? c : c is '\n' or '\r' or '\t' ? ' ' : '·');
        }

        return line.Append(text.Length > longest ? "..." : "").ToString();
    }
}
