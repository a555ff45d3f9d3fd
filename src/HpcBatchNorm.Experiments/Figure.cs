using HpcBatchNorm.Reporting;

namespace HpcBatchNorm.Experiments;

/// <summary>One line of a figure.</summary>
/// <param name="Name">What the legend says.</param>
/// <param name="X">Places of its points, ascending.</param>
/// <param name="Y">Their values; those that are not finite, or not positive on a logarithmic axis, are left out.</param>
/// <param name="Style">Number of its colour, 0 to 7.</param>
/// <param name="Dashed">Drawn with gaps.</param>
internal sealed record FigureSeries(string Name, IReadOnlyList<double> X, IReadOnlyList<double> Y, int Style = 0, bool Dashed = false)
{
    /// <summary>A line through points.</summary>
    public static FigureSeries Of(string name, IEnumerable<(double X, double Y)> points, int style = 0, bool dashed = false)
    {
        (double X, double Y)[] all = [.. points];
        return new FigureSeries(name, [.. all.Select(p => p.X)], [.. all.Select(p => p.Y)], style, dashed);
    }
}

/// <summary>Something to compare with: a vertical line at <paramref name="X"/>, a horizontal one at <paramref name="Y"/>, a point where both are given.</summary>
/// <param name="Label">What it is: <c>paper: 72.2 %</c>.</param>
/// <param name="X">Where on the horizontal axis.</param>
/// <param name="Y">Where on the vertical axis.</param>
/// <param name="Style">Number of a point's colour; null for black.</param>
internal sealed record FigureMark(string Label, double? X = null, double? Y = null, int? Style = null);

/// <summary>A figure of an experiment, as data.</summary>
/// <param name="Name">The name of its files, without extension: <c>mnist-accuracy</c>.</param>
/// <param name="Title">What it shows.</param>
/// <param name="XLabel">Name and unit of the horizontal axis.</param>
/// <param name="YLabel">Name and unit of the vertical axis.</param>
internal sealed record Figure(string Name, string Title, string XLabel, string YLabel)
{
    /// <summary>The lines.</summary>
    public IReadOnlyList<FigureSeries> Series { get; init; } = [];

    /// <summary>The paper's values, and other things to compare with.</summary>
    public IReadOnlyList<FigureMark> Marks { get; init; } = [];

    /// <summary>Values the vertical axis shows whatever the lines do: what makes two figures comparable.</summary>
    public IReadOnlyList<double> Including { get; init; } = [];

    /// <summary>Equal distances across are equal factors.</summary>
    public bool LogarithmicX { get; init; }

    /// <summary>Equal distances upwards are equal factors.</summary>
    public bool LogarithmicY { get; init; }

    /// <summary>The figure as an SVG document with its style inside.</summary>
    public string ToSvg() => FigureSvg.Render(Content);

    internal ChartContent Content => new(Title, YLabel, XLabel, [.. Series.Select(s => new ChartSeries(s.Name, [.. s.X.Zip(s.Y)], s.Style, s.Dashed))])
    {
        Marks = [.. Marks.Select(m => new ChartMark(m.Label, m.X, m.Y, m.Style))],
        Including = Including,
        LogarithmicX = LogarithmicX,
        LogarithmicY = LogarithmicY,
    };
}
