using HpcBatchNorm.Backends;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>
/// dst = src, between any two layouts and between slices: reorders, concatenation (one copy per source into a slice of dst) and its backward pass.
/// Where the element types differ, dst is src rounded to its own.
/// </summary>
public sealed record Copy(string Name, Tensor Src, Tensor Dst) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => Src.Layout == Dst.Layout ? "copy" : "reorder";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(Dst);

    /// <inheritdoc/>
    public override void Validate() => Check(Dst, "dst", Src.Shape);
}

/// <summary>dst = sum of srcs, element by element; all have one layout, each may be a slice. Dst may alias the first source (accumulation).</summary>
public sealed record Sum(string Name, IReadOnlyList<Tensor> Srcs, Tensor Dst) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "sum";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Srcs;

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(Dst);

    /// <inheritdoc/>
    public override void Validate()
    {
        if (Srcs.Count < 2)
        {
            throw new ArgumentException($"sum '{Name}': {Srcs.Count} source; it needs at least 2.");
        }

        foreach (Tensor src in Srcs)
        {
            Check(src, "src", Dst.Shape);
            if (src.Layout != Dst.Layout || src.DataType != Dst.DataType)
            {
                throw new ArgumentException(
                    $"sum '{Name}': '{src.Name}' is {src.Layout} {src.DataType} but '{Dst.Name}' is {Dst.Layout} {Dst.DataType}; copy it to the other first.");
            }
        }
    }
}

/// <summary>
/// dst[n,c,y,x] = (src[n,y,x,c] - Mean[c]) * InverseDeviation[c]: bytes in NHWC order to normalised values in dst's layout.
/// </summary>
public sealed record PrepareInput(string Name, Tensor Src, Tensor Dst, IReadOnlyList<float> Mean, IReadOnlyList<float> InverseDeviation) : Operation(Name)
{
    /// <summary>True where nothing but dense convolutions reads dst, so that a backend may keep more channels than there are.</summary>
    internal bool IsConvolvedOnly { get; init; }

    /// <inheritdoc/>
    public override string Kind => "prepare input";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(Dst);

    /// <inheritdoc/>
    public override void Validate()
    {
        Check(Dst, "dst", Src.Shape);
        if (Src.DataType != DataType.UInt8 || Mean.Count != Src.Shape.C || InverseDeviation.Count != Src.Shape.C)
        {
            throw new ArgumentException($"prepare input '{Name}': src must be UInt8 with {Src.Shape.C} means and inverse deviations.");
        }
    }
}

/// <summary>
/// probabilities = softmax(logits) over channels; loss[0] = Weight * mean over the batch of the cross-entropy against the smoothed target
/// t = (1-LabelSmoothing)*onehot(label) + LabelSmoothing/classes; diffLogits = Weight * (probabilities - t) / N.
/// Logits, probabilities and diffLogits are plain N x classes matrices; logits, probabilities and loss are Float32, diffLogits of any floating-point type.
/// With <paramref name="LossScale"/> (<see cref="UpdateLossScale"/>) diffLogits, and with it every later gradient, is multiplied by its first element.
/// </summary>
public sealed record SoftmaxCrossEntropy(
    string Name, Tensor Logits, Tensor Labels, Tensor Probabilities, Tensor Loss, Tensor? DiffLogits, float LabelSmoothing, float Weight,
    Tensor? LossScale = null) : Operation(Name)
{
    /// <summary>A second class of each image, for mixed images: t = (1-LabelSmoothing) * (w*onehot(label) + (1-w)*onehot(second)) + LabelSmoothing/classes. Int32, N x 1; null for none.</summary>
    public Tensor? SecondLabels { get; init; }

    /// <summary>The weight w of each image's first label, 0 to 1; given together with <see cref="SecondLabels"/>. Float32, N x 1.</summary>
    public Tensor? LabelWeights { get; init; }

    /// <summary>
    /// Every class is a yes or no of its own: loss[0] = Weight * mean over batch and classes of the binary cross-entropy of sigmoid(logits) against t, and
    /// diffLogits = Weight * (sigmoid(logits) - t) / (N * classes). Probabilities stay those of softmax.
    /// </summary>
    public bool Binary { get; init; }

    /// <summary>Of a <see cref="Binary"/> loss: targets above this become 1, the others 0; 0 leaves them as they are.</summary>
    public float TargetThreshold { get; init; }

    /// <inheritdoc/>
    public override string Kind => Binary ? "binary cross-entropy" : "softmax cross-entropy";

    /// <summary>Refuses a label that is none of 0 to <paramref name="classes"/> - 1: the same exception whatever computes the loss.</summary>
    /// <param name="where">What was given the labels, for the message.</param>
    /// <param name="labels">One per image.</param>
    /// <param name="classes">Number of classes.</param>
    internal static void CheckLabels(string where, ReadOnlySpan<int> labels, int classes)
    {
        for (int n = 0; n < labels.Length; n++)
        {
            if ((uint)labels[n] >= (uint)classes)
            {
                throw new UserErrorException(FormattableString.Invariant($"{where}: image {n} has the label {labels[n]}, expected 0 to {classes - 1}."));
            }
        }
    }

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Logits, Labels, SecondLabels, LabelWeights, LossScale);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(Probabilities, Loss, DiffLogits);

    /// <inheritdoc/>
    public override void Validate()
    {
        Check(Probabilities, "probabilities", Logits.Shape);
        Check(DiffLogits, "diffLogits", Logits.Shape);
        Check(Labels, "labels", Shape.Matrix(Logits.Shape.N, 1));
        Check(SecondLabels, "second labels", Labels.Shape);
        Check(LabelWeights, "label weights", Labels.Shape);
        if ((SecondLabels is null) != (LabelWeights is null) || TargetThreshold < 0 || TargetThreshold > 1)
        {
            throw new ArgumentException($"{Kind} '{Name}': second labels and label weights are given together, and a threshold is between 0 and 1.");
        }

        Check(Loss, "loss", Shape.Vector(1));
        Check(LossScale, "loss scale", UpdateLossScale.State);
        if (Logits.Shape.Area != 1)
        {
            throw new ArgumentException($"{Kind} '{Name}': logits are {Logits.Shape}; expected an N x classes matrix.");
        }
    }
}

/// <summary>dst = softmax(src) over channels, for plain N x classes matrices. Dst may alias Src.</summary>
public sealed record Softmax(string Name, Tensor Src, Tensor Dst) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "softmax";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Some(Src);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(Dst);

    /// <inheritdoc/>
    public override void Validate() => Check(Dst, "dst", Src.Shape);
}

/// <summary>
/// Where the learning rate stands in stochastic gradient descent with momentum. While the rate is constant both give the same parameters; after a change of the rate
/// from e to f they differ, as if in one of them the momentum had been multiplied by f/e.
/// </summary>
public enum MomentumForm
{
    /// <summary>Sutskever et al. (2013), which the paper cites: v = mu*v - e*g; w += v, or with Nesterov w += mu*v - e*g. Steps already taken keep the rate they were taken with.</summary>
    Sutskever,

    /// <summary>PyTorch's <c>torch.optim.SGD</c> without dampening: v = mu*v + g; w -= e*v, or with Nesterov w -= e*(g + mu*v). The rate multiplies everything that is remembered.</summary>
    PyTorch,
}

/// <summary>
/// Stochastic gradient descent with momentum over a group of parameters, g = GradientScale*gradient + WeightDecay*parameter, e = RateFactor * StepContext.LearningRate, in the form of
/// Sutskever et al. (2013): momentum = Mu*momentum - e*g; parameter += momentum, or, with Nesterov, parameter += Mu*momentum - e*g (the new momentum).
/// <paramref name="Form"/> says whether in that form or in <see cref="MomentumForm.PyTorch"/>'s; the momentum of one is not that of the other. GradientScale is one element, 1 when null. With <paramref name="LossScale"/> nothing changes where it says that the gradients overflowed.
/// </summary>
public sealed record SgdUpdate(
    string Name, IReadOnlyList<Tensor> Parameters, IReadOnlyList<Tensor> Gradients, IReadOnlyList<Tensor> Momenta, Tensor? GradientScale,
    float Mu, bool Nesterov, float WeightDecay, Tensor? LossScale = null, MomentumForm Form = MomentumForm.Sutskever) : Operation(Name)
{
    /// <summary>What the step's learning rate is multiplied by: e = RateFactor * StepContext.LearningRate.</summary>
    public float RateFactor { get; init; } = 1;

    /// <inheritdoc/>
    public override string Kind => "sgd update";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Parameters.Concat(Gradients).Concat(Momenta).Concat(Some(GradientScale, LossScale));

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Parameters.Concat(Momenta);

    /// <inheritdoc/>
    public override void Validate()
    {
        TensorGroups.CheckSame(this, Parameters, Gradients, Momenta);
        Check(GradientScale, "gradient scale", Shape.Vector(1));
        Check(LossScale, "loss scale", UpdateLossScale.State);
    }
}

/// <summary>
/// gradientScale[0] = min(1, MaximumNorm / sqrt(sum of squares of all gradients)); 1 when the norm is 0. The norm goes to norm[0].
/// With <paramref name="Unscale"/>, one element, it is the norm of the gradients times that, and gradientScale[0] is multiplied by it.
/// </summary>
public sealed record ClipGradients(
    string Name, IReadOnlyList<Tensor> Gradients, Tensor GradientScale, Tensor Norm, float MaximumNorm, Tensor? Unscale = null) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "clip gradients";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Gradients.Concat(Some(Unscale));

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(GradientScale, Norm);

    /// <inheritdoc/>
    public override void Validate()
    {
        Check(GradientScale, "gradient scale", Shape.Vector(1));
        Check(Norm, "norm", Shape.Vector(1));
        Check(Unscale, "unscale", Shape.Vector(1));
    }
}

/// <summary>
/// Dynamic loss scaling (Micikevicius et al. 2018, 1710.03740): keeps gradients in the range of half precision. Unscale[0] = 1 / LossScale[0], the scale that
/// the gradients carry. When one of them is not finite, LossScale[2] becomes 1, so that <see cref="SgdUpdate"/> changes nothing, LossScale[3] counts one more,
/// and the scale halves, down to 1. Otherwise LossScale[2] becomes 0, and after <paramref name="GrowthSteps"/> such steps in a row the scale doubles, up to
/// <see cref="MostScale"/>; 0: it never does.
/// </summary>
/// <param name="Name">A name.</param>
/// <param name="Gradients">All gradients, scaled.</param>
/// <param name="LossScale">The state: scale, steps in a row without an overflow, whether this step overflowed, and steps that have.</param>
/// <param name="Unscale">What the gradients are to be multiplied by.</param>
/// <param name="GrowthSteps">Steps without an overflow after which the scale doubles.</param>
public sealed record UpdateLossScale(string Name, IReadOnlyList<Tensor> Gradients, Tensor LossScale, Tensor Unscale, int GrowthSteps) : Operation(Name)
{
    /// <summary>The largest scale that growth reaches.</summary>
    public const float MostScale = 1 << 24;

    /// <summary>Shape of the state.</summary>
    public static Shape State => Shape.Vector(4);

    /// <inheritdoc/>
    public override string Kind => "update loss scale";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Gradients.Concat(Some(LossScale));

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Some(LossScale, Unscale);

    /// <inheritdoc/>
    public override void Validate()
    {
        Check(LossScale, "loss scale", State);
        Check(Unscale, "unscale", Shape.Vector(1));
        if (GrowthSteps < 0)
        {
            throw new ArgumentException(FormattableString.Invariant($"{Kind} '{Name}': the scale grows after {GrowthSteps} steps; expected 0 or more."));
        }
    }
}

/// <summary>
/// sum = gradient / Count at the first of Count micro-batches, sum + gradient / Count at the others, for every pair: after the last one the sums hold the
/// mean gradient. A micro-batch is the first when <see cref="StepContext.Step"/> is a multiple of Count.
/// </summary>
public sealed record AccumulateGradients(string Name, IReadOnlyList<Tensor> Gradients, IReadOnlyList<Tensor> Sums, int Count) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "accumulate gradients";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Gradients.Concat(Sums);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Sums;

    /// <inheritdoc/>
    public override void Validate()
    {
        TensorGroups.CheckSame(this, Gradients, Sums);
        if (Count < 1)
        {
            throw new ArgumentException($"{Kind} '{Name}': the number of micro-batches is {Count}; it must be at least 1.");
        }
    }
}

/// <summary>average = Decay*average + (1-Decay)*source for every pair: weight averaging, running statistics included.</summary>
public sealed record UpdateAverage(string Name, IReadOnlyList<Tensor> Sources, IReadOnlyList<Tensor> Averages, float Decay) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "update average";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Sources.Concat(Averages);

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Averages;

    /// <inheritdoc/>
    public override void Validate() => TensorGroups.CheckSame(this, Sources, Averages);
}

/// <summary>
/// copy = parameter, rounded to the copy's element type (to nearest, ties to even), for every pair: the 16-bit weights that a training step's
/// convolutions and fully connected layers multiply, from the masters that the optimizer updates.
/// </summary>
public sealed record ConvertParameters(string Name, IReadOnlyList<Tensor> Parameters, IReadOnlyList<Tensor> Copies) : Operation(Name)
{
    /// <inheritdoc/>
    public override string Kind => "convert parameters";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads => Parameters;

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Copies;

    /// <inheritdoc/>
    public override void Validate() => TensorGroups.CheckSame(this, Parameters, Copies);
}

internal static class TensorGroups
{
    /// <summary>Throws unless all lists are equally long and shapes agree position by position.</summary>
    public static void CheckSame(Operation operation, IReadOnlyList<Tensor> first, params IReadOnlyList<Tensor>[] others)
    {
        foreach (IReadOnlyList<Tensor> other in others)
        {
            if (other.Count != first.Count)
            {
                throw new ArgumentException($"{operation.Kind} '{operation.Name}': lists of {first.Count} and {other.Count} tensors do not pair up.");
            }

            for (int i = 0; i < first.Count; i++)
            {
                if (first[i].Shape != other[i].Shape)
                {
                    throw new ArgumentException(
                        $"{operation.Kind} '{operation.Name}': '{first[i].Name}' is {first[i].Shape} but '{other[i].Name}' is {other[i].Shape}.");
                }
            }
        }
    }
}
