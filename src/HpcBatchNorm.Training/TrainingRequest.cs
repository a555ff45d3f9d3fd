using System.Globalization;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Training;

/// <summary>
/// What somebody asked for: names of layers of configuration, in the order they are laid (defaults, the resumed checkpoint's, recipe, file, flags),
/// and what to resume.
/// </summary>
internal sealed record TrainingRequest
{
    /// <summary>
    /// Value of <see cref="Resume"/> that means: the newest good checkpoint of the output folder, or of the newest run with this configuration, if any. Where
    /// every checkpoint of the output folder is damaged, the run begins again in it and keeps them aside.
    /// </summary>
    public const string Auto = "auto";

    /// <summary>A recipe's name or file; null means the one that goes with the network.</summary>
    public string? Recipe { get; init; }

    /// <summary>A configuration file, or null.</summary>
    public string? ConfigFile { get; init; }

    /// <summary>Settings given one by one, by name.</summary>
    public IReadOnlyList<(string Name, string Value)> Flags { get; init; } = [];

    /// <summary>Null, <see cref="Auto"/>, a checkpoint, or the folder of a run.</summary>
    public string? Resume { get; init; }

    /// <summary>The processes that train together, as the launcher started them.</summary>
    public Communicator Ranks { get; init; } = Communicator.Alone;

    /// <summary>Resolves the request into a configuration and, when something is to be resumed, an open checkpoint.</summary>
    /// <param name="note">Told what was found and passed over.</param>
    /// <exception cref="UserErrorException">A name is unknown, a value is wrong, a file is missing, or there is nothing good to resume.</exception>
    public PreparedRun Prepare(Action<string> note)
    {
        Checkpoint? checkpoint = OpenNamed(note);
        try
        {
            TrainingConfigBuilder builder = Build(checkpoint);
            CountRanks(builder, checkpoint);
            if (checkpoint is null && Resume == Auto)
            {
                checkpoint = FindSameRun(builder.Config, note);
            }

            if (checkpoint is not null)
            {
                string run = RunOf(checkpoint.Path);
                if (builder.Config.Output.Length == 0)
                {
                    builder.Set("output", run, "resumed run");
                }

                RefuseNewWeights(checkpoint, builder.Config);
                RefuseOtherOptimizer(checkpoint, builder.Config);
                KeepLength(checkpoint, builder, note);
                NoteChanges(checkpoint, builder.Config, note);
            }

            if (checkpoint is null)
            {
                InitialWeights.Check(builder.Config);
            }

            TrainingSettings.Validate(builder.Config);
            return new PreparedRun(builder, checkpoint) { BeginsAgain = checkpoint is null && Resume == Auto, Ranks = Ranks };
        }
        catch
        {
            checkpoint?.Dispose();
            throw;
        }
    }

    private TrainingConfigBuilder Build(Checkpoint? checkpoint)
    {
        var builder = new TrainingConfigBuilder();
        string? Flag(string name) => Flags.LastOrDefault(f => f.Name == name).Value;
        if (checkpoint is not null)
        {
            builder.AddYaml(checkpoint.Info.Config, OriginOf(checkpoint));
            builder.Set("output", "", "default");
        }

        if (Recipe is not null)
        {
            builder.AddRecipe(Recipe);
        }
        else if (checkpoint is null && ConfigFile is null)
        {
            builder.AddRecipe(Flag("model") is string model ? RecipeCatalog.DefaultFor(model) : Flag("data") is not null ? "bn-x5" : "quick");
        }

        if (ConfigFile is not null)
        {
            builder.AddFile(ConfigFile, withItsRecipe: Recipe is null);
        }

        foreach ((string name, string value) in Flags)
        {
            builder.Set(name, value);
        }

        // A length given as a flag replaces the other kind of length, wherever that came from.
        if (Flag("epochs") is not null && Flag("steps") is null)
        {
            builder.Set("steps", "0");
        }

        return builder;
    }

    /// <summary>A run that goes on may do so with other ranks than before; who names a number means it.</summary>
    private void CountRanks(TrainingConfigBuilder builder, Checkpoint? checkpoint)
    {
        int asked = builder.Config.Optimizer.Ranks;
        string origin = builder.Origin("ranks");
        if (asked != Ranks.Size && builder.IsSet("ranks") && (checkpoint is null || origin != OriginOf(checkpoint)))
        {
            throw new UserErrorException(FormattableString.Invariant(
                $"ranks is {asked} ({origin}), but {(Ranks.Size == 1 ? "this is one process by itself" : $"{Ranks.Size} processes were started")}. Start {asked} with mpirun or srun, or leave ranks out: steps then have other images, which learning-rate-batch can scale the learning rate to."));
        }

        if (asked != Ranks.Size)
        {
            builder.Set("ranks", Ranks.Size.ToString(CultureInfo.InvariantCulture), "the launcher");
        }
    }

    private Checkpoint? OpenNamed(Action<string> note)
    {
        if (Resume is null)
        {
            return null;
        }

        if (Resume != Auto)
        {
            return Directory.Exists(Resume)
                ? CheckpointStore.OpenNewest(CheckpointStore.FolderOf(Resume), note)
                    ?? throw new UserErrorException(
                        $"'{Resume}' holds no good checkpoint (looked in '{CheckpointStore.FolderOf(Resume)}'). Begin again with output set to another folder, or resume '{Auto}' with this one as output: that keeps damaged files aside and begins again in it.")
                : Checkpoint.Open(Resume);
        }

        string? output = Flags.LastOrDefault(f => f.Name == "output").Value;
        if (output is null)
        {
            return null;
        }

        string folder = RunDirectory.CheckpointFolder(output);
        Checkpoint? newest = CheckpointStore.OpenNewest(folder, note, out IReadOnlyList<UserErrorException> unusable);
        if (newest is null)
        {
            // A job that a queue repeats must get going again; what only cannot be read now may be there the next time, and is not begun over.
            if (unusable.FirstOrDefault(e => e is not DamagedFileException) is { } unread)
            {
                throw new UserErrorException($"'{output}' holds checkpoints, but none that can be used: {unread.Message} Put that right; beginning again would lose them.", unread);
            }

            note(unusable.Count == 0
                ? $"'{output}' holds no checkpoint; starting from the beginning."
                : FormattableString.Invariant(
                    $"warning: every checkpoint of '{output}' is damaged ({unusable.Count} files). Starting from the BEGINNING; the damaged files are kept in '{CheckpointStore.AsideOf(folder)}'."));
        }

        return newest;
    }

    /// <summary>A length in steps that was given before means as many images as it meant then, when steps have others now.</summary>
    private static void KeepLength(Checkpoint checkpoint, TrainingConfigBuilder builder, Action<string> note)
    {
        long total = builder.Config.Steps, done = checkpoint.Info.Step;
        int before = DataPosition.ImagesPerStep(checkpoint), now = builder.Config.ImagesPerStep;
        if (total > done && before != now && builder.Origin("steps") == OriginOf(checkpoint))
        {
            long left = Math.Max(1, (long)Math.Round((total - done) * (double)before / now));
            builder.Set("steps", (done + left).ToString(CultureInfo.InvariantCulture), "as many images as before");
            note(FormattableString.Invariant($"Of {total} steps {done} are done; the images of the others make {left} steps of {now}."));
        }
    }

    private static string OriginOf(Checkpoint checkpoint) => $"checkpoint {Path.GetFileName(checkpoint.Path)}";

    private static Checkpoint? FindSameRun(RunConfig config, Action<string> note)
    {
        if (config.Output.Length > 0)
        {
            return null;
        }

        string hash = TrainingSettings.Hash(config);
        foreach (string run in CheckpointStore.RunsNewestFirst(RunDirectory.Root))
        {
            Checkpoint? newest = CheckpointStore.OpenNewest(RunDirectory.CheckpointFolder(run), note);
            if (newest is not null && newest.Info.ConfigHash == hash)
            {
                return newest;
            }

            newest?.Dispose();
        }

        note($"No run under '{RunDirectory.Root}' has this configuration and a checkpoint; starting from the beginning.");
        return null;
    }

    private static string RunOf(string checkpoint)
    {
        string folder = Path.GetDirectoryName(Path.GetFullPath(checkpoint))!;
        string run = Path.GetFileName(folder) == RunDirectory.CheckpointFolderName ? Path.GetDirectoryName(folder)! : folder;
        return Path.GetRelativePath(Directory.GetCurrentDirectory(), run);
    }

    /// <summary>A queue may repeat the command that began the run; anything else is a mistake.</summary>
    private static void RefuseNewWeights(Checkpoint checkpoint, RunConfig config)
    {
        string before = new TrainingConfigBuilder().AddYaml(checkpoint.Info.Config, checkpoint.Path).Config.InitialCheckpoint;
        if (config.InitialCheckpoint != before)
        {
            throw new UserErrorException(
                $"'{checkpoint.Path}' has its weights already; initial-checkpoint is for a new run. Resume without it, or begin a new run with it.");
        }
    }

    /// <summary>What SGD remembers of every parameter means nothing to the others, which remember more.</summary>
    private static void RefuseOtherOptimizer(Checkpoint checkpoint, RunConfig config)
    {
        OptimizerAlgorithm before = new TrainingConfigBuilder().AddYaml(checkpoint.Info.Config, checkpoint.Path).Config.Optimizer.Algorithm, now = config.Optimizer.Algorithm;
        if ((before == OptimizerAlgorithm.Sgd) != (now == OptimizerAlgorithm.Sgd))
        {
            throw new UserErrorException(
                $"'{checkpoint.Path}' was trained with optimizer {before.ToString().ToLowerInvariant()}, whose state {now.ToString().ToLowerInvariant()} cannot go on from. "
                + "Resume without changing it, or begin a new run with the checkpoint as initial-checkpoint.");
        }
    }

    private static void NoteChanges(Checkpoint checkpoint, RunConfig config, Action<string> note)
    {
        RunConfig before = new TrainingConfigBuilder().AddYaml(checkpoint.Info.Config, checkpoint.Path).Config;
        foreach (Setting setting in TrainingSettings.All.Where(s => s.Group != SettingGroup.Run || s.DecidesNumbers))
        {
            if (setting.Get(before) != setting.Get(config))
            {
                note($"changed on resume: {setting.Name} was {Show(setting.Get(before))}, is {Show(setting.Get(config))}.");
            }
        }
    }

    private static string Show(string value) => value.Length == 0 ? "(none)" : value;
}
