using System.Buffers.Binary;

namespace HpcBatchNorm.Data;

/// <summary>What a file in a data set is, told by its name or, where that says nothing, by its first bytes.</summary>
internal static class ImageNames
{
    /// <summary>As many first bytes as <see cref="IsImageContent"/> wants to see.</summary>
    public const int PrefixBytes = 16;

    public const string Tiff = "TIFF images, which are not read (convert them to PNG or JPEG)";
    public const string Hidden = "hidden files";
    public const string NotImages = "files that are no images by name";
    public const string NotImagesByContent = "files without an extension whose content is no image";

    private const string HiddenFolders = "hidden folders", SystemFolders = "folders that a system keeps for itself";

    // Synology's thumbnails, what a Mac adds to archives, what file systems and Windows make.
    private static readonly HashSet<string> KeptBySystems = new(StringComparer.Ordinal) { "@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information" };

    private static readonly HashSet<string> Extensions = new(StringComparer.OrdinalIgnoreCase)
    {
        ".jpeg", ".jpg", ".jpe", ".jfif", ".jfi", ".jif", ".png", ".webp", ".bmp", ".dib", ".gif",
    };

    /// <summary>Why a folder is none that somebody put images into; null for any other.</summary>
    public static string? WhyNoFolder(string name) => name.StartsWith('.') && name is not ("." or "..") ? HiddenFolders : KeptBySystems.Contains(name) ? SystemFolders : null;

    /// <summary>The same for the folders of a path, its last part being a file.</summary>
    public static string? WhyNotIn(string path)
    {
        for (int start = 0, end; (end = path.IndexOf('/', start)) >= 0; start = end + 1)
        {
            if (WhyNoFolder(path[start..end]) is { } reason)
            {
                return reason;
            }
        }

        return null;
    }

    /// <summary>
    /// Whether a file is an image by its name: true; null where the name does not say, because it has no extension or only a number for one; false with
    /// the reason.
    /// </summary>
    public static bool? IsImage(ReadOnlySpan<char> name, out string reason)
    {
        ReadOnlySpan<char> file = Path.GetFileName(name), extension = Path.GetExtension(file);
        reason = "";
        if (file.IsEmpty || file[0] == '.')
        {
            reason = Hidden;
            return false;
        }

        if (extension.Length == 0 || !extension[1..].ContainsAnyExceptInRange('0', '9'))
        {
            return null;
        }

        if (Extensions.GetAlternateLookup<ReadOnlySpan<char>>().Contains(extension))
        {
            return true;
        }

        bool tiff = extension.Equals(".tif", StringComparison.OrdinalIgnoreCase) || extension.Equals(".tiff", StringComparison.OrdinalIgnoreCase);
        reason = tiff ? Tiff : NotImages;
        return false;
    }

    /// <summary>Whether a file is an image by its first bytes; false with the reason.</summary>
    /// <param name="prefix">The first <see cref="PrefixBytes"/> bytes, or as many as there are.</param>
    /// <param name="length">Bytes of the whole file.</param>
    /// <param name="reason">Why it is none.</param>
    public static bool IsImageContent(ReadOnlySpan<byte> prefix, long length, out string reason)
    {
        bool tiff = prefix.StartsWith("II*\0"u8) || prefix.StartsWith("MM\0*"u8);
        reason = tiff ? Tiff : NotImagesByContent;
        return prefix.StartsWith((ReadOnlySpan<byte>)[0xFF, 0xD8, 0xFF]) || prefix.StartsWith((ReadOnlySpan<byte>)[0x89, (byte)'P', (byte)'N', (byte)'G'])
            || prefix.StartsWith("GIF8"u8) || (prefix.StartsWith("RIFF"u8) && prefix.Length >= 12 && prefix[8..].StartsWith("WEBP"u8))
            // Two letters alone would be too little to go by.
            || (prefix.StartsWith("BM"u8) && prefix.Length >= 6 && BinaryPrimitives.ReadUInt32LittleEndian(prefix[2..]) == length);
    }
}
