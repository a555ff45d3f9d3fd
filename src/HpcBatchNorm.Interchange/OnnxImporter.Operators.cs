using HpcBatchNorm.Layers;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Interchange;

/// <content>The table of operators, and those that are no windows and no shapes.</content>
internal sealed partial class OnnxImporter
{
    private static readonly string[] BatchNormInputs = ["scale", "B", "mean", "var"];

    /// <summary>What a node computes. Attributes are looked at before inputs, so that they are told even behind something that cannot be read.</summary>
    private OnnxMeaning Convert(OnnxNode node)
    {
        foreach (string input in node.Inputs.Where(i => i.Length > 0))
        {
            Get(input); // there is one
        }

        return node.Operator switch
        {
            "Conv" => Convolution(node),
            "Gemm" => Gemm(node),
            "MatMul" => MatMul(node),
            "BatchNormalization" => BatchNormalization(node),
            "Relu" => Activation(node, ActivationKind.Relu),
            "Sigmoid" => Activation(node, ActivationKind.Sigmoid),
            "Tanh" => Activation(node, ActivationKind.Tanh),
            "HardSwish" or OnnxPatterns.HardSwish => Activation(node, ActivationKind.HardSwish),
            OnnxPatterns.Silu => Activation(node, ActivationKind.Silu),
            OnnxPatterns.Gelu => Activation(node, ActivationKind.Gelu),
            "Gelu" => node.Text("approximate", "none") is "none" ? Activation(node, ActivationKind.Gelu)
                : throw new UserErrorException("approximate is not none; only the exact form of GELU is known"),
            "Clip" => Clip(node),
            "LeakyRelu" => node.Real("alpha", 0.01f) is 0 ? Activation(node, ActivationKind.Relu)
                : throw new UserErrorException("there is no layer for a ReLU with a slope below zero"),
            "MaxPool" => MaxPool(node),
            "AveragePool" => AveragePool(node),
            "GlobalAveragePool" => Maps(node.Input(0)) is { } maps ? Add(new GlobalAveragePoolingLayer(), [maps], isMatrix: false) : OnnxUnknown.Value,
            "ReduceMean" => ReduceMean(node),
            "LRN" => LocalResponseNorm(node),
            "Pad" => Pad(node),
            "Concat" => Concat(node),
            "Sum" => Sum(node),
            "Add" or "Sub" or "Mul" or "Div" => Arithmetic(node),
            "Dropout" => Dropout(node),
            "Identity" => Get(node.Input(0)),
            "Cast" => Cast(node),
            "Transpose" => Transpose(node),
            "Flatten" => Flatten(node),
            "Reshape" => Reshape(node),
            "Squeeze" => Squeeze(node),
            "Unsqueeze" => Unsqueeze(node),
            "Shape" => ShapeOf(node),
            "Gather" => Gather(node),
            "Softmax" => Softmax(node, OnnxOutput.Probabilities),
            "LogSoftmax" => Softmax(node, OnnxOutput.LogProbabilities),
            _ => throw new UserErrorException("there is no layer for this operator"),
        };
    }

    private OnnxMeaning Activation(OnnxNode node, ActivationKind function) =>
        Plain(node.Input(0)) is { } value ? Add(new ActivationLayer(function), [value], value.IsMatrix) : OnnxUnknown.Value;

    /// <summary>A ReLU when it only cuts below zero.</summary>
    private OnnxMeaning Clip(OnnxNode node)
    {
        float low = Bound("min", 1, float.NegativeInfinity), high = Bound("max", 2, float.PositiveInfinity);
        return low == 0 && high >= float.MaxValue ? Activation(node, ActivationKind.Relu)
            : low <= float.MinValue && high >= float.MaxValue ? Get(node.Input(0))
            : throw new UserErrorException(FormattableString.Invariant($"there is no layer that cuts to [{low}, {high}]{(low == 0 && high == 6 ? " (ReLU6)" : "")}"));

        float Bound(string name, int input, float otherwise) => node.Has(name) ? node.Real(name, otherwise)
            : Constant(node, input) is not { } tensor ? otherwise
            : tensor.TryScalar(out float value) ? value : throw new UserErrorException($"its {name} is {tensor.Description}; expected a number");
    }

    private OnnxMeaning LocalResponseNorm(OnnxNode node)
    {
        long size = node.Whole("size", 0);
        var layer = new LrnLayer(
            size is > 0 and < 4096 ? (int)size : throw new UserErrorException($"size is {size}; expected an odd number of channels"),
            node.Real("alpha", 1e-4f), node.Real("beta", 0.75f), node.Real("bias", 1));
        return Maps(node.Input(0)) is { } maps ? Add(layer, [maps], isMatrix: false) : OnnxUnknown.Value;
    }

    private OnnxMeaning BatchNormalization(OnnxNode node)
    {
        float epsilon = node.Real("epsilon", 1e-5f), kept = node.Real("momentum", 0.9f);
        bool perActivation = node.Whole("spatial", 1) == 0;
        if (node.Flag("training_mode"))
        {
            throw new UserErrorException("training_mode is set; only the form for inference, with constant statistics, can be read");
        }

        // Before operator set 14 there was no attribute: the further outputs, statistics of the batch, were what said it.
        if (_operatorSet < 14 && node.Outputs.Skip(1).Any(o => o.Length > 0))
        {
            throw new UserErrorException(
                $"it has {node.Outputs.Count} outputs, which is the form for training: it normalizes by the batch. Only the form for inference can be read; write the model again for inference");
        }

        OnnxTensor[] tensors = [.. BatchNormInputs.Select((name, i) => RequiredConstant(node, i + 1, name))];
        if (Plain(node.Input(0)) is not { } value)
        {
            return OnnxUnknown.Value;
        }

        // Of a matrix every element of an image is a channel.
        perActivation = (perActivation || value.IsMatrix) && value.Layer.Shape.Area > 1;

        // In decimals, as both programs write it: 1 - 0.9f is not 0.1f.
        var layer = new BatchNormLayer(epsilon, (float)Math.Round(1 - (double)kept, 6), perActivation);
        return Add(
            layer, [value], value.IsMatrix, ("scale", tensors[0].ReadSingles()), ("shift", tensors[1].ReadSingles()), ("running_mean", tensors[2].ReadSingles()),
            ("running_variance", tensors[3].ReadSingles()));
    }

    private OnnxMeaning Gemm(OnnxNode node)
    {
        float alpha = node.Real("alpha", 1), beta = node.Real("beta", 1);
        bool transposed = node.Flag("transB");
        if (node.Flag("transA"))
        {
            throw new UserErrorException("transA is set; images have to be the rows of a fully connected layer's input");
        }

        OnnxTensor weights = RequiredConstant(node, 1, "constant B");
        return FullyConnected(node, weights, transposed, alpha, Constant(node, 2), beta);
    }

    private OnnxMeaning MatMul(OnnxNode node)
    {
        OnnxTensor weights = RequiredConstant(node, 1, "constant factor");
        return FullyConnected(node, weights, transposed: false, 1, null, 1);
    }

    private OnnxMeaning FullyConnected(OnnxNode node, OnnxTensor weights, bool transposed, float alpha, OnnxTensor? bias, float beta)
    {
        if (weights.Extents.Count != 2)
        {
            throw new UserErrorException($"its weights '{weights.Name}' are {weights.Description}; expected a matrix");
        }

        float[] values = transposed ? weights.ReadSingles() : weights.ReadTransposed();
        int outputs = (int)weights.Extents[transposed ? 0 : 1];
        float[]? shifts = bias is null ? null : PerChannel(bias, outputs) ?? throw new UserErrorException(
            $"its bias '{bias.Name}' is {bias.Description}; expected {outputs} values, one for each output");
        Scale(values, alpha);
        Scale(shifts, beta);
        if (Plain(node.Input(0)) is not { } value)
        {
            return OnnxUnknown.Value;
        }

        return !value.IsMatrix
            ? throw new UserErrorException("it reads maps; only matrices, batch x features, are known for its first input")
            : shifts is null
                ? Add(new FullyConnectedLayer(outputs, bias: false), [value], isMatrix: true, ("weights", values))
                : Add(new FullyConnectedLayer(outputs), [value], isMatrix: true, ("weights", values), ("bias", shifts));

        static void Scale(float[]? values, float factor)
        {
            foreach (ref float value in factor == 1 ? [] : values.AsSpan())
            {
                value *= factor;
            }
        }
    }

    /// <summary>One value for each of so many columns, from a vector, a row or one number; null when it is none of these.</summary>
    private static float[]? PerChannel(OnnxTensor tensor, int count)
    {
        bool isRow = tensor.Extents.Count <= 2 && tensor.Extents.Take(tensor.Extents.Count - 1).All(e => e == 1) && (tensor.Extents.Count == 0 || tensor.Extents[^1] == count);
        return isRow && tensor.Extents.Count > 0 ? tensor.ReadSingles()
            : tensor.Extents.Count <= 2 && tensor.TryScalar(out float value) ? [.. Enumerable.Repeat(value, count)] : null;
    }

    private OnnxMeaning Dropout(OnnxNode node)
    {
        float ratio = node.Real("ratio", 0.5f);
        node.Whole("seed", 0); // of another generator
        if (Constant(node, 1) is { } given)
        {
            ratio = given.TryScalar(out float value) ? value : throw new UserErrorException($"its ratio is {given.Description}; expected a number");
        }

        if (Constant(node, 2) is { } mode && mode.ReadIntegers() is [not 0, ..])
        {
            throw new UserErrorException("training_mode is set; only the form for inference can be read");
        }

        // The layers of dropout stay: whoever trains the network further wants them.
        return Get(node.Input(0)) is OnnxImages images ? images
            : Plain(node.Input(0)) is not { } input ? OnnxUnknown.Value
            : ratio == 0 ? input : Add(new DropoutLayer(ratio), [input], input.IsMatrix);
    }

    private OnnxMeaning Softmax(OnnxNode node, OnnxOutput kind)
    {
        long axis = node.Whole("axis", _operatorSet < 13 ? 1 : -1);
        if (Plain(node.Input(0)) is not { } value)
        {
            return OnnxUnknown.Value;
        }

        int rank = value.IsMatrix ? 2 : 4;
        return (axis == 1 || axis == 1 - rank) && value.Layer.Shape.Area == 1
            ? new OnnxEnd(value, kind)
            : throw new UserErrorException($"it is over axis {axis} of {value.Layer.Shape}; only a softmax over the classes of an image, at one position, is known");
    }

    private OnnxMeaning Concat(OnnxNode node)
    {
        if (!node.Has("axis"))
        {
            throw new UserErrorException("it does not say its axis");
        }

        long axis = node.Whole("axis", 0);
        OnnxMeaning[] values = [.. node.Inputs.Select(Get)];
        if (values.Contains(OnnxUnknown.Value))
        {
            return OnnxUnknown.Value;
        }

        if (values.Length > 0 && values.All(v => v is OnnxWholes || (v is OnnxConstant { Tensor.Extents.Count: <= 1 } && axis == 0)))
        {
            return new OnnxWholes([.. values.SelectMany(Wholes)]);
        }

        OnnxActivation?[] inputs = [.. node.Inputs.Select(n => Plain(n))];
        if (inputs.Contains(null))
        {
            return OnnxUnknown.Value;
        }

        OnnxActivation[] known = [.. inputs.OfType<OnnxActivation>()];
        int rank = known.All(i => i.IsMatrix) ? 2 : 4;
        if ((axis != 1 && axis != 1 - rank) || (rank == 4 && known.Any(i => i.IsMatrix)))
        {
            throw new UserErrorException($"it joins along axis {axis}; only joining maps, or matrices, along their channels is known");
        }

        return known.Length == 1 ? known[0] : Add(new ConcatLayer(), known, known[0].IsMatrix);
    }

    private OnnxMeaning Sum(OnnxNode node)
    {
        OnnxActivation?[] inputs = [.. node.Inputs.Select(n => Plain(n))];
        if (inputs.Contains(null))
        {
            return OnnxUnknown.Value;
        }

        OnnxActivation[] known = [.. inputs.OfType<OnnxActivation>()];
        return known.Any(i => i.IsMatrix != known[0].IsMatrix)
            ? throw new UserErrorException("it adds maps and matrices; only values of one shape can be added")
            : known.Length == 1 ? known[0] : Add(new SumLayer(), known, known[0].IsMatrix);
    }
}
