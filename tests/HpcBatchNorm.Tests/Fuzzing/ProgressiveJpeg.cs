namespace HpcBatchNorm.Tests.Fuzzing;

/// <summary>Progressive JPEGs written by hand, of as many scans as wanted: no encoder here writes them.</summary>
internal static class ProgressiveJpeg
{
    /// <summary>
    /// A grey image, all of value 128: a scan of the DC coefficients, all zero, and then, again and again, one of the AC coefficients 1 to 63 that says in a
    /// few bytes that all are zero.
    /// </summary>
    /// <param name="width">A multiple of 8.</param>
    /// <param name="height">A multiple of 8.</param>
    /// <param name="scans">Scans in all, at least 1.</param>
    public static byte[] Grey(int width, int height, int scans)
    {
        var bytes = new List<byte> { 0xFF, 0xD8 };
        void Segment(byte marker, params byte[] body) => bytes.AddRange([0xFF, marker, (byte)((body.Length + 2) >> 8), (byte)(body.Length + 2), .. body]);

        Segment(0xDB, [0, .. Enumerable.Repeat((byte)8, 64)]);
        Segment(0xC2, 8, (byte)(height >> 8), (byte)height, (byte)(width >> 8), (byte)width, 1, 1, 0x11, 0);
        // DC: category 0 as the one code of one bit. AC: runs of 2^14 + bits blocks at their end (EOB14) likewise.
        Segment(0xC4, [0x00, 1, .. new byte[15], 0]);
        Segment(0xC4, [0x10, 1, .. new byte[15], 0xE0]);
        int blocks = width / 8 * (height / 8);
        Segment(0xDA, 1, 1, 0x00, 0, 0, 0x00);
        // A zero bit for each block; the last byte is filled with ones.
        bytes.AddRange(new byte[blocks / 8]);
        if (blocks % 8 > 0)
        {
            bytes.Add((byte)(0xFF >> blocks % 8));
        }

        for (int scan = 1; scan < scans; scan++)
        {
            Segment(0xDA, 1, 1, 0x00, 1, 63, 0x00);
            string bits = "";
            for (int left = blocks; left > 0;)
            {
                // EOB14 is code 0 and 14 bits more: between 16,384 and 32,767 blocks, of which those beyond the last do not exist.
                int run = Math.Clamp(left, 1 << 14, (1 << 15) - 1);
                bits += "0" + Convert.ToString(run - (1 << 14), 2).PadLeft(14, '0');
                left -= run;
            }

            bits = bits.PadRight((bits.Length + 7) / 8 * 8, '1');
            for (int i = 0; i < bits.Length; i += 8)
            {
                byte value = Convert.ToByte(bits.Substring(i, 8), 2);
                bytes.AddRange(value == 0xFF ? [0xFF, 0] : [value]);
            }
        }

        bytes.AddRange([0xFF, 0xD9]);
        return [.. bytes];
    }
}
