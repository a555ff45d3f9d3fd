using HpcBatchNorm.Tensors;
using SkiaSharp;

namespace HpcBatchNorm.Data;

/// <summary>Draws the figures of the generated data set and encodes them as JPEG.</summary>
internal sealed class SampleArtist : IDisposable
{
    private const int JpegQuality = 90;

    // Least difference in brightness (0..255) between a figure and any part of the gradient behind it.
    private const double LeastContrast = 60;

    private static readonly (string Name, Action<SKCanvas, SKPaint, double> Draw)[] Figures =
    [
        ("circle", (canvas, paint, _) => canvas.DrawCircle(0, 0, 0.9f, paint)),
        ("square", (canvas, paint, _) => canvas.DrawRect(-0.8f, -0.8f, 1.6f, 1.6f, paint)),
        ("triangle", (canvas, paint, _) => DrawPolygon(canvas, paint, 3, 1)),
        ("star", (canvas, paint, _) => DrawPolygon(canvas, paint, 10, 0.42)),
        ("cross", DrawCross),
        ("stripes", DrawStripes),
        ("checker", DrawChecker),
        ("dots", DrawDots),
        ("rings", DrawRings),
        ("waves", DrawWaves),
    ];

    private readonly int _size;
    private readonly SKSurface _surface;

    public SampleArtist(int size)
    {
        _size = size;
        _surface = SKSurface.Create(new SKImageInfo(size, size, SKColorType.Rgba8888, SKAlphaType.Opaque));
    }

    public static IReadOnlyList<string> ClassNames { get; } = [.. Figures.Select(figure => figure.Name)];

    public byte[] Draw(int label, ref RandomSequence random)
    {
        SKCanvas canvas = _surface.Canvas;
        canvas.ResetMatrix();
        SKColor figure = RandomColor(ref random), from, to;
        do
        {
            (from, to) = (RandomColor(ref random), RandomColor(ref random));
        }
        while (!Contrasts(figure, from, to));

        DrawBackground(canvas, from, to, ref random);
        double radius = random.NextDouble(0.26, 0.44) * _size, room = Math.Max(0, _size / 2.0 - radius * 0.9);
        canvas.Translate((float)(_size / 2.0 + random.NextDouble(-room, room)), (float)(_size / 2.0 + random.NextDouble(-room, room)));
        canvas.RotateDegrees((float)random.NextDouble(0, 360));
        canvas.Scale((float)radius, (float)(radius * random.NextDouble(0.85, 1.18)));
        using var paint = new SKPaint { IsAntialias = true, Color = figure };
        Figures[label].Draw(canvas, paint, random.NextDouble());

        using SKImage image = _surface.Snapshot();
        using SKData data = image.Encode(SKEncodedImageFormat.Jpeg, JpegQuality);
        return data.ToArray();
    }

    public void Dispose() => _surface.Dispose();

    private void DrawBackground(SKCanvas canvas, SKColor from, SKColor to, ref RandomSequence random)
    {
        double angle = random.NextDouble(0, 2 * Math.PI);
        float half = _size / 2f, dx = (float)Math.Cos(angle) * half, dy = (float)Math.Sin(angle) * half;
        using (var shader = SKShader.CreateLinearGradient(
            new SKPoint(half - dx, half - dy), new SKPoint(half + dx, half + dy), [from, to], SKShaderTileMode.Clamp))
        using (var gradient = new SKPaint { Shader = shader })
        {
            canvas.DrawRect(0, 0, _size, _size, gradient);
        }

        // Thin strokes and specks of any colour, half transparent: edges that mean nothing.
        using var clutter = new SKPaint { IsAntialias = true };
        for (uint i = 4 + random.NextBelow(5); i > 0; i--)
        {
            clutter.Color = RandomColor(ref random).WithAlpha(110);
            float x = Coordinate(ref random), y = Coordinate(ref random);
            if (random.NextBelow(2) == 0)
            {
                clutter.StrokeWidth = _size / 40f;
                canvas.DrawLine(x, y, Coordinate(ref random), Coordinate(ref random), clutter);
            }
            else
            {
                canvas.DrawOval(x, y, (float)random.NextDouble(0.02, 0.07) * _size, (float)random.NextDouble(0.02, 0.07) * _size, clutter);
            }
        }
    }

    private float Coordinate(ref RandomSequence random) => (float)random.NextDouble(0, _size);

    private static SKColor RandomColor(ref RandomSequence random) =>
        new((byte)random.NextBelow(256), (byte)random.NextBelow(256), (byte)random.NextBelow(256));

    private static bool Contrasts(SKColor figure, SKColor from, SKColor to)
    {
        double difference0 = Brightness(figure) - Brightness(from), difference1 = Brightness(figure) - Brightness(to);
        return Math.Min(Math.Abs(difference0), Math.Abs(difference1)) >= LeastContrast && difference0 > 0 == difference1 > 0;
    }

    private static double Brightness(SKColor color) => 0.299 * color.Red + 0.587 * color.Green + 0.114 * color.Blue;

    /// <summary>Corners on the unit circle, every second one at <paramref name="inner"/> of it.</summary>
    private static void DrawPolygon(SKCanvas canvas, SKPaint paint, int corners, double inner)
    {
        var points = new SKPoint[corners];
        for (int i = 0; i < corners; i++)
        {
            double angle = 2 * Math.PI * i / corners, radius = i % 2 == 0 ? 1 : inner;
            points[i] = new SKPoint((float)(radius * Math.Cos(angle)), (float)(radius * Math.Sin(angle)));
        }

        using var builder = new SKPathBuilder();
        builder.AddPoly(points, close: true);
        using SKPath path = builder.Detach();
        canvas.DrawPath(path, paint);
    }

    private static void DrawCross(SKCanvas canvas, SKPaint paint, double variation)
    {
        float half = (float)(0.2 + 0.12 * variation);
        canvas.DrawRect(-1, -half, 2, 2 * half, paint);
        canvas.DrawRect(-half, -1, 2 * half, 2, paint);
    }

    private static void DrawStripes(SKCanvas canvas, SKPaint paint, double variation)
    {
        int stripes = 4 + (int)(variation * 3);
        float period = 2f / stripes;
        for (int i = 0; i < stripes; i++)
        {
            canvas.DrawRect(-1, -1 + i * period, 2, period / 2, paint);
        }
    }

    private static void DrawChecker(SKCanvas canvas, SKPaint paint, double variation)
    {
        int cells = 4 + (int)(variation * 3);
        float cell = 2f / cells;
        for (int y = 0; y < cells; y++)
        {
            for (int x = y % 2; x < cells; x += 2)
            {
                canvas.DrawRect(-1 + x * cell, -1 + y * cell, cell, cell, paint);
            }
        }
    }

    private static void DrawDots(SKCanvas canvas, SKPaint paint, double variation)
    {
        int dots = 3 + (int)(variation * 2);
        float cell = 2f / dots;
        for (int y = 0; y < dots; y++)
        {
            for (int x = 0; x < dots; x++)
            {
                canvas.DrawCircle(-1 + (x + 0.5f) * cell, -1 + (y + 0.5f) * cell, 0.3f * cell, paint);
            }
        }
    }

    private static void DrawRings(SKCanvas canvas, SKPaint paint, double variation)
    {
        paint.Style = SKPaintStyle.Stroke;
        paint.StrokeWidth = 0.14f;
        for (float radius = 0.9f; radius > 0.1f; radius -= (float)(0.28 + 0.08 * variation))
        {
            canvas.DrawCircle(0, 0, radius, paint);
        }
    }

    private static void DrawWaves(SKCanvas canvas, SKPaint paint, double variation)
    {
        const int Points = 33;
        paint.Style = SKPaintStyle.Stroke;
        paint.StrokeWidth = 0.13f;
        for (float y = -0.75f; y < 0.8f; y += 0.5f)
        {
            var points = new SKPoint[Points];
            for (int i = 0; i < Points; i++)
            {
                double x = -1 + 2.0 * i / (Points - 1);
                points[i] = new SKPoint((float)x, (float)(y + 0.2 * Math.Sin((2 + variation) * Math.PI * x)));
            }

            canvas.DrawPoints(SKPointMode.Polygon, points, paint);
        }
    }
}
