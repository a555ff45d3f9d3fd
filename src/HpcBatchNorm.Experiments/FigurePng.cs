using HpcBatchNorm.Interop;
using HpcBatchNorm.Reporting;
using SkiaSharp;

namespace HpcBatchNorm.Experiments;

/// <summary>Figures as PNG, painted from their SVG with a font of this machine. Without one there are only SVGs.</summary>
internal static class FigurePng
{
    private const float Scale = 2;

    private static readonly (string Regular, string Bold)[] Fonts =
    [
        ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"), ("LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf"), ("Arial.ttf", "Arial Bold.ttf"), ("arial.ttf", "arialbd.ttf"),
    ];

    private static readonly Lazy<(SKTypeface Regular, SKTypeface Bold)?> Typefaces = new(Find);

    /// <summary>Writes the file; without a font writes none and says so.</summary>
    public static bool Write(Figure figure, string path, Action<string>? note)
    {
        if (Typefaces.Value is not (SKTypeface regular, SKTypeface bold))
        {
            note?.Invoke($"No font for '{Path.GetFileName(path)}': only the SVG was written. On Debian and Ubuntu 'apt-get install fonts-dejavu-core' brings one.");
            return false;
        }

        byte[] png = SvgPainter.ToPng(figure.ToSvg(), regular, bold, Scale);
        AtomicFile.Replace(path, temporary => File.WriteAllBytes(temporary, png));
        return true;
    }

    private static (SKTypeface, SKTypeface)? Find()
    {
        string[] folders =
        [
            "/usr/share/fonts", "/usr/local/share/fonts", "/Library/Fonts", "/System/Library/Fonts/Supplemental",
            Environment.GetFolderPath(Environment.SpecialFolder.Fonts),
        ];
        var options = new EnumerationOptions { RecurseSubdirectories = true, IgnoreInaccessible = true, MatchCasing = MatchCasing.CaseSensitive };
        foreach ((string regular, string bold) in Fonts)
        {
            foreach (string folder in folders.Where(f => f.Length > 0 && Directory.Exists(f)))
            {
                if (Directory.EnumerateFiles(folder, regular, options).FirstOrDefault() is string found && SKTypeface.FromFile(found) is { } typeface)
                {
                    string beside = Path.Combine(Path.GetDirectoryName(found)!, bold);
                    return (typeface, File.Exists(beside) ? SKTypeface.FromFile(beside) : typeface);
                }
            }
        }

        return null;
    }
}
