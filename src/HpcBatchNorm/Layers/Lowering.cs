using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>
/// What preparing images takes: the pixels' tensor, mean and inverse deviation of each channel, and whether nothing but dense convolutions reads the result.
/// </summary>
internal readonly record struct ImagePreparation(Tensor Pixels, IReadOnlyList<float> Mean, IReadOnlyList<float> InverseDeviation, bool IsConvolvedOnly);

/// <summary>
/// What a layer says to a planner: which operations compute its value, on which tensors. One object stands for one layer of a network. The planner
/// decides where values lie, what fuses and what is kept; the layer names its operations.
/// </summary>
internal interface ILowering
{
    /// <summary>The layer's name in the network.</summary>
    string Name { get; }

    /// <summary>How many inputs it has.</summary>
    int InputCount { get; }

    /// <summary>True when the (first) input is the prepared images themselves, which the first convolution reads as they are.</summary>
    bool ReadsImages { get; }

    /// <summary>The tensor that holds an input's value.</summary>
    Tensor Input(int index = 0);

    /// <summary>The name of the layer an input comes from.</summary>
    string InputName(int index = 0);

    /// <summary>True when an input's producer writes its value straight into this layer's, a concatenation.</summary>
    bool IsPlaced(int index);

    /// <summary>The pixels that the caller writes, and how they become images.</summary>
    ImagePreparation PrepareImages();

    /// <summary>The tensor in the wanted layout: itself, a relabelled view where both lie alike in memory, or a copy.</summary>
    Tensor InLayout(Tensor tensor, TensorLayout layout);

    /// <summary>The tensor as a loss or softmax reads it: plain and in single precision.</summary>
    Tensor AsLogits(Tensor tensor);

    /// <summary>Has planning end here, with an error that names the layer, when the backend runs no managed code.</summary>
    /// <exception cref="UserErrorException">It does not.</exception>
    void RequireManagedCode(string function);

    /// <summary>The tensor as managed code reads it: whole, plain and in single precision.</summary>
    Tensor AsManaged(Tensor tensor);

    /// <summary>Makes the tensor of this layer's value, or of the layer's that is fused with it.</summary>
    Tensor NewValue(TensorLayout layout);

    /// <summary>The tensor of this layer's value, made now or before, by an input that is placed in it.</summary>
    Tensor Value(TensorLayout layout);

    /// <summary>The tensor of an element-wise layer's value: the input's memory where that is not needed again, else its own.</summary>
    Tensor InPlaceOrNew();

    /// <summary>A persistent tensor for one of the layer's parameters.</summary>
    Tensor AddState(string parameter, TensorLayout layout);

    /// <summary>True when a ReLU behind this batch normalization is computed with it; the layer's value is the ReLU's from then on.</summary>
    bool FuseReluWithBatchNorm();

    /// <summary>
    /// The value that is added to this batch normalization's where that sum and the ReLU after it are computed with it, else null; the layer's value is the
    /// ReLU's from then on.
    /// </summary>
    Tensor? FuseResidual(TensorLayout layout);

    /// <summary>Adds an operation.</summary>
    void Emit(Operation operation);
}

/// <summary>How batch normalization trains: what it normalises with, forward and backward, and how its images are grouped.</summary>
/// <param name="Statistics">Batch statistics, or running ones held constant.</param>
/// <param name="BackwardStatistics">The same; running when the gradient takes batch statistics for constants.</param>
/// <param name="GhostBatch">Images of each group that has statistics of its own; 0: all.</param>
/// <param name="Renormalization">Limits of batch renormalization, in passes; null: none.</param>
/// <param name="FrozenScaleAndShift">Scale and shift do not learn.</param>
/// <param name="Synchronized">Batch statistics are those of several ranks.</param>
/// <param name="SynchronizedRanks">Of how many in a row; 0: of all.</param>
internal sealed record TrainingNormalization(
    BatchNormStatistics Statistics, BatchNormStatistics BackwardStatistics, int GhostBatch, BatchRenormalization? Renormalization, bool FrozenScaleAndShift, bool Synchronized,
    int SynchronizedRanks);

/// <summary>What a loss reads and writes.</summary>
/// <param name="Labels">The classes, which the caller writes.</param>
/// <param name="Probabilities">Softmax of the logits.</param>
/// <param name="Loss">The mean loss of the batch, one element.</param>
/// <param name="LabelSmoothing">The share of the target that is spread evenly over all classes.</param>
/// <param name="Scale">What the gradient is multiplied by (loss scaling); null: nothing.</param>
internal readonly record struct LossTensors(Tensor Labels, Tensor Probabilities, Tensor Loss, float LabelSmoothing, Tensor? Scale)
{
    /// <summary>Of mixed images, the second class.</summary>
    public Tensor? SecondLabels { get; init; }

    /// <summary>Of mixed images, the first class's weight.</summary>
    public Tensor? LabelWeights { get; init; }

    /// <summary>Binary cross-entropy.</summary>
    public bool Binary { get; init; }

    /// <summary>Its threshold of targets.</summary>
    public float TargetThreshold { get; init; }
}

/// <summary>What a layer says to the planner of training.</summary>
internal interface ITrainingLowering : ILowering
{
    /// <summary>How batch normalization trains.</summary>
    TrainingNormalization Normalization { get; }

    /// <summary>True when the (first) input's memory may be overwritten in the backward pass: nothing else reads it, its producer neither.</summary>
    bool InputIsOverwritable { get; }

    /// <summary>The complete gradient of the layer's value (of the fused layer's, where one is); only within <see cref="Backward"/>.</summary>
    Tensor Gradient { get; }

    /// <summary>What <see cref="Gradient"/> lacks: a second contribution, which the operation that reads both adds. Only with a fused residual.</summary>
    Tensor? SecondGradient { get; }

    /// <summary>True when a parameter of the layer learns; else the gradients of its parameters need not be computed.</summary>
    bool Learns { get; }

    /// <summary>A parameter that the optimizer updates, and the tensor its gradient is wanted in. A frozen one keeps its place and does not learn.</summary>
    Tensor Learn(string parameter, TensorLayout layout, out Tensor gradient, bool frozen = false);

    /// <summary>What is multiplied in place of weights: they themselves, or a copy in the activations' 16-bit type.</summary>
    Tensor Multiplied(Tensor weights);

    /// <summary>Has <paramref name="emit"/> emit the backward pass when the gradient of the layer's value is complete.</summary>
    void Backward(Action emit);

    /// <summary>
    /// Emits the operation that computes this layer's contribution to an input's gradient, in the layout that operation writes.
    /// <paramref name="overwrite"/>, when given, is memory that is not needed after the operation. Where nothing before the layer learns, nothing is
    /// emitted, unless the operation makes the gradients of parameters too (<paramref name="always"/>).
    /// </summary>
    void Contribute(int input, TensorLayout layout, Func<Tensor, Operation> operation, Tensor? overwrite = null, bool always = false);

    /// <summary>
    /// As <see cref="Contribute"/> for the (first) input, with an operation that also makes the gradient of what <see cref="ILowering.FuseResidual"/> gave,
    /// where somebody needs it.
    /// </summary>
    void ContributeWithResidual(TensorLayout layout, Func<Tensor, Tensor?, Operation> operation, Tensor? overwrite);

    /// <summary>An input's gradient is that of this layer's value.</summary>
    void PassGradient(int input);

    /// <summary>The gradient of an input that is placed in this layer's value lies in this layer's gradient.</summary>
    void SetGradient(int input, Tensor gradient);

    /// <summary>
    /// True when a convolution alone reads this batch normalization's value (that of the ReLU fused with it) and normalizes it itself; the layer's value then
    /// is its input as it is, and <see cref="PassNormalization"/> says what it lacks.
    /// </summary>
    bool FuseWithConvolution(BatchNormSpec spec);

    /// <summary>The layer's value is its input, which whoever reads it normalizes.</summary>
    void PassNormalization(SourceNormalization normalization);

    /// <summary>What a convolution does to its input while reading it; null: nothing.</summary>
    SourceNormalization? InputNormalization { get; }

    /// <summary>An input's value as the backward pass reads it: <paramref name="src"/> as the forward pass left it, or computed again.</summary>
    Tensor ForBackward(int input, Tensor src);

    /// <summary>Adds an operation that can compute its value again in the backward pass, instead of its being kept.</summary>
    void EmitRepeatable(BatchNormForward operation);

    /// <summary>A dropout with a mask of its own.</summary>
    DropoutSpec NewDropout(Shape src, float ratio);

    /// <summary>What a loss over these logits reads and writes.</summary>
    LossTensors NewLoss(Shape logits);
}

/// <summary>What a layer says to the planner of inference.</summary>
internal interface IInferenceLowering : ILowering
{
    /// <summary>What batch normalization uses.</summary>
    BatchNormStatistics Statistics { get; }

    /// <summary>
    /// Weights and bias of an <see cref="IAffineLayer"/>. Where a batch normalization folds into them, there always is a bias, and the layer's value is
    /// the batch normalization's from then on.
    /// </summary>
    (Tensor Weights, Tensor? Bias) AddWeights(bool bias, int outputs);

    /// <summary>True when a ReLU behind this convolution is computed with it; the layer's value is the ReLU's from then on.</summary>
    bool FuseReluWithConvolution();

    /// <summary>As <see cref="ILowering.FuseResidual"/>, for a convolution, whose kernel then adds to the residual.</summary>
    Tensor? FuseResidualWithConvolution();

    /// <summary>Makes the tensor of a convolution's value that is added to a residual: the residual's own memory where nobody reads that later.</summary>
    Tensor NewValueOver(Tensor residual);

    /// <summary>The layer does nothing: its value is its input's.</summary>
    void PassInput();

    /// <summary>The probabilities for these logits, the plan's result.</summary>
    Tensor NewProbabilities(Shape logits);
}
