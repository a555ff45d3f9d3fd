using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Operations;

/// <summary>
/// What an operation of one's own computes, in managed code on single-precision values in logical NCHW order. One object may serve several operations,
/// sessions and threads at a time: it keeps nothing in fields that a call changes. Calls must not allocate where training steps are to allocate nothing.
/// </summary>
internal interface ICustomFunction
{
    /// <summary>A word for tables and messages: <c>SwitchableNorm</c>.</summary>
    string FunctionName { get; }

    /// <summary>
    /// Sets every element of the output and of what it saves. The same inputs give the same bits each time. What was in the memory before is undefined.
    /// </summary>
    void Forward(in ForwardContext context);

    /// <summary>
    /// Sets (does not add to) every element of the gradients of all inputs and all learned parameters, from the gradient of the output. What was in the
    /// memory before is undefined. Where several consumers or micro-batches contribute to one gradient, the plan adds them up.
    /// </summary>
    void Backward(in BackwardContext context);
}

/// <summary>A name and a shape: a parameter, a running statistic or a saved tensor of an operation of one's own.</summary>
public readonly record struct NamedShape(string Name, Shape Shape);

/// <summary>An operation of one's own: what computes it, and the shapes of everything it works on.</summary>
/// <param name="Function">What computes it.</param>
/// <param name="Srcs">Shapes of the inputs, one or more.</param>
/// <param name="Dst">Shape of the output.</param>
/// <param name="Parameters">What is learned.</param>
/// <param name="RunningStatistics">What forward passes in training update, and inference reads.</param>
/// <param name="Saved">What the forward pass leaves for the backward pass.</param>
internal sealed record CustomSpec(
    ICustomFunction Function, IReadOnlyList<Shape> Srcs, Shape Dst, IReadOnlyList<NamedShape> Parameters, IReadOnlyList<NamedShape> RunningStatistics,
    IReadOnlyList<NamedShape> Saved)
{
    /// <summary>Throws <see cref="ArgumentException"/> naming <paramref name="name"/> when something is missing, doubled or empty.</summary>
    internal void Validate(string name)
    {
        string what = $"'{name}' ({Function.FunctionName})";
        if (Srcs.Count == 0)
        {
            throw new ArgumentException($"{what} has no input; it needs at least one.");
        }

        if (!Dst.IsValid || Srcs.Any(s => !s.IsValid))
        {
            throw new ArgumentException($"{what} makes {Dst} of {string.Join(", ", Srcs)}; every extent must be at least 1.");
        }

        HashSet<string> names = new(StringComparer.Ordinal);
        foreach (NamedShape tensor in Parameters.Concat(RunningStatistics).Concat(Saved))
        {
            if (!tensor.Shape.IsValid)
            {
                throw new ArgumentException($"{what}: '{tensor.Name}' has the shape {tensor.Shape}; every extent must be at least 1.");
            }

            if (string.IsNullOrWhiteSpace(tensor.Name) || !names.Add(tensor.Name))
            {
                throw new ArgumentException($"{what} has two tensors named '{tensor.Name}', or one without a name; parameters, running statistics and saved tensors need names of their own.");
            }
        }
    }
}

/// <summary>What <c>CustomLayer.Forward</c> works on. Spans hold values in logical NCHW order and are good for this call only.</summary>
public readonly ref struct ForwardContext
{
    private readonly CustomArguments _arguments;

    internal ForwardContext(CustomArguments arguments) => _arguments = arguments;

    /// <summary>Number of inputs.</summary>
    public int SrcCount => _arguments.Srcs.Length;

    /// <summary>Shape of the output.</summary>
    public Shape DstShape => _arguments.Dst.Shape;

    /// <summary>The output; every element is to be set.</summary>
    public Span<float> Dst => _arguments.Dst.Span;

    /// <summary>
    /// <see cref="BatchNormStatistics.Batch"/>: compute with the statistics of this batch and update running ones, as in training.
    /// <see cref="BatchNormStatistics.Running"/>: compute with running statistics and leave them as they are, as at inference and in training with frozen
    /// ones. A function without running statistics need not ask.
    /// </summary>
    public BatchNormStatistics Statistics => _arguments.Statistics;

    /// <summary>True in a training step: a backward pass follows. False at inference, where what is saved is read by nobody.</summary>
    public bool Training => _arguments.Training;

    /// <summary>Number of the step, from 0, counting micro-batches: the coordinate for random numbers of one's own (<see cref="RandomSequence"/>).</summary>
    public long Step => _arguments.Step;

    /// <summary>The values of an input.</summary>
    public ReadOnlySpan<float> Src(int index = 0) => _arguments.Srcs[index].Span;

    /// <summary>The shape of an input.</summary>
    public Shape SrcShape(int index = 0) => _arguments.Srcs[index].Shape;

    /// <summary>The values of a parameter or of a running statistic, by its name within the layer.</summary>
    /// <exception cref="ArgumentException">There is none of that name.</exception>
    public ReadOnlySpan<float> Parameter(string name) => _arguments.Parameter(name);

    /// <summary>A tensor that the backward pass will read, by its name within the layer; every element is to be set.</summary>
    /// <exception cref="ArgumentException">There is none of that name.</exception>
    public Span<float> Saved(string name) => CustomArguments.Find(_arguments.Saved, name, "saved tensor").Span;

    /// <summary>A running statistic, to be updated from its old values. Most functions want <see cref="UpdateRunning"/>.</summary>
    /// <exception cref="ArgumentException">There is none of that name.</exception>
    /// <exception cref="InvalidOperationException"><see cref="Statistics"/> says that running statistics are kept.</exception>
    public Span<float> RunningStatistic(string name)
    {
        CustomTensor statistic = CustomArguments.Find(_arguments.RunningStatistics, name, "running statistic");
        return Statistics == BatchNormStatistics.Batch
            ? statistic.Span
            : throw new InvalidOperationException(
                $"the running statistic '{name}' is kept as it is here (Statistics is Running); read it with Parameter, and update it only where Statistics is Batch");
    }

    /// <summary>
    /// running = (1 - averagingFactor) * running + averagingFactor * <paramref name="batch"/>. Where population statistics are collected the factor counts
    /// as 1, so that a pass leaves its own statistics; where running statistics are kept (<see cref="Statistics"/>) it does nothing.
    /// </summary>
    /// <exception cref="ArgumentException">There is no running statistic of that name, or it has another number of elements.</exception>
    public void UpdateRunning(string name, ReadOnlySpan<float> batch, float averagingFactor)
    {
        Span<float> running = CustomArguments.Find(_arguments.RunningStatistics, name, "running statistic").Span;
        if (batch.Length != running.Length)
        {
            throw new ArgumentException($"the running statistic '{name}' has {running.Length} elements, but {batch.Length} were given");
        }

        if (Statistics == BatchNormStatistics.Running)
        {
            return;
        }

        float factor = _arguments.Population ? 1 : averagingFactor;
        for (int i = 0; i < running.Length; i++)
        {
            // A product with 0 would keep what is not finite.
            running[i] = factor == 1 ? batch[i] : (1 - factor) * running[i] + factor * batch[i];
        }
    }
}

/// <summary>What <c>CustomLayer.Backward</c> works on. Spans hold values in logical NCHW order and are good for this call only.</summary>
public readonly ref struct BackwardContext
{
    private readonly CustomArguments _arguments;

    internal BackwardContext(CustomArguments arguments) => _arguments = arguments;

    /// <summary>Number of inputs.</summary>
    public int SrcCount => _arguments.Srcs.Length;

    /// <summary>Shape of the output.</summary>
    public Shape DstShape => _arguments.Dst.Shape;

    /// <summary>The gradient of the loss with respect to the output.</summary>
    public ReadOnlySpan<float> DiffDst => _arguments.DiffDst.Span;

    /// <summary>As the forward pass saw it: with <see cref="BatchNormStatistics.Running"/> the statistics are constants and the gradient does not flow through them.</summary>
    public BatchNormStatistics Statistics => _arguments.Statistics;

    /// <summary>Number of the step, that of the forward pass.</summary>
    public long Step => _arguments.Step;

    /// <summary>The values of an input.</summary>
    public ReadOnlySpan<float> Src(int index = 0) => _arguments.Srcs[index].Span;

    /// <summary>The shape of an input.</summary>
    public Shape SrcShape(int index = 0) => _arguments.Srcs[index].Shape;

    /// <summary>The values of a parameter, or of a running statistic as the forward pass left it.</summary>
    /// <exception cref="ArgumentException">There is none of that name.</exception>
    public ReadOnlySpan<float> Parameter(string name) => _arguments.Parameter(name);

    /// <summary>What the forward pass saved.</summary>
    /// <exception cref="ArgumentException">There is none of that name.</exception>
    public ReadOnlySpan<float> Saved(string name) => CustomArguments.Find(_arguments.Saved, name, "saved tensor").Span;

    /// <summary>The gradient with respect to an input; every element is to be set.</summary>
    public Span<float> DiffSrc(int index = 0) => _arguments.DiffSrcs[index].Span;

    /// <summary>The gradient with respect to a learned parameter; every element is to be set.</summary>
    /// <exception cref="ArgumentException">There is none of that name; running statistics have no gradient.</exception>
    public Span<float> DiffParameter(string name) => CustomArguments.Find(_arguments.DiffParameters, name, "learned parameter").Span;
}
