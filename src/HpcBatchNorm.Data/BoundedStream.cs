namespace HpcBatchNorm.Data;

/// <summary>Reads compressed data, of which a few bytes can become any number, up to a bound.</summary>
internal static class BoundedStream
{
    /// <summary>All bytes of a stream, or null when there are more than <paramref name="most"/>; takes memory as they come.</summary>
    public static byte[]? ReadAll(Stream stream, long most)
    {
        byte[] bytes = new byte[Math.Min(most + 1, 1 << 16)];
        int length = 0;
        while (true)
        {
            int read = stream.Read(bytes, length, bytes.Length - length);
            length += read;
            if (length > most)
            {
                return null;
            }

            if (read == 0)
            {
                Array.Resize(ref bytes, length);
                return bytes;
            }

            if (length == bytes.Length)
            {
                Array.Resize(ref bytes, (int)Math.Min(Math.Min(2L * length, most + 1), Array.MaxLength));
            }
        }
    }
}
