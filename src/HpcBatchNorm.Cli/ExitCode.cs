namespace HpcBatchNorm.Cli;

/// <summary>What the process's exit code says.</summary>
internal static class ExitCode
{
    public const int Done = 0;
    public const int Failed = 1;
    public const int Usage = 2;
    public const int LossNotFinite = 3;
    public const int NotReproduced = 4;

    /// <summary>The time limit has been reached and the state is saved: <c>EX_TEMPFAIL</c> of sysexits.h, "try again later".</summary>
    public const int TimeLimit = 75;

    /// <summary>Plus the signal's number: what shells say of a process that a signal has ended.</summary>
    public const int Signal = 128;

    public const int Interrupted = Signal + 2;
    public const int Terminated = Signal + 15;
}
