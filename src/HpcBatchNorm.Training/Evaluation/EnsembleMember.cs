using HpcBatchNorm.Networks;

namespace HpcBatchNorm.Training.Evaluation;

/// <summary>A network with its parameters and statistics (<see cref="Checkpoint.ReadMember"/> reads one). Several form an ensemble.</summary>
public sealed record EnsembleMember(Network Network, NetworkState State)
{
    /// <summary>Mean of each channel's pixel values this network was trained with; null means that of the evaluation.</summary>
    public IReadOnlyList<float>? PixelMean { get; init; }

    /// <summary>Deviation of each channel's pixel values this network was trained with; null means that of the evaluation.</summary>
    public IReadOnlyList<float>? PixelDeviation { get; init; }
}
