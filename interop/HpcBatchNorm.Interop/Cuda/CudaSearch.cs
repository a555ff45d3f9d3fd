namespace HpcBatchNorm.Interop.Cuda;

/// <summary>
/// Where NVIDIA's libraries are looked for, in this order: the folders of HBN_CUDA_PATH (when it is set, cuDNN and NVRTC are looked for nowhere else,
/// so that a wrong setting shows); what the process has loaded already; the pip packages <c>nvidia/*/lib</c> of the active virtual environment, of
/// the active conda environment and of the python3 on PATH; conda's lib; the dynamic linker's own places; CUDA_HOME, CUDA_PATH, /usr/local/cuda and
/// /usr/local/nvidia. A library is never closed again.
/// </summary>
internal sealed class CudaSearch
{
    public const string OverrideVariable = "HBN_CUDA_PATH";

    private readonly Lazy<IReadOnlyList<string>> _folders;
    private readonly Lazy<IReadOnlyList<string>> _fallbackFolders;

    /// <summary>A search with the given environment; tests make their own.</summary>
    public CudaSearch(Func<string, string?> environment)
    {
        string? over = environment(OverrideVariable);
        OverrideFolders = string.IsNullOrWhiteSpace(over) ? [] : [.. over.Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries).Select(Path.GetFullPath)];
        _folders = new Lazy<IReadOnlyList<string>>(() => [.. PythonFolders(environment).Distinct()]);
        _fallbackFolders = new Lazy<IReadOnlyList<string>>(() =>
        [
            .. new[] { environment("CUDA_HOME"), environment("CUDA_PATH"), "/usr/local/cuda", "/usr/local/nvidia" }
                .Where(root => !string.IsNullOrEmpty(root)).SelectMany(root => new[] { Path.Combine(root!, "lib64"), Path.Combine(root!, "lib") }).Where(Directory.Exists),
        ]);
    }

    /// <summary>The folders of HBN_CUDA_PATH; empty when it is not set.</summary>
    public IReadOnlyList<string> OverrideFolders { get; }

    /// <summary>
    /// What to hand to the dynamic linker for a library, best first: absolute paths that exist, and the bare name, which searches the linker's places.
    /// </summary>
    /// <param name="soname">The name with its version: <c>libcudnn.so.9</c>.</param>
    /// <param name="overrideOnly">Look nowhere but in HBN_CUDA_PATH when that is set.</param>
    public IEnumerable<string> Candidates(string soname, bool overrideOnly)
    {
        foreach (string folder in OverrideFolders)
        {
            string path = Path.Combine(folder, soname);
            if (File.Exists(path))
            {
                yield return path;
            }
        }

        if (overrideOnly && OverrideFolders.Count > 0)
        {
            yield break;
        }

        if (LoadedPath(soname) is { } loaded)
        {
            yield return loaded;
        }

        foreach (string path in _folders.Value.Select(f => Path.Combine(f, soname)).Where(File.Exists))
        {
            yield return path;
        }

        yield return soname;
        foreach (string path in _fallbackFolders.Value.Select(f => Path.Combine(f, soname)).Where(File.Exists))
        {
            yield return path;
        }
    }

    /// <summary>In words: the places <see cref="Candidates"/> went through.</summary>
    public string Places(bool overrideOnly)
    {
        if (overrideOnly && OverrideFolders.Count > 0)
        {
            return $"{OverrideVariable} = {string.Join(Path.PathSeparator, OverrideFolders)}";
        }

        IEnumerable<string> folders = OverrideFolders.Concat(_folders.Value).Append("the dynamic linker's places").Concat(_fallbackFolders.Value);
        return string.Join(", ", folders);
    }

    /// <summary>The file this process has mapped whose name is <paramref name="soname"/> or that name with a longer version, null when there is none.</summary>
    public static string? LoadedPath(string soname) =>
        LoadedFiles(soname).FirstOrDefault(p => Path.GetFileName(p) is var name && (name == soname || name.StartsWith(soname + ".", StringComparison.Ordinal)));

    /// <summary>The files this process has mapped whose names begin with <paramref name="prefix"/>, by their paths without links.</summary>
    public static IEnumerable<string> LoadedFiles(string prefix)
    {
        const string Maps = "/proc/self/maps";
        return !OperatingSystem.IsLinux() || !File.Exists(Maps) ? [] : File.ReadLines(Maps)
            .Select(line => line.IndexOf('/', StringComparison.Ordinal) is > 0 and var start ? line[start..] : "")
            .Where(path => Path.GetFileName(path).StartsWith(prefix, StringComparison.Ordinal)).Distinct();
    }

    private static IEnumerable<string> PythonFolders(Func<string, string?> environment)
    {
        List<string?> prefixes = [environment("VIRTUAL_ENV"), environment("CONDA_PREFIX")];
        foreach (string folder in (environment("PATH") ?? "").Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries))
        {
            string python = Path.Combine(folder, "python3");
            if (File.Exists(python))
            {
                string real = File.ResolveLinkTarget(python, returnFinalTarget: true)?.FullName ?? python;
                prefixes.AddRange(Path.GetDirectoryName(folder), Path.GetDirectoryName(Path.GetDirectoryName(real)));
                break;
            }
        }

        foreach (string prefix in prefixes.Where(p => !string.IsNullOrEmpty(p)).Select(p => p!).Distinct())
        {
            foreach (string python in Children(Path.Combine(prefix, "lib"), "python3*").Concat(Children(Path.Combine(prefix, "local", "lib"), "python3*")))
            {
                foreach (string packages in new[] { "site-packages", "dist-packages" })
                {
                    foreach (string package in Children(Path.Combine(python, packages, "nvidia"), "*"))
                    {
                        string libraries = Path.Combine(package, "lib");
                        if (Directory.Exists(libraries))
                        {
                            yield return libraries;
                        }
                    }
                }
            }
        }

        if (environment("CONDA_PREFIX") is { Length: > 0 } conda && Directory.Exists(Path.Combine(conda, "lib")))
        {
            yield return Path.Combine(conda, "lib");
        }
    }

    private static IEnumerable<string> Children(string folder, string pattern) =>
        Directory.Exists(folder) ? Directory.EnumerateDirectories(folder, pattern).OrderDescending(StringComparer.Ordinal) : [];
}
