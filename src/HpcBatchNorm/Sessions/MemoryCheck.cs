using HpcBatchNorm.Planning;

namespace HpcBatchNorm.Sessions;

/// <summary>Says before memory is taken that there is not enough: a kernel that runs out ends the process without a word.</summary>
internal static class MemoryCheck
{
    /// <summary>Throws when a plan needs more than its backend can still get.</summary>
    /// <param name="prepared">The plan with its sizes.</param>
    /// <param name="takesArena">It does not use another session's memory for what lives within a step.</param>
    /// <exception cref="UserErrorException">What is planned, what there is, what to reduce.</exception>
    public static void Throw(PreparedPlan prepared, bool takesArena)
    {
        long arena = takesArena ? prepared.ArenaBytes : 0, state = prepared.StateBytes, planned = arena + state;
        if (prepared.Backend.Available is not { } available || planned <= available.Bytes)
        {
            return;
        }

        PlanOptions options = prepared.Plan.Options;
        long fits = arena > 0 ? (long)(options.Batch * Math.Max(0, available.Bytes - state) / (double)arena) : 0;
        string reduce = fits < 1 ? "Choose a smaller image-size or network."
            : options is TrainingOptions training
                ? FormattableString.Invariant($"Reduce batch-size (about {fits} would fit, and accumulate makes steps of as many images of them) or image-size{(training.RecomputeBatchNorm ? "" : ", or set recompute to bn")}.")
                : FormattableString.Invariant($"Reduce batch-size (about {fits} would fit) or image-size.");
        throw new UserErrorException(FormattableString.Invariant(
            $"{prepared.Plan.Network.Name} with batches of {options.Batch} images of {options.Height} x {options.Width} pixels needs {Gb(planned)} of memory ({Gb(arena)} within a step, {Gb(state)} for parameters and what is kept with them); {Gb(available.Bytes)} {available.Limit} are left. {reduce}"));
    }

    private static string Gb(long bytes) => FormattableString.Invariant($"{bytes / 1e9:0.00} GB");
}
