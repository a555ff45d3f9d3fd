using HpcBatchNorm.Data;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Evaluation;

/// <summary>How a configuration's network is evaluated: the same for a run's own validation and for <c>hpcbn eval</c>, so that both give the same numbers.</summary>
public static class EvaluationSetup
{
    /// <summary>Central crops of every image in order, as the network takes them.</summary>
    public static LoaderOptions Loading(TrainingConfig config, Network network) => LoaderOptions.ForEvaluation(config.BatchSize, config.ImageSize) with
    {
        Channels = network.InputChannels,
        Binarize = config.Binarize,
        CropFraction = config.CropFraction,
        Workers = config.Workers,
        OnBadImage = config.OnBadImage,
    };

    /// <summary>The session's batch, image size, pixel normalization and planner rules.</summary>
    public static InferenceOptions Session(TrainingConfig config) => new()
    {
        Precision = config.Optimizer.Precision,
        Batch = config.BatchSize,
        Height = config.ImageSize,
        Width = config.ImageSize,
        PixelMean = config.Optimizer.PixelMean,
        PixelDeviation = config.Optimizer.PixelDeviation,
        DisabledFusions = config.Optimizer.DisabledFusions,
    };
}
