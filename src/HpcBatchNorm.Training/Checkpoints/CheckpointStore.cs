using System.Globalization;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Training;

/// <summary>The checkpoints of one run: <c>step-00000640.safetensors</c> and so on; the newest few and the best are kept.</summary>
internal sealed class CheckpointStore
{
    /// <summary>The folder of a run that its checkpoints are in.</summary>
    public const string FolderName = "checkpoints";

    private const string AsideName = "set-aside";
    private const string Prefix = "step-";
    private const string Extension = ".safetensors";

    private readonly string _folder;
    private readonly int _keep;

    public CheckpointStore(string folder, int keep)
    {
        (_folder, _keep) = (folder, keep);
        Directory.CreateDirectory(folder);
        AtomicFile.Sweep(folder);
    }

    public string PathOf(long step) => PathOf(_folder, step);

    private static string PathOf(string folder, long step) => Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"{Prefix}{step:00000000}{Extension}"));

    /// <summary>
    /// Deletes all but the newest few regular ones, the best, and the newest few of those between that are newer than all regular ones: a checkpoint that the
    /// clock asked for must not push out one that people did.
    /// </summary>
    public void Prune(long bestStep, Func<long, bool> isRegular)
    {
        int regular = 0, between = 0;
        foreach ((long step, string path) in List(_folder))
        {
            bool keep = isRegular(step) ? ++regular <= _keep : regular == 0 && ++between <= _keep;
            if (!keep && step != bestStep)
            {
                // One that a program on Windows reads stays until the next time.
                _ = FileRename.TryDelete(path);
            }
        }
    }

    /// <summary>
    /// Moves checkpoints of later steps out of the way, good or not: where a run goes on from an earlier one they would count as the newest, push out what it
    /// writes, and be gone on from the next time. Returns how many.
    /// </summary>
    public int SetAside(long after)
    {
        string aside = AsideOf(_folder);
        int count = 0;
        foreach ((_, string path) in List(_folder).Where(c => c.Step > after))
        {
            Directory.CreateDirectory(aside);
            string name = Path.GetFileNameWithoutExtension(path), target = Path.Combine(aside, Path.GetFileName(path));
            for (int i = 2; File.Exists(target); i++)
            {
                target = Path.Combine(aside, string.Create(CultureInfo.InvariantCulture, $"{name}-{i}{Extension}"));
            }

            FileRename.Move(path, target, overwrite: false);
            count++;
        }

        return count;
    }

    /// <summary>Where <see cref="SetAside"/> moves checkpoints of a folder to.</summary>
    public static string AsideOf(string folder) => Path.Combine(folder, AsideName);

    /// <summary>True when the folder holds a checkpoint that can be gone on from, or whose state is not known; false when all there are, are damaged.</summary>
    public static bool AnyNotDamaged(string folder)
    {
        using Checkpoint? good = OpenNewest(folder, _ => { }, out IReadOnlyList<UserErrorException> unusable);
        return good is not null || unusable.Any(e => e is not DamagedFileException);
    }

    /// <summary>
    /// The runs of a folder by when their last checkpoint was written. Their names tell the local time of the beginning, which goes back once a year and
    /// whenever somebody sets the clock.
    /// </summary>
    public static IEnumerable<string> RunsNewestFirst(string root) => (Directory.Exists(root) ? Directory.GetDirectories(root) : [])
        .OrderByDescending(run => List(FolderOf(run)) is [var newest, ..] ? File.GetLastWriteTimeUtc(newest.Path) : DateTime.MinValue)
        .ThenByDescending(run => run, StringComparer.Ordinal);

    /// <summary>True when the folder holds a checkpoint, good or not.</summary>
    public static bool Any(string folder) => List(folder).Count > 0;

    /// <summary>The newest checkpoint of a folder that verifies; damaged ones are named through <paramref name="report"/> and passed over.</summary>
    public static Checkpoint? OpenNewest(string folder, Action<string> report) => OpenNewest(folder, report, out _);

    /// <summary>The same; <paramref name="unusable"/> says what is wrong with each that was passed over.</summary>
    public static Checkpoint? OpenNewest(string folder, Action<string> report, out IReadOnlyList<UserErrorException> unusable)
    {
        List<UserErrorException> errors = [];
        unusable = errors;
        List<(long Step, string Path)> all = List(folder);
        foreach ((_, string path) in all)
        {
            try
            {
                return Checkpoint.Open(path);
            }
            catch (UserErrorException error)
            {
                errors.Add(error);
                report(errors.Count < all.Count ? $"{error.Message} Trying the one before it." : error.Message);
            }
        }

        return null;
    }

    /// <summary>The checkpoint of a run with the best evaluation, or its newest where there is none or it is gone; null when none is good.</summary>
    public static Checkpoint? OpenBest(string run, Action<string> report)
    {
        string folder = FolderOf(run);
        Checkpoint? newest = OpenNewest(folder, report);
        if (newest is null || newest.Info.BestStep < 0 || newest.Info.BestStep == newest.Info.Step)
        {
            return newest;
        }

        try
        {
            Checkpoint best = Checkpoint.Open(PathOf(folder, newest.Info.BestStep));
            newest.Dispose();
            return best;
        }
        catch (UserErrorException error)
        {
            report($"{error.Message} Taking the newest instead of the best.");
            return newest;
        }
    }

    /// <summary>The folder with the checkpoints of a run, which may be named itself.</summary>
    public static string FolderOf(string run) => !Directory.Exists(Path.Combine(run, FolderName)) && Any(run) ? run : Path.Combine(run, FolderName);

    /// <summary>Steps and files, newest first.</summary>
    public static List<(long Step, string Path)> List(string folder)
    {
        List<(long Step, string Path)> found = [];
        foreach (string path in Directory.Exists(folder) ? Directory.EnumerateFiles(folder, Prefix + "*" + Extension) : [])
        {
            if (long.TryParse(Path.GetFileNameWithoutExtension(path)[Prefix.Length..], NumberStyles.None, CultureInfo.InvariantCulture, out long step))
            {
                found.Add((step, path));
            }
        }

        found.Sort((a, b) => b.Step.CompareTo(a.Step));
        return found;
    }
}
