namespace HpcBatchNorm.Tests.Fuzzing;

/// <summary>Images written by hand, in formats that no encoder here writes.</summary>
internal static class OddImages
{
    /// <summary>A GIF of 2 x 2 pixels, all red: a palette of two colours, and LZW codes clear, 0, 0 0, 0, end.</summary>
    public static byte[] Gif =>
    [
        .. "GIF89a"u8, 2, 0, 2, 0, 0x80, 0, 0, 255, 0, 0, 0, 0, 255, 0x2C, 0, 0, 0, 0, 2, 0, 2, 0, 0,
        2, 2, 0x84, 0x51, 0, 0x3B,
    ];

    /// <summary>A BMP of 2 x 2 pixels, all red, of three bytes each in rows of eight.</summary>
    public static byte[] Bmp =>
    [
        .. "BM"u8, 70, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 24, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 255, 0, 0, 255, 0, 0, 0, 0, 255, 0, 0, 255, 0, 0,
    ];
}
