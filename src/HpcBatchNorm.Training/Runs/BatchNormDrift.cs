using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Training;

/// <summary>How the input of one batch normalization changed between two evaluations, from its running statistics.</summary>
/// <param name="Layer">The layer: <c>inception_3a/3x3/bn</c>.</param>
/// <param name="Channels">Its channels.</param>
/// <param name="Shift">
/// Median over the channels of how far the input's distribution moved, in standard deviations: sqrt((mean' - mean)^2 + (deviation' - deviation)^2) /
/// deviation, which is the 2-Wasserstein distance of two normal distributions. NaN when there is nothing to compare with.
/// </param>
/// <param name="LargestShift">The same of the channel that moved most.</param>
/// <param name="Deviation">Root of the mean running variance over the channels.</param>
/// <param name="QuietChannels">Channels whose running variance is less than a millionth of the layer's mean: their input no longer depends on the image.</param>
public readonly record struct LayerDrift(string Layer, int Channels, double Shift, double LargestShift, double Deviation, int QuietChannels);

/// <summary>
/// Watches what the paper calls internal covariate shift: how the distributions that batch normalization sees move from one evaluation to the next. Its
/// own memory of the last evaluation lies in the run's folder, so that a resumed run goes on with the same numbers.
/// </summary>
internal sealed class BatchNormDrift
{
    private const string Folder = "statistics", FilePrefix = "step-", FileSuffix = ".safetensors";

    // The evaluation before the last is the one to compare with when a run is killed between an evaluation and its checkpoint.
    private const int Kept = 2;

    private const double Quiet = 1e-6;

    private Session _session;
    private Dictionary<string, Tensor> _current;
    private readonly string _folder;
    private readonly List<(string Layer, Tensor Mean, Tensor Variance)> _layers = [];
    private readonly Dictionary<Tensor, float[]> _before = new(ReferenceEqualityComparer.Instance);

    public BatchNormDrift(TrainingSession session, string run, long firstStep, long evaluatedStep)
    {
        Follow(session);
        _folder = Path.Combine(run, Folder);
        const string MeanSuffix = ".running_mean", VarianceSuffix = ".running_variance";
        Dictionary<string, Tensor> statistics = session.State.Where(s => s.Tensor.Role == TensorRole.RunningStatistic).ToDictionary(s => s.Source.Name, s => s.Tensor);
        foreach ((string name, Tensor mean) in statistics)
        {
            if (name.EndsWith(MeanSuffix, StringComparison.Ordinal) && statistics.TryGetValue(name[..^MeanSuffix.Length] + VarianceSuffix, out Tensor? variance))
            {
                _layers.Add((name[..^MeanSuffix.Length], mean, variance));
            }
        }

        AtomicFile.Sweep(_folder);
        foreach (string later in Files().Where(f => string.CompareOrdinal(f, FileOf(evaluatedStep)) > 0))
        {
            File.Delete(later);
        }

        // Before the first evaluation there is nothing to compare with, whether the run was stopped or not.
        if (evaluatedStep > 0)
        {
            SinceStep = TryLoad(FileOf(evaluatedStep)) ? evaluatedStep : firstStep;
            if (SinceStep == firstStep)
            {
                Remember();
            }
        }
    }

    /// <summary>The step <see cref="Measure(long)"/> compares with; 0 when there is none yet.</summary>
    public long SinceStep { get; private set; }

    /// <summary>From now on the statistics are those of another session, which goes on where the last one ended.</summary>
    [MemberNotNull(nameof(_session), nameof(_current))]
    public void Follow(TrainingSession session)
    {
        _session = session;
        _current = session.State.Where(s => s.Tensor.Role == TensorRole.RunningStatistic).ToDictionary(s => s.Tensor.Name, s => s.Tensor);
    }

    /// <summary>Compares the statistics now with those of the last call, in the network's order, and remembers them.</summary>
    public IReadOnlyList<LayerDrift> Measure(long step)
    {
        bool compare = _before.Count > 0;
        LayerDrift[] drifts = [.. _layers.Select(l => Measure(l.Layer, l.Mean, l.Variance, compare))];
        Remember();
        Save(step);
        SinceStep = step;
        return drifts;
    }

    private LayerDrift Measure(string layer, Tensor meanTensor, Tensor varianceTensor, bool compare)
    {
        float[] mean = Read(meanTensor), variance = Read(varianceTensor);
        double meanVariance = variance.Average(v => (double)v);
        int quiet = variance.Count(v => v < Quiet * meanVariance);
        double[] shifts = [];
        if (compare)
        {
            float[] oldMean = _before[meanTensor], oldVariance = _before[varianceTensor];
            // A channel that was constant has no deviation to measure by; the layer's smallest sensible one stands in.
            double floor = Math.Sqrt(Quiet * Math.Max(oldVariance.Average(v => (double)v), double.Epsilon));
            shifts = [.. mean.Select((m, c) =>
            {
                double oldDeviation = Math.Sqrt(oldVariance[c]);
                return double.Hypot(m - (double)oldMean[c], Math.Sqrt(variance[c]) - oldDeviation) / Math.Max(oldDeviation, floor);
            })];
            Array.Sort(shifts);
        }

        return new LayerDrift(
            layer, mean.Length, compare ? shifts[shifts.Length / 2] : double.NaN, compare ? shifts[^1] : double.NaN, Math.Sqrt(meanVariance), quiet);
    }

    private void Remember()
    {
        foreach ((_, Tensor mean, Tensor variance) in _layers)
        {
            _before[mean] = Read(mean);
            _before[variance] = Read(variance);
        }
    }

    private float[] Read(Tensor tensor)
    {
        float[] values = new float[tensor.Shape.Count];
        _session.Read(_current[tensor.Name], values);
        return values;
    }

    private void Save(long step)
    {
        if (_layers.Count == 0)
        {
            return;
        }

        Directory.CreateDirectory(_folder);
        Tensor[] tensors = [.. _layers.SelectMany(l => new[] { l.Mean, l.Variance })];
        SafetensorsTensor[] entries = [.. tensors.Select(t => new SafetensorsTensor(t.Name, "F32", [t.Shape.C]))];
        AtomicFile.Replace(FileOf(step), temporary => SafetensorsFile.Write(temporary, entries, [],
            (i, bytes) => _before[tensors[i]].CopyTo(System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(bytes))));
        foreach (string old in Files().Skip(Kept))
        {
            File.Delete(old);
        }
    }

    /// <summary>False when the file is missing or damaged: drift is then measured from where the run goes on.</summary>
    private bool TryLoad(string path)
    {
        try
        {
            using SafetensorsFile file = SafetensorsFile.Open(path);
            foreach (Tensor tensor in _layers.SelectMany(l => new[] { l.Mean, l.Variance }))
            {
                float[] values = new float[tensor.Shape.Count];
                file.Read(tensor.Name, values);
                _before[tensor] = values;
            }

            return file.VerifyChecksum();
        }
        catch (Exception error) when (error is UserErrorException or ArgumentException or KeyNotFoundException)
        {
            return false;
        }
    }

    /// <summary>Newest first.</summary>
    private string[] Files() => Directory.Exists(_folder)
        ? [.. Directory.GetFiles(_folder, FilePrefix + "*" + FileSuffix).OrderDescending(StringComparer.Ordinal)]
        : [];

    private string FileOf(long step) => Path.Combine(_folder, string.Create(CultureInfo.InvariantCulture, $"{FilePrefix}{step:D8}{FileSuffix}"));
}
