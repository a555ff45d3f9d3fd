using HpcBatchNorm.Interop;

namespace HpcBatchNorm;

/// <summary>Reads text files for assemblies that know the engine and nothing below it. What is no file, such as a named pipe, is an <see cref="IOException"/>.</summary>
internal static class TextFile
{
    /// <summary>A file as text in UTF-8, or what its byte order mark says.</summary>
    public static string ReadAllText(string path) => RegularFile.ReadAllText(path);

    /// <summary>The lines of a file, one after the other.</summary>
    public static IEnumerable<string> ReadLines(string path) => RegularFile.ReadLines(path);
}
