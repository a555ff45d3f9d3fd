using System.Runtime.CompilerServices;
using HpcBatchNorm.Cli;

return ProcessLimits.Suffice() ? Run(args) : ExitCode.Failed;

// A method of its own: what it needs is loaded when it is called.
[MethodImpl(MethodImplOptions.NoInlining)]
static int Run(string[] args)
{
    ProcessLimits.TakeFileSizeForAnError();
    return CommandLine.Run(args, Console.Out, Console.Error);
}
