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
        RunConfig config = new TrainingConfigBuilder().AddRecipe(recipe).Config;
        long total = (long)(config.Epochs * ImageNetSteps);

        // The reference rates are rounded to two digits and made with a smooth decay, which lies at most one decay of 4 % away.
        Assert.Equal(expected, new LearningRateSchedule(config, ImageNetSteps, Math.Max(total, step + 1)).At(step), 0.06 * expected);
    }

    [Fact]
    public void Constants_DecayInSteps()
    {
        var schedule = new LearningRateSchedule(new RunConfig { LearningRate = 1, Schedule = ScheduleKind.Exponential, DecayRate = 0.5, DecayEpochs = 2 }, 10, 100);

        Assert.Equal([1f, 1f, 0.5f, 0.5f, 0.25f], new long[] { 0, 19, 20, 39, 40 }.Select(schedule.At));
    }

    [Fact]
    public void ShortRun_OfAPaperRecipe_FallsTo86ThousandthsAtItsEnd()
    {
        RunConfig config = new TrainingConfigBuilder().AddRecipe("bn-x5").Set("epochs", "6").Config;
        var schedule = new LearningRateSchedule(config, 625, 3750);

        Assert.Equal(0.0075f, schedule.At(0));
        Assert.Equal(0.0075 * Math.Sqrt(0.086), schedule.At(3749 / 2), 2e-6);
        Assert.Equal(0.0075 * 0.086, schedule.At(3749), 1e-8);
        Assert.Contains("shorter than the 80 epochs", schedule.Description, StringComparison.Ordinal);
    }

    [Fact]
    public void None_StaysConstant()
    {
        var schedule = new LearningRateSchedule(new RunConfig { LearningRate = 0.1f, Schedule = ScheduleKind.Constant }, 10, 100);

        Assert.Equal(0.1f, schedule.At(99));
    }

    [Fact]
    public void Span_OneStep_IsFinite() =>
        Assert.Equal(0.1f, new LearningRateSchedule(new RunConfig { LearningRate = 0.1f, Schedule = ScheduleKind.Span }, 10, 1).At(0));

    // 10 steps an epoch, 100 steps. Expected values are worked out from the formulas by hand.
    [Theory]
    [InlineData("step", 0, 1)]
    [InlineData("step", 29, 1)]
    [InlineData("step", 30, 0.2)]
    [InlineData("step", 59, 0.2)]
    [InlineData("step", 60, 0.04)]
    [InlineData("step", 99, 0.04)]
    [InlineData("cosine", 0, 1)]
    [InlineData("cosine", 25, 0.868198051533946)] // 0.1 + 0.9 * (1 + sqrt(1/2)) / 2
    [InlineData("cosine", 50, 0.55)]
    [InlineData("cosine", 75, 0.231801948466054)]
    [InlineData("cosine", 99, 0.100222029301767)] // 0.1 + 0.9 * (1 + cos(0.99 pi)) / 2
    [InlineData("linear", 0, 1)]
    [InlineData("linear", 50, 0.55)]
    [InlineData("linear", 99, 0.109)]
    [InlineData("constant", 99, 1)]
    [InlineData("exponential", 99, 0.0625)] // 0.5^floor(9.9 / 2)
    public void At_EverySchedule_FollowsItsFormula(string schedule, long step, double expected) =>
        Assert.Equal(expected, Make(schedule).At(step), 1e-7);

    [Theory]
    [InlineData("constant", 0, 0.28)] // 0.1 + 0.9 * 1/5
    [InlineData("constant", 3, 0.82)]
    [InlineData("constant", 4, 1)]
    [InlineData("constant", 5, 1)]
    [InlineData("step", 30, 0.2)] // epochs count from the start of the run
    [InlineData("exponential", 20, 0.5)]
    [InlineData("cosine", 4, 1)]
    [InlineData("cosine", 5, 1)] // the cosine takes the 95 steps that are left
    [InlineData("cosine", 24, 0.914057647468726)] // 0.1 + 0.9 * (1 + cos(0.2 pi)) / 2
    [InlineData("linear", 24, 0.82)]
    [InlineData("span", 99, 0.086)]
    public void At_WithWarmup_RisesInALineThenFollowsTheSchedule(string schedule, long step, double expected) =>
        Assert.Equal(expected, Make(schedule, ("warmup-epochs", "0.5"), ("warmup-lr", "0.1")).At(step), 1e-7);

    // Cycles of 2 epochs (20 steps), each twice as long and half as high: they begin at 0, 20, 60; minimum 0.1.
    [Theory]
    [InlineData(0, 1)]
    [InlineData(10, 0.55)] // half way down
    [InlineData(19, 0.105540)] // 0.1 + 0.9 * (1 + cos(0.95 pi)) / 2
    [InlineData(20, 0.5)]
    [InlineData(40, 0.3)]
    [InlineData(60, 0.25)]
    [InlineData(99, 0.177944)] // 39 of 80 steps: 0.1 + 0.15 * (1 + cos(0.4875 pi)) / 2
    public void At_CosineWithRestarts_BeginsAgain(long step, double expected) =>
        Assert.Equal(expected, Make("cosine", ("cycle-epochs", "2"), ("cycle-multiplier", "2"), ("cycle-decay", "0.5")).At(step), 1e-6);

    /// <summary>Cycles of one length: every second epoch is the first again, and the warm-up comes before them.</summary>
    [Fact]
    public void At_CosineWithEqualCycles_Repeats()
    {
        LearningRateSchedule schedule = Make("cosine", ("cycle-epochs", "2"), ("warmup-epochs", "0.5"));
        Assert.All(Enumerable.Range(5, 20), step => Assert.Equal(schedule.At(step), schedule.At(step + 40)));
        Assert.Equal([1f, 0.55f, 1f], new long[] { 5, 15, 25 }.Select(schedule.At));
    }

    // 5 steps of warm-up from 0.1 to 1: PyTorch's LinearLR begins with 0.1 itself, and the sixth step is the first at full rate.
    [Theory]
    [InlineData("reached", 0, 0.28)]
    [InlineData("reached", 4, 1)]
    [InlineData("pytorch", 0, 0.1)]
    [InlineData("pytorch", 3, 0.64)] // 0.1 + 0.9 * 3/5
    [InlineData("pytorch", 4, 0.82)]
    [InlineData("pytorch", 5, 1)]
    public void At_WarmupForm_SaysWhereItBegins(string form, long step, double expected) =>
        Assert.Equal(expected, Make("constant", ("warmup-epochs", "0.5"), ("warmup-lr", "0.1"), ("warmup-form", form)).At(step), 1e-7);

    /// <summary>A run that is one epoch shorter than a recipe's own ends at next to the same rate, as does one of two epochs.</summary>
    [Theory]
    [InlineData("inception", 3.0e-5)] // 0.0015 * 0.96^96
    [InlineData("bn-baseline", 2.8e-4)] // 0.0015 * 0.96^41
    [InlineData("bn-x5", 6.7e-4)] // 0.0075 * 0.96^59
    [InlineData("bn-x5-sigmoid", 6.7e-4)]
    [InlineData("bn-x30", 4.65e-4)] // 0.045 * 0.96^112
    [InlineData("bn-x30-e6", 4.65e-4)]
    public void ShorterRun_OfAPaperRecipe_EndsWhereTheWholeEnds(string recipe, double expected)
    {
        RunConfig config = new TrainingConfigBuilder().AddRecipe(recipe).Config;
        double End(double epochs)
        {
            long steps = (long)(epochs * ImageNetSteps);
            return new LearningRateSchedule(config, ImageNetSteps, steps).At(steps - 1);
        }

        Assert.Equal(expected, End(config.Epochs), 0.01 * expected);
        Assert.Equal(expected, End(config.Epochs - 1), 0.06 * expected);
        Assert.Equal(expected, End(2), 0.06 * expected);
    }

    [Theory]
    [InlineData("step", "1, times 0.2 after epochs 3, 6, 4e-2 at the end")]
    [InlineData("cosine", "1, half a cosine down to 1e-1 after step 100")]
    [InlineData("linear", "1, in a straight line down to 1e-1 after step 100")]
    [InlineData("constant", "1, constant")]
    public void Description_SaysTheRuleAndTheWarmup(string schedule, string expected)
    {
        Assert.Equal(expected, Make(schedule).Description);
        Assert.Equal(expected + "; first 20 steps of warm-up from 0e+0", Make(schedule, ("warmup-epochs", "2")).Description);
    }

    [Fact]
    public void Validate_StepWithoutMilestones_SaysWhatToSet()
    {
        RunConfig config = new TrainingConfigBuilder().Set("sched", "step").Config;

        UserErrorException error = Assert.Throws<UserErrorException>(() => TrainingSettings.Validate(config));
        Assert.Contains("step needs milestones", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Yaml_LongAliases_AreTheSettingTheyStandFor()
    {
        TrainingConfigBuilder builder = new TrainingConfigBuilder().AddYaml("lr: 0.5\nlr-scheduler: cosine\nmin-lr: 0.01\n", "test");

        Assert.Equal((0.5f, ScheduleKind.Cosine, 0.01), (builder.Config.LearningRate, builder.Config.Schedule, builder.Config.MinimumLearningRate));
        Assert.Equal("test", builder.Origin("learning-rate"));
    }

    private static LearningRateSchedule Make(string schedule, params (string Name, string Value)[] more)
    {
        TrainingConfigBuilder builder = new TrainingConfigBuilder().Set("schedule", schedule).Set("learning-rate", "1").Set("milestones", "3,6").Set("gamma", "0.2")
            .Set("minimum-learning-rate", "0.1").Set("decay-rate", "0.5").Set("decay-epochs", "2");
        foreach ((string name, string value) in more)
        {
            builder.Set(name, value);
        }

        return new LearningRateSchedule(builder.Config, 10, 100);
    }
}
