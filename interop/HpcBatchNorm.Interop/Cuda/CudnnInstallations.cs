using System.Text.RegularExpressions;

namespace HpcBatchNorm.Interop.Cuda;

/// <summary>
/// Which installations of cuDNN a process has parts of. cuDNN opens its parts by bare name when it first needs them, so a part that the chosen
/// installation lacks may come from another one: a system's newer library beside a wheel's. What follows is its error 1002 at best.
/// </summary>
internal static partial class CudnnInstallations
{
    /// <summary>What is mixed in this process, in words, or null.</summary>
    public static string? Mixture() => Mixture(CudaSearch.LoadedFiles("libcudnn"));

    /// <summary>The same for given files, by their full paths.</summary>
    public static string? Mixture(IEnumerable<string> files)
    {
        // Two folders of one version fit one another. Where a file's version cannot be known, its folder stands for it.
        IGrouping<string, string>[] installations =
            [.. files.Order(StringComparer.Ordinal).GroupBy(f => VersionOf(f) ?? $"a version that its files do not tell, in {Path.GetDirectoryName(f)}")];
        return installations.Length < 2 ? null
            : $"parts of different versions of cuDNN are in this process: {string.Join("; ", installations.Select(i => $"{i.Key} ({string.Join(", ", i)})"))}. " +
              $"Keep one: take the other's folder out of LD_LIBRARY_PATH or uninstall it, or name one folder that has all parts in {CudaSearch.OverrideVariable}";
    }

    /// <summary>Three numbers, from the file's name or from the record of the Python package that its folder belongs to; null where neither tells.</summary>
    private static string? VersionOf(string file)
    {
        if (NumberedFile().Match(file) is { Success: true } named)
        {
            return named.Groups[1].Value;
        }

        // .../site-packages/nvidia/cudnn/lib has .../site-packages/nvidia_cudnn_cu12-9.19.0.56.dist-info beside it.
        string? packages = Path.GetDirectoryName(Path.GetDirectoryName(Path.GetDirectoryName(Path.GetDirectoryName(file))));
        if (packages is null || Path.GetFileName(Path.GetDirectoryName(Path.GetDirectoryName(file))) != "cudnn")
        {
            return null;
        }

        try
        {
            return Directory.EnumerateDirectories(packages, "nvidia_cudnn*.dist-info").Select(d => PackageRecord().Match(d)).FirstOrDefault(m => m.Success)?.Groups[1].Value;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    [GeneratedRegex(@"\.so\.(\d+\.\d+\.\d+)[^/]*$")]
    private static partial Regex NumberedFile();

    [GeneratedRegex(@"-(\d+\.\d+\.\d+)[^/]*\.dist-info$")]
    private static partial Regex PackageRecord();
}
