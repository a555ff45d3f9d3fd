using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>
/// What a plan computes in. In all of them sums are accumulated in single precision or better, and parameters, momenta, parameter gradients, scale,
/// shift, statistics, logits and loss are stored in single precision; the 16-bit ones store activations, their gradients, and copies of the weights of
/// convolutions and fully connected layers in 16 bits. Checkpoints are the same in all, so any precision continues any run.
/// </summary>
public enum Precision
{
    /// <summary>Single precision.</summary>
    Fp32,

    /// <summary>Single precision in memory; products on 10 bits of significand, on GPUs that have it.</summary>
    Tf32,

    /// <summary>bfloat16: the range of single precision, 8 bits of significand.</summary>
    Bf16,

    /// <summary>IEEE half precision: 11 bits of significand, but a range that gradients leave, so that the loss is scaled.</summary>
    Fp16,
}

internal static class PrecisionTypes
{
    /// <summary>Element type of activations, their gradients, and the weights that are multiplied.</summary>
    public static DataType ActivationType(this Precision precision) => precision switch
    {
        Precision.Bf16 => DataType.BFloat16,
        Precision.Fp16 => DataType.Float16,
        _ => DataType.Float32,
    };

    /// <summary>The word users write: <c>bf16</c>.</summary>
    public static string Word(this Precision precision) => precision.ToString().ToLowerInvariant();
}
