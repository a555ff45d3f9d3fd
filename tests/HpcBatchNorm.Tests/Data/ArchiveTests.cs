using System.Formats.Tar;
using System.Text;
using HpcBatchNorm.Data;
using Microsoft.Win32.SafeHandles;

namespace HpcBatchNorm.Tests.Data;

public sealed class ArchiveTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    [Theory]
    [InlineData(TarEntryFormat.V7, 90)]
    [InlineData(TarEntryFormat.Ustar, 180)]
    [InlineData(TarEntryFormat.Gnu, 300)]
    [InlineData(TarEntryFormat.Pax, 300)]
    public void TarWalker_LongestNamesOfEachFormat_GivesNamesAndExactOffsets(TarEntryFormat format, int nameLength)
    {
        var members = new Dictionary<string, byte[]>
        {
            ["a.JPEG"] = Bytes(1, 513),
            [new string('d', nameLength / 2) + "/" + new string('f', nameLength - nameLength / 2 - 6) + ".JPEG"] = Bytes(2, 1),
            ["empty.JPEG"] = [],
            ["block.JPEG"] = Bytes(3, 512),
        };
        byte[] tar = Tar(format, members);
        string path = _folder.Write("a.tar", tar);

        List<TarMember> found = Walk(path);

        Assert.Equal(members.Keys, found.Select(member => member.Name));
        foreach (TarMember member in found)
        {
            Assert.Equal(members[member.Name], tar.AsSpan((int)member.Offset, (int)member.Size).ToArray());
        }
    }

    [Fact]
    public void TarWalker_Base256Size_IsRead()
    {
        byte[] tar = Tar(TarEntryFormat.Ustar, new() { ["a.JPEG"] = Bytes(1, 700), ["b.JPEG"] = Bytes(2, 5) });
        tar.AsSpan(124, 12).Clear();
        tar[124] = 0x80;
        (tar[134], tar[135]) = (700 >> 8, 700 & 255);
        WriteChecksum(tar);

        Assert.Equal([700L, 5L], Walk(_folder.Write("a.tar", tar)).Select(member => member.Size));
    }

    [Fact]
    public void TarWalker_NoEndOfArchiveBlocks_EndsAtTheEndOfTheFile()
    {
        byte[] tar = Tar(TarEntryFormat.Ustar, new() { ["a.JPEG"] = Bytes(1, 700) });
        Assert.Single(Walk(_folder.Write("a.tar", tar[..(512 + 1024)])));
        Assert.Single(Walk(_folder.Write("unpadded.tar", tar[..(512 + 700)])));
    }

    [Theory]
    [InlineData(512 + 300, "offset 0")]
    [InlineData(1536 + 100, "offset 1536")]
    [InlineData(1536 + 512 + 10, "offset 1536")]
    public void TarWalker_CutShort_NamesArchiveAndOffset(int length, string offset)
    {
        byte[] tar = Tar(TarEntryFormat.Ustar, new() { ["a.JPEG"] = Bytes(1, 700), ["b.JPEG"] = Bytes(2, 700) });
        string path = _folder.Write("a.tar", tar[..length]);

        var error = Assert.Throws<UserErrorException>(() => Walk(path));

        Assert.Contains(path, error.Message, StringComparison.Ordinal);
        Assert.Contains(offset, error.Message, StringComparison.Ordinal);
        Assert.Contains("cut short", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void TarWalker_DamagedHeader_NamesTheOffset()
    {
        byte[] tar = Tar(TarEntryFormat.Ustar, new() { ["a.JPEG"] = Bytes(1, 10), ["b.JPEG"] = Bytes(2, 10) });
        tar[1024 + 3] ^= 0x55;
        Assert.Contains("offset 1024", Assert.Throws<UserErrorException>(() => Walk(_folder.Write("a.tar", tar))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void ArchiveIndex_NestedArchives_PointsAtTheInnermostBytes()
    {
        byte[] inner = Tar(TarEntryFormat.Ustar, new() { ["n1_2.JPEG"] = Bytes(7, 300), ["n1_1.JPEG"] = Bytes(8, 200) });
        byte[] outer = Tar(TarEntryFormat.Pax, new() { ["./n1.tar"] = inner, ["readme.txt"] = Bytes(9, 10) });
        ImageTable table = ArchiveIndex.Load(_folder.Write("train.tar", outer), cacheDirectory: null);

        Assert.Equal(["n1/n1_1.JPEG", "n1/n1_2.JPEG"], [table.Name(0), table.Name(1)]);
        Assert.Equal(Bytes(8, 200), outer.AsSpan((int)table.Offsets[0], table.Sizes[0]).ToArray());
        Assert.Equal(Bytes(7, 300), outer.AsSpan((int)table.Offsets[1], table.Sizes[1]).ToArray());
    }

    [Fact]
    public void ArchiveIndex_Cache_IsUsedRebuiltAndNeverTrustedWhenDamaged()
    {
        string archive = _folder.Write("a.tar", Tar(TarEntryFormat.Ustar, new() { ["c/a.JPEG"] = Bytes(1, 10) })), cache = _folder["cache"];
        var walks = new Walks();
        ArchiveIndex.Load(archive, cache, walks);
        ArchiveIndex.Load(archive, cache, walks);
        Assert.Equal(1, walks.Count);

        string file = Assert.Single(Directory.GetFiles(cache));
        byte[] bytes = File.ReadAllBytes(file);
        bytes[^20] ^= 1;
        File.WriteAllBytes(file, bytes);
        Assert.Equal("c/a.JPEG", ArchiveIndex.Load(archive, cache, walks).Name(0));
        Assert.Equal(2, walks.Count);

        _folder.Write("a.tar", Tar(TarEntryFormat.Ustar, new() { ["c/a.JPEG"] = Bytes(1, 10), ["c/b.JPEG"] = Bytes(1, 2000) }));
        Assert.Equal(2, ArchiveIndex.Load(archive, cache, walks).Count);
        Assert.Equal(3, walks.Count);
        Assert.Single(Directory.GetFiles(cache));
    }

    [Fact]
    public void ArchiveIndex_CacheThatCannotBeWritten_IsDoneWithout()
    {
        string archive = _folder.Write("a.tar", Tar(TarEntryFormat.Ustar, new() { ["c/a.JPEG"] = Bytes(1, 10) }));
        string cache = _folder.Write("file-in-the-way", []);
        Assert.Equal(1, ArchiveIndex.Load(archive, cache).Count);
    }

    [Fact]
    public void MatFile_WrittenStructArray_ReadsBack()
    {
        string[] fields = ["id", "name", "children"];
        object[][] rows = [[(double[])[1.5], "spiny lobster, écrevisse", (double[])[]], [(double[])[2], "", (double[])[1, 2, 3]]];

        MatStructArray read = MatFile.ReadStructArray(MatFile.WriteStructArray("synsets", fields, rows), "synsets");

        Assert.Equal(2, read.Count);
        Assert.Equal(fields, read.Fields);
        for (int i = 0; i < rows.Length; i++)
        {
            Assert.Equal(rows[i], fields.Select(field => read[i, field]));
        }
    }

    [Fact]
    public void MatFile_DamagedAnywhere_SaysSoAndNothingElse()
    {
        byte[] file = MatFile.WriteStructArray("synsets", ["id"], [[(double[])[1]], [(double[])[2]]]);
        Assert.Throws<InvalidDataException>(() => MatFile.ReadStructArray(file, "other"));
        for (int length = 0; length < file.Length - 8; length += 7)
        {
            Assert.Throws<InvalidDataException>(() => MatFile.ReadStructArray(file[..length], "synsets"));
        }
    }

    public void Dispose() => _folder.Dispose();

    internal static byte[] Tar(TarEntryFormat format, Dictionary<string, byte[]> members)
    {
        var bytes = new MemoryStream();
        using (var writer = new TarWriter(bytes, format, leaveOpen: true))
        {
            foreach ((string name, byte[] data) in members)
            {
                TarEntry entry = format switch
                {
                    TarEntryFormat.V7 => new V7TarEntry(TarEntryType.V7RegularFile, name),
                    TarEntryFormat.Ustar => new UstarTarEntry(TarEntryType.RegularFile, name),
                    TarEntryFormat.Gnu => new GnuTarEntry(TarEntryType.RegularFile, name),
                    _ => new PaxTarEntry(TarEntryType.RegularFile, name),
                };
                entry.DataStream = new MemoryStream(data);
                writer.WriteEntry(entry);
            }
        }

        return bytes.ToArray();
    }

    private static List<TarMember> Walk(string path)
    {
        using SafeFileHandle file = File.OpenHandle(path);
        var walker = new TarWalker(new FileTarSource(file), path, 0, RandomAccess.GetLength(file), new PassedOver());
        var members = new List<TarMember>();
        while (walker.TryNext(out TarMember member))
        {
            members.Add(member);
        }

        return members;
    }

    private static void WriteChecksum(byte[] header)
    {
        header.AsSpan(148, 8).Fill((byte)' ');
        int sum = header.AsSpan(0, 512).ToArray().Sum(value => value);
        Encoding.ASCII.GetBytes(Convert.ToString(sum, 8).PadLeft(6, '0') + "\0 ").CopyTo(header, 148);
    }

    private static byte[] Bytes(int seed, int length)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    private sealed class Walks : IProgress<string>
    {
        public int Count { get; private set; }

        public void Report(string value) => Count++;
    }
}
