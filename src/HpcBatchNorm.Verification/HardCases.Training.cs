using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <content>Loss and optimizer.</content>
internal static partial class HardCases
{
    private static readonly Shape One = Shape.Vector(1);

    private static IEnumerable<VerificationCase> Losses(Precision precision)
    {
        foreach ((string name, int images, int classes, double range, float smoothing, float weight, bool gradient) in new[]
        {
            ("1000-classes", 4, 1000, 3.0, 0f, 1f, true), ("10-classes", 60, 10, 2.0, 0f, 1f, true), ("smoothing", 3, 17, 2.0, 0.1f, 1f, true),
            ("auxiliary-weight", 5, 33, 2.0, 0f, 0.3f, true), ("large-logits", 3, 100, 80.0, 0.1f, 1f, true), ("no-gradient", 3, 10, 2.0, 0f, 1f, false),
            ("one-image", 1, 2, 1.0, 0f, 1f, true), ("one-class", 2, 1, 1.0, 0f, 1f, true),
        })
        {
            CaseBuilder builder = Case(precision, $"softmax-cross-entropy/{name}", InputKind.Random);
            Shape shape = Shape.Matrix(images, classes);
            Tensor logits = builder.Input("logits", shape, Fills.Uniform(-range, range), layout: TensorLayout.Plain, type: DataType.Float32);
            Tensor labels = builder.Input("labels", Shape.Matrix(images, 1), Fills.Integers(0, classes - 1), TensorRole.Label, TensorLayout.Plain, DataType.Int32);
            builder.Add(new SoftmaxCrossEntropy("loss", logits, labels, builder.Output("probabilities", shape, TensorRole.Result, TensorLayout.Plain),
                builder.Output("loss", One, TensorRole.Result, TensorLayout.Plain),
                gradient ? builder.Output("diffLogits", shape, TensorRole.Gradient, TensorLayout.Plain) : null, smoothing, weight));
            yield return builder.Build();
        }

        foreach ((string name, bool mixed, bool binary, float smoothing, float threshold, double range) in new[]
        {
            ("softmax-cross-entropy/mixed", true, false, 0f, 0f, 3.0), ("softmax-cross-entropy/mixed-smoothing", true, false, 0.1f, 0f, 3.0),
            ("binary-cross-entropy/plain", false, true, 0f, 0f, 3.0), ("binary-cross-entropy/mixed-smoothing", true, true, 0.1f, 0f, 3.0),
            ("binary-cross-entropy/threshold", true, true, 0.1f, 0.2f, 3.0), ("binary-cross-entropy/large-logits", true, true, 0.1f, 0f, 80.0),
        })
        {
            CaseBuilder builder = Case(precision, name, InputKind.Random);
            Shape shape = Shape.Matrix(6, 33), perImage = Shape.Matrix(6, 1);
            Tensor Labels(string tensor) => builder.Input(tensor, perImage, Fills.Integers(0, 32), TensorRole.Label, TensorLayout.Plain, DataType.Int32);
            builder.Add(new SoftmaxCrossEntropy(
                "loss", builder.Input("logits", shape, Fills.Uniform(-range, range), layout: TensorLayout.Plain, type: DataType.Float32), Labels("labels"),
                builder.Output("probabilities", shape, TensorRole.Result, TensorLayout.Plain), builder.Output("loss", One, TensorRole.Result, TensorLayout.Plain),
                builder.Output("diffLogits", shape, TensorRole.Gradient, TensorLayout.Plain), smoothing, 1)
            {
                SecondLabels = mixed ? Labels("secondLabels") : null,
                LabelWeights = mixed ? builder.Input("labelWeights", perImage, Fills.Uniform(0, 1), TensorRole.Label, TensorLayout.Plain, DataType.Float32) : null,
                Binary = binary,
                TargetThreshold = threshold,
            });
            yield return builder.Build();
        }

        foreach ((string name, double range, bool inPlace) in new[] { ("basic", 3.0, false), ("large-logits", 500.0, false), ("in-place", 3.0, true) })
        {
            CaseBuilder builder = Case(precision, $"softmax/{name}", InputKind.Random);
            Shape shape = Shape.Matrix(4, 101);
            Tensor src = builder.Input("src", shape, Fills.Uniform(-range, range), layout: TensorLayout.Plain, type: DataType.Float32);
            builder.Add(new Softmax("softmax", src, inPlace ? src.Alias("dst", TensorRole.Result) : builder.Output("dst", shape, TensorRole.Result, TensorLayout.Plain)));
            yield return builder.Build();
        }
    }

    private static IEnumerable<VerificationCase> Optimizers(Precision precision)
    {
        foreach ((string name, float mu, bool nesterov, float decay, double? scale, MomentumForm form) in new[]
        {
            ("plain", 0f, false, 0f, (double?)null, MomentumForm.Sutskever), ("momentum", 0.9f, false, 0f, null, MomentumForm.Sutskever), ("nesterov", 0.9f, true, 0f, null, MomentumForm.Sutskever),
            ("weight-decay", 0.9f, false, 4e-2f, null, MomentumForm.Sutskever),
            ("nesterov-weight-decay-scaled", 0.9f, true, 4e-2f, 0.25, MomentumForm.Sutskever), ("scaled", 0.9f, false, 0f, 0.125, MomentumForm.Sutskever),
            ("rate-factor", 0.9f, false, 4e-2f, null, MomentumForm.Sutskever), ("pytorch", 0.9f, false, 4e-2f, 0.25, MomentumForm.PyTorch), ("pytorch-nesterov", 0.9f, true, 4e-2f, null, MomentumForm.PyTorch),
        })
        {
            CaseBuilder builder = Case(precision, $"sgd/{name}", InputKind.Random);
            List<Tensor> parameters = [], gradients = [], momenta = [];
            (Shape Shape, TensorLayout Layout)[] group = [(new(16, 17, 3, 3), TensorLayout.Plain), (Shape.Vector(33), TensorLayout.Blocked), (Shape.Vector(1), TensorLayout.Plain)];
            for (int k = 0; k < group.Length; k++)
            {
                (Shape shape, TensorLayout layout) = group[k];
                parameters.Add(builder.Input($"parameter{k}", shape, role: TensorRole.Parameter, layout: layout));
                gradients.Add(builder.Input($"gradient{k}", shape, role: TensorRole.ParameterGradient, layout: layout));
                momenta.Add(builder.Input($"momentum{k}", shape, role: TensorRole.Momentum, layout: layout));
            }

            Tensor? gradientScale = scale is null ? null : builder.Input("gradientScale", One, Fills.Constant(scale.Value), TensorRole.Result, TensorLayout.Plain);
            builder.Add(new SgdUpdate("sgd", parameters, gradients, momenta, gradientScale, mu, nesterov, decay, Form: form) { RateFactor = name == "rate-factor" ? 0.1f : 1 });
            yield return builder.Build(context: new StepContext(3, 0.045f));
        }

        foreach ((string name, float decay, double? scale, bool trust, long step, float factor) in new[]
        {
            ("first-step", 0f, (double?)null, false, 0L, 1f), ("late", 0f, null, false, 100_000L, 1f), ("weight-decay-scaled", 5e-2f, 0.25, false, 9L, 1f),
            ("rate-factor", 5e-2f, null, false, 9L, 0.1f), ("lamb", 5e-2f, null, true, 9L, 1f), ("lamb-scaled", 1f, 0.125, true, 0L, 0.5f),
        })
        {
            yield return AdamStep(precision, name, decay, scale, trust, step, factor);
        }

        yield return ConvolutionStep(precision);
        yield return ConvolutionStep(precision, trustRatio: true);
        foreach ((string name, float maximum, double value) in new[] { ("active", 1f, 1.0), ("inactive", 1e6f, 1.0), ("zero-gradients", 1f, 0.0), ("tiny-gradients", 1f, 1e-12) })
        {
            CaseBuilder builder = Case(precision, $"clip-gradients/{name}", InputKind.Random);
            TensorFill fill = Fills.Uniform(-value, value);
            List<Tensor> gradients =
            [
                builder.Input("gradient0", new(32, 16, 3, 3), fill, TensorRole.ParameterGradient, TensorLayout.Plain),
                builder.Input("gradient1", Shape.Vector(17), fill, TensorRole.ParameterGradient),
            ];
            builder.Add(new ClipGradients("clip", gradients, builder.Output("gradientScale", One, TensorRole.Result, TensorLayout.Plain),
                builder.Output("norm", One, TensorRole.Result, TensorLayout.Plain), maximum));
            yield return builder.Build();
        }

        // What is left after whole vectors weighs as much as all that went before it: a tail that is forgotten would show.
        foreach (int length in new[] { 1, 3, 17, 31, 16384 + 5 })
        {
            CaseBuilder builder = Case(precision, FormattableString.Invariant($"clip-gradients/tail-{length}"), InputKind.Random);
            Tensor gradient = builder.Input("gradient", Shape.Vector(length), (_, _, values) =>
            {
                values.Fill(1);
                values[(length / 32 * 32)..].Fill(1000);
            }, TensorRole.ParameterGradient, TensorLayout.Plain);
            builder.Add(new ClipGradients("clip", [gradient], builder.Output("gradientScale", One, TensorRole.Result, TensorLayout.Plain),
                builder.Output("norm", One, TensorRole.Result, TensorLayout.Plain), 1));
            yield return builder.Build();
        }

        // The first micro-batch must not read what the sums hold: they start as NaN here.
        foreach ((string name, int count, long step, bool first) in new[]
        {
            ("first", 3, 6L, true), ("second", 3, 7L, false), ("last", 4, 7L, false), ("late", 7, (1L << 33) + 1, false), ("alone", 1, 5L, true),
        })
        {
            CaseBuilder builder = Case(precision, $"accumulate-gradients/{name}", InputKind.Random);
            List<Tensor> gradients = [], sums = [];
            foreach ((Shape shape, TensorLayout layout) in new[] { (new Shape(16, 17, 3, 3), TensorLayout.Plain), (Shape.Vector(33), TensorLayout.Blocked) })
            {
                gradients.Add(builder.Input($"gradient{gradients.Count}", shape, role: TensorRole.ParameterGradient, layout: layout));
                sums.Add(first ? builder.Output($"sum{sums.Count}", shape, TensorRole.GradientSum, layout)
                    : builder.Input($"sum{sums.Count}", shape, role: TensorRole.GradientSum, layout: layout));
            }

            builder.Add(new AccumulateGradients("accumulate", gradients, sums, count));
            yield return builder.Build(context: new StepContext(step, 0));
        }

        foreach (float decay in new[] { 0.9999f, 0.5f, 0f })
        {
            CaseBuilder builder = Case(precision, FormattableString.Invariant($"update-average/{decay}"), InputKind.Random);
            builder.Add(new UpdateAverage("average",
                [builder.Input("source0", new(8, 3, 3, 3), role: TensorRole.Parameter, layout: TensorLayout.Plain), builder.Input("source1", Shape.Vector(17), role: TensorRole.RunningStatistic)],
                [builder.Input("average0", new(8, 3, 3, 3), role: TensorRole.Average, layout: TensorLayout.Plain), builder.Input("average1", Shape.Vector(17), role: TensorRole.Average)], decay));
            yield return builder.Build();
        }
    }

    /// <summary>Scaled losses: every way that the scale can go, and what the update makes of it.</summary>
    private static IEnumerable<VerificationCase> LossScaling(Precision precision)
    {
        CaseBuilder loss = Case(precision, "softmax-cross-entropy/loss-scale", InputKind.Random);
        Shape logits = Shape.Matrix(6, 33);
        loss.Add(new SoftmaxCrossEntropy(
            "loss", loss.Input("logits", logits, Fills.Uniform(-3, 3), layout: TensorLayout.Plain, type: DataType.Float32),
            loss.Input("labels", Shape.Matrix(6, 1), Fills.Integers(0, 32), TensorRole.Label, TensorLayout.Plain, DataType.Int32),
            loss.Output("probabilities", logits, TensorRole.Result, TensorLayout.Plain), loss.Output("loss", One, TensorRole.Result, TensorLayout.Plain),
            loss.Output("diffLogits", logits, TensorRole.Gradient, TensorLayout.Plain), 0.1f, 0.3f, LossScale(loss, 4096, 7, 0)));
        yield return loss.Build();

        foreach ((string name, double scale, double good, double odd, int growth) in new[]
        {
            ("good", 1024.0, 5.0, 1.0, 2000), ("growth", 1024, 9, 1, 10), ("largest", UpdateLossScale.MostScale, 9, 1, 10), ("never-grows", 8, 99, 1, 0),
            ("infinity", 1024, 9, double.PositiveInfinity, 10), ("not-a-number", 1024, 9, double.NaN, 10), ("smallest", 1, 0, double.NegativeInfinity, 10),
            ("odd-scale", 1000, 0, 1, 10),
        })
        {
            CaseBuilder builder = Case(precision, $"update-loss-scale/{name}", InputKind.Random);
            TensorFill last = (_, _, values) => (values[0], values[^1]) = (1, odd);
            builder.Add(new UpdateLossScale("loss_scale",
            [
                builder.Input("gradient0", new(32, 33, 3, 3), role: TensorRole.ParameterGradient, layout: TensorLayout.Plain),
                builder.Input("gradient1", Shape.Vector(17), last, TensorRole.ParameterGradient, TensorLayout.Plain),
            ], LossScale(builder, scale, good, 0), builder.Output("unscale", One, TensorRole.Result, TensorLayout.Plain), growth));
            yield return builder.Build();
        }

        foreach ((string name, double overflow) in new[] { ("scaled", 0.0), ("overflow", 1.0) })
        {
            CaseBuilder builder = Case(precision, $"sgd/loss-{name}", InputKind.Random);
            Tensor parameter = builder.Input("parameter", new(16, 17, 3, 3), role: TensorRole.Parameter, layout: TensorLayout.Plain);
            Tensor gradient = builder.Input("gradient", new(16, 17, 3, 3), Fills.Uniform(-1024, 1024), TensorRole.ParameterGradient, TensorLayout.Plain);
            Tensor momentum = builder.Input("momentum", new(16, 17, 3, 3), role: TensorRole.Momentum, layout: TensorLayout.Plain);
            Tensor unscale = builder.Input("unscale", One, Fills.Constant(1.0 / 1024), TensorRole.Result, TensorLayout.Plain);
            Tensor scale = builder.Output("gradientScale", One, TensorRole.Result, TensorLayout.Plain);
            builder.Add(new ClipGradients("clip", [gradient], scale, builder.Output("norm", One, TensorRole.Result, TensorLayout.Plain), 1f, unscale));
            builder.Add(new SgdUpdate("sgd", [parameter], [gradient], [momentum], scale, 0.9f, false, 1e-2f, LossScale(builder, 1024, 3, overflow)));
            yield return builder.Build(context: new StepContext(3, 0.045f));
        }
    }

    private static Tensor LossScale(CaseBuilder builder, double scale, double good, double overflow) => builder.Input(
        "lossScale", UpdateLossScale.State, (_, _, values) => (values[0], values[1], values[2], values[3]) = (scale, good, overflow, 2), TensorRole.LossScale, TensorLayout.Plain);

    /// <summary>Adam's update of three tensors, the last of one element; one has a second moment of zeros, one all zeros.</summary>
    private static VerificationCase AdamStep(Precision precision, string name, float decay, double? scale, bool trust, long step, float factor)
    {
        CaseBuilder builder = Case(precision, $"adam/{name}", InputKind.Random);
        List<Tensor> parameters = [], gradients = [], first = [], second = [];
        TensorFill zeros = Fills.Constant(0), any = Fills.Uniform(-1, 1), squares = Fills.Uniform(0, 1);
        foreach ((Shape shape, TensorLayout layout, TensorFill fill, TensorFill moment) in new[]
        {
            (new Shape(16, 17, 3, 3), TensorLayout.Plain, any, squares), (Shape.Vector(33), TensorLayout.Blocked, any, zeros),
            (Shape.Vector(20_000), TensorLayout.Plain, any, squares), (Shape.Vector(5), TensorLayout.Plain, zeros, zeros), (Shape.Vector(1), TensorLayout.Plain, any, squares),
        })
        {
            int k = parameters.Count;
            parameters.Add(builder.Input($"parameter{k}", shape, fill, TensorRole.Parameter, layout));
            gradients.Add(builder.Input($"gradient{k}", shape, fill, TensorRole.ParameterGradient, layout));
            first.Add(builder.Input($"firstMoment{k}", shape, fill, TensorRole.Momentum, layout));
            second.Add(builder.Input($"secondMoment{k}", shape, moment, TensorRole.SecondMoment, layout));
        }

        Tensor? gradientScale = scale is null ? null : builder.Input("gradientScale", One, Fills.Constant(scale.Value), TensorRole.Result, TensorLayout.Plain);
        builder.Add(new AdamUpdate("adam", parameters, gradients, first, second, gradientScale) { WeightDecay = decay, TrustRatio = trust, RateFactor = factor });
        return builder.Build(context: new StepContext(step, 0.045f));
    }

    /// <summary>The optimizer, accumulation, clipping and averaging on weights in the layout a convolution chose: padding must not leak into norm or update.</summary>
    private static VerificationCase ConvolutionStep(Precision precision, bool trustRatio = false)
    {
        CaseBuilder builder = Case(precision, trustRatio ? "adam/lamb-convolution-weights" : "sgd/convolution-weights", InputKind.Random);
        ConvolutionSpec spec = ConvolutionSpec.Square(new(2, 17, 6, 6), 33, 3, pad: 1);
        builder.Convolution(spec);
        ConvolutionForward forward = builder.Operation<ConvolutionForward>();
        ConvolutionBackwardWeights backward = builder.Operation<ConvolutionBackwardWeights>();
        Tensor momentum = builder.Input("momentum", spec.Weights, role: TensorRole.Momentum, layout: TensorLayout.Opaque, like: forward.Weights);
        Tensor average = builder.Input("average", spec.Weights, role: TensorRole.Average, layout: TensorLayout.Opaque, like: forward.Weights);
        Tensor mean = builder.Output("meanGradient", spec.Weights, TensorRole.GradientSum, TensorLayout.Opaque, like: forward.Weights);
        Tensor scale = builder.Output("gradientScale", One, TensorRole.Result, TensorLayout.Plain);
        builder.Add(new AccumulateGradients("accumulate", [backward.DiffWeights], [mean], 2));
        builder.Add(new ClipGradients("clip", [mean], scale, builder.Output("norm", One, TensorRole.Result, TensorLayout.Plain), 1f));
        if (trustRatio)
        {
            Tensor squares = builder.Input("secondMoment", spec.Weights, Fills.Uniform(0, 1e-3), TensorRole.SecondMoment, TensorLayout.Opaque, like: forward.Weights);
            builder.Add(new AdamUpdate("lamb", [forward.Weights], [mean], [momentum], [squares], scale) { WeightDecay = 1e-2f, TrustRatio = true });
        }
        else
        {
            builder.Add(new SgdUpdate("sgd", [forward.Weights], [mean], [momentum], scale, 0.9f, true, 1e-2f));
        }

        builder.Add(new UpdateAverage("average", [forward.Weights], [average], 0.9f));

        // The new weights through the convolution again.
        builder.Add(forward with { Name = "conv-after" });
        return builder.Build(context: new StepContext(0, 0.1f));
    }

    /// <summary>Between single precision and 16 bits: masters to copies in the layouts that layers chose, activations to logits.</summary>
    private static IEnumerable<VerificationCase> Conversions(Precision precision)
    {
        DataType narrow = precision.ActivationType();
        foreach ((string name, TensorFill fill) in new[]
        {
            ("uniform", Fills.Uniform(-1, 1)), ("ties", Fills.HalfWay(narrow)), ("wide-range", Fills.Normal(0, 1e4)), ("tiny", Fills.Uniform(-1e-4, 1e-4)),
        })
        {
            CaseBuilder builder = Case(precision, $"convert-parameters/{name}", InputKind.Random);
            List<Tensor> parameters = [], copies = [];
            foreach (Shape shape in new Shape[] { new(16, 17, 3, 3), new(33, 3, 7, 7), new(5, 1, 1, 1), Shape.Vector(1) })
            {
                parameters.Add(builder.Input($"parameter{parameters.Count}", shape, fill, TensorRole.Parameter, TensorLayout.Plain));
                copies.Add(builder.Output($"copy{copies.Count}", shape, TensorRole.ParameterCopy, TensorLayout.Plain, narrow));
            }

            builder.Add(new ConvertParameters("convert", parameters, copies));
            yield return builder.Build();
        }

        foreach ((string name, DataType from, DataType to, TensorLayout fromLayout, TensorLayout toLayout) in new[]
        {
            ("to-single", narrow, DataType.Float32, TensorLayout.Plain, TensorLayout.Plain), ("from-single", DataType.Float32, narrow, TensorLayout.Blocked, TensorLayout.Blocked),
            ("blocked-to-single", narrow, DataType.Float32, TensorLayout.Blocked, TensorLayout.Plain),
        })
        {
            CaseBuilder builder = Case(precision, $"copy/{name}", InputKind.Random);
            Shape shape = new(3, 33, 2, 2);
            builder.Add(new Copy("copy", builder.Input("src", shape, layout: fromLayout, type: from), builder.Output("dst", shape, layout: toLayout, type: to)));
            yield return builder.Build();
        }

        foreach ((string name, ConvolutionSpec spec) in new[]
        {
            ("convolution", ConvolutionSpec.Square(new(2, 17, 6, 6), 33, 3, pad: 1)), ("groups", ConvolutionSpec.Square(new(2, 32, 6, 6), 32, 3, pad: 1, groups: 2)),
            ("image", ConvolutionSpec.Square(new(2, 3, 16, 16), 32, 7, stride: 2, pad: 3)), ("1x1", ConvolutionSpec.Square(new(2, 64, 4, 4), 32, 1)),
        })
        {
            yield return MasterStep(precision, name, spec);
        }
    }

    /// <summary>A step on weights whose master and copy lie as their kernels like: convert, forward, backward, update, convert, forward again.</summary>
    private static VerificationCase MasterStep(Precision precision, string name, ConvolutionSpec spec)
    {
        CaseBuilder builder = Case(precision, $"master-weights/{name}", InputKind.Random);
        Tensor master = builder.Input("master", spec.Weights, role: TensorRole.Parameter, layout: TensorLayout.Opaque);
        Tensor copy = builder.Output("copy", spec.Weights, TensorRole.ParameterCopy, TensorLayout.Opaque, precision.ActivationType());
        Tensor diffWeights = builder.Output("diffWeights", spec.Weights, TensorRole.ParameterGradient, TensorLayout.Opaque, like: master);
        Tensor momentum = builder.Input("momentum", spec.Weights, role: TensorRole.Momentum, layout: TensorLayout.Opaque, like: master);
        Tensor scale = builder.Output("gradientScale", One, TensorRole.Result, TensorLayout.Plain);
        Tensor src = builder.Input("src", spec.Src), diffDst = builder.Input("diffDst", spec.Dst, role: TensorRole.Gradient);
        var convert = new ConvertParameters("convert", [master], [copy]);
        var forward = new ConvolutionForward("conv", spec, src, copy, null, builder.Output("dst", spec.Dst));
        builder.Add(convert);
        builder.Add(forward);
        builder.Add(new ConvolutionBackwardData("conv", spec, diffDst, copy, builder.Output("diffSrc", spec.Src, TensorRole.Gradient)));
        builder.Add(new ConvolutionBackwardWeights("conv", spec, src, diffDst, diffWeights, null));
        builder.Add(new ClipGradients("clip", [diffWeights], scale, builder.Output("norm", One, TensorRole.Result, TensorLayout.Plain), 1f));
        builder.Add(new SgdUpdate("sgd", [master], [diffWeights], [momentum], scale, 0.9f, false, 1e-2f));
        builder.Add(convert with { Name = "convert-after" });
        builder.Add(forward with { Name = "conv-after" });
        return builder.Build(context: new StepContext(0, 0.1f));
    }
}
