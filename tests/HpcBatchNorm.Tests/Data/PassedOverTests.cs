using System.Diagnostics;
using System.Formats.Tar;
using HpcBatchNorm.Data;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Tests.Fuzzing;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Data;

/// <summary>What a data set holds and does not use is counted and named, and what is used is what its bytes say.</summary>
public sealed class PassedOverTests : IDisposable
{
    private static readonly byte[] AnImage = TestImages.Jpeg(8, 8, SKColors.Red);

    private readonly TemporaryFolder _folder = new();

    [Fact]
    public void Folder_ImagesByOtherNames_AreReadByContentOrCounted()
    {
        Write("a/1.jfif", "a/2.jpe", "a/3.JPG", "a/4", "a/ILSVRC2012_val.00000005");
        _folder.Write("a/6.gif", OddImages.Gif);
        _folder.Write("a/7", OddImages.Bmp);
        _folder.Write("a/scan.tif", [.. "II*\0"u8, 0, 0, 0, 0]);
        _folder.Write("a/scan", [.. "MM\0*"u8, 0, 0, 0, 0]);
        _folder.Write("a/README", "no image"u8.ToArray());
        _folder.Write("a/empty", []);
        _folder.Write("a/notes.txt", "no image"u8.ToArray());
        _folder.Write("a/.DS_Store", [0]);
        _folder.Write("a/.thumbnails/1.jpg", AnImage);
        using ImageDataset data = Open();
        Assert.Equal(["a/1.jfif", "a/2.jpe", "a/3.JPG", "a/4", "a/6.gif", "a/7", "a/ILSVRC2012_val.00000005"], Names(data));
        Assert.Equal(
        [
            "passed over files that are no images by name (1): 'a/notes.txt'",
            "passed over files without an extension whose content is no image (2): 'a/README', 'a/empty'",
            "passed over hidden files (1): 'a/.DS_Store'",
            "passed over hidden folders (1): 'a/.thumbnails'",
            "passed over TIFF images, which are not read (convert them to PNG or JPEG) (2): 'a/scan', 'a/scan.tif'",
        ], data.Notes.OrderBy(note => note, StringComparer.OrdinalIgnoreCase));
        Assert.All(DatasetCheck.Run(data, cancellationToken: TestContext.Current.CancellationToken).BadImages, bad => Assert.Fail(bad.Name));
    }

    [Fact]
    public void Gif_IsDecodedToItsColours()
    {
        foreach (byte[] image in new[] { OddImages.Gif, OddImages.Bmp })
        {
            using var decoder = new ImageDecoder();
            Assert.Equal(ImageStatus.Ok, decoder.Open(image, image.Length));
            Assert.Equal(ImageStatus.Ok, decoder.Decode(0, 0, 2, 2, 1));
            Assert.Equal([255, 0, 0, 255, 255, 0, 0, 255], decoder.Pixels[..8].ToArray());
        }
    }

    [Fact]
    public void Folder_NamedPipesDevicesAndBrokenLinks_AreCountedAndNotWaitedFor()
    {
        SkipWithoutUnix();
        Write("a/1.jpg");
        Run("mkfifo", _folder["a/pipe.jpg"]);
        Run("mkfifo", _folder["a/pipe"]);
        File.CreateSymbolicLink(_folder["a/zero.jpg"], "/dev/zero");
        File.CreateSymbolicLink(_folder["a/gone.jpg"], _folder["a/nowhere.jpg"]);
        using ImageDataset data = Open();
        Assert.Equal(["a/1.jpg"], Names(data));
        Assert.Equal(
            ["passed over links that lead to nothing (1): 'a/gone.jpg'", "passed over named pipes, sockets and devices (3): 'a/pipe', 'a/pipe.jpg', 'a/zero.jpg'"], data.Notes);
    }

    [Fact]
    public void Files_ThatBecomePipes_AreAnErrorAndNotWaitedFor()
    {
        SkipWithoutUnix();
        Write("a/1.jpg");
        using ImageDataset data = Open();
        File.Delete(_folder["a/1.jpg"]);
        Run("mkfifo", _folder["a/1.jpg"]);
        byte[] buffer = [];
        Assert.Contains("named pipe", Assert.Throws<UserErrorException>(() => data.ReadEncoded(0, ref buffer)).Message, StringComparison.Ordinal);

        Run("mkfifo", _folder["a.tar"]);
        Assert.Contains("named pipe", Assert.Throws<UserErrorException>(() => ImageDataset.Open(_folder["a.tar"], DatasetSplit.Train, cacheDirectory: null)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Folder_LinkToAFolderAbove_IsNoClassAndNoLoop()
    {
        SkipWithoutUnix();
        Write("set/train/a/1.jpg", "set/train/b/2.jpg", "set/val/a/3.jpg", "set/val/b/4.jpg", "elsewhere/5.jpg");
        Directory.CreateSymbolicLink(_folder["set/train/everything"], "..");
        Directory.CreateSymbolicLink(_folder["set/train/root"], "/");
        Directory.CreateSymbolicLink(_folder["set/train/a/again"], _folder["set/train/a"]);
        Directory.CreateSymbolicLink(_folder["set/train/c"], _folder["elsewhere"]);
        Directory.CreateSymbolicLink(_folder["set/val/c"], _folder["elsewhere"]);
        using ImageDataset data = ImageDataset.Open(_folder["set"], DatasetSplit.Train, cacheDirectory: null);
        Assert.Equal(["a/1.jpg", "b/2.jpg", "c/5.jpg"], Names(data));
        Assert.Equal(["passed over links to a folder that they lie in (3): 'everything', 'root', 'a/again'"], data.Notes);
        using ImageDataset validation = ImageDataset.Open(_folder["set"], DatasetSplit.Validation, cacheDirectory: null);
        Assert.Equal(["a/3.jpg", "b/4.jpg", "c/5.jpg"], Names(validation));
    }

    [Fact]
    public void Folder_TwoClassesThatAreOne_AreRefused()
    {
        SkipWithoutUnix();
        Write("a/1.jpg", "b/2.jpg");
        Directory.CreateSymbolicLink(_folder["c"], _folder["b"]);
        Assert.Contains("one and the same folder", Assert.Throws<UserErrorException>(Open).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Folder_NamesThatDifferInBytesThatAreNoText_AreTwoClasses()
    {
        SkipWithoutUnix();
        // In Latin-1 'café' and 'cafê': neither is UTF-8, and as text both are 'caf' and a question mark.
        Write("plain/1.jpg");
        Run("sh", "-c", $"cd '{_folder.Path}' && for n in \"$(printf 'caf\\351')\" \"$(printf 'caf\\352')\"; do mkdir \"$n\" && cp plain/1.jpg \"$n/$n.jpg\"; done");
        using ImageDataset data = Open();
        Assert.Equal(["caf\\xE9", "caf\\xEA", "plain"], data.ClassNames);
        Assert.Equal(["caf\\xE9/caf\\xE9.jpg", "caf\\xEA/caf\\xEA.jpg", "plain/1.jpg"], Names(data));
        Assert.Equal([0, 1, 2], Enumerable.Range(0, 3).Select(data.Label));
        AssertReads(data);

        // And in an archive of the same folders.
        Run("tar", "-cf", _folder["a.tar"], "-C", _folder.Path, "--exclude=a.tar", ".");
        using ImageDataset archive = ImageDataset.Open(_folder["a.tar"], DatasetSplit.Train, cacheDirectory: null);
        Assert.Equal(data.ClassNames, archive.ClassNames);
        Assert.Equal(Names(data), Names(archive));
        Assert.Equal([0, 1, 2], Enumerable.Range(0, 3).Select(archive.Label));
        // .NET cannot name these files to delete them.
        Run("sh", "-c", $"rm -r '{_folder.Path}'/caf*");
    }

    /// <summary>Thumbnails of Synology's and of notebooks, what a Mac adds: images that nobody put there, the same ones whether extracted or not.</summary>
    [Fact]
    public void FolderAndTar_FoldersThatSystemsMake_HoldNoClassAndNoImage()
    {
        string[] made = ["@eaDir/1.jpg", "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", ".ipynb_checkpoints/1.jpg", "cat/.thumbnails/1.jpg", "__MACOSX/cat/1.jpg", "lost+found/1.jpg"];
        Write(["set/cat/1.jpg", "set/dog/2.jpg", .. made.Select(file => "set/" + file)]);
        _folder.Write("set/dog/._2.jpg", AnImage);
        _folder.Write("set/README.txt", AnImage);
        _folder.Write("set/loose.jpg", AnImage);
        _folder.Write("a.tar", Tar(TarEntryFormat.Ustar, writer =>
        {
            foreach (string file in (string[])["./cat/1.jpg", "./dog/2.jpg", "./dog/._2.jpg", .. made.Select(file => "./" + file)])
            {
                Member(writer, file, AnImage);
            }
        }));
        using ImageDataset folder = ImageDataset.Open(_folder["set"], DatasetSplit.Train, cacheDirectory: null), archive = ImageDataset.Open(_folder["a.tar"], DatasetSplit.Train, cacheDirectory: null);
        foreach (ImageDataset data in new[] { folder, archive })
        {
            Assert.Equal(["cat/1.jpg", "dog/2.jpg"], Names(data));
            Assert.Equal(["cat", "dog"], data.ClassNames);
            string notes = string.Join('\n', data.Notes);
            Assert.Contains("passed over folders that a system keeps for itself (4)", notes, StringComparison.Ordinal);
            Assert.Contains("passed over hidden folders (2)", notes, StringComparison.Ordinal);
            Assert.Contains("passed over hidden files (1): 'dog/._2.jpg'", notes, StringComparison.Ordinal);
        }

        Assert.Contains("passed over files outside of the class folders (1): 'README.txt'", folder.Notes);
        Assert.Contains("passed over images outside of the class folders (1): 'loose.jpg'", folder.Notes);
    }

    [Fact]
    public void Tar_OfClassArchivesMadeOnAMac_PassesOverWhatLiesBesideThem()
    {
        _folder.Write("a.tar", Tar(TarEntryFormat.Ustar, writer =>
        {
            Member(writer, "n1.tar", Tar(TarEntryFormat.Ustar, inner => Member(inner, "1.JPEG", AnImage)));
            Member(writer, "._n1.tar", new byte[700]);
            Member(writer, "n2.tar", Tar(TarEntryFormat.Ustar, inner => Member(inner, "2.JPEG", AnImage)));
        }));
        using ImageDataset data = ImageDataset.Open(_folder["a.tar"], DatasetSplit.Train, cacheDirectory: null);
        Assert.Equal(["n1/1.JPEG", "n2/2.JPEG"], Names(data));
        Assert.Equal(["passed over hidden files (1): '._n1.tar'"], data.Notes);
    }

    [Fact]
    public void Names_WithControlCharacters_AreOneLineThatNoTerminalObeys()
    {
        SkipWithoutUnix();
        Write("train/a\nb\u001b[31m/x\ty.jpg", "train/c/\u009b1.jpg", "val/a\nb\u001b[31m/1.jpg", "val/c/2.jpg");
        foreach (DatasetSplit split in new[] { DatasetSplit.Train, DatasetSplit.Validation })
        {
            using ImageDataset data = ImageDataset.Open(_folder.Path, split, cacheDirectory: null);
            Assert.Equal(["a\\x0Ab\\x1B[31m", "c"], data.ClassNames);
            Assert.Equal(split == DatasetSplit.Train ? ["a\\x0Ab\\x1B[31m/x\\x09y.jpg", "c/\\xC2\\x9B1.jpg"] : ["a\\x0Ab\\x1B[31m/1.jpg", "c/2.jpg"], Names(data));
            AssertReads(data);
        }
    }

    [Fact]
    public void Tar_LinksSparseMembersAndDevices_AreFollowedOrCounted()
    {
        byte[] tar = Tar(TarEntryFormat.Pax, writer =>
        {
            Member(writer, "a/1.jpg", AnImage);
            writer.WriteEntry(new PaxTarEntry(TarEntryType.HardLink, "b/2.jpg") { LinkName = "a/1.jpg" });
            writer.WriteEntry(new PaxTarEntry(TarEntryType.SymbolicLink, "b/3.jpg") { LinkName = "../a/1.jpg" });
            writer.WriteEntry(new PaxTarEntry(TarEntryType.SymbolicLink, "b/4.jpg") { LinkName = "../../outside.jpg" });
            writer.WriteEntry(new PaxTarEntry(TarEntryType.HardLink, "b/5.txt") { LinkName = "a/1.jpg" });
            writer.WriteEntry(new PaxTarEntry(TarEntryType.Fifo, "b/pipe.jpg"));
            Member(writer, "b/README.txt", "text"u8.ToArray());
            writer.WriteEntry(new PaxTarEntry(TarEntryType.RegularFile, "b/sparse.jpg", [new("GNU.sparse.major", "1"), new("GNU.sparse.minor", "0"), new("GNU.sparse.name", "b/sparse.jpg")]) { DataStream = new MemoryStream(AnImage) });
        });
        _folder.Write("a.tar", tar);
        using ImageDataset data = ImageDataset.Open(_folder["a.tar"], DatasetSplit.Train, cacheDirectory: null);
        Assert.Equal(["a/1.jpg", "b/2.jpg", "b/3.jpg"], Names(data));
        AssertReads(data);
        Assert.Equal(
        [
            "passed over files that are no images by name (2): 'b/README.txt', 'b/5.txt'",
            "passed over links that lead to no file in the archive (1): 'b/4.jpg'",
            "passed over members that are no files (devices, pipes, parts of other volumes) (1): 'b/pipe.jpg'",
            "passed over sparse members, whose data lie in pieces (make the archive without them) (1): 'b/sparse.jpg'",
        ], data.Notes);
    }

    [Fact]
    public void Tar_WhatLiesBehindItsEnd_IsNamed()
    {
        byte[] first = Tar(TarEntryFormat.Ustar, writer => Member(writer, "a/1.jpg", AnImage)), second = Tar(TarEntryFormat.Ustar, writer => Member(writer, "b/2.jpg", AnImage));
        (byte[] Bytes, string Words)[] cases = [([.. first, .. second], "archives behind the end of the first"), ([.. first, .. "appended"u8], "runs of bytes behind the end"), ([.. first, .. new byte[20_000]], "")];
        foreach ((byte[] bytes, string words) in cases)
        {
            _folder.Write("a.tar", bytes);
            using ImageDataset data = ImageDataset.Open(_folder["a.tar"], DatasetSplit.Train, cacheDirectory: null);
            Assert.Equal(["a/1.jpg"], Names(data));
            string notes = string.Join('\n', data.Notes);
            Assert.Equal(words.Length == 0, notes.Length == 0);
            Assert.Contains(words, notes, StringComparison.Ordinal);
            Assert.Contains(words.Length == 0 ? "" : $"offset {first.Length}", notes, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Tar_RebuiltWithTheSameLengthAndTimes_IsIndexedAnew()
    {
        string cache = _folder["cache"], path = _folder["a.tar"];
        DateTime time = new(2020, 1, 1, 0, 0, 0, DateTimeKind.Utc);
        string Index(string first, string second)
        {
            File.Delete(path);
            _folder.Write("a.tar", Tar(TarEntryFormat.Ustar, writer =>
            {
                Member(writer, first, AnImage);
                Member(writer, second, AnImage);
            }));
            File.SetLastWriteTimeUtc(path, time);
            using ImageDataset data = ImageDataset.Open(path, DatasetSplit.Train, cache);
            // The notes are kept with the index, or they would be said once only.
            Assert.Empty(data.Notes);
            return string.Join(' ', Names(data));
        }

        Assert.Equal("cat/1.jpg dog/2.jpg", Index("cat/1.jpg", "dog/2.jpg"));
        Assert.Equal("cat/2.jpg dog/1.jpg", Index("dog/1.jpg", "cat/2.jpg"));
    }

    [Fact]
    public void Tar_NotesAreKeptWithTheIndex()
    {
        _folder.Write("a.tar", Tar(TarEntryFormat.Ustar, writer =>
        {
            Member(writer, "a/1.jpg", AnImage);
            Member(writer, "a/2.txt", AnImage);
        }));
        for (int i = 0; i < 2; i++)
        {
            using ImageDataset data = ImageDataset.Open(_folder["a.tar"], DatasetSplit.Train, _folder["cache"]);
            Assert.Equal(["passed over files that are no images by name (1): 'a/2.txt'"], data.Notes);
        }
    }

    [Fact]
    public void Progress_IsToldOnceOpened()
    {
        Write("a/1.jpg");
        _folder.Write("a/2.txt", AnImage);
        var told = new Told();
        using ImageDataset data = ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null, told);
        Assert.Equal(data.Notes, told.Lines);
        Assert.Single(told.Lines);
    }

    [Fact]
    public void FileStatus_TellsKindsApartAndFilesFromOthers()
    {
        SkipWithoutUnix();
        Write("1.jpg", "2.jpg");
        File.CreateSymbolicLink(_folder["3.jpg"], _folder["1.jpg"]);
        Run("mkfifo", _folder["pipe"]);
        Assert.Equal(
            [FileKind.Regular, FileKind.Regular, FileKind.Other, FileKind.Folder, FileKind.None, FileKind.Other],
            ((string[])["1.jpg", "3.jpg", "pipe", ".", "nothing", "/dev/null"]).Select(name => FileStatus.Of(Path.Combine(_folder.Path, name)).Kind));
        Assert.Equal(FileStatus.Of(_folder["1.jpg"]), FileStatus.Of(_folder["3.jpg"]));
        Assert.NotEqual(FileStatus.Of(_folder["1.jpg"]).Identity, FileStatus.Of(_folder["2.jpg"]).Identity);
        Assert.InRange(FileStatus.Of(_folder["1.jpg"]).ChangeTime / 1e9, DateTimeOffset.UtcNow.ToUnixTimeSeconds() - 3600, DateTimeOffset.UtcNow.ToUnixTimeSeconds() + 3600);
    }

    public void Dispose() => _folder.Dispose();

    private static void SkipWithoutUnix() => Assert.SkipUnless(OperatingSystem.IsLinux(), "needs Linux: named pipes, names of any bytes, and links by anyone");

    private static void Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(program, arguments);
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }

    private static byte[] Tar(TarEntryFormat format, Action<TarWriter> write)
    {
        var bytes = new MemoryStream();
        using (var writer = new TarWriter(bytes, format, leaveOpen: true))
        {
            write(writer);
        }

        return bytes.ToArray();
    }

    private static void Member(TarWriter writer, string name, byte[] bytes) => writer.WriteEntry(writer.Format == TarEntryFormat.Pax
        ? new PaxTarEntry(TarEntryType.RegularFile, name) { DataStream = new MemoryStream(bytes) }
        : new UstarTarEntry(TarEntryType.RegularFile, name) { DataStream = new MemoryStream(bytes) });

    private static void AssertReads(ImageDataset data)
    {
        byte[] buffer = [];
        for (int i = 0; i < data.Count; i++)
        {
            int length = data.ReadEncoded(i, ref buffer);
            Assert.Equal(AnImage, buffer[..length]);
        }
    }

    private static IEnumerable<string> Names(ImageDataset data) => Enumerable.Range(0, data.Count).Select(data.Name);

    private ImageDataset Open() => ImageDataset.Open(_folder.Path, DatasetSplit.Train, cacheDirectory: null);

    private void Write(params string[] files) => Array.ForEach(files, file => _folder.Write(file, AnImage));

    private sealed class Told : IProgress<string>
    {
        public List<string> Lines { get; } = [];

        public void Report(string value) => Lines.Add(value);
    }
}
