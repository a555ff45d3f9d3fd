using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Cli;

/// <summary>
/// What people and programs see of an evaluation: while it goes on one line that is rewritten on a terminal, or with <c>--real-time</c> a plain line now
/// and then elsewhere; then the accuracy, the worst and best classes and what was most often confused.
/// </summary>
internal sealed class EvaluationDisplay(TextWriter output, bool realTime)
{
    private const double SecondsBetweenRewrites = 0.2, SecondsBetweenLines = 5;
    private const int Rows = 5, JsonConfusions = 100;

    private readonly bool _live = ProgressBar.IsWanted(output, progress: null);
    private long _last = Stopwatch.GetTimestamp();
    private int _width;

    public static Option<bool> CreateOption() =>
        new("--real-time") { Description = "Running accuracy, speed and remaining time also where the output is no terminal, every 5 s" };

    /// <summary>Shows where an evaluation stands, when it is time to.</summary>
    public void Progress(EvaluationProgress progress)
    {
        bool due = Stopwatch.GetElapsedTime(_last).TotalSeconds >= (_live ? SecondsBetweenRewrites : SecondsBetweenLines);
        if (_live ? due : realTime && (due || progress.Images == progress.Total))
        {
            Show(string.Create(CultureInfo.InvariantCulture,
                $"{progress.Images}/{progress.Total}  Acc@1 {100 * progress.Top1:0.00}  Acc@5 {100 * progress.Top5:0.00}  {progress.ImagesPerSecond:0.0} img/s  eta {progress.Remaining:hh\\:mm\\:ss}"));
        }
    }

    /// <summary>Shows a line of progress: over the last one on a terminal.</summary>
    public void Show(string line)
    {
        _last = Stopwatch.GetTimestamp();
        if (_live)
        {
            output.Write("\r" + line.PadRight(_width));
            _width = line.Length;
        }
        else
        {
            output.WriteLine(line);
        }
    }

    /// <summary>True when a line of progress other than accuracy should be shown now.</summary>
    public bool IsDue => (_live || realTime) && Stopwatch.GetElapsedTime(_last).TotalSeconds >= (_live ? SecondsBetweenRewrites : SecondsBetweenLines);

    /// <summary>Prints a line of its own, on a terminal over the line of progress.</summary>
    public void Note(string line)
    {
        output.WriteLine(_live && _width > 0 ? "\r" + line.PadRight(_width) : line);
        _width = 0;
    }

    /// <summary>Prints top-1 and top-5 accuracy with errors in parentheses, and their standard errors; of an ensemble, each member's first.</summary>
    public void Accuracy(EvaluationResult found, string title = "")
    {
        for (int i = 0; i < found.Members.Count; i++)
        {
            AccuracyLine(found.Members[i], string.Create(CultureInfo.InvariantCulture, $"{title}member {i + 1} "));
        }

        AccuracyLine(found, title);
    }

    private void AccuracyLine(EvaluationResult found, string title) => Note(string.Create(CultureInfo.InvariantCulture,
        $" * {title}Acc@1 {100 * found.Top1:0.000} ({100 * (1 - found.Top1):0.000}) ± {100 * found.Top1StandardError:0.00}  Acc@5 {100 * found.Top5:0.000} ({100 * (1 - found.Top5):0.000}) ± {100 * found.Top5StandardError:0.00}  loss {found.Loss:0.0000}  {found.Images} images, {found.ImagesPerSecond:0.0} img/s"));

    /// <summary>Prints the worst and best classes and the most frequent confusions.</summary>
    public void Classes(EvaluationResult found)
    {
        ClassAccuracy[] ordered = [.. found.Classes.Where(c => c.Images > 0).OrderBy(c => c.Top1).ThenBy(c => c.Index)];
        if (ordered.Length > 2 * Rows)
        {
            Table($"worst {Rows} of {ordered.Length} classes", ordered[..Rows]);
            Table($"best {Rows}", ordered[^Rows..].Reverse());
        }
        else
        {
            Table("classes, worst first", ordered);
        }

        if (found.Confusions.Count > 0)
        {
            var table = new TextTable("most often confused", "taken for", "images", "of");
            foreach (Confusion confusion in found.Confusions.Take(Rows))
            {
                table.Add(confusion.Label.Title, confusion.Predicted.Title, Text(confusion.Images), Text(confusion.Label.Images));
            }

            output.WriteLine();
            table.Write(output);
        }
    }

    /// <summary>Writes an evaluation's figures into a JSON object.</summary>
    public static void Write(Utf8JsonWriter json, EvaluationResult found)
    {
        json.WriteNumber("images", found.Images);
        json.WriteNumber("top1", found.Top1);
        json.WriteNumber("top1_standard_error", found.Top1StandardError);
        json.WriteNumber("top5", found.Top5);
        json.WriteNumber("top5_standard_error", found.Top5StandardError);
        json.WriteFinite("loss", found.Loss);
        json.WriteFinite("seconds", found.Seconds);
        json.WriteFinite("img_per_s", found.ImagesPerSecond);
    }

    /// <summary>Writes every class and the most frequent confusions into a JSON object.</summary>
    public static void WriteClasses(Utf8JsonWriter json, EvaluationResult found)
    {
        json.WriteStartArray("classes");
        foreach (ClassAccuracy c in found.Classes)
        {
            json.WriteStartObject();
            json.WriteString("name", c.Name);
            json.WriteString("description", c.Description);
            json.WriteNumber("images", c.Images);
            json.WriteFinite("top1", c.Top1);
            json.WriteFinite("top5", c.Top5);
            json.WriteEndObject();
        }

        json.WriteEndArray();
        json.WriteStartArray("confusions");
        foreach (Confusion confusion in found.Confusions.Take(JsonConfusions))
        {
            json.WriteStartObject();
            json.WriteString("label", confusion.Label.Name);
            json.WriteString("predicted", confusion.Predicted.Name);
            json.WriteNumber("images", confusion.Images);
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }

    private static string Text(long value) => value.ToString(CultureInfo.InvariantCulture);

    private static string Percent(double value) => (100 * value).ToString("0.0", CultureInfo.InvariantCulture);

    private void Table(string title, IEnumerable<ClassAccuracy> classes)
    {
        var table = new TextTable(title, "Acc@1", "Acc@5", "images");
        foreach (ClassAccuracy c in classes)
        {
            table.Add(c.Title, Percent(c.Top1), Percent(c.Top5), Text(c.Images));
        }

        output.WriteLine();
        table.Write(output);
    }
}
