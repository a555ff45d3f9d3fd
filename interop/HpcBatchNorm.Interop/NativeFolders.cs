using System.Diagnostics.CodeAnalysis;
using System.Reflection;
using System.Runtime.InteropServices;

namespace HpcBatchNorm.Interop;

/// <summary>The folders in which a .NET application carries native libraries, in the order in which they are searched.</summary>
internal static class NativeFolders
{
    /// <summary>
    /// The program's folder (a build, a publication), the folder of <paramref name="assembly"/> (a plug-in loaded from elsewhere), what the host names in
    /// NATIVE_DLL_SEARCH_DIRECTORIES (the package cache of a program that was not published, the folder into which a single file unpacks itself), and
    /// runtimes/RID/native beneath the first two (an application built for any platform).
    /// </summary>
    public static IEnumerable<string> Of(Assembly assembly) =>
        All(AppContext.BaseDirectory, FolderOf(assembly), AppContext.GetData("NATIVE_DLL_SEARCH_DIRECTORIES") as string);

    /// <summary>The same from given places; <paramref name="searchDirectories"/> is a list as in PATH.</summary>
    public static IEnumerable<string> All(string programFolder, string? assemblyFolder, string? searchDirectories)
    {
        IEnumerable<string> own = Distinct([programFolder, assemblyFolder]);
        return Distinct(
        [
            .. own,
            .. own.SelectMany(f => RuntimeIdentifiers().Select(rid => Path.Combine(f, "runtimes", rid, "native"))),
            .. searchDirectories?.Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries) ?? [],
        ]);
    }

    /// <summary>The runtime's own identifier, and the portable one that packages use: a .NET built by a distribution calls itself ubuntu.24.04-x64.</summary>
    private static IEnumerable<string> RuntimeIdentifiers()
    {
        string system = OperatingSystem.IsWindows() ? "win" : OperatingSystem.IsMacOS() ? "osx" : "linux";
        return Distinct(
            [$"{system}-{RuntimeInformation.ProcessArchitecture.ToString().ToLowerInvariant()}", RuntimeInformation.RuntimeIdentifier], trim: false);
    }

    [UnconditionalSuppressMessage("SingleFile", "IL3000", Justification = "Within a single file the location is empty, and the program's folder is searched instead.")]
    private static string? FolderOf(Assembly assembly) => Path.GetDirectoryName(assembly.Location);

    private static IEnumerable<string> Distinct(IEnumerable<string?> texts, bool trim = true) =>
        texts.Where(t => !string.IsNullOrEmpty(t)).Select(t => trim ? Path.TrimEndingDirectorySeparator(t!) : t!).Distinct(StringComparer.Ordinal);
}
