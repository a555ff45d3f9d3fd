namespace HpcBatchNorm.Cli;

/// <summary>What the process's exit code says.</summary>
internal static class ExitCode
{
    public const int Done = 0;
    public const int Failed = 1;
    public const int Usage = 2;
    public const int LossNotFinite = 3;
    public const int NotReproduced = 4;
    public const int Interrupted = 130;
    public const int Terminated = 143;
}
