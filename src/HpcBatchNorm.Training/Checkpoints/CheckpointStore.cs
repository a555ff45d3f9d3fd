using System.Globalization;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Training;

/// <summary>The checkpoints of one run: <c>step-00000640.safetensors</c> and so on; the newest few and the best are kept.</summary>
internal sealed class CheckpointStore
{
    /// <summary>The folder of a run that its checkpoints are in.</summary>
    public const string FolderName = "checkpoints";

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

    public string PathOf(long step) => Path.Combine(_folder, string.Create(CultureInfo.InvariantCulture, $"{Prefix}{step:00000000}{Extension}"));

    /// <summary>Deletes all but the newest few and the best.</summary>
    public void Prune(long bestStep)
    {
        foreach ((long step, string path) in List(_folder).Skip(_keep))
        {
            if (step != bestStep)
            {
                File.Delete(path);
            }
        }
    }

    /// <summary>True when the folder holds a checkpoint, good or not.</summary>
    public static bool Any(string folder) => List(folder).Count > 0;

    /// <summary>The newest checkpoint of a folder that verifies; damaged ones are named through <paramref name="report"/> and passed over.</summary>
    public static Checkpoint? OpenNewest(string folder, Action<string> report)
    {
        foreach ((_, string path) in List(folder))
        {
            try
            {
                return Checkpoint.Open(path);
            }
            catch (UserErrorException error)
            {
                report($"{error.Message} Trying the one before it.");
            }
        }

        return null;
    }

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
