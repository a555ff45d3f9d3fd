namespace HpcBatchNorm.Planning;

/// <summary>The planner's rules by name. Each can be switched off (<c>--no-fuse NAME</c>); results agree within rounding either way.</summary>
public static class Fusion
{
    /// <summary>ReLU after batch normalization is computed with it, forward and backward.</summary>
    public const string BatchNormRelu = "bn-relu";

    /// <summary>
    /// The end of a residual block: a value added to batch normalization's output, and the ReLU after the sum, are computed with it, forward and backward;
    /// at inference with the convolution it folds into. Of two batch normalizations that are summed it is the one computed last.
    /// </summary>
    public const string BatchNormAddRelu = "bn-add-relu";

    /// <summary>
    /// Training: a convolution that alone reads a batch normalization's (and its ReLU's) output normalizes what it reads itself, in both passes that read it. The
    /// output is stored nowhere; the batch normalization makes its statistics only. The numbers are the same bit for bit.
    /// </summary>
    public const string BatchNormConvolution = "bn-conv";

    /// <summary>
    /// Batch normalization (and pooling, and at inference convolutions, where a backend's take slices) writes its channels of a concatenation directly, and reads
    /// their gradient there.
    /// </summary>
    public const string ConcatSlice = "concat-slice";

    /// <summary>
    /// Training: 1x1 convolutions of one value are computed as a single wider one, whose output each batch normalization reads its channels of. A 1x1
    /// convolution behind an average pooling belongs to them: the two commute, so the pooling comes second and has fewer channels.
    /// </summary>
    public const string ParallelConvolution = "parallel-1x1";

    /// <summary>Batch normalization's gradient overwrites its input; nonlinearities and dropout work in place; a sum's gradient is that of its inputs.</summary>
    public const string InPlace = "in-place";

    /// <summary>Inference: batch normalization folds into the convolution or fully connected layer before it (Algorithm 2).</summary>
    public const string FoldBatchNorm = "fold-bn";

    /// <summary>Inference: ReLU is computed with the convolution before it.</summary>
    public const string ConvolutionRelu = "conv-relu";

    /// <summary>All rules, with what they do.</summary>
    public static IReadOnlyList<(string Name, string Summary)> All { get; } =
    [
        (BatchNormRelu, "ReLU is computed with the batch normalization before it"),
        (BatchNormAddRelu, "a residual block's sum and ReLU are computed with the batch normalization (inference: convolution) before them"),
        (BatchNormConvolution, "training: a convolution normalizes what it reads, so that the batch normalization before it stores nothing"),
        (ConcatSlice, "batch normalization, pooling and (inference) convolutions write their channels of a concatenation directly"),
        (ParallelConvolution, "training: 1x1 convolutions of one value are computed as a single wider one"),
        (InPlace, "gradients and nonlinearities overwrite what is not needed again"),
        (FoldBatchNorm, "inference: batch normalization folds into the layer before it"),
        (ConvolutionRelu, "inference: ReLU is computed with the convolution before it"),
    ];

    /// <summary>Throws a <see cref="UserErrorException"/> when a name is not a rule.</summary>
    internal static void Validate(IEnumerable<string> names)
    {
        foreach (string name in names)
        {
            if (!All.Any(f => f.Name == name))
            {
                throw new UserErrorException($"There is no fusion '{name}'. Known: {string.Join(", ", All.Select(f => f.Name))}.");
            }
        }
    }
}
