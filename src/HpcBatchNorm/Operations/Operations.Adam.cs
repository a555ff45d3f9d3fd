using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>What updates the parameters.</summary>
public enum OptimizerAlgorithm
{
    /// <summary>Stochastic gradient descent with momentum (<see cref="SgdUpdate"/>): the paper's.</summary>
    Sgd,

    /// <summary>Adam with decoupled weight decay (Loshchilov and Hutter, 1711.05101), as <c>torch.optim.AdamW</c> (<see cref="AdamUpdate"/>).</summary>
    AdamW,

    /// <summary>LAMB (You et al., 1904.00962), for large batches: AdamW's step, scaled for every tensor that decays, as timm's (<see cref="AdamUpdate.TrustRatio"/>).</summary>
    Lamb,
}

/// <summary>
/// Adam over a group of parameters: with g = GradientScale*gradient, e = RateFactor * StepContext.LearningRate and t = StepContext.Step + 1 the number of updates,
/// first = Beta1*first + (1-Beta1)*g; second = Beta2*second + (1-Beta2)*g^2;
/// u = first/(1-Beta1^t) / (sqrt(second/(1-Beta2^t)) + Epsilon) + WeightDecay*parameter; parameter -= e*u.
/// Decay is decoupled: parameter*(1 - e*WeightDecay), apart from the moments. With <see cref="TrustRatio"/>, parameter -= e*r*u, where for every tensor
/// r = norm(parameter)/norm(u), and 1 where one of the norms is 0.
/// GradientScale is one element, 1 when null. With LossScale nothing changes where it says that the gradients overflowed, and such steps do not count in t.
/// </summary>
/// <param name="Name">A name.</param>
/// <param name="Parameters">What is updated.</param>
/// <param name="Gradients">Their gradients, of the same shapes.</param>
/// <param name="FirstMoments">Moving averages of the gradients; zeros at first.</param>
/// <param name="SecondMoments">Moving averages of their squares; zeros at first.</param>
/// <param name="GradientScale">What gradients are multiplied by, one element; null for 1.</param>
public sealed record AdamUpdate(
    string Name, IReadOnlyList<Tensor> Parameters, IReadOnlyList<Tensor> Gradients, IReadOnlyList<Tensor> FirstMoments, IReadOnlyList<Tensor> SecondMoments,
    Tensor? GradientScale) : Operation(Name)
{
    /// <summary>Decay of the average of gradients, in [0, 1).</summary>
    public double Beta1 { get; init; } = 0.9;

    /// <summary>Decay of the average of squares, in [0, 1).</summary>
    public double Beta2 { get; init; } = 0.999;

    /// <summary>What is added to the root of the second moment, above 0.</summary>
    public float Epsilon { get; init; } = 1e-8f;

    /// <summary>Decoupled weight decay.</summary>
    public float WeightDecay { get; init; }

    /// <summary>LAMB: the step of every tensor has the length of the tensor itself, times the learning rate.</summary>
    public bool TrustRatio { get; init; }

    /// <summary>What the step's learning rate is multiplied by.</summary>
    public float RateFactor { get; init; } = 1;

    /// <summary>State of the loss scale (<see cref="UpdateLossScale"/>); null for none.</summary>
    public Tensor? LossScale { get; init; }

    /// <inheritdoc/>
    public override string Kind => TrustRatio ? "lamb update" : "adam update";

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Reads =>
        Parameters.Concat(Gradients).Concat(FirstMoments).Concat(SecondMoments).Concat(Some(GradientScale, LossScale));

    /// <inheritdoc/>
    public override IEnumerable<Tensor> Writes => Parameters.Concat(FirstMoments).Concat(SecondMoments);

    /// <summary>The number of this update, from 1 on: steps that overflowed made none.</summary>
    /// <param name="step">The step, from 0 on.</param>
    /// <param name="overflowed">Steps that overflowed so far.</param>
    internal static double UpdateNumber(long step, double overflowed) => Math.Max(1, step + 1 - overflowed);

    /// <inheritdoc/>
    public override void Validate()
    {
        TensorGroups.CheckSame(this, Parameters, Gradients, FirstMoments, SecondMoments);
        Check(GradientScale, "gradient scale", Shape.Vector(1));
        Check(LossScale, "loss scale", UpdateLossScale.State);
        if (!(Beta1 >= 0 && Beta1 < 1) || !(Beta2 >= 0 && Beta2 < 1) || !(Epsilon > 0) || float.IsInfinity(Epsilon))
        {
            throw new ArgumentException(FormattableString.Invariant(
                $"{Kind} '{Name}': beta1 is {Beta1}, beta2 {Beta2}, epsilon {Epsilon}; expected betas in [0, 1) and an epsilon above 0."));
        }
    }
}
