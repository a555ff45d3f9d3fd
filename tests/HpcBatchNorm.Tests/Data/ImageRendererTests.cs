using HpcBatchNorm.Data;

namespace HpcBatchNorm.Tests.Data;

/// <summary>Every distortion is a function of the seed, the epoch and the position in it, and of nothing else.</summary>
public sealed class ImageRendererTests
{
    private static readonly AugmentationOptions Still = AugmentationOptions.None;

    // Each distortion alone, so that none can hide behind another.
    private static readonly Dictionary<string, AugmentationOptions> Options = new()
    {
        ["crop"] = Still with { MinArea = 0.08 },
        ["mirror"] = Still with { Mirror = true },
        ["photometric"] = Still with { PhotometricStrength = 1 },
        ["lighting"] = Still with { PhotometricStrength = 1, LightingNoise = true },
        ["erasing"] = Still with { ErasingProbability = 1 },
        ["automatic"] = Still with { Policy = AutomaticPolicy.Trivial },
    };

    public static TheoryData<string> Distortions { get; } = [.. Options.Keys];

    [Theory]
    [MemberData(nameof(Distortions))]
    public void Render_AnotherSeedEpochOrPosition_DrawsAnew_AndTheSameOnesDrawTheSame(string name)
    {
        byte[] pixels = new byte[24 * 24 * 3];
        for (int i = 0; i < pixels.Length; i++)
        {
            pixels[i] = (byte)(i * 7 % 251);
        }

        var source = new InMemoryImageSource(pixels, 24, 24, channels: 3, [0], ["one"]);
        // Some draws leave an image as it is, so eight of each are one picture.
        string Eight(ulong seed, uint epoch, uint position)
        {
            using var renderer = new ImageRenderer(source, LoaderOptions.ForTraining(1, 16, seed) with { Augmentation = Options[name] }, new StageClock());
            byte[] rendered = new byte[8 * 16 * 16 * 3];
            for (int i = 0; i < 8; i++)
            {
                Assert.Equal(ImageStatus.Ok, renderer.Render(0, epoch, position + (uint)i, rendered.AsSpan(i * 16 * 16 * 3, 16 * 16 * 3)));
            }

            return Convert.ToHexString(rendered);
        }

        string first = Eight(1, 0, 0);
        Assert.Equal(first, Eight(1, 0, 0));
        Assert.NotEqual(first, Eight(2, 0, 0));
        Assert.NotEqual(first, Eight(1, 1, 0));
        Assert.NotEqual(first, Eight(1, 0, 100));
    }
}
