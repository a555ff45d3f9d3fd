using System.Runtime.Intrinsics;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Data;

/// <summary>Random erasing (Zhong et al., 1708.04896), with the numbers of PyTorch's and timm's defaults and a constant grey.</summary>
internal static class RandomErasing
{
    private const double LeastArea = 0.02, MostArea = 1.0 / 3, LeastAspect = 0.3;
    private const int Attempts = 10;

    /// <summary>Makes a rectangle of a square image grey, with the given probability.</summary>
    /// <param name="pixels">Rows of pixels, 0 to 255.</param>
    /// <param name="size">Rows and columns.</param>
    /// <param name="probability">How likely it is done at all.</param>
    /// <param name="random">Where the draws come from.</param>
    public static void Apply(Span<Vector128<float>> pixels, int size, double probability, ref RandomSequence random)
    {
        if (random.NextDouble() >= probability)
        {
            return;
        }

        for (int attempt = 0; attempt < Attempts; attempt++)
        {
            double area = random.NextDouble(LeastArea, MostArea) * size * size, aspect = Math.Exp(random.NextDouble(Math.Log(LeastAspect), -Math.Log(LeastAspect)));
            int height = (int)Math.Round(Math.Sqrt(area * aspect)), width = (int)Math.Round(Math.Sqrt(area / aspect));
            if (height < size && width < size)
            {
                int top = (int)random.NextBelow((uint)(size - height + 1)), left = (int)random.NextBelow((uint)(size - width + 1));
                for (int y = top; y < top + height; y++)
                {
                    pixels.Slice(y * size + left, width).Fill(Vector128.Create(128f));
                }

                return;
            }
        }
    }
}
