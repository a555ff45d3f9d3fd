using HpcBatchNorm.Data;

namespace HpcBatchNorm.Experiments;

/// <summary>MNIST as section 4.1 has it: binary images, all in memory.</summary>
internal sealed class MnistImages
{
    /// <summary>Rows and columns.</summary>
    public const int Size = 28;

    /// <summary>Bytes of an image.</summary>
    public const int Pixels = Size * Size;

    /// <summary>Digits.</summary>
    public const int Classes = 10;

    private MnistImages(byte[] images, int[] labels) => (Images, Labels) = (images, labels);

    /// <summary>Images one after the other, each value 0 or 255.</summary>
    public byte[] Images { get; }

    /// <summary>The digit of each.</summary>
    public int[] Labels { get; }

    /// <summary>How many there are.</summary>
    public int Count => Labels.Length;

    /// <summary>Training and test images.</summary>
    /// <exception cref="UserErrorException">They are not 28 pixels large, or not of ten classes.</exception>
    public static (MnistImages Train, MnistImages Test) Load(string path, CancellationToken cancellation) =>
        (Load(path, DatasetSplit.Train, cancellation), Load(path, DatasetSplit.Validation, cancellation));

    private static MnistImages Load(string path, DatasetSplit split, CancellationToken cancellation)
    {
        const int Chunk = 500;
        using ImageDataset dataset = ImageDataset.Open(path, split);
        if (dataset.ClassCount != Classes)
        {
            throw new UserErrorException($"'{path}' has {dataset.ClassCount} classes; the experiments of section 4.1 need the ten digits of MNIST.");
        }

        byte[] images = new byte[dataset.Count * Pixels];
        int[] labels = new int[dataset.Count];
        var options = LoaderOptions.ForEvaluation(Chunk, Size) with { CropFraction = 1, Channels = 1, Binarize = true, OnBadImage = BadImagePolicy.Fail };
        using var loader = new BatchLoader(dataset, options);
        for (int done = 0; done < dataset.Count;)
        {
            using Batch batch = loader.Next(cancellation);
            batch.Pixels[..(batch.Count * Pixels)].CopyTo(images.AsSpan(done * Pixels));
            batch.Labels[..batch.Count].CopyTo(labels.AsSpan(done));
            done += batch.Count;
        }

        return new MnistImages(images, labels);
    }

    /// <summary>The image at a place, into a batch.</summary>
    public void CopyTo(int image, byte[] pixels, int[] labels, int place)
    {
        Images.AsSpan(image * Pixels, Pixels).CopyTo(pixels.AsSpan(place * Pixels));
        labels[place] = Labels[image];
    }
}
