namespace HpcBatchNorm.Interop;

/// <summary>Where this program keeps what it could make again: the user's cache folder by the XDG base directory specification.</summary>
internal static class UserCache
{
    /// <summary>
    /// <c>$XDG_CACHE_HOME/hpcbn</c>, else <c>~/.cache/hpcbn</c>; null for a user without a home, who gets no cache. Always a full path: a relative one, which
    /// the specification says to ignore, would put files into whatever folder the program was started in, and read them from there.
    /// </summary>
    public static string? Folder =>
        FolderOf(Environment.GetEnvironmentVariable("XDG_CACHE_HOME"), Environment.GetFolderPath(Environment.SpecialFolder.UserProfile));

    /// <summary>The folder for a value of <c>XDG_CACHE_HOME</c> and a home, either of which may be empty.</summary>
    public static string? FolderOf(string? cacheHome, string home) =>
        Path.IsPathFullyQualified(cacheHome ?? "") ? Path.Combine(cacheHome!, "hpcbn")
        : Path.IsPathFullyQualified(home) ? Path.Combine(home, ".cache", "hpcbn")
        : null;
}
