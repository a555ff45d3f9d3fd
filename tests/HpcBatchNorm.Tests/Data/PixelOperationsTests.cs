using HpcBatchNorm.Data;

namespace HpcBatchNorm.Tests.Data;

/// <summary>Every operation of automatic augmentation on pixels worked out by hand from Pillow's definitions, and on larger images against Pillow itself.</summary>
public sealed class PixelOperationsTests
{
    private const byte Fill = 9;

    /// <summary>Half a pixel to the right lies between two pixels; what comes from outside is filled.</summary>
    [Fact]
    public void Affine_ByHalfAPixel_AveragesNeighbours()
    {
        byte[] result = new byte[27];
        PixelOperations.Affine(Grey(10, 20, 41, 0, 0, 0, 255, 255, 255), result, 3, [1, 0, 0.5, 0, 1, 0], Fill);
        Assert.Equal(Grey(15, 30, Fill, 0, 0, Fill, 255, 255, Fill), result); // 30.5 loses its half
    }

    /// <summary>A shear of 1: the middle of row y is taken y + 1/2 pixels further right.</summary>
    [Fact]
    public void Affine_Shear_MovesRowsApart()
    {
        byte[] result = new byte[27];
        PixelOperations.Affine(Grey(10, 20, 40, 10, 20, 40, 10, 20, 40), result, 3, [1, 1, 0, 0, 1, 0], Fill);
        Assert.Equal(Grey(15, 30, Fill, 30, Fill, Fill, Fill, Fill, Fill), result);
    }

    /// <summary>Counter-clockwise: the right column becomes the upper row. Half a turn reverses all.</summary>
    [Theory]
    [InlineData(90, 3, 6, 9, 2, 5, 8, 1, 4, 7)]
    [InlineData(180, 9, 8, 7, 6, 5, 4, 3, 2, 1)]
    [InlineData(-90, 7, 4, 1, 8, 5, 2, 9, 6, 3)]
    public void Rotate_ByQuarters_IsExact(double degrees, params int[] expected)
    {
        byte[] result = new byte[27];
        PixelOperations.Rotate(Grey(1, 2, 3, 4, 5, 6, 7, 8, 9), result, 3, degrees, Fill);
        Assert.Equal(Grey([.. expected.Select(v => (byte)v)]), result);
    }

    [Fact]
    public void Brightness_IsAFactorCutOff()
    {
        byte[] pixels = [10, 100, 255, 0, 171, 170];
        PixelOperations.Brightness(pixels, 1.5f);
        Assert.Equal([15, 150, 255, 0, 255, 255], pixels); // 256.5 and 255
        PixelOperations.Brightness(pixels, 0.25f);
        Assert.Equal([3, 37, 63, 0, 63, 63], pixels); // 3.75, 37.5, 63.75
    }

    /// <summary>Grey of red 200 is 59.8, of 61 is 61: 60 and 61, whose mean 60.5 rounds up.</summary>
    [Fact]
    public void Contrast_IsAboutTheMeanGrey()
    {
        byte[] pixels = [200, 0, 0, 61, 61, 61];
        PixelOperations.Contrast(pixels, 0.5f);
        Assert.Equal([130, 30, 30, 61, 61, 61], pixels); // 61 + (200 - 61) / 2 = 130.5, 61 - 61 / 2 = 30.5
    }

    /// <summary>Luma of (100, 50, 20): 29.9 + 29.35 + 2.28 = 61.53, which is 62.</summary>
    [Theory]
    [InlineData(0.5f, 81, 56, 41)]
    [InlineData(0f, 62, 62, 62)]
    [InlineData(2f, 138, 38, 0)]
    public void Color_IsAboutTheLuma(float factor, int red, int green, int blue)
    {
        byte[] pixels = [100, 50, 20];
        PixelOperations.Color(pixels, factor);
        Assert.Equal([(byte)red, (byte)green, (byte)blue], pixels);
    }

    /// <summary>The middle's smooth value is (5 * 130 + 8 * 65) / 13 = 90; the border has no neighbours and stays.</summary>
    [Theory]
    [InlineData(0f, 90)]
    [InlineData(0.5f, 110)]
    [InlineData(2f, 170)]
    public void Sharpness_IsAboutTheSmoothImage(float factor, int middle)
    {
        byte[] result = new byte[27];
        PixelOperations.Sharpness(Grey(65, 65, 65, 65, 130, 65, 65, 65, 65), result, 3, factor);
        Assert.Equal(Grey(65, 65, 65, 65, (byte)middle, 65, 65, 65, 65), result);
    }

    [Theory]
    [InlineData(8, 0b1111_1111, 0b1010_1011)]
    [InlineData(3, 0b1110_0000, 0b1010_0000)]
    [InlineData(0, 0, 0)]
    public void Posterize_KeepsTheUpperBits(int bits, int first, int second)
    {
        byte[] pixels = [0b1111_1111, 0b1010_1011];
        PixelOperations.Posterize(pixels, bits);
        Assert.Equal([(byte)first, (byte)second], pixels);
    }

    [Fact]
    public void Solarize_InvertsFromTheThresholdOn()
    {
        byte[] pixels = [0, 127, 128, 255];
        PixelOperations.Solarize(pixels, 127.5);
        Assert.Equal([0, 127, 127, 0], pixels);
        PixelOperations.Solarize(pixels, 256);
        Assert.Equal([0, 127, 127, 0], pixels);
        PixelOperations.Solarize(pixels, 127);
        Assert.Equal([0, 128, 128, 0], pixels);
    }

    [Fact]
    public void SolarizeAdd_RaisesTheDarkHalf()
    {
        byte[] pixels = [0, 127, 128, 255];
        PixelOperations.SolarizeAdd(pixels, 110);
        Assert.Equal([110, 237, 128, 255], pixels);
        PixelOperations.SolarizeAdd(pixels, 200);
        Assert.Equal([255, 237, 128, 255], pixels);
    }

    [Fact]
    public void Invert_IsTheRestTo255()
    {
        byte[] pixels = [0, 100, 255];
        PixelOperations.Invert(pixels);
        Assert.Equal([255, 155, 0], pixels);
    }

    /// <summary>Red from 50..152 to 0..255 (a factor of 2.5), green all one value, blue full already.</summary>
    [Fact]
    public void AutoContrast_StretchesEachChannel()
    {
        byte[] pixels = [50, 7, 0, 152, 7, 255, 53, 7, 100];
        PixelOperations.AutoContrast(pixels);
        Assert.Equal([0, 7, 0, 255, 7, 255, 7, 7, 100], pixels); // (53 - 50) * 2.5 = 7.5
    }

    /// <summary>
    /// Red: 255 pixels each of 10, 20 and 30, so a step is (765 - 255) / 255 = 2: 10 becomes 1 / 2, 20 becomes 256 / 2, and 30 becomes 511 / 2, each without its
    /// fraction. Green is one value. Blue has 254 pixels besides its largest value, a step of 0, and stays.
    /// </summary>
    [Fact]
    public void Equalize_MakesRanksOfValues()
    {
        byte[] pixels = new byte[3 * 765], expected = new byte[3 * 765];
        for (int i = 0; i < 765; i++)
        {
            int third = i / 255;
            (pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]) = ((byte)(10 + 10 * third), 77, (byte)(i < 254 ? 3 : 200));
            (expected[3 * i], expected[3 * i + 1], expected[3 * i + 2]) = ((byte)(third == 0 ? 0 : third == 1 ? 128 : 255), 77, (byte)(i < 254 ? 3 : 200));
        }

        PixelOperations.Equalize(pixels);
        Assert.Equal(expected, pixels);
    }

    private static byte[] Grey(params byte[] values) => [.. values.SelectMany(v => new[] { v, v, v })];
}
