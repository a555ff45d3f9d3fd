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
}
