using System.IO.Hashing;
using HpcBatchNorm.Data;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

/// <summary>Whoever keeps the images, they are loaded in the same way.</summary>
public sealed class ImageSourceTests(SampleFixture sample) : IClassFixture<SampleFixture>
{
    private const int Side = 32, Pixels = Side * Side;
    private static readonly string[] Classes = ["even", "odd"];

    private static readonly LoaderOptions Training = LoaderOptions.ForTraining(batchSize: 5, imageSize: 24, seed: 3) with
    {
        Augmentation = new AugmentationOptions { PhotometricStrength = 0.7, LightingNoise = true },
    };

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>Every shuffle mode there is, in training and in evaluation with one and ten views.</summary>
    public static TheoryData<LoaderOptions> Loadings { get; } =
    [
        .. Enum.GetValues<ShuffleMode>().Select(mode => Training with { Shuffle = mode, ShardSize = 9 }),
        LoaderOptions.ForEvaluation(5, 24),
        LoaderOptions.ForEvaluation(5, 24) with { Crops = 10 },
        LoaderOptions.ForEvaluation(5, 24) with { Channels = 1, Binarize = true },
    ];

    [Theory]
    [MemberData(nameof(Loadings))]
    public void EncodedInMemory_GivesTheBatchesOfTheFilesTheyCameFrom(LoaderOptions options)
    {
        ReadOnlyMemory<byte>[] files = [.. Enumerable.Range(0, sample.Train.Count).Select(ReadFile)];
        var memory = new InMemoryImageSource(files, [.. Enumerable.Range(0, files.Length).Select(sample.Train.Label)], sample.Train.ClassNames);
        Assert.Equal(Hashes(sample.Train, options, 0, 40), Hashes(memory, options, 0, 40));

        ReadOnlyMemory<byte> ReadFile(int index)
        {
            byte[] buffer = [];
            StoredImage image = sample.Train.Read(index, ref buffer);
            Assert.Equal(ImageEncoding.File, image.Encoding);
            return buffer.AsMemory(0, image.Length);
        }
    }

    [Theory]
    [MemberData(nameof(Loadings))]
    public void ColourPixels_GiveTheBatchesOfThePngsOfThem(LoaderOptions options)
    {
        byte[] pixels = ColourPixels(23);
        ReadOnlyMemory<byte>[] files = [.. Enumerable.Range(0, 23).Select(i => (ReadOnlyMemory<byte>)TestImages.Encode(
            Side, Side, (x, y) => Colour(pixels.AsSpan(3 * (i * Pixels + y * Side + x))), SKEncodedImageFormat.Png))];
        string[] expected = Hashes(new InMemoryImageSource(files, Labels(23), Classes), options, 0, 20);
        Assert.Equal(expected, Hashes(new InMemoryImageSource(pixels, Side, Side, 3, Labels(23), Classes), options, 0, 20));
        Assert.Equal(expected, Hashes(new InMemoryImageSource(Planes(pixels), Side, Side, 3, Labels(23), Classes, PixelOrder.Planar), options, 0, 20));
    }

    [Fact]
    public void ColourPixels_AtTheirOwnSize_AreHandedOnUnchanged()
    {
        byte[] pixels = ColourPixels(5);
        using var loader = new BatchLoader(new InMemoryImageSource(pixels, Side, Side, 3, Labels(5), Classes), LoaderOptions.ForEvaluation(5, Side) with { CropFraction = 1 });
        Batch batch = loader.Next(Token);
        Assert.Equal(pixels, batch.PixelArray);
        Assert.Equal(Labels(5), batch.LabelArray);
    }

    [Fact]
    public void GreyPixels_OfAnotherShape_AreReadAsTheGreyColourPixelsOfThem()
    {
        const int Width = 20, Height = 13;
        byte[] grey = new byte[4 * Width * Height];
        new Random(2).NextBytes(grey);
        byte[] colour = [.. grey.SelectMany(v => new[] { v, v, v })];
        LoaderOptions options = LoaderOptions.ForEvaluation(2, 12) with { CropFraction = 1, Shuffle = ShuffleMode.Global };
        Assert.Equal(
            Hashes(new InMemoryImageSource(colour, Width, Height, 3, Labels(4), Classes), options, 0, 10),
            Hashes(new InMemoryImageSource(grey, Width, Height, 1, Labels(4), Classes), options, 0, 10));
    }

    [Fact]
    public void OwnSource_IsLoadedTheSameByAnyNumberOfWorkersAndFromAnyStep()
    {
        string[] one = Hashes(new Stripes(), Training, 0, 60), four = Hashes(new Stripes(), Training with { Workers = 4, Prefetch = 5 }, 17, 43);
        Assert.Equal(one[17..], four);
        Assert.Equal(60, one.Distinct().Count());
    }

    [Fact]
    public void OwnSource_ThatFails_FailsTheBatchWithItsOwnException()
    {
        using var loader = new BatchLoader(new Stripes { FailAt = 3 }, LoaderOptions.ForEvaluation(2, 8));
        loader.Next(Token);
        Assert.Equal("the image is elsewhere", Assert.Throws<InvalidOperationException>(() => loader.Next(Token)).Message);
    }

    [Fact]
    public void Pixels_FewerThanTheSourceSays_AreAnError()
    {
        using var loader = new BatchLoader(new Stripes { TooShort = true }, LoaderOptions.ForEvaluation(2, 8));
        Assert.Contains("90 bytes (Rgb, 6x5 pixels) into a buffer of 89", Assert.Throws<ArgumentException>(() => loader.Next(Token)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void InMemory_WhatDoesNotFit_IsRefusedWithTheNumbers()
    {
        Assert.Contains("2 images of 4x3 pixels of 3 bytes need 72 bytes, but 71 were given", Refusal(() => new(new byte[71], 4, 3, 3, Labels(2), Classes)), StringComparison.Ordinal);
        Assert.Contains("not 4", Refusal(() => new(new byte[96], 4, 3, 4, Labels(2), Classes)), StringComparison.Ordinal);
        Assert.Contains("Image 1 has label 2", Refusal(() => new(new byte[72], 4, 3, 3, [0, 2], Classes)), StringComparison.Ordinal);
        Assert.Contains("There are no images", Refusal(() => new(Array.Empty<byte>(), 4, 3, 3, [], Classes)), StringComparison.Ordinal);
        Assert.Contains("1 images but 2 labels", Refusal(() => new([new byte[1]], Labels(2), Classes)), StringComparison.Ordinal);
        Assert.Contains("3 names of 2 images", Refusal(() => new(new byte[72], 4, 3, 3, Labels(2), Classes) { Names = ["a", "b", "c"] }), StringComparison.Ordinal);

        static string Refusal(Func<InMemoryImageSource> create) => Assert.Throws<ArgumentException>(() => create()).Message;
    }

    [Fact]
    public void InMemory_SaysWhatItHolds()
    {
        var source = new InMemoryImageSource(new byte[72], 4, 3, 3, Labels(2), Classes) { Names = ["a", "b"], ClassDescriptions = ["0, 2", "1, 3"], Source = "two" };
        Assert.Equal(("two", "4x3 RGB pixels in memory", 2, "b", 1), (source.Source, source.Layout, source.Count, source.Name(1), source.Label(1)));
        Assert.Equal(["0, 2", "1, 3"], source.ClassDescriptions);
    }

    internal static byte[] ColourPixels(int images)
    {
        byte[] pixels = new byte[images * Pixels * 3];
        new Random(1).NextBytes(pixels);
        return pixels;
    }

    internal static int[] Labels(int images) => [.. Enumerable.Range(0, images).Select(i => i % 2)];

    private static byte[] Planes(byte[] pixels)
    {
        byte[] planes = new byte[pixels.Length];
        for (int i = 0; i < pixels.Length; i++)
        {
            int image = i / (3 * Pixels), within = i % (3 * Pixels);
            planes[image * 3 * Pixels + within % 3 * Pixels + within / 3] = pixels[i];
        }

        return planes;
    }

    private static SKColor Colour(ReadOnlySpan<byte> rgb) => new(rgb[0], rgb[1], rgb[2]);

    private static string[] Hashes(IImageSource source, LoaderOptions options, long firstStep, int batches)
    {
        using var loader = new BatchLoader(source, options, firstStep);
        string[] hashes = new string[batches];
        for (int i = 0; i < batches; i++)
        {
            Batch batch = loader.Next(Token);
            hashes[i] = $"{Convert.ToHexString(XxHash128.Hash(batch.PixelArray))} {string.Join(',', batch.LabelArray)} {string.Join(',', batch.IndexArray)}";
        }

        return hashes;
    }

    [Theory]
    [InlineData(0, ImageEncoding.Rgb, "has read 0 bytes of an image of 6x5 pixels of 3 bytes, which has 90")]
    [InlineData(30, ImageEncoding.Rgb, "has read 30 bytes of an image of 6x5 pixels of 3 bytes, which has 90")]
    [InlineData(-1, ImageEncoding.Grey, "has read -1 bytes (Grey, 6x5 pixels) into a buffer of 90")]
    [InlineData(91, ImageEncoding.File, "has read 91 bytes (File) into a buffer of 90")]
    [InlineData(90, (ImageEncoding)9, "has read 90 bytes (9, 6x5 pixels) into a buffer of 90")]
    public void Decoder_GivenAnotherLengthThanTheImageHas_SaysSoInsteadOfUsingWhatWasInTheBuffer(int length, ImageEncoding encoding, string expected)
    {
        using var decoder = new ImageDecoder();
        string message = Assert.Throws<ArgumentException>(() => decoder.Open(new byte[90], new StoredImage(length, encoding, 6, 5))).Message;
        Assert.Contains(expected, message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => decoder.Open(null!, StoredImage.Rgb(6, 5)));
    }

    [Fact]
    public void SourceWhoseDiskFails_IsNamedWithTheImage()
    {
        using var loader = new BatchLoader(new Stripes { FailAt = 1, Failure = new IOException("the disk is gone") }, LoaderOptions.ForEvaluation(5, 6));
        string message = Assert.Throws<UserErrorException>(() => loader.Next(Token)).Message;
        Assert.Equal("image 'image 1' in 'stripes' cannot be read: the disk is gone", message);
    }

    /// <summary>A source as a user would write one: images are computed when they are asked for.</summary>
    private sealed class Stripes : IImageSource
    {
        public int FailAt { get; init; } = -1;

        public Exception Failure { get; init; } = new InvalidOperationException("the image is elsewhere");

        public bool TooShort { get; init; }

        public string Source => "stripes";

        public int Count => 31;

        public IReadOnlyList<string> ClassNames => Classes;

        public int Label(int index) => index % 2;

        public StoredImage Read(int index, ref byte[] buffer)
        {
            if (index == FailAt)
            {
                throw Failure;
            }

            buffer = new byte[TooShort ? 89 : 90];
            for (int i = 0; i < buffer.Length; i++)
            {
                buffer[i] = (byte)(i * (index + 1));
            }

            return StoredImage.Rgb(6, 5);
        }
    }
}
