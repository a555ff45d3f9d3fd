using System.Xml.Linq;
using HpcBatchNorm.Experiments;
using HpcBatchNorm.Reporting;
using HpcBatchNorm.Tests.Reporting;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Experiments;

public sealed class FigureTests
{
    private static readonly Figure Sample = new("sample", "Accuracy < 1 & more", "step", "%")
    {
        Series = [FigureSeries.Of("with <BN>", [(1, 10), (10, 60), (1000, 100)]), FigureSeries.Of("without", [(1, 5), (1000, double.NaN)], 1, dashed: true)],
        Marks = [new FigureMark("paper", Y: 72.2), new FigureMark("here", 10, 60)],
        LogarithmicX = true,
    };

    [Fact]
    public void Svg_IsADocumentOfItsOwn_WithAllThatWasNamed()
    {
        XElement root = XDocument.Parse(Sample.ToSvg()).Root!;

        string[] texts = [.. root.Elements(root.Name.Namespace + "text").Select(t => t.Value)];
        Assert.Equal(["Accuracy < 1 & more", "step", "%", "with <BN>", "without", "paper", "here"], new[] { "Accuracy < 1 & more", "step", "%", "with <BN>", "without", "paper", "here" }.Where(texts.Contains));
        Assert.Equal("http://www.w3.org/2000/svg", root.Name.NamespaceName);
        Assert.DoesNotContain("var(", root.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Svg_LogarithmicAxis_PutsEqualFactorsEquallyFar()
    {
        (double X, double Y)[] points = LineChartTests.PathPoints(Sample.ToSvg(), "line");

        // 1, 10, 1000 between 70 and 688: a third of the way.
        Assert.Equal([70, 276, 688], points.Select(p => p.X));
    }

    [Fact]
    public void Decades_HaveRoundTicksWithinTheirBounds()
    {
        ChartAxis few = ChartAxis.Around([3, 40], tight: false, logarithmic: true), many = ChartAxis.Around([1e-16, 1e-3], tight: true, logarithmic: true);

        Assert.Equal([2, 5, 10, 20, 50], few.Ticks.Select(t => Math.Round(t.Value, 9)));
        Assert.Equal(0, few.At(2), 12);
        Assert.Equal(1, few.At(50), 12);
        Assert.InRange(many.Ticks.Count, 5, 8);
        Assert.All(many.Ticks, t => Assert.InRange(many.At(t.Value), -1e-9, 1 + 1e-9));
    }

    [Fact]
    public void Png_ShowsWhatTheSvgSays()
    {
        string path = Path.Combine(Path.GetTempPath(), $"hpcbn-figure-{Guid.NewGuid():N}.png");
        List<string> notes = [];
        bool written = FigurePng.Write(Sample, path, notes.Add);
        if (!written)
        {
            Assert.Contains("fonts-dejavu-core", Assert.Single(notes), StringComparison.Ordinal);
            Assert.Skip("no font on this machine");
        }

        try
        {
            using SKBitmap picture = SKBitmap.Decode(path);
            Assert.Equal(1440, picture.Width);
            Assert.Equal(SKColors.White, picture.GetPixel(2, 2));
            Assert.Contains(SKColor.Parse("#1769aa"), picture.Pixels);
            Assert.Contains(SKColor.Parse("#c4501b"), picture.Pixels);
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Fact]
    public void Page_ShowsFindingsFiguresAndVerdicts()
    {
        string root = Directory.CreateTempSubdirectory("hpcbn-page").FullName;
        try
        {
            ExperimentRunner.Run(new Planted(), new ExperimentContext { Output = Path.Combine(root, "planted"), BackendName = "reference" });
            string html = File.ReadAllText(ExperimentPage.Write(root)), markdown = File.ReadAllText(Path.Combine(root, ExperimentPage.MarkdownFile));

            Assert.Contains("<span class=\"fail\">not shown</span>", html, StringComparison.Ordinal);
            Assert.Contains("<svg", html, StringComparison.Ordinal);
            Assert.Contains("a &lt;claim&gt;", html, StringComparison.Ordinal);
            Assert.Contains("![Accuracy < 1 & more](planted/sample.svg)", markdown, StringComparison.Ordinal);
            Assert.Contains("| 97.2 % | 90.0 % | at least 95.0 % | **not shown** |", markdown, StringComparison.Ordinal);
            Assert.True(File.Exists(Path.Combine(root, "planted", "sample.svg")));
        }
        finally
        {
            Directory.Delete(root, recursive: true);
        }
    }

    private sealed class Planted : Experiment
    {
        public override string Name => "planted";

        public override string Title => "Planted";

        public override string Claim => "a <claim>";

        public override ExperimentData Data => ExperimentData.None;

        public override double Minutes => 0;

        public override ExperimentResult Run(ExperimentContext context) => new()
        {
            Findings = [Finding.AtLeast("accuracy", "97.2 %", 90, 95, "0.0 '%'"), Finding.AtMost("error", "", 1, 2)],
            Figures = [Sample],
            Tables = [new ResultTable("T", ["a", "b"], [["1", "2|3"]])],
        };
    }
}
