using System.Globalization;
using HpcBatchNorm.Interchange.Onnx;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Tensors;
using ElementType = HpcBatchNorm.Interchange.Onnx.TensorProto.Types.DataType;

namespace HpcBatchNorm.Interchange;

/// <content>The input: its size and layout, and the normalization that the graph begins with, which becomes that of the pixels.</content>
internal sealed partial class OnnxImporter
{
    private static readonly long[] ToChannelsFirst = [0, 3, 1, 2];

    private int _height, _width, _channels;
    private long _batch;
    private bool _channelsLast, _isBytes;
    private OnnxActivation? _images;
    private OnnxImages? _prepared;
    private float[] _mean = [], _deviation = [];

    private string AddInput(List<OnnxNode> needed, string output)
    {
        ValueInfoProto[] inputs = [.. _model.Graph.Input.Where(i => !_constants.ContainsKey(i.Name) && _uses.ContainsKey(i.Name))];
        if (inputs.Length == 0)
        {
            throw new UserErrorException(needed.Count == 0
                ? $"No node of '{_path}' computes its output '{output}'. Name a value that one computes as the output, or write the model again."
                : $"The output '{output}' of '{_path}' depends on none of the model's inputs ({string.Join(", ", _model.Graph.Input.Take(20).Select(i => i.Name))}); a network here has one, the images.");
        }

        if (inputs.Length > 1)
        {
            throw new UserErrorException(
                $"'{_path}' has {inputs.Length} inputs that its output depends on ({string.Join(", ", inputs.Take(20).Select(i => i.Name))}); a network here has one, the images.");
        }

        ValueInfoProto input = inputs[0];
        ElementType type = (ElementType)(input.Type?.TensorType?.ElemType ?? 0);
        _isBytes = type == ElementType.Uint8;
        if (!_isBytes && type is not (ElementType.Float or ElementType.Float16 or ElementType.Bfloat16 or ElementType.Double))
        {
            throw Unfit($"its elements are of type {type.ToString().ToUpperInvariant()}; expected FLOAT or UINT8");
        }

        long[] extents = [.. (input.Type?.TensorType?.Shape?.Dim ?? []).Select(d => d.ValueCase == TensorShapeProto.Types.Dimension.ValueOneofCase.DimValue ? d.DimValue : 0)];
        if (extents.Length != 4)
        {
            throw Unfit($"its shape has {extents.Length} extents; expected four, batch x channels x rows x columns");
        }

        _batch = Math.Max(0, extents[0]);
        if (type is ElementType.Float16 or ElementType.Bfloat16)
        {
            NoteNarrow(type);
        }

        // Channels last wherever the graph puts them first itself.
        _channelsLast = needed.Any(n => n.Operator == "Transpose" && n.Wholes("perm") is { } perm && perm.AsSpan().SequenceEqual(ToChannelsFirst));
        (long channels, long rows, long columns) = _channelsLast ? (extents[3], extents[1], extents[2]) : (extents[1], extents[2], extents[3]);
        if (channels is < 1 or > 4096)
        {
            throw Unfit($"it has {(channels == 0 ? "an open number of" : channels)} channels; expected a number of them, such as 3");
        }

        _channels = (int)channels;
        (_height, _width) = (Side(rows, 0), Side(columns, 1));
        return input.Name;

        UserErrorException Unfit(string reason) => new($"The input '{input.Name}' of '{_path}' is no images: {reason}.");
    }

    /// <summary>What was asked for, what the model declares, what its metadata say, or what is usual.</summary>
    private int Side(long declared, int axis)
    {
        if (_options.ImageSize > 0)
        {
            return _options.ImageSize <= 8192 ? _options.ImageSize : throw new UserErrorException($"An image size of {_options.ImageSize} is too large; at most 8192 is read.");
        }

        if (declared is > 0 and <= 8192)
        {
            return (int)declared;
        }

        if (declared > 0)
        {
            throw new UserErrorException($"'{_path}' is for images with a side of {declared}; at most 8192 is read. Name a smaller image size if it takes any.");
        }

        if (_metadata.TryGetValue("image_size", out string? text) && text.Split('x') is { Length: 2 } sides
            && int.TryParse(sides[axis], NumberStyles.None, CultureInfo.InvariantCulture, out int side) && side is > 0 and <= 8192)
        {
            return side;
        }

        string note = FormattableString.Invariant($"The model leaves the image size open; it was read for {UsualSize}x{UsualSize}.");
        if (!_notes.Contains(note))
        {
            _notes.Add(note);
        }

        return UsualSize;
    }

    private OnnxImages NewImages()
    {
        double[] ones = new double[_channels];
        Array.Fill(ones, 1);
        return new OnnxImages(ones, new double[_channels], _channelsLast, IsChanged: false);
    }

    /// <summary>The value as what a layer computes: the images become one where the first layer reads them.</summary>
    private OnnxActivation? Activation(string name) => Get(name) switch
    {
        OnnxActivation activation => activation,
        OnnxImages images => Materialize(images),
        OnnxUnknown => null,
        OnnxConstant => throw new UserErrorException($"its input '{name}' is a constant; only what is computed from the images is known there"),
        OnnxEnd => throw new UserErrorException("it reads probabilities; the softmax has to be the end of the graph"),
        _ => throw new UserErrorException($"its input '{name}' is a shape; only what is computed from the images is known there"),
    };

    /// <summary>An activation in the form of maps, without padding around it unless the reader can take that.</summary>
    private OnnxActivation? Maps(string name, bool padded = false) => Plain(name, padded) is not { } value ? null : value.IsMatrix
        ? throw new UserErrorException($"its input '{name}' is a matrix; expected batch x channels x rows x columns")
        : value;

    private OnnxActivation? Plain(string name, bool padded = false) => Activation(name) is { } value && value.Pad != 0 && !padded
        ? throw new UserErrorException("it reads what a node Pad gives, which is known only before convolutions and poolings")
        : Activation(name);

    private OnnxActivation Materialize(OnnxImages images)
    {
        if (images.ChannelsLast)
        {
            throw new UserErrorException("it reads images whose channels stand last; only channels before rows and columns are known");
        }

        if (_images is not null)
        {
            return images.Factors.SequenceEqual(_prepared!.Factors) && images.Offsets.SequenceEqual(_prepared.Offsets)
                ? _images
                : throw new UserErrorException("it reads the images in another normalization than the layer before; a network here has one");
        }

        (_mean, _deviation) = Normalization(images);
        (_prepared, var layer) = (images, new InputLayer(_channels));
        var made = new OnnxLayer(UniqueName("input"), "", layer, [], new Shape(1, _channels, _height, _width));
        _layers.Add(made);
        return _images = new OnnxActivation(made, IsMatrix: false, Sole: false);
    }

    /// <summary>
    /// Mean and deviation m', d' with (p - m') / d' = factor * (p - m) / d + offset for pixels p, where m and d are what happens before the model.
    /// </summary>
    private (float[] Mean, float[] Deviation) Normalization(OnnxImages images)
    {
        float[]? writtenMean = Written("pixel_mean"), writtenDeviation = Written("pixel_deviation");
        float usual = images.IsChanged || _isBytes ? 0 : 128;
        bool noMean = _options.PixelMean is null && writtenMean is null, noDeviation = _options.PixelDeviation is null && writtenDeviation is null;
        float[] mean = Channels(_options.PixelMean, "mean") ?? (_isBytes ? null : writtenMean) ?? Repeat(usual);
        float[] deviation = Channels(_options.PixelDeviation, "deviation") ?? (_isBytes ? null : writtenDeviation) ?? Repeat(Math.Max(1, usual));
        if (usual > 0 && (noMean || noDeviation))
        {
            string assumed = noMean && noDeviation ? "(pixel - 128) / 128 was" : noMean ? "a mean of 128 was" : "a deviation of 128 was";
            _notes.Add($"The model does not say how pixels become its input: {assumed} assumed. If it was trained with another mean and deviation, name them.");
        }
        else if (images.IsChanged && !_isBytes && noMean && noDeviation)
        {
            _notes.Add("The model normalises its input itself: pixels of 0 to 255 were assumed to go into it. If whoever runs it divides or subtracts something before, name that as mean and deviation.");
        }

        float[] composedMean = new float[_channels], composedDeviation = new float[_channels];
        for (int c = 0; c < _channels; c++)
        {
            double factor = images.Factors[c], wholeDeviation = deviation[c] / factor;
            composedMean[c] = (float)(mean[c] - images.Offsets[c] * wholeDeviation);
            composedDeviation[c] = (float)wholeDeviation;
            if (!(composedDeviation[c] > 0) || !float.IsFinite(composedDeviation[c]) || !float.IsFinite(composedMean[c]))
            {
                throw new UserErrorException(FormattableString.Invariant(
                    $"the images are multiplied by {factor} and {images.Offsets[c]} is added before it, which is no normalization by a mean and a positive deviation"));
            }
        }

        // What another program wrote as 1/d comes back a rounding away from d.
        return writtenMean is not null && writtenDeviation is not null && Same(composedMean, writtenMean) && Same(composedDeviation, writtenDeviation)
            ? (writtenMean, writtenDeviation) : (composedMean, composedDeviation);

        static bool Same(float[] a, float[] b) => a.Zip(b).All(p => Math.Abs(p.First - p.Second) <= 1e-6f * Math.Max(1, Math.Abs(p.Second)));
    }

    private float[] Repeat(float value) => [.. Enumerable.Repeat(value, _channels)];

    private float[]? Channels(IReadOnlyList<float>? values, string what) => values is null ? null : values.Count == 1 ? Repeat(values[0])
        : values.Count == _channels ? [.. values]
        : throw new UserErrorException($"the pixel {what} has {values.Count} values but the images {_channels} channels");

    private float[]? Written(string key)
    {
        if (!_metadata.TryGetValue(key, out string? text))
        {
            return null;
        }

        string[] parts = text.Split(',');
        float[] values = new float[_channels];
        return parts.Length == _channels && parts.Index().All(
            p => float.TryParse(p.Item, NumberStyles.Float, CultureInfo.InvariantCulture, out values[p.Index]) && float.IsFinite(values[p.Index])) ? values : null;
    }

    /// <summary>One value per channel of the images, in double, from a constant that is combined with them.</summary>
    private double[] OfImages(OnnxTensor constant, bool channelsLast)
    {
        float[] values = constant.ReadSingles();
        long[] extents = [.. Enumerable.Repeat(1L, Math.Max(0, 4 - constant.Extents.Count)), .. constant.Extents];
        int axis = channelsLast ? 3 : 1;
        bool fits = extents.Length == 4 && extents.Index().All(e => e.Item == 1 || (e.Index == axis && e.Item == _channels)) && values.Length > 0;
        return !fits
            ? throw new UserErrorException($"the images are combined with a constant of {constant.Description}; only one number, or one for each channel, is known before the first layer")
            : values.Length == 1 ? [.. Enumerable.Repeat((double)values[0], _channels)] : Array.ConvertAll(values, v => (double)v);
    }
}
