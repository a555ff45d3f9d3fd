namespace HpcBatchNorm.Data;

/// <summary>
/// Counts the scans of a JPEG without decoding it. The decoder goes over the coefficients of all pixels for each scan, of which a scan of a few bytes can
/// have as many as it likes: a small file would take a quarter of a minute.
/// </summary>
internal static class JpegScans
{
    /// <summary>More than any encoder writes: libjpeg's own script for colours has 10, the longest in use a few dozen.</summary>
    public const int Most = 100;

    private const byte Marker = 0xFF, StartOfImage = 0xD8, EndOfImage = 0xD9, StartOfScan = 0xDA, Temporary = 0x01, FirstRestart = 0xD0, LastRestart = 0xD7;
    private const byte FirstFrame = 0xC0, LastFrame = 0xCF, HuffmanTables = 0xC4, Extension = 0xC8, ArithmeticTables = 0xCC, SequentialFrame = 0xC1;

    /// <summary>True when a JPEG has more scans than <see cref="Most"/>. Reads each byte at most once, and of an ordinary file only the headers.</summary>
    public static bool AreTooMany(ReadOnlySpan<byte> file)
    {
        int scans = 0, components = 0;
        bool sequential = false;
        if (!file.StartsWith((ReadOnlySpan<byte>)[Marker, StartOfImage]))
        {
            return false;
        }

        for (int at = 2; ;)
        {
            // To the next marker: behind a header that is where it ends, behind a scan anywhere.
            int found = at < file.Length ? file[at..].IndexOf(Marker) : -1;
            if (found < 0 || at + found + 1 >= file.Length)
            {
                return false;
            }

            at += found + 1;
            byte marker = file[at];
            if (marker is Marker)
            {
                continue;
            }

            at++;
            if (marker is 0 or Temporary or (>= FirstRestart and <= LastRestart) or StartOfImage)
            {
                continue;
            }

            if (marker == EndOfImage || at + 2 > file.Length)
            {
                return false;
            }

            int length = (file[at] << 8) + file[at + 1];
            if (marker is >= FirstFrame and <= LastFrame and not (HuffmanTables or Extension or ArithmeticTables) && length >= 8 && at + 7 < file.Length)
            {
                (sequential, components) = (marker <= SequentialFrame, file[at + 7]);
            }
            else if (marker == StartOfScan)
            {
                // A scan of all components is the whole of a sequential image; the decoder reads no further either.
                if ((sequential && at + 2 < file.Length && file[at + 2] == components) || ++scans > Most)
                {
                    return scans > Most;
                }
            }

            at += Math.Max(2, length);
        }
    }
}
