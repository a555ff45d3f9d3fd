using HpcBatchNorm.Interop;
using Microsoft.Win32.SafeHandles;

namespace HpcBatchNorm.Data;

/// <summary>Where the bytes of a tar archive come from.</summary>
internal interface ITarSource
{
    /// <summary>Reads until the buffer is full or there is no more; returns how many bytes there were.</summary>
    int Read(Span<byte> buffer, long offset);
}

/// <summary>A file, read at any place.</summary>
internal sealed class FileTarSource(SafeFileHandle file) : ITarSource
{
    public int Read(Span<byte> buffer, long offset) => RegularFile.Read(file, buffer, offset);
}

/// <summary>A stream that can only go forward, such as a decompressing one: offsets must never go back.</summary>
internal sealed class ForwardTarSource(Stream stream) : ITarSource
{
    private readonly byte[] _skipped = new byte[1 << 16];
    private long _position;

    public int Read(Span<byte> buffer, long offset)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(offset, _position);
        while (_position < offset)
        {
            int read = stream.Read(_skipped, 0, (int)Math.Min(_skipped.Length, offset - _position));
            if (read == 0)
            {
                return 0;
            }

            _position += read;
        }

        int count = stream.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false);
        _position += count;
        return count;
    }
}
