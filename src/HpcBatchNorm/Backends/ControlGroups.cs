namespace HpcBatchNorm.Backends;

/// <summary>
/// The control groups that the process is in, from its own up to the one that the machine shows: what a container or a batch system grants. Both versions
/// are looked for, as some machines have memory in the one and processors in the other.
/// </summary>
/// <param name="root">The file system's root; another one for tests.</param>
internal sealed class ControlGroups(string root = "/")
{
    private const string Unified = "cgroup2", Legacy = "cgroup";

    /// <summary>
    /// The folders of a controller (<c>memory</c>, <c>cpu</c>), the process's own first: a limit of any of them holds. None where there are no control groups.
    /// </summary>
    /// <param name="controller">Its name in version 1; in version 2 all are in one folder.</param>
    public IEnumerable<(string Folder, bool IsUnified)> Folders(string controller)
    {
        foreach ((string mountRoot, string mount, bool unified) in Mounts(controller))
        {
            // A container's own view begins at its group; seen from outside, the group's path begins with the mount's root.
            string group = Group(controller, unified);
            string below = mountRoot != "/" && (group + "/").StartsWith(mountRoot + "/", StringComparison.Ordinal) ? group[mountRoot.Length..] : group;
            string top = InRoot(mount), folder = Path.TrimEndingDirectorySeparator(Path.Join(top, below.TrimStart('/')));
            for (; folder.Length >= top.Length; folder = Path.GetDirectoryName(folder) ?? "")
            {
                if (Directory.Exists(folder))
                {
                    yield return (folder, unified);
                }
            }
        }
    }

    /// <summary>The whole number in a file of a group's folder; null when there is none, as for <c>max</c>.</summary>
    public static long? Read(string folder, string file) => long.TryParse(Text(Path.Combine(folder, file)), out long value) ? value : null;

    /// <summary>The number after a word at the beginning of a line; null when there is none.</summary>
    public static long? ReadLine(string path, string word)
    {
        foreach (string line in Text(path).Split('\n'))
        {
            string[] parts = line.Split((char[])[' ', '\t', ':'], StringSplitOptions.RemoveEmptyEntries);
            if (parts.Length > 1 && parts[0] == word && long.TryParse(parts[1], out long value))
            {
                return value;
            }
        }

        return null;
    }

    /// <summary>A path of the machine under the root that this was made with.</summary>
    public string InRoot(string path) => Path.Join(root, path.TrimStart('/'));

    /// <summary>What is in a file; empty where it cannot be read.</summary>
    public static string Text(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    /// <summary>Lines of <c>/proc/self/mountinfo</c>: id, parent, device, root, mount point, options, ..., <c>-</c>, type, source, options of the system.</summary>
    private IEnumerable<(string Root, string Mount, bool IsUnified)> Mounts(string controller)
    {
        foreach (string line in Text(InRoot("/proc/self/mountinfo")).Split('\n'))
        {
            string[] parts = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            int dash = Array.IndexOf(parts, "-");
            if (dash >= 5 && parts.Length > dash + 3
                && (parts[dash + 1] == Unified || (parts[dash + 1] == Legacy && parts[dash + 3].Split(',').Contains(controller))))
            {
                yield return (parts[3], parts[4], parts[dash + 1] == Unified);
            }
        }
    }

    /// <summary>Lines of <c>/proc/self/cgroup</c>: number, controllers (none in version 2), path.</summary>
    private string Group(string controller, bool unified)
    {
        foreach (string line in Text(InRoot("/proc/self/cgroup")).Split('\n'))
        {
            string[] parts = line.Split(':', 3);
            if (parts.Length == 3 && (unified ? parts[1].Length == 0 : parts[1].Split(',').Contains(controller)))
            {
                return parts[2];
            }
        }

        return "/";
    }
}
