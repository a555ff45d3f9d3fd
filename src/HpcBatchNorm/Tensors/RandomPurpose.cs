namespace HpcBatchNorm.Tensors;

/// <summary>The stream numbers of <see cref="RandomSequence"/>: one per purpose, so that no two draws share coordinates.</summary>
internal static class RandomPurpose
{
    /// <summary>Initial weights; major = hash of the parameter's name.</summary>
    public const uint InitialWeights = 0x5749_0000;

    /// <summary>Dropout masks; the layer's number is added.</summary>
    public const uint Dropout = 0x4452_0000;
}
