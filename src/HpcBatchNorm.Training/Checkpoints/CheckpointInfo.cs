using HpcBatchNorm.Data;
using HpcBatchNorm.Sessions;

namespace HpcBatchNorm.Training;

/// <summary>What a checkpoint knows besides its tensors.</summary>
public sealed record CheckpointInfo
{
    internal CheckpointInfo()
    {
    }

    /// <summary>Steps done; the next step has this number.</summary>
    public required long Step { get; init; }

    /// <summary>Steps of one epoch, which with <see cref="Step"/> and <see cref="Offset"/> gives the position in the data.</summary>
    public required long StepsPerEpoch { get; init; }

    /// <summary>
    /// Steps done minus the steps of <see cref="StepsPerEpoch"/> that the place in the data is after: 0 unless the run was resumed with another number of images
    /// per step.
    /// </summary>
    public long Offset { get; init; }

    /// <summary>The epoch whose images do not begin at its first one, because the run was resumed in its middle with another number of images per step; null for none.</summary>
    internal EpochShift? Shift { get; init; }

    /// <summary>Images of one step; 0 in files written before they said so, where <see cref="Config"/> tells it.</summary>
    public int ImagesPerStep { get; init; }

    /// <summary>Images of the data set that was trained on; 0 in files written before they said so.</summary>
    internal int Images { get; init; }

    /// <summary>Name of the network.</summary>
    public required string Model { get; init; }

    /// <summary>
    /// The network itself, as <see cref="HpcBatchNorm.Networks.Network.ToJson"/> writes it; empty in files written before networks could be, and for networks with layers that
    /// have no such form.
    /// </summary>
    public string Network { get; init; } = "";

    /// <summary>The effective configuration, YAML.</summary>
    public required string Config { get; init; }

    /// <summary>A hash of those settings of the configuration that decide numbers: runs with the same one continue each other.</summary>
    public required string ConfigHash { get; init; }

    /// <summary>Names of the classes, in the order of the network's outputs.</summary>
    public required IReadOnlyList<string> ClassNames { get; init; }

    /// <summary>Best top-1 accuracy on the validation images so far, a fraction; NaN before the first evaluation.</summary>
    public double BestTop1 { get; init; } = double.NaN;

    /// <summary>Step after which <see cref="BestTop1"/> was measured; -1 before the first evaluation.</summary>
    public long BestStep { get; init; } = -1;

    /// <summary>Step after which the validation images were last evaluated; 0 before the first evaluation.</summary>
    internal long EvaluatedStep { get; init; }

    /// <summary>Losses since the last line of <c>metrics.jsonl</c>, so that the next line's mean is the same whether the run was stopped or not.</summary>
    internal LossSum SinceLog { get; init; }

    /// <summary>Losses since the last evaluation.</summary>
    internal LossSum SinceEvaluation { get; init; }

    /// <summary>Where loss scaling stood; null where the loss was not scaled.</summary>
    internal LossScale? LossScale { get; init; }

    /// <summary>Version of the library that wrote the file.</summary>
    public string LibraryVersion { get; init; } = typeof(CheckpointInfo).Assembly.GetName().Version?.ToString(3) ?? "";

    /// <summary>Epochs done, with their fraction.</summary>
    public double Epoch => EpochOf(Step);

    /// <summary>Epochs done after a step of this file's numbering.</summary>
    internal double EpochOf(long step) => (double)(step - Offset) / StepsPerEpoch;
}

/// <summary>Losses of some steps.</summary>
/// <param name="Sum">Their sum.</param>
/// <param name="Steps">How many they are.</param>
internal readonly record struct LossSum(double Sum, long Steps)
{
    /// <summary>Their mean; NaN when there are none.</summary>
    public double Mean => Steps > 0 ? Sum / Steps : double.NaN;

    /// <summary>With one more.</summary>
    public LossSum Add(float loss) => new(Sum + loss, Steps + 1);
}
