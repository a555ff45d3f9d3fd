using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;

namespace HpcBatchNorm.Training;

/// <summary>What the start of a run says about how it trains: only what is switched on.</summary>
internal static class TrainingFacts
{
    /// <summary>What is trained, on what and where.</summary>
    public static IEnumerable<(string Name, string Value)> Of(
        RunConfig config, Network network, PreparedPlan prepared, IImageSource train, IImageSource? validation)
    {
        NetworkShapes shapes = network.Infer(config.BatchSize, config.ImageSize, config.ImageSize);
        yield return ("network", FormattableString.Invariant(
            $"{network.Name}, {shapes.ParameterCount:N0} parameters, {shapes.MultiplyAdds / 1e9 / config.BatchSize:0.000} GMAC per image"));
        yield return ("backend", $"{prepared.Backend.Name}: {prepared.Backend.Description}");
        yield return ("precision", PrecisionOf(config.Optimizer.Precision, prepared.Backend));
        yield return ("memory", FormattableString.Invariant(
            $"{(prepared.ArenaBytes + prepared.StateBytes) / 1e6:0} MB planned, {prepared.Plan.Operations.Count} operations a step"));
        yield return ("data", FormattableString.Invariant(
            $"{train.Source}: {train.Layout}, {train.ClassCount} classes, {train.Count}{(validation is null ? "" : FormattableString.Invariant($" + {validation.Count}"))} images"));
    }

    /// <summary>How it is trained, as far as that is not usual.</summary>
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

        if (BatchMixer.Description(options) is string mixing)
        {
            yield return ("mixing", mixing);
        }

        string[] extras = [.. Regularisation(options)];
        if (extras.Length > 0)
        {
            yield return ("optimizer", string.Join("; ", extras));
        }
    }

    /// <summary>What the run computes in, and what the backend has to say about it.</summary>
    private static string PrecisionOf(Precision precision, Backend backend)
    {
        backend.Supports(precision, out string note);
        return precision.ToString().ToLowerInvariant() + (note.Length > 0 ? $"; {note}" : "");
    }

    private static IEnumerable<string> Regularisation(TrainingOptions options)
    {
        yield return options.Algorithm != OptimizerAlgorithm.Sgd
            ? FormattableString.Invariant($"{options.Algorithm.ToString().ToLowerInvariant()} with beta {options.Beta1} and {options.Beta2}, epsilon {options.OptimizerEpsilonOrUsual:0.###e+0}")
            : FormattableString.Invariant($"momentum {options.Mu}{(options.Nesterov ? " (Nesterov)" : "")}{(options.MomentumForm == MomentumForm.PyTorch ? " in PyTorch's form" : "")}");
        if (options.WeightDecay > 0)
        {
            yield return FormattableString.Invariant($"weight decay {options.WeightDecay:0.###e+0}{(options.DecayScaleAndShift ? ", scale, shift and biases too" : ", weights only")}");
        }

        if (options.RateFactors.Count > 0)
        {
            yield return $"learning rates times {string.Join(", ", options.RateFactors.Select(f => FormattableString.Invariant($"{f.Factor} ({f.Pattern})")))}";
        }

        if (options.Frozen.Count > 0)
        {
            yield return $"frozen: {string.Join(", ", options.Frozen)}";
        }

        if (options.LabelSmoothing > 0)
        {
            yield return FormattableString.Invariant($"label smoothing {options.LabelSmoothing}");
        }

        if (options.BinaryLoss)
        {
            yield return FormattableString.Invariant($"binary cross-entropy{(options.BinaryTargetThreshold > 0 ? FormattableString.Invariant($" of targets that are 1 above {options.BinaryTargetThreshold}, else 0") : "")}");
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
