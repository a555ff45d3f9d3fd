using HpcBatchNorm.Tensors;
using ElementType = HpcBatchNorm.Interchange.Onnx.TensorProto.Types.DataType;

namespace HpcBatchNorm.Interchange;

/// <content>What changes the form of a value only, and the shapes that programs compute for it.</content>
internal sealed partial class OnnxImporter
{
    private OnnxMeaning Cast(OnnxNode node)
    {
        long type = node.Whole("to", 0);
        node.Whole("saturate", 1);
        return Get(node.Input(0)) is OnnxWholes whole && type is (long)ElementType.Int64 or (long)ElementType.Int32 ? whole
            : type is (long)ElementType.Float or (long)ElementType.Float16 or (long)ElementType.Bfloat16 or (long)ElementType.Double
                && Get(node.Input(0)) is not (OnnxWholes or OnnxConstant) ? Get(node.Input(0))
            : throw new UserErrorException($"it converts to {((ElementType)type).ToString().ToUpperInvariant()}; only values of floating-point types are known");
    }

    private OnnxMeaning Transpose(OnnxNode node)
    {
        long[] order = node.Wholes("perm") ?? [];
        return Get(node.Input(0)) switch
        {
            OnnxUnknown unknown => unknown,
            OnnxImages { ChannelsLast: true } images when order.AsSpan().SequenceEqual(ToChannelsFirst) => images with { ChannelsLast = false },
            _ => throw new UserErrorException($"it reorders to [{string.Join(", ", order)}]; only images whose channels stand last may be reordered, by [0, 3, 1, 2] and before the first layer"),
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

            // The first extent is the batch: left open, copied, or as many images as the program that wrote it had at a time.
            bool keepsBatch = target.Length > 0 && (target[0] is OnnxWholes.Batch or > 0 || (target[0] == -1 && !target.AsSpan(1).Contains(-1)));
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
        if (node.Has("start") || node.Has("end"))
        {
            throw new UserErrorException("it gives a part of a shape; only whole ones are known");
        }

        return Get(node.Input(0)) switch
        {
            OnnxUnknown unknown => unknown,
            OnnxActivation { Pad: var pad, IsMatrix: var matrix, Layer.Shape: var shape } when pad == 0 =>
                new OnnxWholes(matrix ? [OnnxWholes.Batch, shape.ImageCount] : [OnnxWholes.Batch, shape.C, shape.H, shape.W]),
            OnnxImages { ChannelsLast: false } => new OnnxWholes([OnnxWholes.Batch, _channels, _height, _width]),
            _ => throw new UserErrorException("it gives the shape of something that is no layer's value"),
        };
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
