using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Training.Configuration;

namespace HpcBatchNorm.Training;

/// <summary>What the start of a run says about how it trains: only what is switched on.</summary>
internal static class TrainingFacts
{
    public static IEnumerable<(string Name, string Value)> Of(RunConfig config, Network network, BatchNormFreezing freezing)
    {
        TrainingOptions options = config.Optimizer;
        if (options.Accumulate > 1)
        {
            yield return ("accumulation", FormattableString.Invariant(
                $"{options.Accumulate} passes of {config.BatchSize} images make a step of {config.ImagesPerStep}; batch normalization sees {config.BatchSize}"));
        }

        if (network.Nodes.Any(n => n.Layer is BatchNormLayer) && freezing.Description(options.FrozenScaleAndShift) is string frozen)
        {
            yield return ("batch norm", frozen);
        }

        if (options.GhostBatch > 0)
        {
            yield return ("ghost batches", FormattableString.Invariant($"batch statistics of {options.GhostBatch} images at a time, {config.BatchSize / options.GhostBatch} groups a pass"));
        }

        if (options.BatchRenormalize)
        {
            BatchRenormalization r = options.Renormalization;
            yield return ("batch renorm", FormattableString.Invariant(
                $"plain until step {r.Start}, then r up to {r.MaximumR} from step {r.EndR} on, d up to {r.MaximumD} from step {r.EndD} on"));
        }

        string[] extras = [.. Regularisation(options)];
        if (extras.Length > 0)
        {
            yield return ("optimizer", string.Join("; ", extras));
        }
    }

    private static IEnumerable<string> Regularisation(TrainingOptions options)
    {
        yield return FormattableString.Invariant($"momentum {options.Mu}{(options.Nesterov ? " (Nesterov)" : "")}");
        if (options.WeightDecay > 0)
        {
            yield return FormattableString.Invariant($"weight decay {options.WeightDecay:0.###e+0}{(options.DecayScaleAndShift ? ", scale, shift and biases too" : ", weights only")}");
        }

        if (options.LabelSmoothing > 0)
        {
            yield return FormattableString.Invariant($"label smoothing {options.LabelSmoothing}");
        }

        if (options.ClipNorm > 0)
        {
            yield return FormattableString.Invariant($"gradients clipped at norm {options.ClipNorm}");
        }

        if (options.AverageDecay > 0)
        {
            yield return FormattableString.Invariant($"evaluated weights and statistics are a moving average with decay {options.AverageDecay}");
        }
    }
}
