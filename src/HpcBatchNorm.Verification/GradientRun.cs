using System.Runtime.InteropServices;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Verification;

/// <summary>A layer of one's own on memory of its own, called as a session would, and the rules its two passes keep.</summary>
internal sealed class GradientRun
{
    /// <summary>Values that memory holds before a call; the second is none that a layer computes by chance.</summary>
    private const float FirstPoison = float.NaN, SecondPoison = -7654321.5f;

    /// <summary>Inputs lie on this grid, so that every step of a difference is exact in single precision.</summary>
    public const double Grid = 1.0 / (1 << 16);

    private readonly CustomArguments _arguments;
    private readonly ICustomFunction _function;
    private readonly CustomLayer _layer;
    private readonly ulong _seed;
    private readonly List<string> _problems;
    private readonly float[][] _saved, _statistics, _initialStatistics, _diffSrcs, _diffParameters;
    private readonly float[] _dst, _diffDst;

    public GradientRun(CustomLayer layer, CustomSpec spec, ulong seed, List<string> problems)
    {
        (_layer, _function, Spec, _seed, _problems) = (layer, layer, spec, seed, problems);
        _arguments = new CustomArguments(spec);
        Srcs = Allocate(_arguments.Srcs);
        Parameters = Allocate(_arguments.Parameters);
        _statistics = Allocate(_arguments.RunningStatistics);
        _saved = Allocate(_arguments.Saved);
        _diffSrcs = Allocate(_arguments.DiffSrcs);
        _diffParameters = Allocate(_arguments.DiffParameters);
        _dst = Allocate(ref _arguments.Dst);
        _diffDst = Allocate(ref _arguments.DiffDst);
        for (int i = 0; i < Srcs.Length; i++)
        {
            var random = new RandomSequence(seed, (uint)i);
            foreach (ref float value in Srcs[i].AsSpan())
            {
                value = OnGrid(random.NextGaussian());
            }
        }

        FillParameters();
        _initialStatistics = [.. _statistics.Select(s => s.ToArray())];
        var directions = new RandomSequence(seed, 1000);
        foreach (ref float value in _diffDst.AsSpan())
        {
            // Neither near 0, where an element's gradient would not show, nor all of one sign, where normalization cancels it.
            value = (float)((directions.NextBelow(2) == 0 ? 1 : -1) * directions.NextDouble(0.5, 1.5));
        }
    }

    public CustomSpec Spec { get; }

    public float[][] Srcs { get; }

    public float[][] Parameters { get; }

    public ReadOnlySpan<float> Dst => _dst;

    public ReadOnlySpan<float> DiffDst => _diffDst;

    /// <summary>sum(r * dst) after a forward pass in training.</summary>
    public double Loss(BatchNormStatistics statistics)
    {
        Forward(statistics, training: true, FirstPoison);
        double sum = 0;
        for (int i = 0; i < _dst.Length; i++)
        {
            sum += (double)_dst[i] * _diffDst[i];
        }

        return sum;
    }

    /// <summary>Everything is set, and nothing but the inputs decides it.</summary>
    public void CheckForward(BatchNormStatistics statistics, bool training)
    {
        string pass = training ? "Forward in training" : "Forward at inference";
        List<(string Name, float[] Values)> outputs = [("dst", _dst)];
        if (training)
        {
            outputs.AddRange(Spec.Saved.Zip(_saved, (s, values) => ($"the saved tensor '{s.Name}'", values)));
            outputs.AddRange(Spec.RunningStatistics.Zip(_statistics, (s, values) => ($"the running statistic '{s.Name}'", values)));
        }

        Forward(statistics, training, FirstPoison);
        float[][] first = [.. outputs.Select(o => o.Values.ToArray())];
        Forward(statistics, training, FirstPoison);
        float[][] again = [.. outputs.Select(o => o.Values.ToArray())];
        Forward(statistics, training, SecondPoison);
        for (int i = 0; i < outputs.Count; i++)
        {
            CheckOutput(pass, outputs[i].Name, first[i], again[i], outputs[i].Values);
        }
    }

    /// <summary>At inference the output of an image depends on that image alone.</summary>
    public void CheckIndependence()
    {
        int images = Spec.Dst.N;
        if (images < 2 || Spec.Srcs.Any(s => s.N != images) || _problems.Count > 0)
        {
            return;
        }

        Forward(BatchNormStatistics.Running, training: false, FirstPoison);
        float[] before = _dst.AsSpan(0, Spec.Dst.ImageCount).ToArray();
        float[][] kept = [.. Srcs.Select(s => s.ToArray())];
        for (int i = 0; i < Srcs.Length; i++)
        {
            foreach (ref float value in Srcs[i].AsSpan(Spec.Srcs[i].ImageCount))
            {
                value = 3 * value + 1;
            }
        }

        Forward(BatchNormStatistics.Running, training: false, FirstPoison);
        if (FirstDifference(before, _dst.AsSpan(0, before.Length)) >= 0)
        {
            _problems.Add(
                "Forward at inference: the output of an image changes with the other images of its batch. Use running statistics where Statistics is Running.");
        }

        for (int i = 0; i < Srcs.Length; i++)
        {
            kept[i].CopyTo(Srcs[i], 0);
        }
    }

    /// <summary>The gradients, of inputs first, then of parameters; null when they cannot be used.</summary>
    public float[][]? Backward(BatchNormStatistics statistics)
    {
        int before = _problems.Count;
        float[][] gradients = [.. _diffSrcs, .. _diffParameters];
        Forward(statistics, training: true, FirstPoison);
        Backward(statistics, FirstPoison);
        float[][] first = [.. gradients.Select(g => g.ToArray())];
        Backward(statistics, FirstPoison);
        float[][] again = [.. gradients.Select(g => g.ToArray())];
        Backward(statistics, SecondPoison);
        for (int i = 0; i < gradients.Length; i++)
        {
            CheckOutput("Backward", NameOf(i), first[i], again[i], gradients[i]);
        }

        if (_problems.Count == before)
        {
            // Another forward pass in between, as when one layer stands in two places: what was kept in a field is the other's now.
            GradientRun other = new(_layer, Spec, _seed + 1, []);
            Forward(statistics, training: true, FirstPoison);
            other.Forward(statistics, training: true, FirstPoison);
            Backward(statistics, FirstPoison);
            for (int i = 0; i < gradients.Length; i++)
            {
                if (FirstDifference(first[i], gradients[i]) >= 0)
                {
                    _problems.Add($"Backward: {NameOf(i)} changes when Forward was called for other inputs in between. Keep nothing in fields; declare it in Saved.");
                    break;
                }
            }
        }

        return _problems.Count == before ? first : null;
    }

    /// <summary>A gradient's role: <c>diffSrc</c>, <c>gradient of 'scale'</c>.</summary>
    public string NameOf(int gradient) =>
        gradient < Srcs.Length ? _arguments.DiffSrcs[gradient].Name : $"gradient of '{Spec.Parameters[gradient - Srcs.Length].Name}'";

    public Shape ShapeOf(int gradient) => gradient < Srcs.Length ? Spec.Srcs[gradient] : Spec.Parameters[gradient - Srcs.Length].Shape;

    private void Forward(BatchNormStatistics statistics, bool training, float poison)
    {
        Array.Fill(_dst, poison);
        for (int i = 0; i < _saved.Length; i++)
        {
            Array.Fill(_saved[i], poison);
        }

        for (int i = 0; i < _statistics.Length; i++)
        {
            _initialStatistics[i].CopyTo(_statistics[i], 0);
        }

        (_arguments.Statistics, _arguments.Training) = (statistics, training);
        _function.Forward(new ForwardContext(_arguments));
    }

    private void Backward(BatchNormStatistics statistics, float poison)
    {
        foreach (float[] gradient in _diffSrcs.Concat(_diffParameters))
        {
            Array.Fill(gradient, poison);
        }

        (_arguments.Statistics, _arguments.Training) = (statistics, true);
        _function.Backward(new BackwardContext(_arguments));
    }

    private void CheckOutput(string pass, string name, float[] first, float[] again, float[] otherwise)
    {
        if (FirstDifference(first, again) is >= 0 and int changed)
        {
            _problems.Add($"{pass}: a second call with the same inputs gives other values in {name}, first at element {changed}. Keep nothing in fields, and take random numbers from the step's number.");
            return;
        }

        int unset = 0, notFinite = 0;
        for (int i = 0; i < first.Length; i++)
        {
            unset += float.IsNaN(first[i]) && otherwise[i] == SecondPoison ? 1 : 0;
            notFinite += !float.IsFinite(first[i]) && !float.IsFinite(otherwise[i]) ? 1 : 0;
        }

        if (unset > 0)
        {
            _problems.Add($"{pass}: {unset} of {first.Length} elements of {name} are not set.");
        }
        else if (notFinite > 0)
        {
            _problems.Add($"{pass}: {notFinite} of {first.Length} elements of {name} are not finite.");
        }
        else if (FirstDifference(first, otherwise) is >= 0 and int index)
        {
            _problems.Add($"{pass}: {name} depends on what was in memory before the call, first at element {index}. Set every element before reading or adding to it.");
        }
    }

    /// <summary>Away from the initial values, at which faults hide: multiplied by 0.8 to 1.2, and moved by up to 0.2.</summary>
    private void FillParameters()
    {
        int parameter = 0, statistic = 0;
        uint stream = 100;
        foreach (ParameterSpec spec in _layer.Parameters(Spec.Srcs))
        {
            float[] values = spec.Kind == ParameterKind.RunningStatistic ? _statistics[statistic++] : Parameters[parameter++];
            spec.Initializer.Fill(spec.Shape, values, _seed, spec.Name);
            var random = new RandomSequence(_seed, stream++);
            foreach (ref float value in values.AsSpan())
            {
                value = OnGrid(value * random.NextDouble(0.8, 1.2) + random.NextDouble(-0.2, 0.2));
            }
        }
    }

    private static float OnGrid(double value) => (float)(Math.Round(value / Grid) * Grid);

    private static float[][] Allocate(CustomTensor[] tensors)
    {
        float[][] arrays = new float[tensors.Length][];
        for (int i = 0; i < tensors.Length; i++)
        {
            arrays[i] = Allocate(ref tensors[i]);
        }

        return arrays;
    }

    /// <summary>Memory that stays where it is.</summary>
    private static float[] Allocate(ref CustomTensor tensor)
    {
        float[] values = GC.AllocateArray<float>(checked((int)tensor.Shape.Count), pinned: true);
        tensor.Address = Marshal.UnsafeAddrOfPinnedArrayElement(values, 0);
        return values;
    }

    private static int FirstDifference(ReadOnlySpan<float> a, ReadOnlySpan<float> b)
    {
        for (int i = 0; i < a.Length; i++)
        {
            if (a[i] != b[i] && !(float.IsNaN(a[i]) && float.IsNaN(b[i])))
            {
                return i;
            }
        }

        return -1;
    }
}
