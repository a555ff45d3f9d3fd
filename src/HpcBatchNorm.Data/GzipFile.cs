using System.IO.Compression;

namespace HpcBatchNorm.Data;

/// <summary>Files whose name says that they are gzipped. Browsers and download tools unpack some on the way and leave the name as it was.</summary>
internal static class GzipFile
{
    /// <summary>What is in the file: unpacked when it begins as gzip does, otherwise as it is. The file is closed with the stream.</summary>
    public static Stream Decompress(FileStream file)
    {
        Span<byte> head = stackalloc byte[2];
        int length = file.ReadAtLeast(head, head.Length, throwOnEndOfStream: false);
        file.Position = 0;
        return length == head.Length && head[0] == 0x1f && head[1] == 0x8b ? new GZipStream(file, CompressionMode.Decompress) : file;
    }
}
