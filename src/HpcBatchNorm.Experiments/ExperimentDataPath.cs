using HpcBatchNorm.Data;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Experiments;

/// <summary>Which of the paths that were named an experiment trains on.</summary>
internal static class ExperimentDataPath
{
    /// <summary>In the place of a path: a generated set.</summary>
    public const string Sample = "sample";

    private const string DigitFolder = "sample-digits", MnistHome = "yann.lecun.com/exdb/mnist";

    /// <summary>The path for an experiment; null when it needs none.</summary>
    /// <param name="data">What it needs.</param>
    /// <param name="paths">What was named: data sets, folders of them, or <see cref="Sample"/>.</param>
    /// <param name="note">Told about a set that is generated.</param>
    /// <exception cref="UserErrorException">None of them fits; the message says what does and where it is from.</exception>
    public static string? Find(ExperimentData data, IReadOnlyList<string> paths, Action<string> note)
    {
        if (paths.FirstOrDefault(p => p != Sample && !Path.Exists(p)) is string missing)
        {
            throw new UserErrorException($"'{missing}' does not exist; the data is a data set's folder, or '{Sample}'.");
        }

        switch (data)
        {
            case ExperimentData.Mnist:
                string? idx = paths.Where(p => p != Sample).SelectMany(p => new[] { p, Path.Combine(p, "mnist") }).FirstOrDefault(p => Directory.Exists(p) && IdxFiles.AreIn(p));
                return idx ?? (paths.Contains(Sample) ? DigitGenerator.Ensure(Path.Combine(ArchiveIndex.DefaultCacheDirectory ?? ".", DigitFolder), note) : throw new UserErrorException(
                    $"This experiment trains on MNIST. Name the folder of its four IDX files (train-images-idx3-ubyte.gz and the others, from {MnistHome}) as the data, or '{Sample}' for drawn digits."));
            case ExperimentData.ImageNet:
                string? images = paths.FirstOrDefault(p => p != Sample && !(Directory.Exists(p) && IdxFiles.AreIn(p)));
                return images ?? (paths.Contains(Sample) ? SampleData.Ensure(note) : throw new UserErrorException(
                    $"This experiment trains on images in one of ImageNet's layouts. Name their folder as the data, or '{Sample}' for generated ones."));
            default:
                return null;
        }
    }
}
