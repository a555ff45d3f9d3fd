using HpcBatchNorm.Cli;
using HpcBatchNorm.Training;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Tests.Cli;

/// <summary>What people see of a run, on terminals and in files.</summary>
public class TrainingViewTests
{
    [Theory]
    [InlineData("auto")]
    [InlineData("never")]
    public void NoTerminal_OnePlainLinePerLogStep(string progress)
    {
        string[] lines = Show(progress).Split('\n', StringSplitOptions.RemoveEmptyEntries);

        Assert.Equal(2, lines.Length);
        Assert.Matches(@"^epoch 2/3  step 20/100  loss 1\.2346 \(1\.5000\)  lr 0\.0075  20\.0 img/s  data 2\.0 %  eta 02:03:04  mem \d+ MB$", lines[0]);
        Assert.StartsWith("evaluating 10/40  top-1 12.50 %  0.3 img/s  eta 00:02:00", lines[1], StringComparison.Ordinal);
    }

    [Fact]
    public void Always_DrawsTheBarIntoAFileToo()
    {
        string text = Show("always");

        Assert.Contains("\u001b[", text, StringComparison.Ordinal);
        Assert.Contains("2/3 20/100 loss 1.500 lr 7.5e-3 20 img/s data 2% eta 02:03:04", text, StringComparison.Ordinal);
        Assert.DoesNotContain("epoch 2/3", text, StringComparison.Ordinal);
    }

    [Fact]
    public void Settings_ThoseAtTheirDefaults_AreShownOnRequestOnly()
    {
        TrainingConfigBuilder settings = new TrainingConfigBuilder().AddRecipe("bn-x5").Set("mirror", "true");

        string some = Text(all: false), all = Text(all: true);

        Assert.Matches(@"\n    learning-rate +0\.0075 +recipe bn-x5\n", some);
        Assert.Matches(@"\n    mirror +true +flag\n", some); // the default, but somebody asked for it
        Assert.DoesNotContain("label-smoothing", some, StringComparison.Ordinal);
        Assert.Matches(@"\n  and \d+ settings at their defaults, which --verbose shows\n$", some);
        Assert.All(TrainingSettings.All, s => Assert.Contains($"\n    {s.Name} ", all, StringComparison.Ordinal));
        Assert.DoesNotContain("--verbose", all, StringComparison.Ordinal);

        string Text(bool all)
        {
            using var output = new StringWriter { NewLine = "\n" };
            new TrainingView(output, "never").Settings(settings, all);
            return output.ToString();
        }
    }

    private static string Show(string progress)
    {
        using var output = new StringWriter { NewLine = "\n" };
        new TrainingView(output, progress).Run(observer =>
        {
            var step = new StepReport(120, 300, 100, Loss: 1.23456f, MeanLoss: 1.5, 0.0075f, ImagesPerSecond: 20, DataWaitShare: 0.02, new TimeSpan(2, 3, 4), IsLogStep: true);
            observer.Stepped(step);
            observer.Stepped(step with { Step = 121, IsLogStep = false });
            observer.Evaluating(new EvaluationProgress(1, 40, 0, 0, Seconds: 4));
            observer.Evaluating(new EvaluationProgress(10, 40, 0.125, 0.5, Seconds: 40));
            observer.Evaluating(new EvaluationProgress(11, 40, 0.125, 0.5, Seconds: 41));
            return null!;
        });
        return output.ToString();
    }
}
