using System.Diagnostics;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Reporting;

/// <summary>What a run's folder says of it, read again on demand.</summary>
internal sealed class RunFolder(string path)
{
    /// <summary>The file of <see cref="PredictionLog"/> in a run's folder.</summary>
    public const string PredictionsName = "predictions.json";

    /// <summary>What is read of a log: more than a million lines' worth of it can be neither seen nor told apart in a chart.</summary>
    private const long MostLogBytes = 64 << 20;

    /// <summary>What is read of any other file; a run's own are far below a megabyte.</summary>
    private const long MostTextBytes = 16 << 20;

    /// <summary>Without news for so long, a run on another machine is taken for dead.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(15);

    /// <summary>The folder, as it was named.</summary>
    public string Path => path;

    /// <summary>The last part of <see cref="Path"/>.</summary>
    public string Name { get; } = System.IO.Path.GetFileName(System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(path)));

    /// <summary>Its metrics.</summary>
    public RunLog Log { get; } = new(MetricsOf(path), MostLogBytes);

    /// <summary>When the metrics were last written, local time.</summary>
    public DateTime Changed => File.GetLastWriteTime(MetricsOf(path));

    /// <summary>The effective configuration, or nothing.</summary>
    public string Config => ReadText("config.yaml");

    /// <summary>What <see cref="PredictionLog"/> wrote, or nothing.</summary>
    public string Predictions => ReadText(PredictionsName);

    /// <summary>
    /// <c>running</c>; how the last process ended (<c>completed</c>, <c>interrupted</c>, <c>time_limit</c>, <c>stopped_early</c>, <c>loss_not_finite</c>); <c>killed</c> when it ended without
    /// saying so.
    /// </summary>
    public string State => Log.Outcome ?? (IsAlive ? "running" : "killed");

    /// <summary>True when the folder holds a run.</summary>
    public static bool IsRun(string folder) => RegularFile.Exists(MetricsOf(folder));

    /// <summary>The newest checkpoint, or null.</summary>
    public string? NewestCheckpoint()
    {
        string folder = RunDirectory.CheckpointFolder(path);
        return Directory.Exists(folder) ? Directory.GetFiles(folder, "*.safetensors").Order(StringComparer.Ordinal).LastOrDefault() : null;
    }

    private bool IsAlive
    {
        get
        {
            if (Log.Start is not { } start || start.Machine != Environment.MachineName)
            {
                return DateTime.Now - Changed < Patience;
            }

            try
            {
                using Process process = Process.GetProcessById(start.Process);
                return !process.HasExited;
            }
            catch (Exception error) when (error is ArgumentException or InvalidOperationException or System.ComponentModel.Win32Exception)
            {
                return false;
            }
        }
    }

    private static string MetricsOf(string folder) => System.IO.Path.Combine(folder, "metrics.jsonl");

    private string ReadText(string name)
    {
        string file = System.IO.Path.Combine(path, name);
        return RegularFile.Exists(file) && new FileInfo(file).Length <= MostTextBytes ? RegularFile.ReadAllText(file) : "";
    }
}
