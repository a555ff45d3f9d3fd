using System.Globalization;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Docs;

/// <summary>The table of docs/imagenet.md follows from the recipes.</summary>
public class ImageNetPageTests
{
    private const int TrainingImages = 1_281_167;

    public static TheoryData<string> Recipes { get; } = ["inception", "bn-baseline", "bn-x5", "bn-x30", "bn-x5-sigmoid", "bn-x30-e1"];

    [Theory]
    [MemberData(nameof(Recipes))]
    public void Page_Steps_AreThoseOfTheRecipe(string recipe)
    {
        RunConfig config = new TrainingConfigBuilder().AddRecipe(recipe).Config;
        long steps = (long)Math.Round(config.Epochs * (TrainingImages / config.ImagesPerStep));

        string[] cells = Row(recipe);

        Assert.Equal(config.Epochs.ToString(CultureInfo.InvariantCulture), cells[1]);
        Assert.Equal(steps.ToString("N0", CultureInfo.InvariantCulture), cells[2]);
        Assert.Equal(Math.Floor(steps * config.ImagesPerStep / 1e6 + 0.5), Number(cells[3]), 1.0);
        Assert.Equal(steps * config.ImagesPerStep / 37.5 / 86400, Number(cells[6]), 0.6);
        Assert.Equal(steps * config.ImagesPerStep / 62.0 / 86400, Number(cells[7]), 0.6);
        Assert.Equal(steps * config.ImagesPerStep / 5000.0 / 3600, Number(cells[8]), 0.6);
        // A full run falls by the recipe's staircase.
        Assert.Contains("every", new LearningRateSchedule(config, TrainingImages / 32, steps).Description, StringComparison.Ordinal);
    }

    [Fact]
    public void Ensemble_AllMembers_AreAsLongAsTheRowSays()
    {
        foreach (int member in Enumerable.Range(1, 6))
        {
            Assert.Equal(150, new TrainingConfigBuilder().AddRecipe(FormattableString.Invariant($"bn-x30-e{member}")).Config.Epochs);
        }
    }

    private static string[] Row(string recipe) => [.. File.ReadLines(RepoPaths.InRepo("docs", "imagenet.md"))
        .Single(line => line.StartsWith($"| `{recipe}`", StringComparison.Ordinal)).Split('|', StringSplitOptions.TrimEntries).Skip(1)];

    private static double Number(string cell) => double.Parse(cell.Split(' ')[0], CultureInfo.InvariantCulture);
}
