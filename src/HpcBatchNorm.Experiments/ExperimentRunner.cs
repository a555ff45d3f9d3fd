using System.Globalization;
using System.Text.Json;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Experiments;

/// <summary>Runs experiments and writes what they found: <c>result.json</c>, and each figure as SVG and, where there is a font, as PNG.</summary>
internal static class ExperimentRunner
{
    /// <summary>The file of a result in an experiment's folder.</summary>
    public const string ResultFile = "result.json";

    /// <summary>Runs an experiment in its folder, <see cref="ExperimentContext.Output"/>.</summary>
    /// <param name="experiment">The experiment.</param>
    /// <param name="context">What it is run with.</param>
    /// <param name="note">Told what a reader should know, e.g. that there is no font for PNGs.</param>
    /// <exception cref="UserErrorException">As <see cref="Experiment.Run"/>.</exception>
    /// <exception cref="OperationCanceledException">It was stopped.</exception>
    public static ExperimentRecord Run(Experiment experiment, ExperimentContext context, Action<string>? note = null)
    {
        Directory.CreateDirectory(context.Output);
        AtomicFile.Sweep(context.Output);
        ExperimentResult result = experiment.Run(context);
        var record = new ExperimentRecord(experiment.Name, experiment.Title, experiment.Claim, result, Conditions(context), context.Quick);
        foreach (Figure figure in result.Figures)
        {
            AtomicFile.ReplaceText(Path.Combine(context.Output, figure.Name + ".svg"), figure.ToSvg());
            FigurePng.Write(figure, Path.Combine(context.Output, figure.Name + ".png"), note);
        }

        AtomicFile.ReplaceText(Path.Combine(context.Output, ResultFile), JsonSerializer.Serialize(record, ExperimentJson.Default.ExperimentRecord) + "\n");
        return record;
    }

    /// <summary>A result from an experiment's folder; null when there is none.</summary>
    /// <exception cref="UserErrorException">The file is damaged.</exception>
    public static ExperimentRecord? Read(string folder)
    {
        string path = Path.Combine(folder, ResultFile);
        try
        {
            return File.Exists(path) ? JsonSerializer.Deserialize(RegularFile.ReadAllText(path), ExperimentJson.Default.ExperimentRecord) : null;
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            throw new UserErrorException($"'{path}' is no result of this version of hpcbn ({exception.Message}); run the experiment again.", exception);
        }
    }

    private static KeyValuePair<string, string>[] Conditions(ExperimentContext context)
    {
        string backend;
        using (Backend made = context.CreateBackend())
        {
            backend = $"{made.Name}: {made.Description}";
        }

        return
        [
            new("backend", backend),
            new("processor", ProcessorName()),
            new("data", context.DataPath is null ? "none" : Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(context.DataPath)))),
            new("date", DateTime.UtcNow.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture)),
        ];
    }

    private static string ProcessorName() =>
        string.Create(CultureInfo.InvariantCulture, $"{MachineProcessor.Name()}, {Environment.ProcessorCount} logical");
}
