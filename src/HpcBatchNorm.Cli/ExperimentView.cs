using System.Diagnostics;
using System.Globalization;
using HpcBatchNorm.Experiments;
using Spectre.Console;

namespace HpcBatchNorm.Cli;

/// <summary>What people see of an experiment: a bar on a terminal, else a line now and then; then what was found.</summary>
internal sealed class ExperimentView(TextWriter output, string? progress) : IProgress<ExperimentProgress>
{
    private const double SecondsBetweenLines = 15;

    private readonly bool _live = ProgressBar.IsWanted(output, progress);
    private readonly long _start = Stopwatch.GetTimestamp();
    private string _name = "";
    private long _lastLine;
    private double _firstShare = -1;
    private ProgressTask? _task;
    private IAnsiConsole? _console;

    /// <summary>Runs an experiment, shows its progress, then its findings.</summary>
    public ExperimentRecord Run(Experiment experiment, Func<ExperimentRecord> run)
    {
        _name = experiment.Name;
        Note($"{experiment.Name}: {experiment.Claim}");
        ExperimentRecord? record = null;
        if (_live)
        {
            _console = ProgressBar.CreateConsole(output, progress);
            ProgressBar.Around(_console, 1, task =>
            {
                _task = task;
                record = run();
            });
            _task = null;
        }
        else
        {
            record = run();
        }

        Show(record!);
        return record!;
    }

    /// <summary>Prints a line of its own.</summary>
    public void Note(string line)
    {
        if (_task is not null)
        {
            _console!.WriteLine(line);
        }
        else
        {
            output.WriteLine(line);
        }
    }

    /// <inheritdoc/>
    public void Report(ExperimentProgress value)
    {
        if (_firstShare < 0)
        {
            _firstShare = value.Share; // what an earlier command computed took none of our time
        }

        if (_task is not null)
        {
            _task.Value = value.Share;
            _task.Description = Markup.Escape(Text(value));
        }
        else if (_lastLine == 0 || Stopwatch.GetElapsedTime(_lastLine).TotalSeconds > SecondsBetweenLines)
        {
            _lastLine = Stopwatch.GetTimestamp();
            output.WriteLine(Text(value));
        }
    }

    private string Text(ExperimentProgress value)
    {
        double done = value.Share - _firstShare, seconds = Stopwatch.GetElapsedTime(_start).TotalSeconds;
        string remaining = done > 0.01 && value.Share < 1 ? $"  eta {TimeSpan.FromSeconds(seconds / done * (1 - value.Share)):hh\\:mm\\:ss}" : "";
        return string.Create(CultureInfo.InvariantCulture, $"{_name}: {100 * value.Share:0} %, {value.Done} of {value.Total} runs{remaining}");
    }

    private void Show(ExperimentRecord record)
    {
        var table = new TextTable("", "quantity", "paper", "ours", "acceptance");
        foreach (Finding finding in record.Result.Findings)
        {
            table.Add(finding.Verdict == Verdict.NotShown ? "NOT SHOWN" : finding.Verdict.Word(), finding.Quantity, finding.Paper, finding.Ours, finding.Acceptance);
        }

        table.Write(output);
        foreach (string line in record.Result.NotRun)
        {
            output.WriteLine(line);
        }

        output.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{record.Experiment}: {VerdictText.Count(record.Result.Findings)}{(record.Quick ? " (quick form)" : "")}"));
    }
}
