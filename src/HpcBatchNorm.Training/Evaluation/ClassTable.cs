using System.Globalization;

namespace HpcBatchNorm.Training.Evaluation;

/// <summary>Writes the accuracy of every class as comma-separated values (RFC 4180), one line per class after a line of column names.</summary>
internal static class ClassTable
{
    /// <summary>
    /// Columns: <c>index</c>, <c>class</c>, <c>description</c>, <c>images</c>, <c>top1</c> and <c>top5</c> (fractions; empty without images),
    /// <c>confused_with</c> (the class it was most often taken for; empty when never) and <c>confused_images</c>.
    /// </summary>
    public static void Write(TextWriter output, EvaluationResult result)
    {
        Dictionary<int, Confusion> worst = [];
        foreach (Confusion confusion in result.Confusions)
        {
            worst.TryAdd(confusion.Label.Index, confusion);
        }

        output.Write("index,class,description,images,top1,top5,confused_with,confused_images\n");
        foreach (ClassAccuracy c in result.Classes)
        {
            Confusion? confusion = worst.GetValueOrDefault(c.Index);
            output.Write(string.Create(CultureInfo.InvariantCulture,
                $"{c.Index},{Quote(c.Name)},{Quote(c.Description)},{c.Images},{Share(c.Top1)},{Share(c.Top5)},{Quote(confusion?.Predicted.Name ?? "")},{confusion?.Images ?? 0}\n"));
        }
    }

    private static string Share(double value) => double.IsNaN(value) ? "" : value.ToString("0.######", CultureInfo.InvariantCulture);

    private static string Quote(string text) =>
        text.AsSpan().ContainsAny(",\"\r\n") ? $"\"{text.Replace("\"", "\"\"", StringComparison.Ordinal)}\"" : text;
}
