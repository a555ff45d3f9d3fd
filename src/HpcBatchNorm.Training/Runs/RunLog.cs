using System.Text.Json;
using System.Text;

namespace HpcBatchNorm.Training;

/// <summary>A line of type <c>train</c>; what is missing is NaN.</summary>
internal readonly record struct TrainPoint(
    double Epoch, long Step, double Loss, double LearningRate, double ImagesPerSecond, double DataWaitShare, double PeakMemoryMb, double Seconds);

/// <summary>An evaluation of a run as its metrics keep it; what is missing or not finite is NaN.</summary>
/// <param name="Epoch">Epochs done.</param>
/// <param name="Step">Steps done.</param>
/// <param name="TrainLoss">Mean training loss since the evaluation before.</param>
/// <param name="Loss">Mean cross-entropy on the validation images in nats.</param>
/// <param name="Top1">Top-1 accuracy, a fraction.</param>
/// <param name="Top5">Top-5 accuracy, a fraction.</param>
/// <param name="Images">Images evaluated.</param>
public readonly record struct EvaluationPoint(double Epoch, long Step, double TrainLoss, double Loss, double Top1, double Top5, long Images);

/// <summary>A line of type <c>batch_norm</c>.</summary>
internal sealed record DriftPoint(double Epoch, long Step, long SinceStep, IReadOnlyList<LayerDrift> Layers);

/// <summary>A line of type <c>start</c>: one per process that worked on the run.</summary>
internal sealed record RunStart(
    string Title, long FirstStep, long TotalSteps, long StepsPerEpoch, string Machine, int Process, IReadOnlyList<(string Name, string Value)> Facts);

/// <summary>
/// <c>metrics.jsonl</c> as it is now. <see cref="Update"/> reads only what has been appended since the last call, and everything anew when the file was
/// replaced, which a resumed run does to drop the steps it will repeat.
/// </summary>
internal sealed class RunLog(string path)
{
    // What must still stand where it was read, or the file is another one.
    private const int WitnessBytes = 256;

    private byte[] _witness = [];
    private long _read;

    public List<TrainPoint> Train { get; } = [];

    public List<EvaluationPoint> Evaluations { get; } = [];

    public List<DriftPoint> Drift { get; } = [];

    /// <summary>The last process that worked on the run; null before its first line.</summary>
    public RunStart? Start { get; private set; }

    /// <summary>How that process ended, in words for programs: <c>completed</c>, ...; null while it works, or when it was killed.</summary>
    public string? Outcome { get; private set; }

    /// <summary>Rises with every change.</summary>
    public long Version { get; private set; }

    /// <summary>Reads what is new.</summary>
    public RunLog Update()
    {
        if (!File.Exists(path))
        {
            return this;
        }

        // A writer may replace the file while it is read.
        using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        if (_read > 0 && !IsSameFile(file))
        {
            Reset();
        }

        if (file.Length == _read)
        {
            return this;
        }

        byte[] added = new byte[file.Length - _read];
        file.Position = _read;
        int count = file.ReadAtLeast(added, added.Length, throwOnEndOfStream: false);
        // A line being written has no end yet.
        int end = added.AsSpan(0, count).LastIndexOf((byte)'\n') + 1;
        if (end == 0)
        {
            return this;
        }

        foreach (string line in Encoding.UTF8.GetString(added, 0, end).Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            Add(line);
        }

        _witness = added[Math.Max(0, end - WitnessBytes)..end];
        _read += end;
        Version++;
        return this;
    }

    private bool IsSameFile(FileStream file)
    {
        if (file.Length < _read)
        {
            return false;
        }

        Span<byte> now = stackalloc byte[WitnessBytes];
        now = now[.._witness.Length];
        file.Position = _read - _witness.Length;
        file.ReadExactly(now);
        return now.SequenceEqual(_witness);
    }

    private void Reset()
    {
        Train.Clear();
        Evaluations.Clear();
        Drift.Clear();
        (Start, Outcome, _read, _witness) = (null, null, 0, []);
        Version++;
    }

    private void Add(string line)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(line);
            Add(document.RootElement);
        }
        catch (JsonException)
        {
            // Cut short by a killed process; the run that goes on drops it.
        }
    }

    private void Add(JsonElement line)
    {
        double Number(string name) => Real(line, name);
        long Whole(string name) => double.IsFinite(Number(name)) ? (long)Number(name) : 0;
        switch (Text(line, "type"))
        {
            case "train":
                Train.Add(new TrainPoint(
                    Number("epoch"), Whole("step"), Number("loss"), Number("learning_rate"), Number("images_per_second"), Number("data_wait_share"),
                    Number("peak_memory_mb"), Number("seconds")));
                break;
            case "eval":
                Evaluations.Add(new EvaluationPoint(
                    Number("epoch"), Whole("step"), Number("train_loss"), Number("val_loss"), Number("val_top1"), Number("val_top5"), Whole("images")));
                break;
            case "batch_norm":
                Drift.Add(new DriftPoint(Number("epoch"), Whole("step"), Whole("since_step"), Layers(line)));
                break;
            case "start":
                List<(string, string)> facts = [];
                if (line.TryGetProperty("facts", out JsonElement all) && all.ValueKind == JsonValueKind.Object)
                {
                    facts.AddRange(all.EnumerateObject().Select(f => (f.Name, f.Value.ToString())));
                }

                Start = new RunStart(
                    Text(line, "title"), Whole("step"), Whole("total_steps"), Whole("steps_per_epoch"), Text(line, "machine"), (int)Whole("process"), facts);
                Outcome = null;
                break;
            case "end":
                Outcome = Text(line, "outcome");
                break;
        }
    }

    private static List<LayerDrift> Layers(JsonElement line)
    {
        List<LayerDrift> layers = [];
        if (line.TryGetProperty("layers", out JsonElement all) && all.ValueKind == JsonValueKind.Array)
        {
            foreach (JsonElement layer in all.EnumerateArray())
            {
                layers.Add(new LayerDrift(
                    Text(layer, "name"), (int)Real(layer, "channels"), Real(layer, "shift"), Real(layer, "largest_shift"), Real(layer, "deviation"),
                    (int)Real(layer, "quiet_channels")));
            }
        }

        return layers;
    }

    private static double Real(JsonElement line, string name) =>
        line.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.Number ? value.GetDouble() : double.NaN;

    private static string Text(JsonElement line, string name) =>
        line.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.String ? value.GetString()! : "";
}
