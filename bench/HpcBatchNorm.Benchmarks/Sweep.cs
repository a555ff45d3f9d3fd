using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.Json;
using HpcBatchNorm.Experiments;

namespace HpcBatchNorm.Benchmarks;

/// <summary>
/// Whether throughput holds and memory grows in proportion when the work grows: a training step of BN-Inception at batches of 1 to 128 and at images of
/// 64 to 448 pixels, each in a process of its own (<c>hpcbn bench</c>), so that peak memory is that point's.
/// </summary>
internal static class Sweep
{
    private static readonly int[] Batches = [1, 2, 4, 8, 16, 32, 64, 128];
    private static readonly int[] Sizes = [64, 96, 128, 160, 192, 224, 256, 320, 384, 448];
    private static readonly string[] Precisions = ["fp32", "bf16"];

    private sealed record Point(string Precision, int Batch, int Size, double Milliseconds, double PlannedMb, double PeakMb, double LimitGflops)
    {
        public double ImagesPerSecond => 1000.0 * Batch / Milliseconds;

        /// <summary>Images of 224 pixels that are as many pixels.</summary>
        public double FullSizeImagesPerSecond => ImagesPerSecond * Size * Size / (224 * 224);
    }

    /// <summary>Measures everything and writes <c>sweep.md</c> and the figures into <paramref name="folder"/>.</summary>
    public static int Run(string hpcbn, string folder)
    {
        Directory.CreateDirectory(folder);
        Point[] batches = [.. from precision in Precisions from batch in Batches select Measure(hpcbn, precision, batch, 224)];
        Point[] sizes =
        [
            .. from precision in Precisions
               from size in Sizes
               select batches.FirstOrDefault(p => p.Precision == precision && p.Batch == 32 && p.Size == size) ?? Measure(hpcbn, precision, 32, size),
        ];
        Draw(folder, "sweep-batch", "Training BN-Inception at 224 pixels", "images per step", "images/s", batches, p => p.Batch, p => p.ImagesPerSecond);
        Draw(folder, "sweep-batch-memory", "Memory of a training step at 224 pixels", "images per step", "planned MB", batches, p => p.Batch, p => p.PlannedMb);
        Draw(folder, "sweep-size", "Training BN-Inception in batches of 32", "image side in pixels", "images/s x (side / 224)^2", sizes, p => p.Size, p => p.FullSizeImagesPerSecond);
        File.WriteAllText(Path.Combine(folder, "sweep.md"), Table("Batch, at 224 pixels", "batch", batches, p => p.Batch) + "\n" + Table("Image side, in batches of 32", "side", sizes, p => p.Size));
        Console.WriteLine($"written: {folder}/sweep.md and sweep-*.svg");
        return 0;
    }

    private static Point Measure(string hpcbn, string precision, int batch, int size)
    {
        // As long as seven steps of 32 full images, within limits.
        int steps = Math.Clamp(7 * 32 * 224 * 224 / (batch * size * size), 3, 30);
        string[] arguments =
        [
            "bench", "--backend", "onednn", "--no-verify", "--result", "-", "--precision", precision,
            "-b", Text(batch), "--image-size", Text(size), "--steps", Text(steps),
        ];
        using Process process = Process.Start(new ProcessStartInfo(hpcbn, arguments) { RedirectStandardOutput = true })!;
        string json = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        if (process.ExitCode != 0)
        {
            throw new InvalidOperationException($"{hpcbn} {string.Join(' ', arguments)} ended with {process.ExitCode}.");
        }

        using var document = JsonDocument.Parse(json);
        double Number(string name) => document.RootElement.GetProperty(name).GetDouble();
        var point = new Point(precision, batch, size, Number("step_ms"), Number("planned_memory_mb"), Number("peak_memory_mb"), Number("limit_gflops"));
        Console.WriteLine(FormattableString.Invariant($"{precision}, batch {batch}, {size} px: {point.ImagesPerSecond:F1} images/s, {point.PlannedMb:F0} MB planned, {point.PeakMb:F0} MB peak"));
        return point;
    }

    private static void Draw(string folder, string name, string title, string xLabel, string yLabel, Point[] points, Func<Point, double> x, Func<Point, double> y)
    {
        var figure = new Figure(name, title, xLabel, yLabel)
        {
            Series = [.. Precisions.Select((p, i) => FigureSeries.Of(p, points.Where(q => q.Precision == p).Select(q => (x(q), y(q))), i))],
            LogarithmicX = x(points[0]) == 1,
        };
        File.WriteAllText(Path.Combine(folder, name + ".svg"), figure.ToSvg());
    }

    private static string Table(string title, string column, Point[] points, Func<Point, int> x)
    {
        var text = new StringBuilder($"| {title}: {column} |");
        foreach (string precision in Precisions)
        {
            text.Append(CultureInfo.InvariantCulture, $" {precision}, images/s | planned MB | peak MB |");
        }

        text.Append("\n|---|").Insert(text.Length, "---|", 3 * Precisions.Length).Append('\n');
        foreach (IGrouping<int, Point> row in points.GroupBy(x))
        {
            text.Append(CultureInfo.InvariantCulture, $"| {row.Key} |");
            foreach (Point p in row)
            {
                text.Append(CultureInfo.InvariantCulture, $" {p.ImagesPerSecond:F1} | {p.PlannedMb:F0} | {p.PeakMb:F0} |");
            }

            text.Append('\n');
        }

        return text.ToString();
    }

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);
}
