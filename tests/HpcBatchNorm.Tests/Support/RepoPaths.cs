namespace HpcBatchNorm.Tests.Support;

/// <summary>Where the checkout and the data shared beside it lie on this machine.</summary>
internal static class RepoPaths
{
    private static readonly Lazy<string> LazyRoot = new(FindRoot);

    /// <summary>The folder that holds HpcBatchNorm.sln.</summary>
    public static string Root => LazyRoot.Value;

    /// <summary>The folder of real data beside the checkout, ../shared/data, whether or not it exists.</summary>
    public static string SharedData => Path.GetFullPath(Path.Combine(Root, "..", "shared", "data"));

    /// <summary>The full path of a file or folder in the checkout.</summary>
    public static string InRepo(params ReadOnlySpan<string> parts) => Path.Combine([Root, .. parts]);

    /// <summary>The full path of a file or folder of <see cref="SharedData"/>; skips the calling test, saying why, when it is missing.</summary>
    public static string SharedDataOrSkip(params ReadOnlySpan<string> parts)
    {
        string path = Path.Combine([SharedData, .. parts]);
        Assert.SkipUnless(Path.Exists(path), $"needs {Path.GetRelativePath(Root, path)} (relative to the repository root), which is not on this machine");
        return path;
    }

    private static string FindRoot()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "HpcBatchNorm.sln")))
            {
                return folder.FullName;
            }
        }

        throw new DirectoryNotFoundException($"No folder above {AppContext.BaseDirectory} holds HpcBatchNorm.sln; run the tests from a build inside the checkout.");
    }
}
