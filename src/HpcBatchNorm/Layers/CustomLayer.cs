using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>
/// A layer of one's own: derive a record from it, in any assembly, and use it in a network like any other layer. Forward and backward pass are managed code
/// on spans of single-precision values in logical NCHW order; the planner puts copies where a value lies otherwise. It runs on the backends <c>onednn</c>
/// and <c>reference</c>, on one thread; a GPU refuses it. Its parameters are initialised, updated, clipped, averaged and kept in checkpoints as all others.
/// </summary>
/// <remarks>
/// What the record's properties say must say everything: one object may serve several places of a network, several sessions and several threads at a time,
/// so <see cref="Forward"/> and <see cref="Backward"/> keep nothing in fields. What the backward pass needs of the forward pass goes to <see cref="Saved"/>.
/// Check a new layer with <c>GradientCheck.Run</c> of HpcBatchNorm.Verification before training with it.
/// </remarks>
public abstract record CustomLayer : Layer, ICustomFunction
{
    /// <summary>The word for it in tables, messages and network files; the record's name unless overridden.</summary>
    public override string Type => GetType().Name;

    /// <inheritdoc/>
    public override string Description => Type;

    string ICustomFunction.FunctionName => Type;

    /// <summary>
    /// What the forward pass leaves for the backward pass besides the inputs, which it has anyway: names within the layer and shapes. Each is kept from the
    /// one to the other, so small ones (statistics) are cheaper than ones of the size of the output.
    /// </summary>
    public virtual IReadOnlyList<NamedShape> Saved(IReadOnlyList<Shape> inputs) => [];

    /// <summary>
    /// Writes what the reader registered with <see cref="LayerTypes.Register"/> reads. A layer without attributes overrides it with nothing in it.
    /// </summary>
    /// <exception cref="NotSupportedException">The layer cannot be written to network files: always, unless overridden.</exception>
    protected internal override void WriteAttributes(LayerWriter writer) => throw new NotSupportedException(
        $"A network with the layer type '{Type}' cannot be written to a file: the type does not say what its attributes are. Override WriteAttributes, and register its reader with LayerTypes.Register.");

    /// <summary>
    /// The inference form as ONNX nodes; returns the last one's value. Without one, networks with the layer cannot be exported.
    /// </summary>
    /// <exception cref="NotSupportedException">The layer has no ONNX form: always, unless overridden.</exception>
    public virtual OnnxValue ToOnnx(OnnxWriter writer) => throw new NotSupportedException(
        $"The layer '{writer.Name}' ({Type}) is an operation of one's own without an ONNX form. Override ToOnnx, or leave the layer out of what is exported.");

    /// <inheritdoc/>
    public abstract void Forward(in ForwardContext context);

    /// <inheritdoc/>
    public abstract void Backward(in BackwardContext context);

    /// <summary>The operation for inputs of these shapes. Throws <see cref="ArgumentException"/> naming the layer when they do not fit.</summary>
    internal CustomSpec Spec(string name, IReadOnlyList<Shape> inputs)
    {
        if (inputs.Count < MinimumInputs || inputs.Count > MaximumInputs)
        {
            throw new ArgumentException($"'{name}' ({Type}) takes {MinimumInputs} to {MaximumInputs} inputs, but {inputs.Count} shapes were given. Give one for each input.", nameof(inputs));
        }

        Shape dst = Infer(name, inputs);
        IReadOnlyList<ParameterSpec> parameters = Parameters(inputs);
        var spec = new CustomSpec(
            this, [.. inputs], dst, [.. Select(parameters, running: false)], [.. Select(parameters, running: true)], [.. Saved(inputs)]);
        spec.Validate(name);
        return spec;
    }

    /// <summary>Backward is given src and what was saved, not dst.</summary>
    internal override bool BackwardReadsDst => false;

    internal override void LowerTraining(ITrainingLowering lowering)
    {
        CustomForward forward = Lower(lowering, lowering.Normalization.Statistics, out Tensor[] diffParameters);
        lowering.Backward(() =>
        {
            Tensor diffDst = lowering.AsManaged(lowering.Gradient);
            CustomBackward Backward(IReadOnlyList<Tensor> diffSrcs) => new(
                lowering.Name, forward.Spec, lowering.Normalization.BackwardStatistics, forward.Srcs, diffDst, forward.Parameters, forward.RunningStatistics,
                forward.Saved, diffSrcs, diffParameters);

            // A single gradient in single precision goes where it belongs; several come out of one call, and 16 bits are rounded to, by copies.
            if (lowering.InputCount == 1 && !lowering.Gradient.DataType.IsNarrow())
            {
                lowering.Contribute(0, TensorLayout.Plain, diffSrc => Backward([diffSrc]), always: true);
                return;
            }

            Tensor[] diffSrcs = [.. forward.Spec.Srcs.Select((s, i) => new Tensor($"{lowering.Name}.diff_src{i}", s, TensorRole.Gradient))];
            lowering.Emit(Backward(diffSrcs));
            for (int i = 0; i < diffSrcs.Length; i++)
            {
                Tensor diffSrc = diffSrcs[i];
                string name = $"{lowering.Name}/{lowering.InputName(i)}.diff";
                lowering.Contribute(i, lowering.Input(i).Layout, target => new Copy(name, diffSrc, target));
            }
        });
    }

    internal override void LowerInference(IInferenceLowering lowering) => Lower(lowering, lowering.Statistics, out _);

    internal override OnnxValue WriteOnnx(OnnxWriter writer) => ToOnnx(writer);

    private CustomForward Lower(ILowering lowering, BatchNormStatistics statistics, out Tensor[] diffParameters)
    {
        lowering.RequireManagedCode(Type);
        Tensor[] srcs = [.. Enumerable.Range(0, lowering.InputCount).Select(i => lowering.AsManaged(lowering.Input(i)))];
        CustomSpec spec = Spec(lowering.Name, [.. srcs.Select(s => s.Shape)]);
        var training = lowering as ITrainingLowering;
        List<Tensor> gradients = [];
        Tensor Learned(string name)
        {
            if (training is null)
            {
                return lowering.AddState(name, TensorLayout.Plain);
            }

            Tensor parameter = training.Learn(name, TensorLayout.Plain, out Tensor gradient);
            gradients.Add(gradient);
            return parameter;
        }

        Tensor[] parameters = [.. spec.Parameters.Select(p => Learned(p.Name))];
        Tensor[] running = [.. spec.RunningStatistics.Select(s => lowering.AddState(s.Name, TensorLayout.Plain))];
        Tensor[] saved = [.. spec.Saved.Select(s => new Tensor($"{lowering.Name}.{s.Name}", s.Shape, TensorRole.BatchStatistic))];
        Tensor value = lowering.NewValue(TensorLayout.Plain);
        Tensor dst = value.DataType.IsNarrow() ? new Tensor($"{lowering.Name}.dst (float32)", value.Shape, TensorRole.Activation) : value;
        var forward = new CustomForward(
            lowering.Name, spec, statistics, srcs, parameters, running, dst, saved, Training: training is not null, Population: training is null);
        lowering.Emit(forward);
        if (dst != value)
        {
            lowering.Emit(new Copy(lowering.Name, dst, value));
        }

        diffParameters = [.. gradients];
        return forward;
    }

    private static IEnumerable<NamedShape> Select(IReadOnlyList<ParameterSpec> parameters, bool running) =>
        parameters.Where(p => p.Kind == ParameterKind.RunningStatistic == running).Select(p => new NamedShape(p.Name, p.Shape));
}
