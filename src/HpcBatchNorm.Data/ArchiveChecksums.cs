using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;

namespace HpcBatchNorm.Data;

/// <summary>The MD5 sums that are published for ImageNet's archives.</summary>
internal static class ArchiveChecksums
{
    private const int BlockBytes = 1 << 22;

    /// <summary>Name and MD5 sum, in lower-case hexadecimal, of each archive.</summary>
    public static IReadOnlyList<(string Name, string Md5)> Published { get; } =
    [
        (DatasetLayouts.TrainArchive, "1d675b47d978889d74fa0da5fadfb00e"),
        (DatasetLayouts.ValidationArchive, "29b22e2961454d5413ddabcf34fc5622"),
        (DevelopmentKit.FileName, "fa75699e90414af021442c21a62c3abf"),
    ];

    /// <summary>Reads the archives of a folder from end to end and compares their sums.</summary>
    /// <param name="folder">The folder they lie in.</param>
    /// <param name="progress">Told the file, bytes done and bytes in all, now and then.</param>
    /// <param name="cancellationToken">Stops.</param>
    /// <returns>For each archive that is there, its name and null, or what is wrong with it and what to do, in one line.</returns>
    /// <exception cref="UserErrorException">There is none of the archives, or one cannot be read.</exception>
    public static IReadOnlyList<(string Name, string? Problem)> Verify(
        string folder, Action<string, long, long>? progress = null, CancellationToken cancellationToken = default) =>
        Verify(folder, Published, progress, cancellationToken);

    internal static IReadOnlyList<(string Name, string? Problem)> Verify(
        string folder, IReadOnlyList<(string Name, string Md5)> published, Action<string, long, long>? progress, CancellationToken cancellationToken)
    {
        var found = new List<(string Name, string? Problem)>();
        foreach ((string name, string expected) in published)
        {
            string path = Path.Combine(folder, name);
            if (File.Exists(path))
            {
                string sum = Md5(path, (done, total) => progress?.Invoke(name, done, total), cancellationToken);
                found.Add((name, sum == expected ? null : $"'{path}' has the MD5 sum {sum} instead of {expected}; it is damaged or not ImageNet's, download it again."));
            }
        }

        return found.Count > 0 ? found : throw new UserErrorException(
            $"'{folder}' has none of the archives whose sums are published ({string.Join(", ", published.Select(p => p.Name))}).");
    }

    [SuppressMessage("Security", "CA5351", Justification = "The sums that ImageNet publishes are MD5; they find damage, not malice.")]
    private static string Md5(string path, Action<long, long> progress, CancellationToken cancellationToken)
    {
        try
        {
            using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.Read, 0, FileOptions.SequentialScan);
            using var hash = IncrementalHash.CreateHash(HashAlgorithmName.MD5);
            byte[] block = new byte[BlockBytes];
            long done = 0;
            for (int read; (read = file.Read(block)) > 0;)
            {
                cancellationToken.ThrowIfCancellationRequested();
                hash.AppendData(block, 0, read);
                progress(done += read, file.Length);
            }

            return Convert.ToHexStringLower(hash.GetHashAndReset());
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"'{path}' cannot be read: {exception.Message}", exception);
        }
    }
}
