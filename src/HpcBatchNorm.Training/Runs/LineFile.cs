namespace HpcBatchNorm.Training;

/// <summary>Is given a line's bytes, without its end.</summary>
internal delegate void LineAction(ReadOnlySpan<byte> line);

/// <summary>Reads files of lines in pieces, so that memory does not depend on their length, nor on that of a line that is none.</summary>
internal static class LineFile
{
    private const int ChunkBytes = 1 << 16;

    /// <summary>A line of a hundred thousand numbers is shorter. Longer ones are passed over.</summary>
    private const int LongestLine = 4 << 20;

    /// <summary>Reads the lines from a place on.</summary>
    /// <param name="file">The file.</param>
    /// <param name="from">Where to begin.</param>
    /// <param name="line">Is given each line.</param>
    /// <param name="unfinished">Give also what follows the last line's end.</param>
    /// <returns>Where the last whole line ended.</returns>
    public static long Read(Stream file, long from, LineAction line, bool unfinished = false)
    {
        file.Position = from;
        byte[] buffer = new byte[ChunkBytes];
        int filled = 0;
        bool skipping = false;
        for (int read; (read = file.Read(buffer, filled, buffer.Length - filled)) > 0;)
        {
            filled += read;
            int start = 0;
            for (int end; (end = buffer.AsSpan(start, filled - start).IndexOf((byte)'\n')) >= 0; start += end + 1, from += end + 1)
            {
                if (!skipping)
                {
                    line(buffer.AsSpan(start, end));
                }

                skipping = false;
            }

            buffer.AsSpan(start, filled - start).CopyTo(buffer);
            filled -= start;
            if (filled == buffer.Length && buffer.Length < LongestLine)
            {
                Array.Resize(ref buffer, 2 * buffer.Length);
            }
            else if (filled == buffer.Length)
            {
                (skipping, from, filled) = (true, from + filled, 0);
            }
        }

        if (unfinished && filled > 0 && !skipping)
        {
            line(buffer.AsSpan(0, filled));
        }

        return from;
    }
}
