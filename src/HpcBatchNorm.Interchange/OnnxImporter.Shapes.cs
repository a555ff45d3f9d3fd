using HpcBatchNorm.Tensors;
using ElementType = HpcBatchNorm.Interchange.Onnx.TensorProto.Types.DataType;

namespace HpcBatchNorm.Interchange;

/// <content>What changes the form of a value only, and the shapes that programs compute for it.</content>
internal sealed partial class OnnxImporter
{
    private OnnxMeaning Cast(OnnxNode node)
    {
        var type = (ElementType)node.Whole("to", 0);
        node.Whole("saturate", 1);
        OnnxMeaning value = Get(node.Input(0));
        bool isWhole = type is ElementType.Int64 or ElementType.Int32, isNarrow = type is ElementType.Float16 or ElementType.Bfloat16;
        if (value switch
        {
            OnnxWholes => isWhole,
            OnnxConstant constant => constant.Tensor.IsReal ? type is ElementType.Float or ElementType.Double : constant.Tensor.IsWhole && isWhole,
            _ => isNarrow || type is ElementType.Float or ElementType.Double,
        })
        {
            if (isNarrow)
            {
                NoteNarrow(type);
            }

            return value;
        }

        throw new UserErrorException(
            $"it converts to {type.ToString().ToUpperInvariant()}; only conversions from one floating-point type to another are known, of constants to FLOAT and DOUBLE, and of shapes to INT64 and INT32");
    }

    /// <summary>Rounding is left out, which makes results finer and a little different.</summary>
    private void NoteNarrow(ElementType type)
    {
        string note = $"The model rounds its values to {type.ToString().ToUpperInvariant()}; here they stay in single precision.";
        if (!_notes.Contains(note))
        {
            _notes.Add(note);
        }
    }

    private OnnxMeaning Transpose(OnnxNode node)
    {
        long[] order = node.Wholes("perm") ?? [];
        return Get(node.Input(0)) switch
        {
            OnnxUnknown unknown => unknown,
            OnnxConstant { Tensor: { IsReal: true, Extents.Count: 2 } matrix } when order is [] or [1, 0] => new OnnxConstant(matrix.Transposed()),
            OnnxImages { ChannelsLast: true } images when order.AsSpan().SequenceEqual(ToChannelsFirst) => images with { ChannelsLast = false },
            _ => throw new UserErrorException($"it reorders to [{string.Join(", ", order)}]; only images whose channels stand last may be reordered, by [0, 3, 1, 2] and before the first layer, and constant matrices"),
        };
    }

    /// <summary>The value in the same order of elements, as a matrix or as maps. A softmax at one position may be reshaped too.</summary>
    private OnnxMeaning Form(OnnxNode node, Func<OnnxActivation, OnnxMeaning> form) => Get(node.Input(0)) switch
    {
        OnnxEnd end => form(end.Logits) is OnnxActivation logits ? end with { Logits = logits } : end,
        _ => Plain(node.Input(0)) is { } value ? form(value) : OnnxUnknown.Value,
    };

    private OnnxMeaning Flatten(OnnxNode node)
    {
        long axis = node.Whole("axis", 1);
        return Form(node, value => axis == 1 || axis == (value.IsMatrix ? -1 : -3)
            ? value with { IsMatrix = true }
            : throw new UserErrorException($"it is at axis {axis}; only flattening each image, axis 1, is known"));
    }

    private OnnxMeaning Reshape(OnnxNode node)
    {
        bool zeros = node.Flag("allowzero");
        if (Get(node.Input(1)) is OnnxUnknown)
        {
            return OnnxUnknown.Value;
        }

        long[] wanted = Wholes(Get(node.Input(1)));
        if (Get(node.Input(0)) is OnnxConstant)
        {
            throw new UserErrorException("it reshapes a constant; write that in its shape at once");
        }

        return Form(node, value =>
        {
            Shape shape = value.Layer.Shape;
            long[] own = value.IsMatrix ? [OnnxWholes.Batch, shape.ImageCount] : [OnnxWholes.Batch, shape.C, shape.H, shape.W];
            long[] target = [.. wanted.Select((w, i) => w == 0 && !zeros && i < own.Length ? own[i] : w)];

            // The first extent is the batch: left open, copied, or as many images as the program that wrote it had at a time. Another number would divide
            // images, or join them, unless the rest says that it does not.
            bool restIsOpen = target.AsSpan(Math.Min(1, target.Length)).Contains(-1);
            bool keepsBatch = target.Length > 0 && target[0] switch
            {
                OnnxWholes.Batch => true,
                -1 => !restIsOpen,
                > 0 => _batch > 0 ? target[0] == _batch : target[0] == 1 || !restIsOpen,
                _ => false,
            };
            long rest = 1;
            foreach (long extent in target.Skip(1).Where(e => e != -1))
            {
                rest = extent is > 0 and <= int.MaxValue && rest <= int.MaxValue ? rest * extent : 0;
            }

            long open = rest > 0 && shape.ImageCount % rest == 0 ? shape.ImageCount / rest : 0;
            long[] image = [.. target.Skip(1).Select(e => e == -1 ? open : e)];
            bool fits = keepsBatch && open > 0 && image.Aggregate(1L, (a, b) => a * b) == shape.ImageCount && target.Count(e => e == -1) <= 1;
            return fits && image.Length == 1 ? value with { IsMatrix = true }
                : fits && image.AsSpan().SequenceEqual([(long)shape.C, shape.H, shape.W]) ? value with { IsMatrix = false }
                : throw new UserErrorException(
                    $"it makes [{string.Join(", ", wanted.Take(16).Select(w => w == OnnxWholes.Batch ? "batch" : $"{w}"))}] of {(value.IsMatrix ? $"{shape.ImageCount} features" : $"{shape}")}; only flattening each image is known, and undoing that");
        });
    }

    private OnnxMeaning Squeeze(OnnxNode node)
    {
        long[]? axes = node.Wholes("axes") ?? Constant(node, 1)?.ReadIntegers();
        return Get(node.Input(0)) is OnnxWholes whole ? whole : Form(node, value =>
            !value.IsMatrix && value.Layer.Shape.Area == 1 && axes is not null && axes.Select(a => a < 0 ? a + 4 : a).Order().SequenceEqual([2L, 3L])
                ? value with { IsMatrix = true }
                : throw new UserErrorException($"it removes the axes [{string.Join(", ", axes ?? [])}]; only rows and columns of maps of 1x1, 2 and 3, are known"));
    }

    private OnnxMeaning Unsqueeze(OnnxNode node)
    {
        long[]? axes = node.Wholes("axes") ?? Constant(node, 1)?.ReadIntegers();
        return Get(node.Input(0)) is OnnxWholes whole && axes is [0] ? whole : Form(node, value =>
            value.IsMatrix && value.Layer.Shape.Area == 1 && axes is not null && axes.Select(a => a < 0 ? a + 4 : a).Order().SequenceEqual([2L, 3L])
                ? value with { IsMatrix = false }
                : throw new UserErrorException($"it adds the axes [{string.Join(", ", axes ?? [])}]; only making maps of 1x1 of a matrix, 2 and 3, is known"));
    }

    private OnnxMeaning ShapeOf(OnnxNode node)
    {
        long start = node.Whole("start", 0), end = node.Whole("end", long.MaxValue);
        return Get(node.Input(0)) switch
        {
            OnnxUnknown unknown => unknown,
            OnnxActivation { Pad: var pad, IsMatrix: var matrix, Layer.Shape: var shape } when pad == 0 =>
                Part(matrix ? [OnnxWholes.Batch, shape.ImageCount] : [OnnxWholes.Batch, shape.C, shape.H, shape.W]),
            OnnxImages { ChannelsLast: false } => Part([OnnxWholes.Batch, _channels, _height, _width]),
            _ => throw new UserErrorException("it gives the shape of something that is no layer's value"),
        };

        OnnxWholes Part(long[] extents)
        {
            int from = At(start), to = Math.Max(from, At(end));
            return new OnnxWholes(extents[from..to]);

            // Negative ones count from the end.
            int At(long place) => (int)Math.Clamp(place < 0 ? place + extents.Length : place, 0, extents.Length);
        }
    }

    private OnnxMeaning Gather(OnnxNode node)
    {
        long axis = node.Whole("axis", 0);
        if (Get(node.Input(0)) is OnnxUnknown)
        {
            return OnnxUnknown.Value;
        }

        return Get(node.Input(0)) is OnnxWholes { Values: var values } && axis == 0 && RequiredConstant(node, 1, "indices").ReadIntegers() is { Length: > 0 } indices
            && indices.All(i => i >= -values.Length && i < values.Length)
            ? new OnnxWholes([.. indices.Select(i => values[i < 0 ? i + values.Length : i])])
            : throw new UserErrorException("there is no layer that picks elements; only a shape's extents may be picked");
    }

    private static long[] Wholes(OnnxMeaning value) => value switch
    {
        OnnxWholes whole => whole.Values,
        OnnxConstant constant => constant.Tensor.ReadIntegers(),
        _ => throw new UserErrorException("its shape is computed from values; only constants and shapes of other values are known"),
    };
}
