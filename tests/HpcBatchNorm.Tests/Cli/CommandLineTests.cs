using System.Text.Json;
using HpcBatchNorm.Cli;
using HpcBatchNorm.Data;
using HpcBatchNorm.Tests.Training;

namespace HpcBatchNorm.Tests.Cli;

/// <summary>The command in this process: what it prints, and its exit code.</summary>
public sealed class CommandLineTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    [Theory]
    [InlineData("trian", "unknown command 'trian', did you mean 'train'?")]
    [InlineData("train --batchsize 3", "unknown option '--batchsize', did you mean '--batch-size'?")]
    [InlineData("train --lr fast", "--learning-rate: expected a number of at least 0, found 'fast'")]
    [InlineData("train --progress sometimes", "sometimes")]
    [InlineData("eval", "--checkpoint")]
    [InlineData("eval --checkpoint x --crops 7", "--crops: expected 1, 10 or 144, found '7'")]
    [InlineData("eval --checkpoint x --statistics old", "old")]
    [InlineData("eval --checkpoint x --csv nowhere/classes.csv", "--csv: There is no folder 'nowhere' to write 'classes.csv' to")]
    [InlineData("recalibrate --checkpoint x --batches 0", "--batches: expected a whole number of at least 1, found '0'")]
    public void UsageMistake_ExitsWith2AndOneLine(string line, string expected) => AssertFails(ExitCode.Usage, expected, line.Split(' '));

    [Fact]
    public void Help_HasExamplesAndExitsWith0()
    {
        (int code, string output, _) = Run("train", "--help");

        Assert.Equal(ExitCode.Done, code);
        Assert.Contains("Examples:", output, StringComparison.Ordinal);
        Assert.Contains("-b, --batch-size", output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("bash", "complete -o default -F _hpcbn hpcbn")]
    [InlineData("zsh", "compdef _hpcbn hpcbn")]
    [InlineData("fish", "complete -c hpcbn")]
    public void Completion_PrintsTheShellsScript(string shell, string expected)
    {
        (int code, string output, string error) = Run("completion", shell);
        Assert.Equal((ExitCode.Done, ""), (code, error));
        Assert.Contains(expected, output, StringComparison.Ordinal);
        Assert.Contains("[suggest:", output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("tra", "train")]
    [InlineData("train --optimi", "--optimizer")]
    [InlineData("train --optimizer ad", "adamw")]
    [InlineData("eval --stat", "--statistics")]
    [InlineData("completion ", "fish")]
    public void Completion_OfAnUnfinishedLine_IsWhatTheParserKnows(string line, string expected)
    {
        (int code, string output, string error) = Run(FormattableString.Invariant($"[suggest:{line.Length}]"), line);
        Assert.Equal((ExitCode.Done, ""), (code, error));
        Assert.Contains(expected, output.Split('\n', StringSplitOptions.TrimEntries));
    }

    [Fact]
    public void DryRun_SaysWhatTheRunWouldBe_AndWritesNothing()
    {
        string folder = fixture.NewFolder();
        string[] flags = [.. fixture.Flags(folder, ("steps", "10"), ("schedule", "linear"), ("learning-rate", "0.4")).SelectMany(f => new[] { $"--{f.Name}", f.Value })];
        (int code, string output, string error) = Run(["train", "--dry-run", .. flags]);

        Assert.Equal((ExitCode.Done, ""), (code, error));
        Assert.Contains("10 of 4 images, 1.67 epochs of 6 steps", output, StringComparison.Ordinal);
        Assert.Contains("4e-1 at 0, 3.6e-1 at 1", output.Replace("3.6000e-1", "3.6e-1", StringComparison.Ordinal), StringComparison.Ordinal); // where step 9 has 0.04
        Assert.Contains("4e-2 at 9", output, StringComparison.Ordinal);
        Assert.Contains("MB planned", output, StringComparison.Ordinal);
        Assert.Contains("a checkpoint takes", output, StringComparison.Ordinal);
        Assert.Contains("Nothing was trained or written", output, StringComparison.Ordinal);
        Assert.False(Directory.Exists(folder));
    }

    [Theory]
    [InlineData("")]
    [InlineData("train")]
    [InlineData("eval")]
    [InlineData("recalibrate")]
    [InlineData("verify")]
    [InlineData("bench")]
    [InlineData("inspect")]
    [InlineData("data")]
    [InlineData("data check")]
    [InlineData("data bench")]
    [InlineData("sample")]
    [InlineData("info")]
    public void Help_NeedsNothingThatTheCommandNeeds(string command)
    {
        (int code, string output, string error) = Run([.. command.Split(' ', StringSplitOptions.RemoveEmptyEntries), "--help"]);

        Assert.Equal((ExitCode.Done, ""), (code, error));
        Assert.Contains("Examples:", output, StringComparison.Ordinal);
    }

    [Fact]
    public void Bench_Result_HasTheDocumentedFields()
    {
        string shapes = Path.Combine(fixture.Folder, "shapes.txt");
        File.WriteAllText(shapes, "mb2_ic16_ih8_n\"bn\"\nmb2ic16ih8oc16oh8kh3ph1n\"conv\"\n");
        foreach (string[] what in new string[][] { ["--network", "mnist-mlp", "--image-size", "28", "--steps", "1"], ["--shapes", shapes] })
        {
            (int code, string output, _) = Run(["bench", "--backend", "reference", "-b", "2", "--result", "-", .. what]);

            Assert.Equal(ExitCode.Done, code);
            using var json = JsonDocument.Parse(output);
            Assert.Equal("reference", json.RootElement.GetProperty("backend").GetString());
            Assert.Equal(what[0] == "--network", json.RootElement.TryGetProperty("step_ms", out _));
            JsonElement row = json.RootElement.GetProperty("rows").EnumerateArray().First();
            Assert.True(row.GetProperty("ms").GetDouble() > 0);
            Assert.Equal(JsonValueKind.Null, row.GetProperty("share_of_limit").ValueKind); // the reference has no probes
        }
    }

    [Fact]
    public void DataPathMissing_Fails() => AssertFails(ExitCode.Failed, "nowhere", "train", "--data", Path.Combine(fixture.Folder, "nowhere"));

    [Fact]
    public void ClassFolderEmpty_Fails()
    {
        string folder = Directory.CreateDirectory(fixture.NewFolder()).FullName;
        foreach (string split in new[] { "train", "val" })
        {
            Directory.CreateDirectory(Path.Combine(folder, split, "cat"));
            Directory.CreateDirectory(Path.Combine(folder, split, "dog"));
            File.Copy(SomeImage(), Path.Combine(folder, split, "cat", "1.jpeg"));
        }

        AssertFails(ExitCode.Failed, "dog", "train", "--backend", TrainingFixture.Backend, "--data", folder, "--model", "inception-tiny");
    }

    [Fact]
    public void TarTruncated_Fails()
    {
        string folder = CopyData();
        string tar = Path.Combine(folder, "ILSVRC2012_img_train.tar");
        File.WriteAllBytes(tar, File.ReadAllBytes(tar)[..5000]);

        AssertFails(ExitCode.Failed, "ILSVRC2012_img_train.tar", "train", "--backend", TrainingFixture.Backend, "--data", folder, "--model", "inception-tiny");
    }

    [Fact]
    public void DevelopmentKitOfAnotherSet_Fails()
    {
        string folder = CopyData(), other = fixture.NewFolder();
        SampleGenerator.Write(other, new SampleOptions { Classes = 2, TrainPerClass = 1, ValidationPerClass = 1, ImageSize = 16 }, TestContext.Current.CancellationToken);
        File.Copy(Path.Combine(other, "ILSVRC2012_devkit_t12.tar.gz"), Path.Combine(folder, "ILSVRC2012_devkit_t12.tar.gz"), overwrite: true);

        AssertFails(ExitCode.Failed, "the two do not belong together", "train", "--backend", TrainingFixture.Backend, "--data", folder, "--model", "inception-tiny", "--output", fixture.NewFolder());
    }

    [Fact]
    public void ImageUnreadable_WithPolicyFail_Fails()
    {
        string folder = Directory.CreateDirectory(fixture.NewFolder()).FullName;
        foreach (string name in new[] { "cat", "dog" })
        {
            Directory.CreateDirectory(Path.Combine(folder, name));
            for (int i = 0; i < 4; i++)
            {
                File.Copy(SomeImage(), Path.Combine(folder, name, $"{i}.jpeg"));
            }
        }

        File.WriteAllText(Path.Combine(folder, "dog", "broken.jpeg"), "this is no JPEG");

        AssertFails(ExitCode.Failed, "broken.jpeg",
            "train", "--backend", TrainingFixture.Backend, "--data", folder, "--model", "inception-tiny", "--image-size", "8", "-b", "3", "--on-bad-image", "fail", "--epochs", "1", "--output", fixture.NewFolder());
    }

    [Fact]
    public void ImageTooSmall_Fails() => AssertFails(ExitCode.Failed, "too small",
        "train", "--backend", TrainingFixture.Backend, "--data", fixture.Data, "--model", "bn-inception", "--image-size", "16", "-b", "4", "--output", fixture.NewFolder());

    [Fact]
    public void BatchOf1_WithMapsOf1x1_Fails() => AssertFails(ExitCode.Failed, "sees one value per statistic (1 image of 1x1)",
        "train", "--backend", TrainingFixture.Backend, "--data", fixture.Data, "--model", "bn-inception", "--image-size", "32", "-b", "1", "--steps", "1", "--output", fixture.NewFolder());

    [Fact]
    public void CheckpointCorrupted_Fails()
    {
        string path = Path.Combine(fixture.Folder, "bad.safetensors");
        File.WriteAllText(path, "not a checkpoint at all");

        AssertFails(ExitCode.Failed, "bad.safetensors", "eval", "--checkpoint", path);
        AssertFails(ExitCode.Failed, "bad.safetensors", "train", "--resume", path);
    }

    [Fact]
    public void ConfigKeyUnknown_FailsWithTheNearestName()
    {
        string path = Path.Combine(fixture.Folder, "mine.yaml");
        File.WriteAllText(path, "weight-decoy: 1\n");

        AssertFails(ExitCode.Failed, "mine.yaml:1: unknown setting 'weight-decoy', did you mean 'weight-decay'?", "train", "--config", path);
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void TrainThenEvalThenInspect_WithResultOnStandardOutput_PrintOnlyJson()
    {
        (int code, string output, string error) = Run(
            "train", "--backend", TrainingFixture.Backend, "--data", fixture.Data, "--model", "inception-tiny", "--image-size", "8", "-b", "4", "--steps", "2", "--output", fixture.NewFolder(), "--result", "-");
        Assert.True(code == ExitCode.Done, error);
        JsonElement result = JsonDocument.Parse(output).RootElement;
        foreach (string key in new[] { "img_per_s", "data_wait_share", "peak_memory_mb", "train_loss", "val_top1", "val_top5", "seconds" })
        {
            Assert.Equal(JsonValueKind.Number, result.GetProperty(key).ValueKind);
        }

        Assert.Equal((2, 8), (result.GetProperty("steps").GetInt32(), result.GetProperty("images").GetInt32()));
        string checkpoint = result.GetProperty("checkpoint").GetString()!;
        Assert.True(File.Exists(checkpoint) && File.Exists(result.GetProperty("report").GetString()));
        Assert.Contains("learning-rate", error, StringComparison.Ordinal);

        (code, output, _) = Run("eval", "--checkpoint", checkpoint, "--result", "-");
        Assert.Equal(ExitCode.Done, code);
        JsonElement evaluated = JsonDocument.Parse(output).RootElement;
        Assert.Equal(9, evaluated.GetProperty("images").GetInt32());
        Assert.Equal(result.GetProperty("val_top1").GetDouble(), evaluated.GetProperty("top1").GetDouble());
        Assert.Equal(result.GetProperty("val_top5").GetDouble(), evaluated.GetProperty("top5").GetDouble());

        (code, output, _) = Run("inspect", "--checkpoint", checkpoint);
        Assert.Equal(ExitCode.Done, code);
        Assert.Contains("inception_3a/3x3/conv.weights.momentum", output, StringComparison.Ordinal);
        Assert.Contains("checksum correct", output, StringComparison.Ordinal);
    }

    [Fact]
    public void LossNotFinite_ExitsWith3AndNamesTheLayer()
    {
        (int code, string output, string error) = Run(
            "train", "--backend", TrainingFixture.Backend, "--data", fixture.Data, "--model", "inception-tiny", "--image-size", "8", "-b", "4", "--batch-norm", "false",
            "--lr", "1e9", "--checkpoint-every", "1", "--eval-every", "0", "--output", fixture.NewFolder(), "--result", "-");

        Assert.Equal(ExitCode.LossNotFinite, code);
        JsonElement result = JsonDocument.Parse(output).RootElement;
        Assert.Equal("loss_not_finite", result.GetProperty("outcome").GetString());
        Assert.Contains("/conv", result.GetProperty("diverged_in_layer").GetString()!, StringComparison.Ordinal);
        Assert.Equal(result.GetProperty("steps").GetInt64(), result.GetProperty("diverged_at_step").GetInt64());
        Assert.True(File.Exists(result.GetProperty("checkpoint").GetString()));
        Assert.Contains($"The first layer whose output is not finite is {result.GetProperty("diverged_in_layer").GetString()}", error, StringComparison.Ordinal);
        Assert.Contains("hpcbn train --resume", error, StringComparison.Ordinal);
    }

    [Fact]
    public void InspectNetwork_PrintsTheParametersOfThePaper()
    {
        (int code, string output, _) = Run("inspect", "--model", "bn-inception", "--separable-first-convolution");

        Assert.Equal(ExitCode.Done, code);
        Assert.Contains("11,278,528 parameters", output, StringComparison.Ordinal);
    }

    [Fact]
    public void InspectRecipe_PrintsItWithItsReasons()
    {
        (_, string output, _) = Run("inspect", "--recipe", "bn-x5");

        Assert.Contains("change 1: 5 x 0.0015 (paper)", output, StringComparison.Ordinal);
    }

    private static (int Code, string Output, string Error) Run(params string[] args)
    {
        using StringWriter output = new(), error = new();
        int code = CommandLine.Run(args, output, error);
        return (code, output.ToString(), error.ToString());
    }

    private static void AssertFails(int expectedCode, string expected, params string[] args)
    {
        (int code, _, string error) = Run(args);

        Assert.Equal(expectedCode, code);
        string line = Assert.Single(error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.StartsWith("error: ", line, StringComparison.Ordinal);
        Assert.Contains(expected, line, StringComparison.Ordinal);
        Assert.DoesNotContain("this is a bug", line, StringComparison.Ordinal);
    }

    private string CopyData()
    {
        string folder = Directory.CreateDirectory(fixture.NewFolder()).FullName;
        foreach (string file in Directory.GetFiles(fixture.Data))
        {
            File.Copy(file, Path.Combine(folder, Path.GetFileName(file)));
        }

        return folder;
    }

    /// <summary>A JPEG file, taken from the generated data set.</summary>
    private string SomeImage()
    {
        string path = Path.Combine(fixture.Folder, "some.jpeg");
        if (!File.Exists(path))
        {
            using ImageDataset dataset = ImageDataset.Open(fixture.Data, DatasetSplit.Validation);
            byte[] buffer = [];
            int length = dataset.ReadEncoded(0, ref buffer);
            File.WriteAllBytes(path, buffer.AsSpan(0, length));
        }

        return path;
    }
}
