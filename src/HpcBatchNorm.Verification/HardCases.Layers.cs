using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <content>Layers other than convolution and batch normalization, and the operations on data.</content>
internal static partial class HardCases
{
    private static IEnumerable<VerificationCase> Activations(Precision precision)
    {
        foreach (ActivationKind function in Enum.GetValues<ActivationKind>())
        {
            string name = $"activation/{function.Name()}";
            foreach ((string form, Shape shape, TensorLayout layout, double range) in new[]
            {
                ("blocked", new Shape(2, 17, 5, 3), TensorLayout.Blocked, 4.0), ("plain", new Shape(60, 100, 1, 1), TensorLayout.Plain, 4.0),
                ("saturated", new Shape(2, 16, 4, 4), TensorLayout.Blocked, 100.0), ("near-zero", new Shape(2, 16, 4, 4), TensorLayout.Blocked, 1e-3),
            })
            {
                yield return Activation(precision, $"{name}/{form}", function, shape, layout, Fills.Uniform(-range, range), inPlace: false);
            }

            yield return Activation(precision, $"{name}/in-place", function, new(2, 32, 4, 4), TensorLayout.Blocked, Fills.Uniform(-4, 4), inPlace: true);

            // Where hardswish has its corners, and where the tails of exponentials leave single precision.
            yield return Activation(precision, $"{name}/integers", function, new(2, 17, 4, 4), TensorLayout.Blocked, Fills.Integers(-4, 4), inPlace: false);
            yield return Activation(precision, $"{name}/tail", function, new(2, 16, 4, 4), TensorLayout.Blocked, Fills.Uniform(-20, -3), inPlace: false);
        }

        yield return Activation(precision, "activation/relu/zeros", ActivationKind.Relu, new(2, 17, 4, 4), TensorLayout.Blocked, Fills.Integers(-1, 1), inPlace: false);
    }

    private static VerificationCase Activation(Precision precision, string name, ActivationKind function, Shape shape, TensorLayout layout, TensorFill fill, bool inPlace)
    {
        CaseBuilder builder = new(name, InputKind.Random, precision);
        Tensor src = builder.Input("src", shape, fill, layout: layout);
        Tensor dst = inPlace ? src.Alias("dst", TensorRole.Activation) : builder.Output("dst", shape, layout: layout);
        Tensor diffDst = builder.Input("diffDst", shape, role: TensorRole.Gradient, layout: layout);
        Tensor diffSrc = inPlace ? diffDst.Alias("diffSrc", TensorRole.Gradient) : builder.Output("diffSrc", shape, TensorRole.Gradient, layout);
        builder.Add(new ActivationForward("activation", function, src, dst));

        // In place, nothing is left of src; who needs it has kept it elsewhere.
        Tensor kept = inPlace && function.GradientReadsSrc() ? builder.Input("kept", shape, fill, layout: layout) : src;
        builder.Add(ActivationBackward.Of("activation", function, kept, dst, diffDst, diffSrc));
        return builder.Build();
    }

    private static IEnumerable<VerificationCase> Poolings(Precision precision, BackendTraits traits)
    {
        (string Name, Func<PoolingKind, PoolingSpec> Spec)[] specs =
        [
            ("3x3-stride2", k => PoolingSpec.Square(new(2, 32, 9, 9), k, 3, 2)),
            ("3x3-stride2-ceil", k => PoolingSpec.Square(new(2, 32, 12, 12), k, 3, 2, ceil: true)),
            ("3x3-stride1-pad1", k => PoolingSpec.Square(new(2, 32, 7, 7), k, 3, 1, pad: 1)),
            ("3x3-stride2-pad1-odd", k => PoolingSpec.Square(new(1, 17, 11, 8), k, 3, 2, pad: 1)),
            ("3x3-pad1-ceil", k => PoolingSpec.Square(new(1, 16, 8, 10), k, 3, 2, pad: 1, ceil: true)),
            ("2x2", k => PoolingSpec.Square(new(3, 3, 6, 8), k, 2, 2)),
            ("2x2-unread-edge", k => PoolingSpec.Square(new(1, 16, 7, 7), k, 2, 2)),
            ("stride3-kernel2", k => PoolingSpec.Square(new(1, 16, 8, 8), k, 2, 3)),
            ("one-pixel", k => PoolingSpec.Square(new(2, 63, 1, 1), k, 3, 1, pad: 1)),
            ("whole-image", k => PoolingSpec.GlobalAverage(new(2, 48, 7, 7)) with { Kind = k }),
            ("window-of-289", k => new PoolingSpec(new(1, 17, 18, 20), k, 17, 17, 1, 2, 2, 3, 2, 1)),
            ("uneven", k => new PoolingSpec(new(2, 16, 9, 6), k, 3, 2, 2, 1, 1, 0, 0, 1)),
        ];
        foreach ((string name, Func<PoolingKind, PoolingSpec> spec) in specs)
        {
            foreach (PoolingKind pooling in Enum.GetValues<PoolingKind>())
            {
                string kindName = pooling switch { PoolingKind.Max => "max", PoolingKind.AverageIncludePadding => "average-include", _ => "average-exclude" };
                foreach (InputKind kind in Kinds)
                {
                    yield return Case(precision, $"pooling/{kindName}/{name}", kind).Pooling(spec(pooling)).Build();
                }
            }
        }

        if (traits.BatchNormTakesSlices)
        {
            foreach (PoolingKind pooling in Enum.GetValues<PoolingKind>())
            {
                yield return Case(precision, $"pooling/slice-{pooling.ToString().ToLowerInvariant()}", InputKind.Random).Pooling(
                    PoolingSpec.Square(new(2, 2 * traits.ChannelBlock, 7, 8), pooling, 3, 2, pad: 1), sliceOffset: traits.ChannelBlock).Build();
            }
        }

        yield return Case(precision, "pooling/max/ties", InputKind.Exact).Pooling(PoolingSpec.Square(new(2, 32, 9, 9), PoolingKind.Max, 3, 2), Fills.Ties).Build();
        yield return Case(precision, "pooling/max/ties-overlapping", InputKind.Exact).Pooling(
            PoolingSpec.Square(new(2, 17, 8, 8), PoolingKind.Max, 3, 1, pad: 1), Fills.Ties).Build();
        yield return Case(precision, "pooling/max/all-equal", InputKind.Exact).Pooling(PoolingSpec.Square(new(1, 16, 6, 6), PoolingKind.Max, 3, 2, ceil: true), Fills.Constant(0)).Build();

        // With every value negative, a zero from the padding would win.
        yield return Case(precision, "pooling/max/negative-padded", InputKind.Random).Pooling(
            PoolingSpec.Square(new(2, 17, 7, 7), PoolingKind.Max, 3, 2, pad: 1, ceil: true), Fills.Uniform(-9, -1)).Build();

        // Inference keeps no workspace.
        CaseBuilder inference = Case(precision, "pooling/max/no-workspace", InputKind.Random);
        PoolingSpec square = PoolingSpec.Square(new(2, 32, 8, 8), PoolingKind.Max, 3, 2);
        inference.Add(new PoolingForward("pool", square, inference.Input("src", square.Src), inference.Output("dst", square.Dst), null));
        yield return inference.Build();
    }

    private static IEnumerable<VerificationCase> LocalResponses(Precision precision)
    {
        foreach ((string name, LrnSpec spec) in new[]
        {
            ("size5", new LrnSpec(new(2, 64, 6, 6))), ("size3", new LrnSpec(new(2, 17, 5, 5), Size: 3)), ("size1", new LrnSpec(new(1, 16, 4, 4), Size: 1)),
            ("wider-than-channels", new LrnSpec(new(2, 3, 4, 4), Size: 9)), ("strong", new LrnSpec(new(2, 32, 4, 4), Alpha: 1f, Beta: 0.75f, K: 2f)),
            ("beta-half", new LrnSpec(new(2, 32, 4, 4), Alpha: 0.1f, Beta: 0.5f)), ("one-channel", new LrnSpec(new(2, 1, 4, 4), Alpha: 1f)),
        })
        {
            yield return Case(precision, $"lrn/{name}", InputKind.Random).LocalResponse(spec).Build();
        }
    }

    private static IEnumerable<VerificationCase> Dropouts(Precision precision)
    {
        foreach ((string name, float ratio, long step, Shape shape, TensorLayout layout, bool inPlace) in new[]
        {
            ("40%", 0.4f, 0L, new Shape(2, 1024, 1, 1), TensorLayout.Blocked, false), ("5%-step7", 0.05f, 7L, new Shape(3, 17, 3, 3), TensorLayout.Blocked, false),
            ("none", 0f, 1L, new Shape(2, 32, 2, 2), TensorLayout.Blocked, false), ("99%", 0.99f, 2L, new Shape(4, 64, 2, 2), TensorLayout.Blocked, false),
            ("late-step", 0.5f, (1L << 32) + 5, new Shape(2, 63, 2, 3), TensorLayout.Blocked, false), ("plain", 0.3f, 3L, new Shape(7, 101, 1, 1), TensorLayout.Plain, false),
            ("in-place", 0.5f, 4L, new Shape(2, 33, 2, 2), TensorLayout.Blocked, true),
        })
        {
            CaseBuilder builder = Case(precision, $"dropout/{name}", InputKind.Random);
            DropoutSpec spec = new(shape, ratio, Seed: 0x1234_5678_9ABC_DEF0, Stream: 3);
            Tensor src = builder.Input("src", shape, layout: layout), diffDst = builder.Input("diffDst", shape, role: TensorRole.Gradient, layout: layout);
            builder.Add(new Dropout("dropout", spec, src, inPlace ? src.Alias("dst", TensorRole.Activation) : builder.Output("dst", shape, layout: layout)));
            builder.Add(new Dropout("dropout", spec, diffDst,
                inPlace ? diffDst.Alias("diffSrc", TensorRole.Gradient) : builder.Output("diffSrc", shape, TensorRole.Gradient, layout), Backward: true));
            yield return builder.Build(context: new StepContext(step, 0));
        }
    }

    private static IEnumerable<VerificationCase> InnerProducts(Precision precision)
    {
        foreach ((string name, InnerProductSpec spec) in new[]
        {
            ("1024-1000", new InnerProductSpec(new(4, 1024, 1, 1), 1000)), ("no-bias", new InnerProductSpec(new(3, 64, 1, 1), 32, Bias: false)),
            ("image", new InnerProductSpec(new(2, 17, 3, 2), 10)), ("one-image", new InnerProductSpec(new(1, 100, 1, 1), 10)),
            ("one-output", new InnerProductSpec(new(5, 33, 1, 1), 1)), ("one-input", new InnerProductSpec(new(5, 1, 1, 1), 7)),
            ("mnist", new InnerProductSpec(new(60, 1, 28, 28), 100)),
        })
        {
            foreach (InputKind kind in Kinds)
            {
                yield return Case(precision, $"inner-product/{name}", kind).InnerProduct(spec).Build();
            }

            if (precision.ActivationType().IsNarrow())
            {
                yield return Case(precision, $"inner-product/{name}-logits", InputKind.Random).InnerProduct(spec, logits: true).Build();
            }
        }
    }

    private static IEnumerable<VerificationCase> Copies(Precision precision, BackendTraits traits)
    {
        int block = Math.Max(traits.ChannelBlock, 8);
        foreach ((string name, Shape shape, TensorLayout from, TensorLayout to) in new[]
        {
            ("plain-to-blocked", new Shape(2, 17, 5, 3), TensorLayout.Plain, TensorLayout.Blocked),
            ("blocked-to-plain", new Shape(2, 17, 5, 3), TensorLayout.Blocked, TensorLayout.Plain),
            ("blocked", new Shape(3, 63, 2, 2), TensorLayout.Blocked, TensorLayout.Blocked), ("plain", new Shape(3, 5, 2, 2), TensorLayout.Plain, TensorLayout.Plain),
        })
        {
            CaseBuilder builder = Case(precision, $"copy/{name}", InputKind.Random);
            builder.Add(new Copy("copy", builder.Input("src", shape, layout: from), builder.Output("dst", shape, layout: to)));
            yield return builder.Build();
        }

        foreach ((string name, int[] widths) in new[] { ("aligned", new[] { 2 * block, block, 3 * block }), ("unaligned", [17, 3, 30, 1]) })
        {
            foreach (TensorLayout layout in new[] { TensorLayout.Blocked, TensorLayout.Plain })
            {
                yield return Concatenation(precision, $"copy/concat-{name}-{layout.ToString().ToLowerInvariant()}", widths, layout);
            }
        }
    }

    /// <summary>Concatenation by copies into slices, and its backward pass by copies out of slices.</summary>
    private static VerificationCase Concatenation(Precision precision, string name, int[] widths, TensorLayout layout)
    {
        CaseBuilder builder = new(name, InputKind.Random, precision);
        Shape whole = new(2, widths.Sum(), 4, 3);
        Tensor dst = builder.Output("dst", whole, layout: layout), diffDst = builder.Input("diffDst", whole, role: TensorRole.Gradient, layout: layout);
        int offset = 0;
        for (int k = 0; k < widths.Length; offset += widths[k++])
        {
            Shape part = whole.WithChannels(widths[k]);
            builder.Add(new Copy($"concat{k}", builder.Input($"src{k}", part, layout: layout), dst.Slice($"dst[{k}]", offset, widths[k])));
            builder.Add(new Copy($"split{k}", diffDst.Slice($"diffDst[{k}]", offset, widths[k]), builder.Output($"diffSrc{k}", part, TensorRole.Gradient, layout)));
        }

        return builder.Build();
    }

    private static IEnumerable<VerificationCase> Sums(Precision precision, BackendTraits traits)
    {
        int block = Math.Max(traits.ChannelBlock, 8);
        foreach (InputKind kind in Kinds)
        {
            foreach ((string name, int count, Shape shape, TensorLayout layout, bool inPlace, int sliceOffset) in new[]
            {
                ("two", 2, new Shape(2, 17, 5, 3), TensorLayout.Blocked, false, 0), ("five", 5, new Shape(2, 32, 3, 3), TensorLayout.Blocked, false, 0),
                ("plain", 3, new Shape(4, 10, 1, 1), TensorLayout.Plain, false, 0), ("accumulate", 4, new Shape(2, 32, 4, 4), TensorLayout.Blocked, true, 0),
                ("slices", 2, new Shape(2, block, 4, 4), TensorLayout.Blocked, false, block),
            })
            {
                CaseBuilder builder = Case(precision, $"sum/{name}", kind);
                List<Tensor> srcs = [];
                for (int k = 0; k < count; k++)
                {
                    srcs.Add(builder.InputSlice($"src{k}", shape, sliceOffset, layout: layout));
                }

                Tensor dst = inPlace ? srcs[0].Alias("dst", TensorRole.Gradient) : builder.OutputSlice("dst", shape, sliceOffset, layout: layout);
                builder.Add(new Sum("sum", srcs, dst));
                yield return builder.Build();
            }
        }
    }

    private static IEnumerable<VerificationCase> Inputs(Precision precision)
    {
        TensorFill pixels = Fills.Integers(0, 255);
        foreach ((string name, Shape shape, TensorLayout layout, float[] mean, float[] inverse) in new[]
        {
            ("rgb-plain", new Shape(2, 3, 17, 9), TensorLayout.Plain, new[] { 123.68f, 116.78f, 103.94f }, new[] { 1 / 58.4f, 1 / 57.1f, 1 / 57.4f }),
            ("rgb-blocked", new Shape(2, 3, 8, 8), TensorLayout.Blocked, [128f, 128f, 128f], [1 / 128f, 1 / 128f, 1 / 128f]),
            ("grey", new Shape(5, 1, 28, 28), TensorLayout.Plain, [0f], [1 / 255f]),
        })
        {
            CaseBuilder builder = Case(precision, $"prepare-input/{name}", InputKind.Random);
            Tensor src = builder.Input("pixels", shape, pixels, TensorRole.Input, TensorLayout.Plain, DataType.UInt8);
            builder.Add(new PrepareInput("input", src, builder.Output("dst", shape, layout: layout), mean, inverse));
            yield return builder.Build();
        }
    }
}
