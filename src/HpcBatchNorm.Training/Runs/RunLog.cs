using System.Text.Json;
using System.Text;
using HpcBatchNorm.Interop;

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
/// replaced, which a resumed run does to drop the steps it will repeat. Lines that say nothing it knows are passed over: a killed process cuts one short,
/// and other programs may have written others.
/// </summary>
/// <param name="path">The file.</param>
/// <param name="mostBytes">Of a longer file only so many bytes at its end are read, and at its beginning what says which run it is.</param>
internal sealed class RunLog(string path, long mostBytes = long.MaxValue)
{
    // What must still stand where it was read, or the file is another one.
    private const int WitnessBytes = 256;

    private const int BeginningBytes = 1 << 16;

    private byte[] _witness = [];
    private long _read;

    public List<TrainPoint> Train { get; } = [];

    public List<EvaluationPoint> Evaluations { get; } = [];

    public List<DriftPoint> Drift { get; } = [];

    /// <summary>The last process that worked on the run; null before its first line.</summary>
    public RunStart? Start { get; private set; }

    /// <summary>How that process ended, in words for programs: <c>completed</c>, ...; null while it works, or when it was killed.</summary>
    public string? Outcome { get; private set; }

    /// <summary>Bytes that were passed over because the file is longer than what is read of it.</summary>
    public long Skipped { get; private set; }

    /// <summary>Rises with every change.</summary>
    public long Version { get; private set; }

    /// <summary>Reads what is new.</summary>
    public RunLog Update()
    {
        if (!File.Exists(path))
        {
            return this;
        }

        using FileStream file = RegularFile.OpenRead(path);
        if (_read > 0 && !IsSameFile(file))
        {
            Reset();
        }

        if (file.Length == _read)
        {
            return this;
        }

        if (_read == 0 && file.Length > mostBytes)
        {
            LineFile.Read(new MemoryStream(ReadBytes(file, 0, BeginningBytes)), 0, line => Add(line, beginning: true));
            Skipped = _read = file.Length - mostBytes;
        }

        // A line being written has no end yet, and where reading began in the middle of one, its rest is no line.
        long end = LineFile.Read(file, _read, line => Add(line, beginning: false));
        if (end == _read)
        {
            return this;
        }

        int witness = (int)Math.Min(end, WitnessBytes);
        _witness = ReadBytes(file, end - witness, witness);
        _read = end;
        Version++;
        return this;
    }

    private bool IsSameFile(FileStream file) => file.Length >= _read && ReadBytes(file, _read - _witness.Length, _witness.Length).AsSpan().SequenceEqual(_witness);

    private static byte[] ReadBytes(FileStream file, long offset, int count)
    {
        byte[] bytes = new byte[count];
        file.Position = offset;
        return bytes[..file.ReadAtLeast(bytes, count, throwOnEndOfStream: false)];
    }

    private void Reset()
    {
        Train.Clear();
        Evaluations.Clear();
        Drift.Clear();
        (Start, Outcome, _read, _witness, Skipped) = (null, null, 0, [], 0);
        Version++;
    }

    private void Add(ReadOnlySpan<byte> line, bool beginning)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(line.ToArray());
            if (document.RootElement.ValueKind == JsonValueKind.Object && (!beginning || Text(document.RootElement, "type") == "start"))
            {
                Add(document.RootElement);
            }
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException)
        {
            // Cut short by a killed process; the run that goes on drops it.
        }
    }

    private void Add(JsonElement line)
    {
        double Number(string name) => Real(line, name);
        // Of wild numbers none may overflow what is computed from it.
        long Whole(string name) => double.IsFinite(Number(name)) ? (long)Math.Clamp(Number(name), 0, 1e15) : 0;
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
                    Text(line, "title"), Whole("step"), Whole("total_steps"), Whole("steps_per_epoch"), Text(line, "machine"), (int)Math.Min(Whole("process"), int.MaxValue), facts);
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
                if (layer.ValueKind == JsonValueKind.Object)
                {
                    layers.Add(new LayerDrift(
                        Text(layer, "name"), Count(layer, "channels"), Real(layer, "shift"), Real(layer, "largest_shift"), Real(layer, "deviation"),
                        Count(layer, "quiet_channels")));
                }
            }
        }

        return layers;
    }

    private static int Count(JsonElement line, string name) => Real(line, name) is double number && double.IsFinite(number) ? (int)Math.Clamp(number, 0, 1e6) : 0;

    private static double Real(JsonElement line, string name) =>
        line.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.Number ? value.GetDouble() : double.NaN;

    private static string Text(JsonElement line, string name) =>
        line.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.String ? value.GetString()! : "";
}
