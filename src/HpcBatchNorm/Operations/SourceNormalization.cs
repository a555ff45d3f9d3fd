using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>
/// A batch normalization, and the ReLU behind it where the spec has one, that a convolution does to its input while it reads it: the normalized values are
/// stored nowhere. They are those of <see cref="BatchNormForward"/> with these statistics, bit for bit; what the convolution pads with is zero, as always.
/// </summary>
/// <param name="Spec">The normalization: per channel, without a residual and without groups of images.</param>
/// <param name="Scale">The learned factors, of the shape <see cref="BatchNormSpec.Parameters"/>.</param>
/// <param name="Shift">The learned offsets, of the same shape.</param>
/// <param name="Mean">The batch's mean, of the same shape.</param>
/// <param name="Variance">The batch's biased variance, of the same shape.</param>
public sealed record SourceNormalization(BatchNormSpec Spec, Tensor Scale, Tensor Shift, Tensor Mean, Tensor Variance)
{
    /// <summary>Throws <see cref="ArgumentException"/> unless it is one that convolutions do to this input.</summary>
    internal void Validate(string operation, Shape src)
    {
        Spec.Validate(operation);
        if (Spec.Src != src || Spec.PerActivation || Spec.Residual || Spec.Groups > 1)
        {
            throw new ArgumentException(
                $"{operation}: src is normalized as {Spec}; a convolution normalizes per channel, without residual and groups, what has the shape of its src, {src}.");
        }

        foreach (Tensor tensor in Tensors)
        {
            if (tensor.Shape != Spec.Parameters)
            {
                throw new ArgumentException($"{operation}: '{tensor.Name}' has the shape {tensor.Shape}, expected {Spec.Parameters}.");
            }
        }
    }

    /// <summary>What it reads besides the input.</summary>
    internal Tensor[] Tensors => [Scale, Shift, Mean, Variance];
}
