using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Json;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Training;

/// <summary>
/// The files of a run: <c>config.yaml</c>, <c>metrics.jsonl</c> (one object per line; docs/metrics.md has every field), <c>summary.csv</c> (one line per
/// evaluation), <c>report.html</c>, <c>checkpoints/</c>. Numbers are written in the invariant culture. Opening it at a step drops the lines of
/// later steps, which a resumed run writes again.
/// </summary>
internal sealed class RunDirectory : IDisposable
{
    /// <summary>Where runs are made when no folder is named.</summary>
    public const string Root = "runs";

    public const string CheckpointFolderName = CheckpointStore.FolderName;

    private const string SummaryHead =
        "epoch,step,train_loss,val_loss,val_top1,val_top5,learning_rate,images_per_second,data_wait_share,seconds";

    private readonly FileStream _metrics, _summary;
    private readonly RunLock _lock;
    private readonly ArrayBufferWriter<byte> _buffer = new(512);
    private readonly Utf8JsonWriter _json;

    public RunDirectory(string path, long firstStep, long evaluatedStep)
    {
        Path = path;
        try
        {
            Directory.CreateDirectory(path);
            _lock = RunLock.Take(path);
            AtomicFile.Sweep(path);
            KeepLines(MetricsPath, line => StepOfMetric(line, out bool evaluation) <= (evaluation ? evaluatedStep : firstStep));
            KeepLines(SummaryPath, line => StepOfSummary(line) <= evaluatedStep);
            _json = new Utf8JsonWriter(_buffer);
            _metrics = OpenForLines(MetricsPath);
            _summary = OpenForLines(SummaryPath);
            if (_metrics.Length == 0)
            {
                WriteUnits();
            }

            if (_summary.Length == 0)
            {
                AppendLine(_summary, SummaryHead);
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            Dispose();
            throw new UserErrorException($"The run's folder '{path}' cannot be written: {error.Message} Put that right, or set output to another folder.", error);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public string Path { get; }

    /// <summary>True once the folder was found to be another's, or gone.</summary>
    public bool IsLost { get; private set; }

    public string ConfigPath => System.IO.Path.Combine(Path, "config.yaml");

    public string MetricsPath => MetricsOf(Path);

    public string SummaryPath => System.IO.Path.Combine(Path, "summary.csv");

    public string ReportPath => ReportOf(Path);

    /// <summary>Where the metrics of a run are.</summary>
    public static string MetricsOf(string run) => System.IO.Path.Combine(run, "metrics.jsonl");

    /// <summary>Where the report of a run is, if one is made.</summary>
    public static string ReportOf(string run) => System.IO.Path.Combine(run, "report.html");

    public static string CheckpointFolder(string run) => System.IO.Path.Combine(run, CheckpointFolderName);

    /// <summary>A folder that does not exist yet: <c>runs/20260131-235959-bn-inception-bn-x5</c>.</summary>
    public static string NewPath(string network, string run, DateTime now)
    {
        string name = string.Create(CultureInfo.InvariantCulture, $"{now:yyyyMMdd-HHmmss}-{network}-{run}");
        name = string.Join('-', name.Split(System.IO.Path.GetInvalidFileNameChars(), StringSplitOptions.RemoveEmptyEntries));
        return FreePath(System.IO.Path.Combine(Root, name));
    }

    /// <summary>The folder, or with <c>-2</c> and so on behind its name the first that does not exist yet.</summary>
    public static string FreePath(string folder)
    {
        folder = System.IO.Path.TrimEndingDirectorySeparator(folder);
        string path = folder;
        for (int i = 2; System.IO.Path.Exists(path); i++)
        {
            path = string.Create(CultureInfo.InvariantCulture, $"{folder}-{i}");
        }

        return path;
    }

    /// <summary>
    /// Throws where the folder is not the one any more that this run began to write to: what is written to files that somebody has deleted is lost, and a run
    /// that began anew under the same name must not get this one's checkpoints.
    /// </summary>
    /// <exception cref="IOException">It was deleted, moved, or begun anew by another process.</exception>
    public void CheckIsOurs()
    {
        // Not by the file's number, which some file systems invent anew each time.
        var found = new FileInfo(MetricsPath);
        IsLost = IsLost || !found.Exists || (found.LinkTarget is null && found.Length != _metrics.Length);
        if (IsLost)
        {
            throw new IOException($"'{MetricsPath}' is not what this run wrote any more: the folder was deleted, moved, or begun anew by another process while it trained.");
        }
    }

    public void WriteConfig(string yaml) => AtomicFile.ReplaceText(ConfigPath, yaml);

    /// <summary>A process begins to work on the run.</summary>
    public void WriteStart(
        string title, IReadOnlyList<(string Name, string Value)> facts, long firstStep, double epoch, long totalSteps, long stepsPerEpoch, double elapsedSeconds)
    {
        Begin("start", firstStep, epoch);
        _json.WriteString("title", title);
        _json.WriteNumber("total_steps", totalSteps);
        _json.WriteNumber("steps_per_epoch", stepsPerEpoch);
        _json.WriteString("machine", Environment.MachineName);
        _json.WriteNumber("process", Environment.ProcessId);
        _json.WriteStartObject("facts");
        foreach ((string name, string value) in facts)
        {
            _json.WriteString(name, value);
        }

        _json.WriteEndObject();
        End(elapsedSeconds);
    }

    /// <summary>The process ends, as far as it can say so itself.</summary>
    public void WriteEnd(TrainingOutcome outcome, string? stopReason, long step, double epoch, double elapsedSeconds)
    {
        Begin("end", step, epoch);
        _json.WriteString("outcome", JsonNamingPolicy.SnakeCaseLower.ConvertName(outcome.ToString()));
        if (stopReason is not null)
        {
            _json.WriteString("reason", stopReason);
        }

        End(elapsedSeconds);
    }

    public void WriteStep(in StepReport report, double elapsedSeconds)
    {
        Begin("train", report.Step, report.Epoch);
        WriteFinite("loss", report.MeanLoss);
        _json.WriteNumber("learning_rate", report.LearningRate);
        _json.WriteNumber("images_per_second", Math.Round(report.ImagesPerSecond, 3));
        _json.WriteNumber("data_wait_share", Math.Round(report.DataWaitShare, 5));
        _json.WriteNumber("peak_memory_mb", Math.Round(ProcessMemory.PeakMb(), 1));
        if (report.LossScale is { } scale)
        {
            _json.WriteNumber("loss_scale", scale.Scale);
            _json.WriteNumber("skipped_steps", scale.SkippedSteps);
        }

        WriteMetrics(report.Metrics);
        End(elapsedSeconds);
    }

    public void WriteEvaluation(in EvaluationReport report, float learningRate, double imagesPerSecond, double dataWaitShare, double elapsedSeconds)
    {
        EvaluationResult validation = report.Validation;
        Begin("eval", report.Step, report.Epoch);
        WriteFinite("train_loss", report.TrainLoss);
        WriteFinite("val_loss", validation.Loss);
        _json.WriteNumber("val_top1", validation.Top1);
        _json.WriteNumber("val_top5", validation.Top5);
        _json.WriteNumber("images", validation.Images);
        _json.WriteNumber("images_per_second", Math.Round(validation.ImagesPerSecond, 3));
        _json.WriteBoolean("best", report.IsBest);
        WriteMetrics(report.Metrics);
        End(elapsedSeconds);
        AppendLine(_summary, string.Create(CultureInfo.InvariantCulture,
            $"{report.Epoch:0.####},{report.Step},{report.TrainLoss:0.######},{validation.Loss:0.######},{validation.Top1:0.######},{validation.Top5:0.######},{learningRate},{imagesPerSecond:0.###},{dataWaitShare:0.#####},{elapsedSeconds:0.###}"));
    }

    /// <summary>Makes everything written so far survive a power cut; for a checkpoint that says these lines exist.</summary>
    /// <exception cref="IOException">The folder is not this run's any more, or the disk fails.</exception>
    public void FlushToDisk()
    {
        CheckIsOurs();
        _metrics.Flush(flushToDisk: true);
        _summary.Flush(flushToDisk: true);
    }

    /// <summary>How the statistics of batch normalization moved since an earlier evaluation.</summary>
    public void WriteDrift(long step, double epoch, long sinceStep, IReadOnlyList<LayerDrift> layers, double elapsedSeconds)
    {
        Begin("batch_norm", step, epoch);
        _json.WriteNumber("since_step", sinceStep);
        _json.WriteStartArray("layers");
        foreach (LayerDrift layer in layers)
        {
            _json.WriteStartObject();
            _json.WriteString("name", layer.Layer);
            _json.WriteNumber("channels", layer.Channels);
            WriteFinite("shift", Math.Round(layer.Shift, 6));
            WriteFinite("largest_shift", Math.Round(layer.LargestShift, 6));
            WriteFinite("deviation", layer.Deviation);
            _json.WriteNumber("quiet_channels", layer.QuietChannels);
            _json.WriteEndObject();
        }

        _json.WriteEndArray();
        End(elapsedSeconds);
    }

    public void Dispose()
    {
        _json?.Dispose();
        _metrics?.Dispose();
        _summary?.Dispose();
        _lock?.Dispose();
    }

    /// <summary>Unbuffered: what could not be written must not be tried again when the file is closed.</summary>
    private static FileStream OpenForLines(string path) => new(path, FileMode.Append, FileAccess.Write, FileShare.Read, bufferSize: 0);

    private static void AppendLine(FileStream file, string line) => Append(file, Encoding.UTF8.GetBytes(line + "\n"));

    /// <summary>Appends a line wholly or, when the disk is full, not at all.</summary>
    private static void Append(FileStream file, ReadOnlySpan<byte> line)
    {
        long length = file.Length;
        try
        {
            file.Write(line);
        }
        catch (IOException)
        {
            file.SetLength(length);
            throw;
        }
        catch (ArgumentOutOfRangeException error) when (AtomicFile.IsTooLarge(error))
        {
            file.SetLength(length);
            throw AtomicFile.TooLarge(file.Name, length, error);
        }
    }

    private void WriteUnits()
    {
        _json.WriteStartObject();
        _json.WriteString("type", "units");
        _json.WriteString("step", "steps done");
        _json.WriteString("epoch", "epochs done");
        _json.WriteString("loss", "nats per image, mean since the last line");
        _json.WriteString("learning_rate", "per step");
        _json.WriteString("images_per_second", "images / elapsed seconds; training lines without evaluation and checkpoints");
        _json.WriteString("data_wait_share", "share of training time spent waiting for images, 0 to 1");
        _json.WriteString("peak_memory_mb", "peak resident memory, 10^6 bytes");
        _json.WriteString("loss_scale", "what the loss's gradient is multiplied by, in fp16");
        _json.WriteString("skipped_steps", "steps of the run that updated nothing because a gradient overflowed, in fp16");
        _json.WriteString("train_loss", "nats per image, mean since the last evaluation");
        _json.WriteString("val_loss", "nats per image, mean");
        _json.WriteString("val_top1", "fraction of images, centre crop");
        _json.WriteString("val_top5", "fraction of images, centre crop");
        _json.WriteString("images", "images evaluated");
        _json.WriteString("shift", "standard deviations of the channel since since_step, median over the channels");
        _json.WriteString("largest_shift", "the same, largest over the channels");
        _json.WriteString("deviation", "root of the mean running variance");
        _json.WriteString("time", "UTC");
        _json.WriteString("seconds", "since this process began to train");
        EndLine();
    }

    private void Begin(string type, long step, double epoch)
    {
        CheckIsOurs();
        _json.WriteStartObject();
        _json.WriteString("type", type);
        _json.WriteNumber("step", step);
        _json.WriteNumber("epoch", Math.Round(epoch, 6));
        _json.WriteString("time", DateTime.UtcNow.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture));
    }

    private void End(double elapsedSeconds)
    {
        _json.WriteNumber("seconds", Math.Round(elapsedSeconds, 3));
        EndLine();
    }

    private void EndLine()
    {
        _json.WriteEndObject();
        _json.Flush();
        _buffer.GetSpan(1)[0] = (byte)'\n';
        _buffer.Advance(1);
        Append(_metrics, _buffer.WrittenSpan);
        _buffer.ResetWrittenCount();
        _json.Reset();
    }

    private void WriteMetrics(IReadOnlyDictionary<string, double> metrics)
    {
        if (metrics.Count > 0)
        {
            _json.WriteStartObject("metrics");
            foreach ((string name, double value) in metrics)
            {
                WriteFinite(name, value);
            }

            _json.WriteEndObject();
        }
    }

    // JSON has no infinity and no NaN.
    private void WriteFinite(string name, double value)
    {
        if (double.IsFinite(value))
        {
            _json.WriteNumber(name, value);
        }
        else
        {
            _json.WriteNull(name);
        }
    }

    private static void KeepLines(string path, Func<string, bool> keep)
    {
        if (!File.Exists(path))
        {
            return;
        }

        AtomicFile.Replace(path, temporary =>
        {
            using FileStream source = RegularFile.OpenRead(path);
            using var kept = new FileStream(temporary, FileMode.Create, FileAccess.Write);
            LineFile.Read(source, 0, line =>
            {
                if (keep(Encoding.UTF8.GetString(line)))
                {
                    kept.Write(line);
                    kept.WriteByte((byte)'\n');
                }
            }, unfinished: true);
            kept.Flush(flushToDisk: true);
        });
    }

    /// <summary>0 for lines without a step; a line cut short by a killed process, or that is no object, counts as later than everything.</summary>
    private static long StepOfMetric(string line, out bool evaluation)
    {
        evaluation = false;
        try
        {
            using JsonDocument document = JsonDocument.Parse(line);
            JsonElement root = document.RootElement;
            if (root.ValueKind != JsonValueKind.Object)
            {
                return long.MaxValue;
            }

            evaluation = root.TryGetProperty("type", out JsonElement type) && type.ValueKind == JsonValueKind.String && type.GetString() is "eval" or "batch_norm";
            return !root.TryGetProperty("step", out JsonElement step) || step.ValueKind != JsonValueKind.Number ? 0
                : step.TryGetInt64(out long number) ? number : long.MaxValue;
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException)
        {
            return long.MaxValue;
        }
    }

    private static long StepOfSummary(string line)
    {
        string[] cells = line.Split(',');
        return line == SummaryHead ? 0
            : cells.Length == SummaryHead.Count(c => c == ',') + 1 && long.TryParse(cells[1], NumberStyles.None, CultureInfo.InvariantCulture, out long step) ? step
            : long.MaxValue;
    }
}
