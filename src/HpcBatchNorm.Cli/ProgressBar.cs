using Spectre.Console;

namespace HpcBatchNorm.Cli;

/// <summary>The bar of long commands: whether there is one, and what it looks like.</summary>
internal static class ProgressBar
{
    /// <summary>What <c>--progress</c> says; with auto whether the output is a terminal.</summary>
    public static bool IsWanted(TextWriter output, string? progress) => progress == "always" || (progress != "never" && !Console.IsOutputRedirected && !Console.IsErrorRedirected
        && (ReferenceEquals(DisplayWriter.Unwrap(output), Console.Out) || ReferenceEquals(DisplayWriter.Unwrap(output), Console.Error)));

    /// <summary>The console it is drawn on. Asked for a bar, a bar it is, even into a file or a pipe.</summary>
    public static IAnsiConsole CreateConsole(TextWriter output, string? progress)
    {
        bool forced = progress == "always";
        return AnsiConsole.Create(new AnsiConsoleSettings
        {
            Out = new DisplayOutput(output),
            Ansi = forced ? AnsiSupport.Yes : AnsiSupport.Detect,
            Interactive = forced ? InteractionSupport.Yes : InteractionSupport.Detect,
        });
    }

    /// <summary>Draws a bar from 0 to <paramref name="largest"/> while <paramref name="work"/> runs, which sets its value and description.</summary>
    public static void Around(IAnsiConsole console, double largest, Action<ProgressTask> work) => console.Progress()
        .AutoClear(false)
        .Columns(new ProgressBarColumn { Width = 10 }, new TaskDescriptionColumn { Alignment = Justify.Left })
        .Start(context =>
        {
            ProgressTask task = context.AddTask("starting", autoStart: true, maxValue: largest);
            work(task);
            task.StopTask();
        });

    /// <summary>Draws through the display, whose failures harm nobody; what kind of terminal there is, is known of the writer behind it.</summary>
    private sealed class DisplayOutput(TextWriter display) : IAnsiConsoleOutput
    {
        private readonly AnsiConsoleOutput _terminal = new(DisplayWriter.Unwrap(display));

        public TextWriter Writer => display;

        public bool IsTerminal => _terminal.IsTerminal;

        public int Width => _terminal.Width;

        public int Height => _terminal.Height;

        public void SetEncoding(System.Text.Encoding encoding) => _terminal.SetEncoding(encoding);
    }
}
