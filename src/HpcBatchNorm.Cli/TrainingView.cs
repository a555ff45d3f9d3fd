using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;
using Spectre.Console;

namespace HpcBatchNorm.Cli;

/// <summary>
/// What people see of a run: on a terminal a bar with the current figures and one line per evaluation, elsewhere one plain line every
/// <see cref="RunConfig.LogEvery"/> steps, and one every half minute of an evaluation. A figure in parentheses is the mean since the last line.
/// </summary>
internal sealed class TrainingView(TextWriter output, string? progress) : ITrainingObserver
{
    private readonly bool _live = ProgressBar.IsWanted(output, progress);

    private const double SecondsBetweenFigures = 0.2, SecondsBetweenEvaluationLines = 30;

    private IAnsiConsole? _console;
    private ProgressTask? _task;
    private long _described, _evaluationLine;

    public static Option<string> CreateOption()
    {
        var option = new Option<string>("--progress") { HelpName = "auto|always|never", Description = "Progress bar; auto: on a terminal", DefaultValueFactory = _ => "auto" };
        option.AcceptOnlyFromAmong("auto", "always", "never");
        return option;
    }

    /// <summary>Runs a training, with a bar around it on a terminal.</summary>
    public TrainingResult Run(Func<ITrainingObserver, TrainingResult> train)
    {
        if (!_live)
        {
            return train(this);
        }

        _console = ProgressBar.CreateConsole(output, progress);
        TrainingResult? result = null;
        ProgressBar.Around(_console, 1, task =>
        {
            _task = task;
            result = train(this);
        });
        _task = null;
        return result!;
    }

    /// <summary>Prints the effective settings with where each came from: those that are not at their defaults or were given as flags, or all of them.</summary>
    public void Settings(TrainingConfigBuilder settings, bool all)
    {
        Line($"hpcbn train: recipe {settings.Config.Name}");
        Setting[] shown = [.. TrainingSettings.All.Where(s => all || !s.IsDefault(settings.Config) || settings.Origin(s.Name) == TrainingConfigBuilder.Flag)];
        foreach (IGrouping<SettingGroup, Setting> group in shown.GroupBy(s => s.Group))
        {
            Line($"  {group.Key.ToString().ToLowerInvariant()}");
            foreach (Setting setting in group)
            {
                string value = setting.Get(settings.Config);
                Line($"    {setting.Name,-29} {(value.Length == 0 ? "-" : value),-22} {settings.Origin(setting.Name)}");
            }
        }

        if (shown.Length < TrainingSettings.All.Count)
        {
            Line(string.Create(CultureInfo.InvariantCulture, $"  and {TrainingSettings.All.Count - shown.Length} settings at their defaults, which --verbose shows"));
        }
    }

    public void Note(string message) => Line(message);

    public void Started(IReadOnlyList<(string Name, string Value)> facts, long firstStep, long totalSteps)
    {
        foreach ((string name, string value) in facts)
        {
            Line($"{name,-16} {value}");
        }

        if (_task is not null)
        {
            _task.MaxValue = totalSteps;
            _task.Value = firstStep;
        }
    }

    public void Stepped(in StepReport report)
    {
        if (_task is not null)
        {
            _task.Value = report.Step;
            if (Stopwatch.GetElapsedTime(_described).TotalSeconds > SecondsBetweenFigures || report.Step == report.TotalSteps)
            {
                _described = Stopwatch.GetTimestamp();
                _task.Description = Markup.Escape(ShortFigures(report));
            }
        }
        else if (report.IsLogStep)
        {
            Line(Figures(report));
        }
    }

    public void Evaluating(in EvaluationProgress progress)
    {
        if (_task is not null)
        {
            if (Stopwatch.GetElapsedTime(_described).TotalSeconds > SecondsBetweenFigures)
            {
                _described = Stopwatch.GetTimestamp();
                _task.Description = Markup.Escape(Figures(progress));
            }
        }
        else if (progress.Images < progress.Total && progress.Seconds > SecondsBetweenEvaluationLines
            && (_evaluationLine == 0 || Stopwatch.GetElapsedTime(_evaluationLine).TotalSeconds > SecondsBetweenEvaluationLines))
        {
            _evaluationLine = Stopwatch.GetTimestamp();
            Line(Figures(progress));
        }
    }

    public void Evaluated(in EvaluationReport report) => Line(string.Create(CultureInfo.InvariantCulture,
        $"evaluated at epoch {report.Epoch:0.##}: top-1 {100 * report.Validation.Top1:0.00} % (error {100 * (1 - report.Validation.Top1):0.00})  top-5 {100 * report.Validation.Top5:0.00} % (error {100 * (1 - report.Validation.Top5):0.00})  loss {report.Validation.Loss:0.0000}  {report.Validation.Images} images, {report.Validation.ImagesPerSecond:0.0} img/s{(report.IsBest ? "  best so far" : "")}"));

    public void Saved(string checkpoint)
    {
        if (_task is null)
        {
            Line($"checkpoint {checkpoint}");
        }
    }

    /// <summary>Prints how the run ended and what to do next.</summary>
    public void Finished(TrainingResult result)
    {
        Line(result.Outcome switch
        {
            TrainingOutcome.AlreadyComplete => "This run is already complete; raise --epochs or --steps to go on.",
            TrainingOutcome.LossNotFinite => $"The run has diverged. {result.Divergence?.Description}",
            TrainingOutcome.Interrupted => "Stopped.",
            TrainingOutcome.TimeLimit => "Stopped: the time limit (--max-time) is reached.",
            TrainingOutcome.StoppedEarly => $"Stopped early: {result.StopReason}",
            _ => "Done.",
        });
        Line(string.Create(CultureInfo.InvariantCulture,
            $"  {result.Images} images in {result.Seconds:0.0} s: {result.ImagesPerSecond:0.0} img/s (training only, without evaluation), data wait {100 * result.DataWaitShare:0.0} %, peak memory {result.PeakMemoryMb:0} MB"));
        if (result.Validation is { } validation)
        {
            Line(string.Create(CultureInfo.InvariantCulture,
                $"  top-1 {100 * validation.Top1:0.00} %, top-5 {100 * validation.Top5:0.00} %, loss {validation.Loss:0.0000} on {validation.Images} images; best top-1 {100 * result.BestTop1:0.00} %"));
        }

        foreach ((string name, string path) in new[] { ("checkpoint", result.Checkpoint), ("report", result.Report) })
        {
            if (path.Length > 0)
            {
                Line($"  {name,-11}{path}");
            }
        }

        if (result.Outcome is TrainingOutcome.LossNotFinite)
        {
            string less = "a smaller --learning-rate, or --clip-norm", folder = ShellWord.Quote(result.RunDirectory);
            Line(result.Checkpoint.Length > 0
                ? $"The last good checkpoint is kept. Go on from it with {less}:  hpcbn train --resume {folder}{UserAssemblies.Again}"
                : $"No checkpoint had been written. Begin again with {less}.");
        }
        else if (result.Outcome is TrainingOutcome.Interrupted or TrainingOutcome.TimeLimit)
        {
            Line($"Go on with:  hpcbn train --resume {ShellWord.Quote(result.RunDirectory)}{UserAssemblies.Again}");
        }
        else if (result.Outcome is TrainingOutcome.Completed or TrainingOutcome.StoppedEarly && result.Checkpoint.Length > 0)
        {
            Line($"Next:        hpcbn eval --checkpoint {ShellWord.Quote(result.Checkpoint)}{UserAssemblies.Again}");
        }
    }

    private static string Figures(in StepReport r)
    {
        (long epoch, double epochs, long step) = Position(r);
        return string.Create(CultureInfo.InvariantCulture,
            $"epoch {epoch}/{epochs:0}  step {step}/{r.StepsPerEpoch}  loss {r.Loss:0.0000} ({r.MeanLoss:0.0000})  lr {r.LearningRate:G4}  {r.ImagesPerSecond:0.0} img/s  data {100 * r.DataWaitShare:0.0} %  eta {Clock(r.Remaining)}  mem {ProcessMemory.PeakMb():0} MB{(r.LossScale is { } s ? $"  scale {s.Scale:0} skipped {s.SkippedSteps}" : "")}");
    }

    /// <summary>The same for one line of 80 columns, bar included.</summary>
    private static string ShortFigures(in StepReport r)
    {
        (long epoch, double epochs, long step) = Position(r);
        return string.Create(CultureInfo.InvariantCulture,
            $"{epoch}/{epochs:0} {step}/{r.StepsPerEpoch} loss {r.MeanLoss:0.000} lr {r.LearningRate:0.0e+0} {r.ImagesPerSecond:0.#} img/s data {100 * r.DataWaitShare:0}% eta {Clock(r.Remaining)} {ProcessMemory.PeakMb():0} MB");
    }

    private static string Figures(in EvaluationProgress p) => string.Create(CultureInfo.InvariantCulture,
        $"evaluating {p.Images}/{p.Total}  top-1 {100 * p.Top1:0.00} %  {p.ImagesPerSecond:0.0} img/s  eta {Clock(p.Remaining)}");

    /// <summary>The epoch the step belongs to, of how many, and which step of it, all counted from 1.</summary>
    private static (long Epoch, double Epochs, long Step) Position(in StepReport r)
    {
        long step = Math.Max(1, r.Step - r.Offset), epochsDone = (step - 1) / r.StepsPerEpoch;
        return (epochsDone + 1, Math.Ceiling((double)(r.TotalSteps - r.Offset) / r.StepsPerEpoch), step - epochsDone * r.StepsPerEpoch);
    }

    private static string Clock(TimeSpan time) => time.TotalDays >= 1
        ? string.Create(CultureInfo.InvariantCulture, $"{(int)time.TotalDays}d {time:hh\\:mm\\:ss}")
        : time.ToString("hh\\:mm\\:ss", CultureInfo.InvariantCulture);

    private void Line(string text)
    {
        if (_console is not null && _task is not null)
        {
            _console.WriteLine(text);
        }
        else
        {
            output.WriteLine(text);
        }
    }
}
