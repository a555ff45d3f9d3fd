using System.Text;

namespace HpcBatchNorm.Cli;

/// <summary>
/// What people read of a command. A terminal that was closed or a disk that is full under a log must not end the work that is being shown: a failed write is
/// remembered, and the next one is tried all the same. Whether it matters is said when the work is done.
/// </summary>
internal sealed class DisplayWriter(TextWriter inner) : TextWriter(inner.FormatProvider)
{
    /// <summary>What is written to.</summary>
    public TextWriter Inner => inner;

    /// <summary>Why the first failed write failed; null while all is well.</summary>
    public Exception? Failure { get; private set; }

    public override Encoding Encoding => inner.Encoding;

    /// <summary>The writer behind a display, or the writer itself.</summary>
    public static TextWriter Unwrap(TextWriter writer) => writer is DisplayWriter display ? display.Inner : writer;

    public override void Write(char value) => Try(value, inner.Write);

    public override void Write(string? value) => Try(value, inner.Write);

    public override void Write(char[] buffer, int index, int count) => Try(new string(buffer, index, count), inner.Write);

    public override void Write(ReadOnlySpan<char> buffer) => Try(buffer.ToString(), inner.Write);

    public override void WriteLine() => Try("", inner.WriteLine);

    public override void WriteLine(string? value) => Try(value, inner.WriteLine);

    public override void Flush() => Try(0, _ => inner.Flush());

    private void Try<T>(T value, Action<T> write)
    {
        try
        {
            write(value);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException or ObjectDisposedException)
        {
            Failure ??= error;
        }
    }
}
