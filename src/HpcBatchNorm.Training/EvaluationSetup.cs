using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;

namespace HpcBatchNorm.Training;

/// <summary>How a configuration's network is evaluated: the same for a run's own validation and for <c>hpcbn eval</c>, so that both give the same numbers.</summary>
internal static class EvaluationSetup
{
    /// <summary>Every image in order, as the network takes it, with its <paramref name="crops"/> views.</summary>
    public static LoaderOptions Loading(RunConfig config, Network network, int crops = 1) =>
        LoaderOptions.ForEvaluation(ImagesPerBatch(config.BatchSize, crops), config.ImageSize) with
        {
            Channels = network.InputChannels,
            Binarize = config.Binarize,
            Interpolation = config.Interpolation,
            CropFraction = config.CropFraction,
            Crops = crops,
            Workers = config.LoaderThreads,
            StallSeconds = config.LoaderTimeout,
            OnBadImage = config.OnBadImage,
        };

    /// <summary>
    /// The session's batch, image size, pixel normalization and planner rules. With several crops the batch is the largest part of a loaded batch's views
    /// that is no larger than the configured one.
    /// </summary>
    public static InferenceOptions Session(RunConfig config, int crops = 1)
    {
        int views = ImagesPerBatch(config.BatchSize, crops) * crops;
        return new InferenceOptions
        {
            Precision = config.Optimizer.Precision,
            Batch = Enumerable.Range(1, config.BatchSize).Last(batch => views % batch == 0),
            Height = config.ImageSize,
            Width = config.ImageSize,
            PixelMean = config.Optimizer.PixelMean,
            PixelDeviation = config.Optimizer.PixelDeviation,
            DisabledFusions = config.Optimizer.DisabledFusions,
        };
    }

    /// <summary>The configuration a checkpoint was trained with, and flags over it.</summary>
    internal static RunConfig Configure(Checkpoint checkpoint, IReadOnlyList<(string Name, string Value)> flags)
    {
        TrainingConfigBuilder builder = new TrainingConfigBuilder().AddYaml(checkpoint.Info.Config, checkpoint.Path);
        foreach ((string name, string value) in flags)
        {
            builder.Set(name, value);
        }

        return builder.Config;
    }

    internal static ImageDataset Open(RunConfig config, DatasetSplit split, Action<string> note) => config.Data.Length > 0
        ? ImageDataset.Open(config.Data, split, new Told<string>(note))
        : throw new UserErrorException("The checkpoint does not say which data it was trained on; set data.");

    private static int ImagesPerBatch(int batchSize, int crops) => Math.Max(1, batchSize / crops);
}
