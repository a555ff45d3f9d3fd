using HpcBatchNorm.Data;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Reporting;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Tests.Training;

/// <summary>A tiny generated data set, made once, and short runs on it with the smallest network.</summary>
public sealed class TrainingFixture : IDisposable
{
    public TrainingFixture()
    {
        Folder = Directory.CreateTempSubdirectory("hpcbn-training").FullName;
        Data = Path.Combine(Folder, "data");
        SampleGenerator.Write(Data, new SampleOptions { Classes = 3, TrainPerClass = 8, ValidationPerClass = 3, ImageSize = 16 });
    }

    /// <summary>The fast backend where it can be used; the claims hold on any.</summary>
    public static string Backend { get; } = Backends.Backend.Probe().Any(p => p is { Name: "onednn", Available: true }) ? "onednn" : "reference";

    public string Folder { get; }

    /// <summary>24 training images (6 steps of 4) and 9 validation images (2 full batches and one more image).</summary>
    public string Data { get; }

    /// <summary>Flags of a short run: a new folder unless <paramref name="output"/> is given.</summary>
    public (string Name, string Value)[] Flags(string output, params (string Name, string Value)[] more) =>
    [
        ("backend", Backend), ("data", Data), ("model", "inception-tiny"), ("image-size", "8"), ("batch-size", "4"), ("workers", "1"), ("log-every", "2"),
        ("dropout", "0.2"), ("schedule", "constant"), ("output", output), .. more,
    ];

    public string NewFolder() => Path.Combine(Folder, Guid.NewGuid().ToString("N"));

    /// <summary>Runs until the end, or until the observer stops it.</summary>
    internal static TrainingResult Run(TrainingRequest request, RecordingObserver observer)
    {
        using PreparedRun run = request.Prepare(observer.Note);
        return run.Run(observer, RunSinks.All, observer.Token);
    }

    /// <summary>Every tensor of a checkpoint, bit for bit.</summary>
    public static Dictionary<string, float[]> Tensors(string path)
    {
        using SafetensorsFile file = SafetensorsFile.Open(path);
        return file.Tensors.ToDictionary(t => t.Name, t =>
        {
            float[] values = new float[t.Count];
            file.Read(t.Name, values);
            return values;
        });
    }

    public void Dispose() => Directory.Delete(Folder, recursive: true);
}

/// <summary>Remembers what a run reported, and can stop it after a step.</summary>
internal sealed class RecordingObserver : ITrainingObserver, IDisposable
{
    private readonly CancellationTokenSource _stop = new();

    public long StopAfter { get; init; } = -1;

    /// <summary>Called with the number of every step that is done.</summary>
    public Action<long>? OnStep { get; init; }

    /// <summary>Called after every checkpoint.</summary>
    public Action? OnSaved { get; init; }

    public List<string> Notes { get; } = [];

    public List<float> Losses { get; } = new(1000);

    /// <summary>Managed bytes the training thread had allocated, after every step.</summary>
    public List<long> AllocatedBytes { get; } = new(1000);

    public List<EvaluationResult> Evaluations { get; } = [];

    public CancellationToken Token => _stop.Token;

    public void Note(string message) => Notes.Add(message);

    public void Started(IReadOnlyList<(string Name, string Value)> facts, long firstStep, long totalSteps)
    {
    }

    public void Stepped(in StepReport report)
    {
        Losses.Add(report.Loss);
        AllocatedBytes.Add(GC.GetAllocatedBytesForCurrentThread());
        OnStep?.Invoke(report.Step);
        if (report.Step == StopAfter)
        {
            _stop.Cancel();
        }
    }

    public void Evaluated(in EvaluationReport report) => Evaluations.Add(report.Validation);

    public void Saved(string checkpoint) => OnSaved?.Invoke();

    public void Dispose() => _stop.Dispose();
}
