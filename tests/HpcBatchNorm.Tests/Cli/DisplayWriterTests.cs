using System.Text;
using HpcBatchNorm.Cli;
using HpcBatchNorm.Tests.Training;

namespace HpcBatchNorm.Tests.Cli;

/// <summary>What people look at may vanish; what is made may not.</summary>
public sealed class DisplayWriterTests(TrainingFixture fixture) : IClassFixture<TrainingFixture>
{
    [Fact]
    public void FailedWrites_AreRememberedAndTriedAgain()
    {
        var terminal = new Terminal { Closed = true };
        using var display = new DisplayWriter(terminal);
        display.WriteLine("lost");
        display.Write('x');
        display.Flush();
        terminal.Closed = false;
        display.WriteLine("seen");

        Assert.Equal("seen\n", terminal.Seen);
        Assert.Contains("Input/output error", display.Failure?.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Train_WithoutATerminal_TrainsToTheEnd()
    {
        string output = fixture.NewFolder();
        using var error = new StringWriter();
        using var terminal = new Terminal { Closed = true };

        int code = CommandLine.Run(Train(output), terminal, error);

        Assert.Equal(ExitCode.Done, code);
        Assert.Contains("The run itself is not affected", error.ToString(), StringComparison.Ordinal);
        Assert.True(File.Exists(Path.Combine(output, "checkpoints", "step-00000004.safetensors")));
    }

    [Fact]
    public void Train_WithoutAnyTerminal_AndAMistake_EndsWithItsCode()
    {
        using Terminal terminal = new() { Closed = true }, error = new() { Closed = true };
        Assert.Equal(ExitCode.Failed, CommandLine.Run([.. Train(fixture.NewFolder()), "--data", fixture.NewFolder()], terminal, error));
    }

    [Fact]
    public void CommandWhoseOutputIsItsProduct_FailsWhenThatCannotBeWritten()
    {
        using var error = new StringWriter();
        using var terminal = new Terminal { Closed = true };
        Assert.Equal(ExitCode.Failed, CommandLine.Run(["info"], terminal, error));
        Assert.Contains("error: standard output could not be written: Input/output error", error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Result_OnAStandardOutputThatFails_IsAnError()
    {
        using var error = new StringWriter();
        using var terminal = new Terminal { Closed = true };
        Assert.Equal(ExitCode.Failed, CommandLine.Run([.. Train(fixture.NewFolder()), "--result", "-"], terminal, error));
        Assert.Contains("error: Input/output error", error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void MaxTime_SavesAndEndsWithItsOwnCode()
    {
        string output = fixture.NewFolder();
        using StringWriter error = new(), display = new();

        int code = CommandLine.Run([.. Train(output, steps: 1_000_000), "--max-time", "1.5s"], display, error);

        Assert.True(code == ExitCode.TimeLimit, display.ToString() + error);
        Assert.Contains($"Go on with:  hpcbn train --resume {output}", display.ToString(), StringComparison.Ordinal);
        Assert.NotEmpty(Directory.GetFiles(Path.Combine(output, "checkpoints"), "*.safetensors"));
    }

    private string[] Train(string output, int steps = 4) =>
        ["train", .. fixture.Flags(output).SelectMany(f => new[] { $"--{f.Name}", f.Value }), "--recipe", "quick", "--steps", $"{steps}", "--eval-every", "0"];

    private sealed class Terminal : TextWriter
    {
        private readonly StringBuilder _seen = new();

        public bool Closed { get; set; }

        public string Seen => _seen.ToString();

        public override Encoding Encoding => Encoding.UTF8;

        public override void Write(char value)
        {
            if (Closed)
            {
                throw new IOException("Input/output error");
            }

            _seen.Append(value);
        }

        public override void Flush()
        {
            if (Closed)
            {
                throw new IOException("Input/output error");
            }
        }
    }
}
