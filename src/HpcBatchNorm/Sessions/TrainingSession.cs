using System.Runtime.InteropServices;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Sessions;

/// <summary>Trains a network: each step takes a batch of images and labels, and updates the parameters in place.</summary>
public sealed class TrainingSession : Session
{
    private readonly float[] _loss = new float[1];
    private readonly float[] _scaleState = new float[4];
    private readonly int _forwardOperations;
    private readonly StagingBuffer? _staging;
    private StepContext _last;
    private bool _staged;

    /// <summary>Plans the network for training on the backend and sets the initial parameters from the seed.</summary>
    /// <exception cref="ArgumentNullException">An argument is null.</exception>
    /// <exception cref="ArgumentException">Batch and image size do not fit the network; the message says what would.</exception>
    /// <exception cref="ArgumentOutOfRangeException">An option is a number that cannot be, such as a decay of NaN; the message names it.</exception>
    public TrainingSession(Backend backend, Network network, TrainingOptions options)
        : this(NotNull(backend), PlanFor(backend.Traits, NotNull(network), NotNull(options)))
    {
    }

    /// <summary>Makes a training plan live, which may have been planned for another backend's traits, and sets the initial parameters.</summary>
    internal TrainingSession(Backend backend, Plan plan)
        : base(backend, plan)
    {
        _forwardOperations = 1 + plan.Operations.Select((operation, i) => operation is SoftmaxCrossEntropy && operation.Writes.Contains(plan.Loss) ? i : -1).Max();
        Options = plan.Options as TrainingOptions ?? throw new ArgumentException("The plan is not a training plan.", nameof(plan));
        _staging = backend.CreateStaging(LabelsOffset + plan.Labels!.Bytes * Options.Accumulate);
        Initialize();
    }

    /// <summary>What the session was made with.</summary>
    public TrainingOptions Options { get; }

    /// <summary>Persistent tensors in plan order: parameters, running statistics, momenta, averages. A checkpoint holds exactly these.</summary>
    public IReadOnlyList<StateTensor> State => Plan.State;

    /// <summary>
    /// Where loss scaling stands; null where the loss is not scaled (in all precisions but fp16), and then it cannot be set. Reading it waits for the device.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The scale is no finite number above 0, or a count is negative.</exception>
    public LossScale? LossScale
    {
        get
        {
            using UsageGuard.Scope scope = Enter();
            if (Plan.LossScale is null)
            {
                return null;
            }

            Read(Plan.LossScale, _scaleState);
            return new LossScale(_scaleState[0], (int)_scaleState[1], (long)_scaleState[3]);
        }

        set
        {
            using UsageGuard.Scope scope = Enter();
            if (Plan.LossScale is null || value is not { } state)
            {
                throw new InvalidOperationException("The loss is scaled in fp16, and nowhere else.");
            }

            if (!(state.Scale > 0) || float.IsInfinity(state.Scale) || state.GoodSteps < 0 || state.SkippedSteps < 0)
            {
                throw new ArgumentOutOfRangeException(nameof(value), state, "The loss scale must be a finite number above 0, its counts of steps 0 or more.");
            }

            Write(Plan.LossScale, (ReadOnlySpan<float>)[state.Scale, state.GoodSteps, 0, state.SkippedSteps]);
        }
    }

    /// <summary>
    /// Ends this session and returns another with other options and the same state, bit for bit. The options may differ in anything that leaves the
    /// persistent tensors as they are: not in <see cref="TrainingOptions.AverageDecay"/> between 0 and more.
    /// </summary>
    internal TrainingSession Continue(TrainingOptions options)
    {
        LossScale? scale = LossScale;
        float[][] values = [.. State.Select(s => new float[s.Tensor.Shape.Count])];
        for (int i = 0; i < values.Length; i++)
        {
            Read(State[i].Tensor, values[i]);
        }

        (Backend backend, Network network) = (Backend, Plan.Network);
        Dispose(); // first, so that the memory of both is never needed at once
        var next = new TrainingSession(backend, network, options);
        for (int i = 0; i < values.Length; i++)
        {
            next.Write(next.State[i].Tensor, values[i]);
        }

        if (scale is not null && next.LossScale is not null)
        {
            next.LossScale = scale;
        }

        return next;
    }

    /// <summary>Plans training without making it live.</summary>
    internal static Plan PlanFor(BackendTraits traits, Network network, TrainingOptions options) => TrainingPlanner.Plan(network, options, traits);

    /// <summary>
    /// One step: forward and backward for each of <see cref="TrainingOptions.Accumulate"/> micro-batches, then one update with the mean gradient.
    /// <paramref name="pixels"/> are Accumulate x Batch x Height x Width x Channels bytes (NHWC), <paramref name="labels"/> one class index per image.
    /// Returns the main head's mean loss over all of them, before the update. Micro-batch k of step s is number s * Accumulate + k to operations that
    /// depend on the step (dropout, batch renormalization). When the loss of a micro-batch is not finite it is returned at once and there is no update:
    /// parameters, momenta and averages stay as they were, and <see cref="FindNotFinite"/> can say where it began. (Running statistics have seen the batch.)
    /// </summary>
    /// <exception cref="ArgumentException">The numbers of pixels and labels do not fit.</exception>
    /// <exception cref="ArgumentOutOfRangeException">The learning rate is no finite number of 0 or more, or the step is below 0; nothing has been changed.</exception>
    /// <exception cref="UserErrorException">A label is none of the network's classes.</exception>
    public float Step(ReadOnlySpan<byte> pixels, ReadOnlySpan<int> labels, in StepContext context)
    {
        using UsageGuard.Scope scope = Enter();
        CheckContext(context);
        if (Plan.SecondLabels is not null)
        {
            float[] ones = new float[labels.Length];
            ones.AsSpan().Fill(1);
            return Step(pixels, new MixedLabels(labels, labels, ones), context);
        }

        if (_staging is not null)
        {
            Stage(pixels, labels);
            return StepStaged(context);
        }

        CheckLengths(pixels, labels);
        int bytes = pixels.Length / Options.Accumulate, images = labels.Length / Options.Accumulate;
        double loss = 0;
        for (int k = 0; k < Options.Accumulate; k++)
        {
            Write(Plan.Pixels, pixels.Slice(k * bytes, bytes));
            Write(Plan.Labels!, labels.Slice(k * images, images));
            Execute(k, context);
            if (!AddLoss(ref loss))
            {
                return _loss[0];
            }
        }

        return Update(loss, context);
    }

    /// <summary><see cref="Step(ReadOnlySpan{byte}, ReadOnlySpan{int}, in StepContext)"/> on mixed images, for a session whose options have mixup or cutmix.</summary>
    /// <exception cref="InvalidOperationException">The session was not made for mixed images.</exception>
    /// <exception cref="ArgumentException">The numbers of pixels and labels do not fit.</exception>
    /// <exception cref="ArgumentOutOfRangeException">The learning rate is no finite number of 0 or more, the step is below 0, or a weight is none from 0 to 1; nothing has been changed.</exception>
    public float Step(ReadOnlySpan<byte> pixels, in MixedLabels labels, in StepContext context)
    {
        using UsageGuard.Scope scope = Enter();
        CheckContext(context);
        if (Plan.SecondLabels is null)
        {
            throw new InvalidOperationException("The session was made for images with one label each; set Mixup or Cutmix in its options.");
        }

        if (labels.Second.Length != labels.First.Length || labels.Weights.Length != labels.First.Length)
        {
            throw new ArgumentException(FormattableString.Invariant(
                $"{labels.First.Length} first labels, {labels.Second.Length} second labels and {labels.Weights.Length} weights were given; expected one of each per image."));
        }

        CheckLengths(pixels, labels.First);
        SoftmaxCrossEntropy.CheckLabels("the step, second labels", labels.Second, Plan.Probabilities.Shape.C);
        for (int i = 0; i < labels.Weights.Length; i++)
        {
            if (labels.Weights[i] is not (>= 0 and <= 1))
            {
                throw new ArgumentOutOfRangeException(
                    nameof(labels), labels.Weights[i], FormattableString.Invariant($"The first label of image {i} has the weight {labels.Weights[i]}; expected a number from 0 to 1."));
            }
        }

        int bytes = pixels.Length / Options.Accumulate, images = labels.First.Length / Options.Accumulate;
        double loss = 0;
        for (int k = 0; k < Options.Accumulate; k++)
        {
            Write(Plan.Pixels, pixels.Slice(k * bytes, bytes));
            Write(Plan.Labels!, labels.First.Slice(k * images, images));
            Write(Plan.SecondLabels, labels.Second.Slice(k * images, images));
            Write(Plan.LabelWeights!, labels.Weights.Slice(k * images, images));
            Execute(k, context);
            if (!AddLoss(ref loss))
            {
                return _loss[0];
            }
        }

        return Update(loss, context);
    }

    /// <summary>True where <see cref="Stage"/> and <see cref="StepStaged"/> work: the backend's device takes images while it computes.</summary>
    internal bool CanStage => _staging is not null;

    /// <summary>
    /// Brings the images and labels of the next <see cref="StepStaged"/> to the device, as <see cref="Step(ReadOnlySpan{byte}, ReadOnlySpan{int}, in StepContext)"/> takes them, and returns before they are there.
    /// During a step (see there) their way costs no time.
    /// </summary>
    internal void Stage(ReadOnlySpan<byte> pixels, ReadOnlySpan<int> labels)
    {
        using UsageGuard.Scope scope = Enter();
        CheckLengths(pixels, labels);
        Span<byte> host = (_staging ?? throw NoStaging()).Host;
        pixels.CopyTo(host);
        MemoryMarshal.AsBytes(labels).CopyTo(host[LabelsOffset..]);
        _staging.Upload();
        _staged = true;
    }

    /// <summary>
    /// <see cref="Step(ReadOnlySpan{byte}, ReadOnlySpan{int}, in StepContext)"/> on the images that were staged. <paramref name="meanwhile"/> is called once while the device computes, unless a loss was not finite
    /// before: the moment to load and <see cref="Stage"/> the next ones.
    /// </summary>
    internal float StepStaged(in StepContext context, Action? meanwhile = null)
    {
        using UsageGuard.Scope scope = Enter();
        CheckContext(context);
        if (!_staged)
        {
            throw _staging is null ? NoStaging() : new InvalidOperationException("No images are staged for this step.");
        }

        _staged = false;
        DeviceBuffer pixels = Prepared[Plan.Pixels], labels = Prepared[Plan.Labels!];
        double loss = 0;
        for (int k = 0; k < Options.Accumulate; k++)
        {
            _staging!.CopyTo(pixels, k * pixels.Bytes);
            _staging.CopyTo(labels, LabelsOffset + k * labels.Bytes);
            Execute(k, context);
            if (k == Options.Accumulate - 1)
            {
                meanwhile?.Invoke();
            }

            if (!AddLoss(ref loss))
            {
                return _loss[0];
            }
        }

        return Update(loss, context);
    }

    /// <summary>
    /// Runs the forward pass of the last micro-batch again, looking at every output, and describes the first that is not finite; null when all are.
    /// For a step whose loss was not finite. Slow, and it updates running statistics once more.
    /// </summary>
    public NotFiniteOutput? FindNotFinite()
    {
        using UsageGuard.Scope scope = Enter();
        return NotFiniteOutput.Find(this, _forwardOperations, _last);
    }

    /// <summary>
    /// The first tensor of <see cref="State"/> that holds a value that is not finite, null when none does: one pass over the state where it lies. An update can
    /// overflow without the loss of any step showing it.
    /// </summary>
    public StateTensor? FindNotFiniteState()
    {
        using UsageGuard.Scope scope = Enter();
        foreach (StateTensor entry in State)
        {
            if (!Backend.IsFinite(Prepared[entry.Tensor]))
            {
                return entry;
            }
        }

        return null;
    }

    /// <summary>Class probabilities of the last step's last micro-batch, Batch x classes, before the update.</summary>
    public void ReadProbabilities(Span<float> probabilities) => Read(Plan.Probabilities, probabilities);

    /// <summary>
    /// The network's parameters and running statistics on the host. With <paramref name="averages"/>, their moving averages, under the names of what
    /// they average.
    /// </summary>
    public NetworkState ReadNetworkState(bool averages = false)
    {
        using UsageGuard.Scope scope = Enter();
        if (averages && Options.AverageDecay <= 0)
        {
            throw new InvalidOperationException("This session keeps no averages; set AverageDecay.");
        }

        var state = new NetworkState();
        foreach (StateTensor entry in State)
        {
            bool wanted = averages ? entry.Tensor.Role == TensorRole.Average : entry.Tensor.Role is TensorRole.Parameter or TensorRole.RunningStatistic;
            if (wanted)
            {
                float[] values = new float[entry.Tensor.Shape.Count];
                Read(entry.Tensor, values);
                state.Take(entry.Source.Name, entry.Tensor.Shape, values);
            }
        }

        return state;
    }

    /// <inheritdoc/>
    private protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _staging?.Dispose();
        }

        base.Dispose(disposing);
    }

    /// <summary>Where the labels begin among the staged bytes: after all pixels.</summary>
    private int LabelsOffset => checked((int)((Plan.Pixels.Bytes * Options.Accumulate + 15) & ~15L));

    private static InvalidOperationException NoStaging() => new("This backend takes images between steps only; call Step.");

    /// <summary>Before anything is written: an update with such numbers would ruin every parameter, and say nothing.</summary>
    private static void CheckContext(in StepContext context)
    {
        if (!(context.LearningRate >= 0) || float.IsInfinity(context.LearningRate))
        {
            throw new ArgumentOutOfRangeException(nameof(context), context.LearningRate, FormattableString.Invariant(
                $"The learning rate of step {context.Step} is {context.LearningRate}; expected a finite number of 0 or more."));
        }

        if (context.Step < 0)
        {
            throw new ArgumentOutOfRangeException(nameof(context), context.Step, "The step is below 0; steps are counted from 0.");
        }
    }

    private void CheckLengths(ReadOnlySpan<byte> pixels, ReadOnlySpan<int> labels)
    {
        long bytes = Plan.Pixels.Shape.Count * Options.Accumulate, images = Plan.Labels!.Shape.Count * Options.Accumulate;
        if (pixels.Length != bytes || labels.Length != images)
        {
            throw new ArgumentException(FormattableString.Invariant(
                $"{pixels.Length} bytes and {labels.Length} labels were given for a step; expected {bytes} and {images} ({Options.Accumulate} micro-batches of {Plan.Pixels.Shape})."));
        }

        // Here, because a device cannot refuse one.
        SoftmaxCrossEntropy.CheckLabels("the step", labels, Plan.Probabilities.Shape.C);
    }

    /// <summary>Forward and backward pass of a micro-batch.</summary>
    private void Execute(int microBatch, in StepContext context)
    {
        _last = context with { Step = context.Step * Options.Accumulate + microBatch };
        Execute(0, Plan.UpdateStart, _last);
    }

    /// <summary>Waits for the loss of the pass that was executed last; false when it is not finite.</summary>
    private bool AddLoss(ref double loss)
    {
        Read(Plan.Loss!, _loss);
        loss += _loss[0];
        return float.IsFinite(_loss[0]);
    }

    private float Update(double loss, in StepContext context)
    {
        Execute(Plan.UpdateStart, Plan.Operations.Count, context);
        return (float)(loss / Options.Accumulate);
    }

    private void Initialize()
    {
        foreach (StateTensor entry in State)
        {
            float[] values = new float[entry.Tensor.Shape.Count];
            if (entry.Tensor.Role is not (TensorRole.Momentum or TensorRole.SecondMoment))
            {
                entry.Source.Spec.Initializer.Fill(entry.Tensor.Shape, values, Options.Seed, entry.Source.Name);
            }

            Write(entry.Tensor, values);
        }

        if (Plan.LossScale is not null)
        {
            LossScale = new LossScale(Options.LossScale, 0, 0);
        }
    }
}
