using System.Globalization;
using System.Xml.Linq;
using SkiaSharp;

namespace HpcBatchNorm.Reporting;

/// <summary>
/// Paints the SVG that <see cref="FigureSvg"/> writes, and no more than that: <c>rect</c>, <c>path</c>, <c>circle</c> and <c>text</c>, styled by classes in
/// the document's own style sheet. Path data is Skia's to read.
/// </summary>
internal sealed class SvgPainter
{
    private readonly List<(string[] Selectors, Dictionary<string, string> Properties)> _rules;
    private readonly SKTypeface _regular, _bold;

    private SvgPainter(string css, SKTypeface regular, SKTypeface bold)
    {
        (_regular, _bold) = (regular, bold);
        _rules =
        [
            .. css.Split('}', StringSplitOptions.RemoveEmptyEntries).Select(rule => rule.Split('{')).Where(parts => parts.Length == 2).Select(parts =>
                (parts[0].Split(',', StringSplitOptions.TrimEntries),
                parts[1].Split(';', StringSplitOptions.RemoveEmptyEntries).Select(p => p.Split(':', 2)).Where(p => p.Length == 2)
                    .ToDictionary(p => p[0].Trim(), p => p[1].Trim(), StringComparer.Ordinal))),
        ];
    }

    /// <summary>The picture as PNG, <paramref name="scale"/> pixels for each of the drawing's units.</summary>
    public static byte[] ToPng(string svg, SKTypeface regular, SKTypeface bold, float scale)
    {
        XElement root = XDocument.Parse(svg).Root!;
        XNamespace space = root.Name.Namespace;
        var painter = new SvgPainter(root.Element(space + "style")?.Value ?? "", regular, bold);
        var size = new SKImageInfo((int)Math.Ceiling(Number(root, "width") * scale), (int)Math.Ceiling(Number(root, "height") * scale));
        using SKSurface surface = SKSurface.Create(size);
        surface.Canvas.Scale(scale);
        foreach (XElement element in root.Elements())
        {
            painter.Paint(surface.Canvas, element);
        }

        using SKImage image = surface.Snapshot();
        using SKData data = image.Encode(SKEncodedImageFormat.Png, 100);
        return data.ToArray();
    }

    private void Paint(SKCanvas canvas, XElement element)
    {
        Dictionary<string, string> style = StyleOf(element);
        switch (element.Name.LocalName)
        {
            case "rect":
                var size = SKRect.Create(Number(element, "width"), Number(element, "height"));
                Paint(style, paint => canvas.DrawRect(size, paint));
                break;
            case "circle":
                Paint(style, paint => canvas.DrawCircle(Number(element, "cx"), Number(element, "cy"), Number(element, "r"), paint));
                break;
            case "path":
                using (SKPath path = SKPath.ParseSvgPathData((string)element.Attribute("d")!))
                {
                    Paint(style, paint => canvas.DrawPath(path, paint));
                }

                break;
            case "text":
                PaintText(canvas, element, style);
                break;
        }
    }

    private static void Paint(Dictionary<string, string> style, Action<SKPaint> draw)
    {
        byte alpha = (byte)Math.Round(255 * (style.TryGetValue("opacity", out string? opacity) ? Parse(opacity) : 1));
        if (style.GetValueOrDefault("fill", "#000000") is var fill and not "none")
        {
            using var paint = new SKPaint { IsAntialias = true, Color = SKColor.Parse(fill).WithAlpha(alpha) };
            draw(paint);
        }

        if (style.GetValueOrDefault("stroke", "none") is var stroke and not "none")
        {
            using SKPathEffect? dashes = style.TryGetValue("stroke-dasharray", out string? pattern)
                ? SKPathEffect.CreateDash([.. pattern.Split(' ').Select(Parse)], 0) : null;
            using var paint = new SKPaint
            {
                IsAntialias = true,
                IsStroke = true,
                Color = SKColor.Parse(stroke).WithAlpha(alpha),
                StrokeWidth = style.TryGetValue("stroke-width", out string? width) ? Parse(width) : 1,
                StrokeJoin = style.GetValueOrDefault("stroke-linejoin") == "round" ? SKStrokeJoin.Round : SKStrokeJoin.Miter,
                PathEffect = dashes,
            };
            draw(paint);
        }
    }

    private void PaintText(SKCanvas canvas, XElement element, Dictionary<string, string> style)
    {
        // The shorthand begins with the size: 13px "DejaVu Sans", ...
        string size = style.GetValueOrDefault("font-size") ?? style["font"].Split(' ')[0];
        using var font = new SKFont(style.GetValueOrDefault("font-weight") == "bold" ? _bold : _regular, Parse(size.Replace("px", "", StringComparison.Ordinal)));
        using var paint = new SKPaint { IsAntialias = true, Color = SKColor.Parse(style.GetValueOrDefault("fill", "#000000")) };
        SKTextAlign align = (string?)element.Attribute("text-anchor") switch { "end" => SKTextAlign.Right, "middle" => SKTextAlign.Center, _ => SKTextAlign.Left };
        canvas.Save();
        if ((string?)element.Attribute("transform") is string transform)
        {
            float[] turn = [.. transform.Replace("rotate(", "", StringComparison.Ordinal).TrimEnd(')').Split(' ').Select(Parse)];
            canvas.RotateDegrees(turn[0], turn[1], turn[2]);
        }

        if (style.TryGetValue("stroke", out string? halo))
        {
            // paint-order: stroke. The text stands out from lines behind it.
            using var around = new SKPaint { IsAntialias = true, IsStroke = true, Color = SKColor.Parse(halo), StrokeWidth = Parse(style["stroke-width"]), StrokeJoin = SKStrokeJoin.Round };
            canvas.DrawText(element.Value, Number(element, "x"), Number(element, "y"), align, font, around);
        }

        canvas.DrawText(element.Value, Number(element, "x"), Number(element, "y"), align, font, paint);
        canvas.Restore();
    }

    /// <summary>Later rules win over earlier ones, which is how the style sheet is written.</summary>
    private Dictionary<string, string> StyleOf(XElement element)
    {
        string[] classes = ((string?)element.Attribute("class") ?? "").Split(' ', StringSplitOptions.RemoveEmptyEntries);
        Dictionary<string, string> style = new(StringComparer.Ordinal);
        foreach ((string[] selectors, Dictionary<string, string> properties) in _rules)
        {
            if (selectors.Any(Selects))
            {
                foreach ((string name, string value) in properties)
                {
                    style[name] = value;
                }
            }
        }

        return style;

        bool Selects(string selector)
        {
            string[] parts = selector.Split('.');
            return (parts[0].Length == 0 || parts[0] == element.Name.LocalName) && parts.Skip(1).All(classes.Contains);
        }
    }

    private static float Number(XElement element, string name) => Parse((string)element.Attribute(name)!);

    private static float Parse(string number) => float.Parse(number, CultureInfo.InvariantCulture);
}
