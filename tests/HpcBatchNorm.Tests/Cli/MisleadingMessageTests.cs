using System.Text.Json;
using HpcBatchNorm.Cli;
using HpcBatchNorm.Tests.Training;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Cli;

/// <summary>What people type, and what they were told that was not so.</summary>
public sealed class MisleadingMessageTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    [Fact]
    public void RunFolder_StandsForItsBestCheckpoint_OrItsNewest()
    {
        string run = fixture.NewFolder(), plain = fixture.NewFolder();
        Assert.Equal(ExitCode.Done, Run([.. Train(run, 8), "--eval-every", "0.5", "--keep", "9"]).Code);
        Assert.Equal(ExitCode.Done, Run([.. Train(plain, 2), "--eval-every", "0"]).Code);
        using var best = Checkpoint.Open(run);
        Assert.Equal(best.Info.BestStep, best.Info.Step);
        using var inside = Checkpoint.Open(Path.Combine(run, "checkpoints"));
        Assert.Equal(best.Path, inside.Path);
        using var newest = Checkpoint.Open(plain);
        Assert.Equal("step-00000002.safetensors", Path.GetFileName(newest.Path));

        (int code, string output, string error) = Run("eval", "--checkpoint", run, "--backend", TrainingFixture.Backend);
        Assert.True(code == ExitCode.Done, error);
        Assert.Contains($"checkpoint {best.Path}", output, StringComparison.Ordinal);

        (code, output, error) = Run("inspect", "--checkpoint", run);
        Assert.True(code == ExitCode.Done, error);
        Assert.StartsWith(best.Path, output, StringComparison.Ordinal);

        // The checkpoint itself is no place to export it to.
        byte[] before = File.ReadAllBytes(best.Path);
        (code, _, error) = Run("export", "--checkpoint", run, "-o", best.Path);
        Assert.Equal(ExitCode.Failed, code);
        Assert.Contains("is the checkpoint that is exported", error, StringComparison.Ordinal);
        Assert.Equal(before, File.ReadAllBytes(best.Path));

        (code, _, error) = Run("eval", "--checkpoint", fixture.Folder);
        Assert.Equal(ExitCode.Failed, code);
        Assert.Contains("is a folder without a good checkpoint (looked in", error, StringComparison.Ordinal);
    }

    [Fact]
    public void CheckpointWhosePathHasAComma_IsOne()
    {
        string run = Path.Combine(fixture.NewFolder(), "a,b");
        Assert.Equal(ExitCode.Done, Run([.. Train(run, 2), "--eval-every", "0"]).Code);

        (int code, string output, string error) = Run(
            "eval", "--checkpoint", Path.Combine(run, "checkpoints", "step-00000002.safetensors"), "--backend", TrainingFixture.Backend, "--result", "-");

        Assert.True(code == ExitCode.Done, error);
        Assert.Equal(1, JsonDocument.Parse(output).RootElement.GetProperty("models").GetInt32());
    }

    [Fact]
    public void RepeatedFlag_TheLastWins()
    {
        string run = fixture.NewFolder();
        (int code, _, string error) = Run([.. Train(run, 2), "--lr", "0.1", "--learning-rate", "0.2", "--mirror", "false", "--mirror", "--nesterov", "--nesterov=false", "--eval-every", "1", "--eval-every", "0"]);

        Assert.True(code == ExitCode.Done, error);
        using var checkpoint = Checkpoint.Open(run);
        RunConfig config = new TrainingConfigBuilder().AddYaml(checkpoint.Info.Config, "test").Config;
        Assert.Equal((0.2f, true, false, 0), (config.LearningRate, config.Augmentation.Mirror, config.Optimizer.Nesterov, config.EvalEvery));
    }

    [Fact]
    public void TwoNamesOfOneSetting_InAFile_AreAMistake()
    {
        string file = Path.Combine(fixture.Folder, "two.yaml");
        File.WriteAllText(file, "lr: 0.1\nsteps: 3\nlearning-rate: 0.2\n");

        (int code, _, string error) = Run("train", "--config", file);

        Assert.Equal(ExitCode.Failed, code);
        Assert.Contains($"{file}:3: 'lr' and 'learning-rate' are names of one setting", error, StringComparison.Ordinal);
    }

    [Fact]
    public void PretrainedWeightsByName_AreNotLookedForAsAFile()
    {
        string run = fixture.NewFolder();
        (int code, _, string error) = Run([.. Train(run, 2), "--pretrained", "imagenet"]);

        Assert.Equal(ExitCode.Failed, code);
        Assert.Contains("there are no pretrained weights to download", error, StringComparison.Ordinal);
        Assert.False(Directory.Exists(run));
    }

    [Theory]
    [InlineData("--result", "train")]
    [InlineData("--csv", "eval")]
    [InlineData("-o", "export")]
    [InlineData("--output", "recalibrate")]
    [InlineData("--trace", "bench")]
    public void FileThatCannotBeWritten_IsSaidBeforeTheWork(string flag, string command)
    {
        string nowhere = Path.Combine(fixture.NewFolder(), "x");
        string[] needed = command is "eval" or "recalibrate" ? ["--checkpoint", "c"] : [];
        foreach (string path in new[] { nowhere, fixture.Folder })
        {
            (int code, _, string error) = Run([command, .. needed, flag, path]);
            Assert.Equal(ExitCode.Usage, code);
            Assert.Contains(path == nowhere ? "There is no folder" : "is a folder; name a file in it", error, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void OutputFile_IsReplacedWhole_AndALinkStaysALink()
    {
        string target = Path.Combine(fixture.Folder, "old.json"), link = Path.Combine(fixture.Folder, "link.json");
        File.WriteAllText(target, "before");
        File.CreateSymbolicLink(link, target);

        OutputFile.Check(link);
        OutputFile.WriteText(link, "after");
        Assert.Equal("after", File.ReadAllText(target));
        Assert.NotNull(new FileInfo(link).LinkTarget);

        Assert.Throws<IOException>(() => OutputFile.Replace(target, path =>
        {
            File.WriteAllText(path, "half");
            throw new IOException("no space");
        }));
        Assert.Equal("after", File.ReadAllText(target));
        Assert.Empty(Directory.GetFiles(fixture.Folder, "*.partial"));
    }

    [Fact]
    public void OutputFile_OnADevice_LeavesTheDevice()
    {
        Assert.SkipUnless(File.Exists("/dev/null"), "needs /dev/null");
        OutputFile.Check("/dev/null");
        OutputFile.WriteText("/dev/null", "nothing");
        using FileStream still = File.OpenRead("/dev/null");
        Assert.Equal(0, still.Read(new byte[8]));
    }

    [Fact]
    public void CommandToCopy_IsQuotedForTheShell()
    {
        Assert.Equal("runs/20260131-bn_x5", ShellWord.Quote("runs/20260131-bn_x5"));
        Assert.Equal("'my runs/it'\\''s'", ShellWord.Quote("my runs/it's"));
    }

    private string[] Train(string output, int steps) =>
        ["train", .. fixture.Flags(output).SelectMany(f => new[] { $"--{f.Name}", f.Value }), "--recipe", "quick", "--steps", $"{steps}"];

    private static (int Code, string Output, string Error) Run(params string[] args)
    {
        using StringWriter output = new(), error = new();
        int code = CommandLine.Run(args, output, error);
        return (code, output.ToString(), error.ToString());
    }
}
