using System.Globalization;
using System.Text.RegularExpressions;
using HpcBatchNorm.Reporting;

namespace HpcBatchNorm.Tests.Reporting;

public partial class LineChartTests
{
    [Theory]
    [InlineData(0.13, 2.41, 0, 2.5, 0.5)]
    [InlineData(-3, 7, -4, 8, 2)]
    [InlineData(61.2, 61.2, 59.5, 62.5, 0.5)]
    [InlineData(0, 0, 0, 1, 0.2)]
    public void Axis_HasRoundBoundsAroundTheValues(double smallest, double largest, double low, double high, double step)
    {
        (double Low, double High, double Step) axis = ChartAxis.Bounds([largest, smallest], tight: false);

        Assert.Equal(low, axis.Low, 12);
        Assert.Equal(high, axis.High, 12);
        Assert.Equal(step, axis.Step, 12);
    }

    [Fact]
    public void Points_LieWhereTheAxesSay()
    {
        string svg = LineChart.Render("T", "u", "epoch", [new ChartSeries("a", [(0, 0), (5, 10), (10, 5)])]);

        // 58 to 446 across, 244 to 10 up.
        Assert.Contains("class=\"line s0\" d=\"M58 244L252 10L446 127\"", svg, StringComparison.Ordinal);
    }

    [Fact]
    public void ManyPoints_AreMeansWithTheirRange_SoThatASpikeIsSeen()
    {
        (double, double)[] points = [.. Enumerable.Range(0, 40_000).Select(i => ((double)i, i == 12_345 ? 1000.0 : 1.0))];

        string svg = LineChart.Render("T", "u", "step", [new ChartSeries("a", points)]);

        Assert.Equal(ChartDrawing.MostPoints, PathPoints(svg, "line").Length);
        Assert.Equal(10, PathPoints(svg, "range").Min(p => p.Y), 0.5);
        Assert.True(svg.Length < 60_000, $"{svg.Length} characters");
    }

    [Fact]
    public void NotANumber_IsLeftOut_AndNothingAtAllIsSaid()
    {
        Assert.Equal(2, PathPoints(LineChart.Render("T", "u", "x", [new ChartSeries("a", [(0, 1), (1, double.NaN), (2, 3)])]), "line").Length);
        Assert.Contains("nothing yet", LineChart.Render("T", "u", "x", [new ChartSeries("a", [(0, double.NaN)])]), StringComparison.Ordinal);
    }

    [Fact]
    public void Names_AreEncoded()
    {
        string svg = LineChart.Render("<T>", "u", "x", [new ChartSeries("</script><b>", [(0, 1)])]);

        Assert.DoesNotContain("<T>", svg, StringComparison.Ordinal);
        Assert.Single(ScriptEnd().Matches(svg));
    }

    internal static (double X, double Y)[] PathPoints(string svg, string kind) =>
    [
        .. Regex.Match(svg, $"class=\"{kind} s\\d\" d=\"([^\"]*)\"").Groups[1].Value.Split(['M', 'L', 'Z'], StringSplitOptions.RemoveEmptyEntries)
            .Select(p => p.Split(' ')).Select(p => (double.Parse(p[0], CultureInfo.InvariantCulture), double.Parse(p[1], CultureInfo.InvariantCulture))),
    ];

    [GeneratedRegex("</script>")]
    private static partial Regex ScriptEnd();
}
