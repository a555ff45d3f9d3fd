using System.Globalization;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Training;

/// <summary>Begins a new run with another run's weights: <see cref="RunConfig.InitialCheckpoint"/>.</summary>
internal static class InitialWeights
{
    /// <summary>Says before a data set is read that there is no such checkpoint; elsewhere <c>--pretrained</c> names weights to download, of which there are none here.</summary>
    /// <exception cref="UserErrorException">What initial-checkpoint names does not exist.</exception>
    public static void Check(RunConfig config)
    {
        string path = config.InitialCheckpoint;
        if (path.Length > 0 && !Path.Exists(path))
        {
            throw new UserErrorException(
                $"initial-checkpoint: '{path}' does not exist. It takes the file of a checkpoint that hpcbn wrote, or the folder of a run; there are no pretrained weights to download.");
        }
    }

    /// <summary>
    /// Sets parameters, running statistics and their averages to what evaluation of the checkpoint would use; momenta stay zero. The classifiers keep
    /// their fresh weights when the configuration says so.
    /// </summary>
    /// <exception cref="UserErrorException">The checkpoint is of another network, or of other classes and its classifier was not left out.</exception>
    public static void Load(TrainingSession session, RunConfig config, IReadOnlyList<string> classNames, Action<string> note)
    {
        using Checkpoint checkpoint = Checkpoint.Open(config.InitialCheckpoint);
        IReadOnlyList<string> before = checkpoint.Info.ClassNames;
        if (!config.ResetClassifier && before.Count != classNames.Count)
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"'{checkpoint.Path}' tells {before.Count} classes apart, the data set has {classNames.Count}. Set reset-classifier to begin with a new classifier."));
        }

        if (!config.ResetClassifier && !before.SequenceEqual(classNames))
        {
            note($"warning: the classes of '{checkpoint.Path}' have other names than those of the data set; reset-classifier begins with a new classifier.");
        }

        foreach (string difference in Differences(checkpoint, session.Plan.Network, config))
        {
            note($"warning: '{checkpoint.Path}' is for {difference}");
        }

        HashSet<Node> classifiers = config.ResetClassifier ? [.. session.Plan.Network.Losses.SelectMany(l => l.Inputs).Where(n => n.Layer is FullyConnectedLayer)] : [];
        foreach (StateTensor entry in session.State)
        {
            if (entry.Tensor.Role is not (TensorRole.Momentum or TensorRole.SecondMoment) && !classifiers.Contains(entry.Source.Node))
            {
                float[] values = new float[entry.Tensor.Shape.Count];
                checkpoint.ReadEvaluated(session.Plan.Network.Name, entry.Source, values);
                session.Write(entry.Tensor, values);
            }
        }

        note(FormattableString.Invariant(
            $"Begins with the weights of '{checkpoint.Path}' ({checkpoint.Info.Model}, step {checkpoint.Info.Step}){(config.ResetClassifier ? " but for the classifier" : "")}."));
    }

    /// <summary>What fits by name and shape, but computes something else than the weights were made for.</summary>
    private static IEnumerable<string> Differences(Checkpoint checkpoint, Network network, RunConfig config)
    {
        RunConfig before = EvaluationSetup.Configure(checkpoint, []);
        foreach ((string name, IReadOnlyList<float>? then, IReadOnlyList<float>? now) in new[]
                 {
                     ("pixel-mean", before.Optimizer.PixelMean, config.Optimizer.PixelMean), ("pixel-deviation", before.Optimizer.PixelDeviation, config.Optimizer.PixelDeviation),
                 })
        {
            if (!Channels(then, network.InputChannels).SequenceEqual(Channels(now, network.InputChannels)))
            {
                yield return $"images with a {name} of {Text(then)}, this run has {Text(now)}. Set {name} to what it was.";
            }
        }

        Dictionary<string, Layer> layers = Layers(checkpoint);
        Node[] changed = [.. network.Nodes.Where(n => layers.TryGetValue(n.Name, out Layer? then) && !ComputesTheSame(then, n.Layer))];
        if (changed.Length > 0)
        {
            yield return $"a network in which {changed.Length} layers are others than in this run's, the first '{changed[0].Name}' ({Text(layers[changed[0].Name])}; here {Text(changed[0].Layer)}). "
                + "Make the network with the options that it had.";
        }
    }

    /// <summary>None where the checkpoint's network cannot be made here, because its layers were made elsewhere.</summary>
    private static Dictionary<string, Layer> Layers(Checkpoint checkpoint)
    {
        try
        {
            return checkpoint.ReadNetwork().Nodes.ToDictionary(n => n.Name, n => n.Layer, StringComparer.Ordinal);
        }
        catch (UserErrorException)
        {
            return [];
        }
    }

    /// <summary>What may well be another thing in a new run, such as dropout and the loss, counts as the same.</summary>
    private static bool ComputesTheSame(Layer then, Layer now) => (then, now) switch
    {
        (PoolingLayer, GlobalAveragePoolingLayer) or (GlobalAveragePoolingLayer, PoolingLayer) => true, // for another image size
        (PoolingLayer or ActivationLayer or LrnLayer, _) => then == now,
        (BatchNormLayer a, BatchNormLayer b) => a.Epsilon == b.Epsilon,
        _ => true,
    };

    private static string Text(Layer layer) => layer switch
    {
        PoolingLayer pool => $"{pool.Description}, padded by {pool.Pad}{(pool.Ceil ? ", rounded up" : "")}",
        BatchNormLayer batchNorm => string.Create(CultureInfo.InvariantCulture, $"{batchNorm.Description}, epsilon {batchNorm.Epsilon}"),
        _ => layer.Description,
    };

    private static IEnumerable<float> Channels(IReadOnlyList<float>? values, int channels) => Enumerable.Range(0, channels).Select(i => values is null or [] ? 128 : values[values.Count == 1 ? 0 : i]);

    private static string Text(IReadOnlyList<float>? values) => values is null or [] ? "128" : string.Join(",", values.Select(v => v.ToString(CultureInfo.InvariantCulture)));
}
