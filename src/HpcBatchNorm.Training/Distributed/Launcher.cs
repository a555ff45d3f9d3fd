using System.Globalization;

namespace HpcBatchNorm.Training.Distributed;

/// <summary>What the program that started this process says about others that it started with it.</summary>
/// <param name="Ranks">How many processes there are; 1 where nobody says anything.</param>
/// <param name="Name">Who says it: <c>mpirun</c>, <c>srun</c>; empty where nobody does.</param>
internal sealed record Launcher(int Ranks, string Name)
{
    /// <summary>
    /// Open MPI's <c>mpirun</c>, then those of MPICH, Intel MPI and MVAPICH (Hydra), then Slurm's <c>srun</c>. A job's batch script runs alone, whatever the size of
    /// the job: it is the step that counts.
    /// </summary>
    public static Launcher Detect(Func<string, string?> environment)
    {
        foreach ((string variable, string name) in new[]
                 {
                     ("OMPI_COMM_WORLD_SIZE", "mpirun"), ("MV2_COMM_WORLD_SIZE", "mpirun"), ("PMI_SIZE", "mpiexec"), ("SLURM_STEP_NUM_TASKS", "srun"),
                 })
        {
            if (int.TryParse(environment(variable), NumberStyles.None, CultureInfo.InvariantCulture, out int ranks) && ranks > 1)
            {
                return new Launcher(ranks, name);
            }
        }

        return new Launcher(1, "");
    }
}
