using HpcBatchNorm.Layers;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Interchange;

/// <content>Convolutions and poolings: windows, and the padding around what they slide over.</content>
internal sealed partial class OnnxImporter
{
    private OnnxMeaning Convolution(OnnxNode node)
    {
        int[]? kernel = node.Window("kernel_shape", 2, 1), pads = node.Window("pads", 4, 0);
        int[] strides = node.Window("strides", 2, 1) ?? [1, 1], dilations = node.Window("dilations", 2, 1) ?? [1, 1];
        string automatic = node.Text("auto_pad", "NOTSET");
        long groups = node.Whole("group", 1);
        OnnxTensor weights = RequiredConstant(node, 1, "weights");
        if (weights.Extents.Count != 4)
        {
            throw new UserErrorException($"its weights '{weights.Name}' are {weights.Description}; only convolutions of two-dimensional images are known, outputs x channels x rows x columns");
        }

        float[] values = weights.ReadSingles();
        int[] extents = [.. weights.Extents.Select(e => (int)e)];
        kernel ??= extents[2..];
        if (!kernel.AsSpan().SequenceEqual(extents.AsSpan(2)) || kernel.Any(k => k is < 1 or > 16384))
        {
            throw new UserErrorException($"its kernel is {kernel[0]}x{kernel[1]} but its weights '{weights.Name}' are {weights.Description}");
        }

        if (groups < 1 || groups > extents[0])
        {
            throw new UserErrorException($"it has {groups} groups of {extents[0]} outputs");
        }

        OnnxTensor? bias = Constant(node, 2);
        if (Maps(node.Input(0), padded: true) is not { } maps)
        {
            return OnnxUnknown.Value;
        }

        Padding pad = Sum(maps.Pad, Padding(automatic, pads, maps, kernel, strides, dilations));
        var layer = new ConvolutionLayer(
            extents[0], (kernel[0], kernel[1]), null, (Extent)(strides[0], strides[1]), pad, (Extent)(dilations[0], dilations[1]), (int)groups, bias is not null);
        return bias is null
            ? Add(layer, [maps], isMatrix: false, ("weights", values))
            : Add(layer, [maps], isMatrix: false, ("weights", values), ("bias", bias.ReadSingles()));
    }

    private OnnxMeaning MaxPool(OnnxNode node)
    {
        (int[] kernel, int[] strides, int[]? pads, string automatic, bool ceil) = Pooling(node);
        node.Whole("storage_order", 0); // of indices, which nothing may read
        if (Maps(node.Input(0), padded: true) is not { } maps)
        {
            return OnnxUnknown.Value;
        }

        if (maps.Pad != 0 && !IsNeverNegative(maps.Layer))
        {
            throw new UserErrorException("its input is padded with zeros by a node Pad, which may be its largest values; padding never wins here");
        }

        Padding pad = Sum(maps.Pad, Padding(automatic, pads, maps, kernel, strides, [1, 1]));
        return Add(new PoolingLayer(PoolingKind.Max, (kernel[0], kernel[1]), (Extent)(strides[0], strides[1]), pad, ceil), [maps], isMatrix: false);
    }

    private OnnxMeaning AveragePool(OnnxNode node)
    {
        (int[] kernel, int[] strides, int[]? pads, string automatic, bool ceil) = Pooling(node);
        bool counted = node.Flag("count_include_pad");
        if (Maps(node.Input(0), padded: true) is not { } maps)
        {
            return OnnxUnknown.Value;
        }

        Padding own = Padding(automatic, pads, maps, kernel, strides, [1, 1]);
        if (maps.Pad != 0)
        {
            // Zeros of a node Pad are values to it, and counted.
            counted = counted || own == 0 ? true
                : throw new UserErrorException("its input is padded by a node Pad, whose zeros are counted, and it pads itself with zeros that are not");
        }

        var layer = new PoolingLayer(
            counted ? PoolingKind.AverageIncludePadding : PoolingKind.AverageExcludePadding, (kernel[0], kernel[1]), (Extent)(strides[0], strides[1]), Sum(maps.Pad, own), ceil);
        if (counted && ceil)
        {
            // ONNX divides by the part of a window within the padding, this library by the whole window.
            PoolingSpec down = (layer with { Ceil = false }).Spec(maps.Layer.Shape), up = layer.Spec(maps.Layer.Shape);
            if (up.Dst != down.Dst)
            {
                throw new UserErrorException(FormattableString.Invariant(
                    $"its last windows hang over the padding of {maps.Layer.Shape.H}x{maps.Layer.Shape.W} maps (ceil_mode), and padding is counted (count_include_pad): ONNX divides by less there than the average pooling here"));
            }
        }

        return Add(layer, [maps], isMatrix: false);
    }

    private static (int[] Kernel, int[] Strides, int[]? Pads, string Automatic, bool Ceil) Pooling(OnnxNode node)
    {
        int[] kernel = node.Window("kernel_shape", 2, 1) ?? throw new UserErrorException("it does not say its kernel_shape");
        int[] strides = node.Window("strides", 2, 1) ?? [1, 1], dilations = node.Window("dilations", 2, 1) ?? [1, 1];
        return dilations is [1, 1]
            ? (kernel, strides, node.Window("pads", 4, 0), node.Text("auto_pad", "NOTSET"), node.Flag("ceil_mode"))
            : throw new UserErrorException($"its dilations are [{dilations[0]}, {dilations[1]}]; poolings here have none");
    }

    private OnnxMeaning ReduceMean(OnnxNode node)
    {
        bool keep = node.Flag("keepdims", true);
        node.Whole("noop_with_empty_axes", 0);
        long[]? axes = node.Wholes("axes") ?? Constant(node, 1)?.ReadIntegers();
        if (Maps(node.Input(0)) is not { } maps)
        {
            return OnnxUnknown.Value;
        }

        return axes is not null && axes.Select(a => a < 0 ? a + 4 : a).Order().SequenceEqual([2L, 3L])
            ? Add(new GlobalAveragePoolingLayer(), [maps], isMatrix: !keep)
            : throw new UserErrorException($"it is over the axes [{string.Join(", ", axes ?? [])}]; only the mean over rows and columns, 2 and 3, is known");
    }

    /// <summary>Zeros around maps, which the convolution or pooling that reads them adds.</summary>
    private OnnxMeaning Pad(OnnxNode node)
    {
        string mode = node.Text("mode", "constant");
        float value = node.Real("value", 0);
        if (Constant(node, 2) is { } constant && !constant.TryScalar(out value))
        {
            throw new UserErrorException($"its value is {constant.Description}; expected a number");
        }

        long[] pads = node.Wholes("pads") ?? RequiredConstant(node, 1, "pads").ReadIntegers();
        if (Constant(node, 3) is not null)
        {
            throw new UserErrorException("it names axes; only padding of all four is known");
        }

        bool none = pads.All(p => p == 0);
        if (!none && (mode != "constant" || value != 0))
        {
            throw new UserErrorException(FormattableString.Invariant($"it pads with {(mode != "constant" ? $"mode {mode}" : $"{value}")}; only zeros are known"));
        }

        if (pads.Length != 8 || pads.Index().Any(p => p.Item is < 0 or > 16384 || (p.Index % 4 < 2 && p.Item != 0)))
        {
            throw new UserErrorException($"its pads are [{string.Join(", ", pads.Take(16))}]; only more rows and columns, not fewer, of maps are known");
        }

        if (none)
        {
            return Get(node.Input(0));
        }

        return Maps(node.Input(0), padded: true) is { } maps
            ? maps with { Sole = false, Pad = Sum(maps.Pad, new Padding((int)pads[2], (int)pads[3], (int)pads[6], (int)pads[7])) }
            : OnnxUnknown.Value;
    }

    /// <summary>True for what begins with zero: a zero beside it never is the larger one but where all are zero.</summary>
    private static bool IsNeverNegative(OnnxLayer layer)
    {
        // Each layer once: the paths through sums of sums are more than can be counted.
        HashSet<OnnxLayer> seen = [layer];
        Stack<OnnxLayer> left = new([layer]);
        while (left.TryPop(out OnnxLayer? next))
        {
            switch (next.Layer)
            {
                case ActivationLayer { Function: ActivationKind.Relu or ActivationKind.Sigmoid }:
                    break;
                case PoolingLayer or GlobalAveragePoolingLayer or DropoutLayer or ConcatLayer or SumLayer:
                    foreach (OnnxLayer input in next.Inputs.Where(seen.Add))
                    {
                        left.Push(input);
                    }

                    break;
                default:
                    return false;
            }
        }

        return true;
    }

    private static Padding Sum(Padding a, Padding b) => new(a.Top + b.Top, a.Left + b.Left, a.Bottom + b.Bottom, a.Right + b.Right);

    /// <summary>Explicit padding, or what auto_pad makes of the size of the maps.</summary>
    private static Padding Padding(string automatic, int[]? pads, OnnxActivation maps, int[] kernel, int[] strides, int[] dilations)
    {
        if (automatic is "NOTSET" or "")
        {
            return pads is null ? 0 : new Padding(pads[0], pads[1], pads[2], pads[3]);
        }

        if (automatic == "VALID")
        {
            return 0;
        }

        if (automatic is not ("SAME_UPPER" or "SAME_LOWER"))
        {
            throw new UserErrorException($"auto_pad is '{automatic}'; expected NOTSET, SAME_UPPER, SAME_LOWER or VALID");
        }

        Shape shape = maps.Layer.Shape;
        (int top, int bottom) = Same(shape.H + maps.Pad.Top + maps.Pad.Bottom, 0);
        (int left, int right) = Same(shape.W + maps.Pad.Left + maps.Pad.Right, 1);
        return new Padding(top, left, bottom, right);

        (int Before, int After) Same(int extent, int axis)
        {
            int outputs = (extent - 1) / strides[axis] + 1;
            int total = Math.Max(0, (outputs - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - extent);
            int less = total / 2;
            return automatic == "SAME_UPPER" ? (less, total - less) : (total - less, less);
        }
    }
}
