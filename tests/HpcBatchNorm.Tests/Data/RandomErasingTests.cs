using System.Runtime.Intrinsics;
using HpcBatchNorm.Data;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Data;

public sealed class RandomErasingTests
{
    private const int Size = 48;

    /// <summary>One rectangle of 2 to 33 % (a side is rounded by up to half a pixel), the rest as it was, as often as asked for: 500 draws within five deviations.</summary>
    [Theory]
    [InlineData(0.0)]
    [InlineData(0.25)]
    [InlineData(1.0)]
    public void Apply_ErasesOneRectangle(double probability)
    {
        int erased = 0;
        for (uint item = 0; item < 500; item++)
        {
            var pixels = new Vector128<float>[Size * Size];
            Array.Fill(pixels, Vector128.Create(7f));
            var random = new RandomSequence(1, RandomStreams.Erase, 0, item);
            RandomErasing.Apply(pixels, Size, probability, ref random);
            (int Y, int X)[] grey = [.. Enumerable.Range(0, Size * Size).Where(i => pixels[i] != Vector128.Create(7f)).Select(i => (i / Size, i % Size))];
            if (grey.Length > 0)
            {
                erased++;
                Assert.All(grey, g => Assert.Equal(Vector128.Create(128f), pixels[g.Y * Size + g.X]));
                int height = grey.Max(g => g.Y) - grey.Min(g => g.Y) + 1, width = grey.Max(g => g.X) - grey.Min(g => g.X) + 1;
                Assert.Equal(grey.Length, height * width);
                Assert.InRange((height - 0.5) * (width - 0.5), 0, Size * Size / 3.0);
                Assert.InRange((height + 0.5) * (width + 0.5), Size * Size * 0.02, double.MaxValue);
            }
        }

        Assert.Equal(500 * probability, erased, 5 * Math.Sqrt(500 * probability * (1 - probability)));
    }
}
