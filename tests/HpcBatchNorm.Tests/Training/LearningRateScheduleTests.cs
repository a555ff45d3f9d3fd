using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Training;

public sealed class LearningRateScheduleTests
{
    private const int ImageNetSteps = 1_281_167 / 32;

    [Theory]
    [InlineData("inception", 31_000_000, 2.9e-5)]
    [InlineData("bn-x5", 2_100_000 - 1, 1.5e-3)]
    [InlineData("bn-x30", 2_700_000, 5.7e-3)]
    [InlineData("bn-x30", 6_000_000, 4.6e-4)]
    public void PaperLengths_AtTheQuotedSteps_GiveTheReconstructedRates(string recipe, long step, double expected)
    {
        TrainingConfig config = new TrainingConfigBuilder().AddRecipe(recipe).Config;
        long total = (long)(config.Epochs * ImageNetSteps);

        // The reference rates are rounded to two digits and made with a smooth decay, which lies at most one decay of 4 % away.
        Assert.Equal(expected, new LearningRateSchedule(config, ImageNetSteps, Math.Max(total, step + 1)).At(step), 0.06 * expected);
    }

    [Fact]
    public void Constants_DecayInSteps()
    {
        var schedule = new LearningRateSchedule(new TrainingConfig { LearningRate = 1, Decay = DecayMode.Constants, DecayRate = 0.5, DecayEpochs = 2 }, 10, 100);

        Assert.Equal([1f, 1f, 0.5f, 0.5f, 0.25f], new long[] { 0, 19, 20, 39, 40 }.Select(schedule.At));
    }

    [Fact]
    public void ShortRun_OfAPaperRecipe_FallsTo86ThousandthsAtItsEnd()
    {
        TrainingConfig config = new TrainingConfigBuilder().AddRecipe("bn-x5").Set("epochs", "6").Config;
        var schedule = new LearningRateSchedule(config, 625, 3750);

        Assert.Equal(0.0075f, schedule.At(0));
        Assert.Equal(0.0075 * Math.Sqrt(0.086), schedule.At(3749 / 2), 2e-6);
        Assert.Equal(0.0075 * 0.086, schedule.At(3749), 1e-8);
        Assert.Contains("shorter than the 80 epochs", schedule.Description, StringComparison.Ordinal);
    }

    [Fact]
    public void None_StaysConstant()
    {
        var schedule = new LearningRateSchedule(new TrainingConfig { LearningRate = 0.1f, Decay = DecayMode.None }, 10, 100);

        Assert.Equal(0.1f, schedule.At(99));
    }

    [Fact]
    public void Span_OneStep_IsFinite() =>
        Assert.Equal(0.1f, new LearningRateSchedule(new TrainingConfig { LearningRate = 0.1f, Decay = DecayMode.Span }, 10, 1).At(0));
}
