using System.Runtime.ExceptionServices;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Experiments;

/// <summary>One of several runs of an experiment.</summary>
/// <param name="Key">Its name, and that of its file: lower-case letters, digits, '-' and '.'.</param>
/// <param name="Settings">Everything its result depends on besides backend, data and quick mode; a kept result of other settings is not used.</param>
/// <param name="Run">Computes the result, reporting the share that is done; reporting throws <see cref="OperationCanceledException"/> when the experiment is to stop.</param>
internal sealed record ExperimentRun<T>(string Key, string Settings, Func<IProgress<double>, T> Run);

/// <summary>Where an experiment stands.</summary>
/// <param name="Done">Runs that are complete.</param>
/// <param name="Total">Runs of this part of the experiment.</param>
/// <param name="Share">Share of all runs' work that is done, 0 to 1.</param>
/// <param name="Key">The run that reports.</param>
internal readonly record struct ExperimentProgress(int Done, int Total, double Share, string Key);

/// <summary>What an experiment is run with, and the keeper of what its runs computed.</summary>
internal sealed class ExperimentContext
{
    private const string RunFolder = "runs";

    private readonly Lock _lock = new();

    /// <summary>The data set's path; null where the experiment needs none.</summary>
    public string? DataPath { get; init; }

    /// <summary>Seeds of what is repeated; 0 for as many as the experiment itself takes.</summary>
    public int Seeds { get; init; }

    /// <summary>The short form: fewer steps and images, so that everything together takes minutes; it shows a direction, not the paper's numbers.</summary>
    public bool Quick { get; init; }

    /// <summary>The folder of this experiment: kept results, figures, <c>result.json</c>.</summary>
    public required string Output { get; init; }

    /// <summary>Compute threads of each run; 0 for the cores there are, divided by <see cref="Jobs"/>.</summary>
    public int Threads { get; init; }

    /// <summary>Runs side by side, each with its own backend on its own thread.</summary>
    public int Jobs { get; init; } = 1;

    /// <summary>The compute threads each run gets.</summary>
    public int ThreadsPerRun => Threads > 0 ? Threads : Math.Max(1, Environment.ProcessorCount / Math.Max(1, Jobs));

    /// <summary>Training settings over those of the experiment, by name, where it trains by recipes: <c>image-size</c>, <c>epochs</c>, ...</summary>
    public IReadOnlyList<(string Name, string Value)> Settings { get; init; } = [];

    /// <summary>The backend.</summary>
    public string BackendName { get; init; } = "auto";

    /// <summary>Stops the experiment between steps; what is complete is kept.</summary>
    public CancellationToken Cancellation { get; init; }

    /// <summary>Told where the experiment stands, from the runs' threads, one at a time.</summary>
    public IProgress<ExperimentProgress>? Progress { get; init; }

    /// <summary>How results of types that this library does not know are read and written; null when there are none.</summary>
    public IJsonTypeInfoResolver? Types { get; init; }

    /// <summary>The seeds to run: 1, 2, ... as many as were asked for, or <paramref name="usual"/>; one in quick mode.</summary>
    public IReadOnlyList<ulong> SeedsOr(int usual) => [.. Enumerable.Range(1, Seeds > 0 ? Seeds : Quick ? 1 : usual).Select(s => (ulong)s)];

    /// <summary>A new backend, for the calling thread.</summary>
    /// <exception cref="UserErrorException">It cannot be used here.</exception>
    public Backend CreateBackend() =>
        Backend.Create(BackendName, new BackendOptions { Threads = ThreadsPerRun });

    /// <summary>
    /// A result, from <c>runs/KEY.json</c> in <see cref="Output"/> when an earlier call kept it there with the same settings, and computed, and kept, when
    /// not. The file is either wholly there or not at all.
    /// </summary>
    /// <param name="key">The run's name: lower-case letters, digits, '-' and '.'.</param>
    /// <param name="run">Computes the result, as <see cref="ExperimentRun{T}.Run"/>.</param>
    /// <param name="settings">What it depends on, as <see cref="ExperimentRun{T}.Settings"/>.</param>
    public T Once<T>(string key, Func<IProgress<double>, T> run, string settings = "") => All([new ExperimentRun<T>(key, settings, run)])[0];

    /// <summary>
    /// The results of many runs, in their order, <see cref="Jobs"/> at a time; each as <see cref="Once"/>. When one fails, no other is begun, those under way are
    /// ended, and its exception is thrown.
    /// </summary>
    public IReadOnlyList<T> All<T>(IReadOnlyList<ExperimentRun<T>> runs)
    {
        if (runs.FirstOrDefault(r => r.Key.Length == 0 || !r.Key.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c is '-' or '.')) is { } odd)
        {
            throw new ArgumentException($"The run's key '{odd.Key}' is not made of lower-case letters, digits, '-' and '.'.");
        }

        JsonTypeInfo<T> type = TypeInfo<T>();
        T[] results = new T[runs.Count];
        double[] shares = new double[runs.Count];
        bool[] kept = [.. runs.Select((r, i) => TryRead(r, type, out results[i]))];
        for (int i = 0; i < kept.Length; i++)
        {
            shares[i] = kept[i] ? 1 : 0;
        }

        Queue<int> waiting = new(Enumerable.Range(0, runs.Count).Where(i => !kept[i]));
        ExceptionDispatchInfo? failure = null;
        void Work()
        {
            while (true)
            {
                int i;
                lock (_lock)
                {
                    if (failure is not null || !waiting.TryDequeue(out i))
                    {
                        return;
                    }
                }

                try
                {
                    Cancellation.ThrowIfCancellationRequested();
                    T result = runs[i].Run(new Reporter(this, runs[i].Key, shares, i, () => failure is not null));
                    Write(runs[i], type, result);
                    results[i] = result;
                    Report(runs[i].Key, shares, i, 1);
                }
                catch (Exception exception)
                {
                    lock (_lock)
                    {
                        failure ??= ExceptionDispatchInfo.Capture(exception);
                    }
                }
            }
        }

        int jobs = Math.Min(Jobs, waiting.Count);
        if (jobs <= 1)
        {
            Work();
        }
        else
        {
            // Threads of their own: OpenMP's number of threads belongs to the thread that calls.
            Thread[] threads = [.. Enumerable.Range(0, jobs).Select(_ => new Thread(Work) { IsBackground = true })];
            Array.ForEach(threads, t => t.Start());
            Array.ForEach(threads, t => t.Join());
        }

        failure?.Throw();
        return results;
    }

    private void Report(string key, double[] shares, int run, double share)
    {
        lock (_lock)
        {
            shares[run] = Math.Clamp(share, 0, 1);
            Progress?.Report(new ExperimentProgress(shares.Count(s => s >= 1), shares.Length, shares.Average(), key));
        }
    }

    private string PathOf(string key) => Path.Combine(Output, RunFolder, key + ".json");

    /// <summary>What a kept result must have been computed with to be used.</summary>
    private string Circumstances(string settings) => FormattableString.Invariant(
        $"{settings}; backend {BackendName}; data {(DataPath is null ? "none" : Path.GetFullPath(DataPath))}; {(Quick ? "quick" : "full")}");

    private bool TryRead<T>(ExperimentRun<T> run, JsonTypeInfo<T> type, out T result)
    {
        result = default!;
        string path = PathOf(run.Key);
        if (!File.Exists(path))
        {
            return false;
        }

        try
        {
            using JsonDocument document = JsonDocument.Parse(RegularFile.ReadAllText(path));
            if (document.RootElement.GetProperty("settings").GetString() != Circumstances(run.Settings))
            {
                return false;
            }

            result = document.RootElement.GetProperty("result").Deserialize(type)!;
            return result is not null;
        }
        catch (Exception error) when (error is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            return false; // damaged, or of another version: computed again
        }
    }

    private void Write<T>(ExperimentRun<T> run, JsonTypeInfo<T> type, T result)
    {
        string path = PathOf(run.Key);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        AtomicFile.ReplaceText(path, $"{{\"settings\":\"{JsonEncodedText.Encode(Circumstances(run.Settings))}\",\n\"result\":{JsonSerializer.Serialize(result, type)}}}\n");
    }

    private JsonTypeInfo<T> TypeInfo<T>()
    {
        JsonSerializerOptions options = Types is null
            ? ExperimentJson.Default.Options
            : new JsonSerializerOptions(ExperimentJson.Default.Options) { TypeInfoResolver = JsonTypeInfoResolver.Combine(Types, ExperimentJson.Default) };
        return options.TryGetTypeInfo(typeof(T), out JsonTypeInfo? type) ? (JsonTypeInfo<T>)type : throw new NotSupportedException(
            $"Results of type {typeof(T)} cannot be kept: ExperimentContext.Types does not know how to write them.");
    }

    /// <summary>Reports, and ends the run when the experiment is to stop.</summary>
    private sealed class Reporter(ExperimentContext context, string key, double[] shares, int run, Func<bool> failed) : IProgress<double>
    {
        public void Report(double value)
        {
            context.Cancellation.ThrowIfCancellationRequested();
            if (failed())
            {
                throw new OperationCanceledException("Another run of the experiment failed.");
            }

            // 1 is for what has been written.
            context.Report(key, shares, run, Math.Min(value, 0.999));
        }
    }
}
