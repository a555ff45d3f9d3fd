using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;

namespace HpcBatchNorm.Training;

/// <summary>How a configuration's images are loaded for training: the same for a run and for what is measured on its mini-batches afterwards.</summary>
internal static class TrainingSetup
{
    /// <summary>The run's mini-batches, from its first step on without end.</summary>
    public static LoaderOptions Loading(RunConfig config, Network network) =>
        LoaderOptions.ForTraining(config.BatchSize, config.ImageSize, unchecked((ulong)config.Seed)) with
        {
            Channels = network.InputChannels,
            Binarize = config.Binarize,
            Interpolation = config.Interpolation,
            Augmentation = config.Augmentation,
            Shuffle = config.Shuffle,
            ShardSize = config.ShardSize,
            Workers = config.LoaderThreads,
            StallSeconds = config.LoaderTimeout,
            OnBadImage = config.OnBadImage,
        };
}
