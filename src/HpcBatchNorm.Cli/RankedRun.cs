using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Cli;

/// <summary>
/// A command that several processes run together, where a launcher has started several: the first one speaks for all, and a process that fails by itself ends
/// the others too, which would wait for it for ever.
/// </summary>
internal static class RankedRun
{
    /// <summary>Joins the other processes, runs the command, and parts from them once all are done: a launcher ends everybody when one is gone with an error.</summary>
    /// <param name="error">Where the error of a process that fails by itself goes.</param>
    /// <param name="command">Returns the exit code.</param>
    public static int Run(TextWriter error, Func<Communicator, int> command)
    {
        Communicator ranks = Communicator.Join();
        if (ranks.Size == 1)
        {
            return command(ranks);
        }

        int code;
        try
        {
            code = command(ranks);
            ranks.Barrier();
        }
        catch (Exception agreed) when (AgreedException.IsIn(agreed))
        {
            if (ranks.Rank == 0)
            {
                error.WriteLine($"error: {agreed.Message.ReplaceLineEndings(" ")}");
            }

            code = ExitCode.Failed;
        }
        catch (Exception alone)
        {
            error.WriteLine($"error: {ranks.Names[ranks.Rank]}: {alone.Message.ReplaceLineEndings(" ")}");
            if (Environment.GetEnvironmentVariable("HBN_TRACE") == "1")
            {
                error.WriteLine(alone);
            }

            error.Flush();
            ranks.Abort(ExitCode.Failed);
            return ExitCode.Failed;
        }

        ranks.Dispose();
        return code;
    }

    /// <summary>True on a rank that leaves speaking, and the file of results, to the first one.</summary>
    public static bool IsSilent(Communicator ranks) => ranks.Rank > 0;

    /// <summary>The exit code of the signal that one of the ranks got.</summary>
    public static int AgreedExitCode(Communicator ranks, StopSignals signals)
    {
        double[] codes = new double[ranks.Size];
        ranks.AllGather([signals.Token.IsCancellationRequested ? signals.ExitCode : 0], codes);
        int first = (int)codes.FirstOrDefault(c => c != 0);
        return first == 0 ? signals.ExitCode : first;
    }
}
