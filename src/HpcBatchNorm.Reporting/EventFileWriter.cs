using System.Buffers;
using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Numerics;
using HpcBatchNorm.Interchange;

namespace HpcBatchNorm.Reporting;

/// <summary>
/// Writes scalars to a TensorBoard event file. The file is a sequence of records (length, masked CRC-32C of the length, bytes, masked CRC-32C of the
/// bytes), each an <c>Event</c> protocol buffer; the six fields needed are encoded here. Every event reaches the operating system before the method
/// returns, so the file of a killed process is readable up to its last event.
/// </summary>
internal sealed class EventFileWriter : IDisposable
{
    /// <summary>TensorBoard finds event files by this part of their name.</summary>
    public const string Prefix = "events.out.tfevents.";

    // The version that makes TensorBoard heed restarts.
    private const string FileVersion = "brain.Event:2";

    // Field numbers of TensorBoard's messages.
    private const int EventWallTime = 1, EventStep = 2, EventFileVersion = 3, EventSummary = 5, EventSessionLog = 7;
    private const int SummaryValue = 1, ValueTag = 1, ValueSimple = 2, SessionStatus = 1, SessionStart = 1;

    private readonly FileStream _file;
    private readonly ProtobufMessage _event = new(), _summary = new(), _value = new();
    private readonly ArrayBufferWriter<byte> _record = new(256);

    /// <summary>
    /// Begins a new file in <paramref name="folder"/>. A run that goes on after <paramref name="firstStep"/> steps tells TensorBoard to forget later
    /// steps of earlier files, which a killed process may have written.
    /// </summary>
    public EventFileWriter(string folder, long firstStep, TimeProvider? clock = null)
    {
        Clock = clock ?? TimeProvider.System;
        _file = Create(folder);
        BeginEvent(step: 0);
        _event.Text(EventFileVersion, FileVersion);
        EndEvent();
        if (firstStep > 0)
        {
            BeginEvent(firstStep + 1);
            _event.Message(EventSessionLog, new ProtobufMessage().Integer(SessionStatus, SessionStart));
            EndEvent();
        }
    }

    /// <summary>The file.</summary>
    public string Path => _file.Name;

    private TimeProvider Clock { get; }

    /// <summary>Adds a scalar to the event that <see cref="Write"/> writes.</summary>
    public void Add(string tag, double value)
    {
        _value.Clear();
        _summary.Message(SummaryValue, _value.Text(ValueTag, tag).Single(ValueSimple, (float)value));
    }

    /// <summary>Writes the scalars added since the last call, as one event.</summary>
    public void Write(long step)
    {
        BeginEvent(step);
        _event.Message(EventSummary, _summary);
        EndEvent();
        _summary.Clear();
    }

    public void Dispose() => _file.Dispose();

    /// <summary>CRC-32C, rotated and shifted by a constant so that a checksum of data that hold checksums stays a good one.</summary>
    internal static uint MaskedCrc(ReadOnlySpan<byte> data)
    {
        uint crc = uint.MaxValue;
        for (; data.Length >= sizeof(ulong); data = data[sizeof(ulong)..])
        {
            crc = BitOperations.Crc32C(crc, BinaryPrimitives.ReadUInt64LittleEndian(data));
        }

        foreach (byte value in data)
        {
            crc = BitOperations.Crc32C(crc, value);
        }

        return unchecked(BitOperations.RotateRight(~crc, 15) + 0xA282EAD8u);
    }

    /// <summary>TensorBoard reads files in the order of their names, which therefore begin with the time; the process tells two of a second apart.</summary>
    private FileStream Create(string folder)
    {
        string name = string.Create(CultureInfo.InvariantCulture, $"{Prefix}{Clock.GetUtcNow().ToUnixTimeSeconds():D10}.{Environment.MachineName}.{Environment.ProcessId}");
        for (int i = 0; ; i++)
        {
            string path = System.IO.Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"{name}.{i}"));
            if (!File.Exists(path))
            {
                return new FileStream(path, FileMode.CreateNew, FileAccess.Write, FileShare.Read, bufferSize: 0);
            }
        }
    }

    private void BeginEvent(long step)
    {
        _event.Clear();
        _event.Double(EventWallTime, (Clock.GetUtcNow() - DateTimeOffset.UnixEpoch).TotalSeconds);
        if (step > 0)
        {
            _event.Integer(EventStep, step);
        }
    }

    private void EndEvent()
    {
        ReadOnlySpan<byte> data = _event.Written;
        _record.ResetWrittenCount();
        BinaryPrimitives.WriteUInt64LittleEndian(Take(_record, sizeof(ulong)), (ulong)data.Length);
        uint lengthCrc = MaskedCrc(_record.WrittenSpan);
        BinaryPrimitives.WriteUInt32LittleEndian(Take(_record, sizeof(uint)), lengthCrc);
        _record.Write(data);
        BinaryPrimitives.WriteUInt32LittleEndian(Take(_record, sizeof(uint)), MaskedCrc(data));
        Debug.Assert(_record.WrittenCount == data.Length + 16, "two checksums and a length");
        _file.Write(_record.WrittenSpan);
    }

    private static Span<byte> Take(ArrayBufferWriter<byte> from, int bytes)
    {
        Span<byte> span = from.GetSpan(bytes)[..bytes];
        from.Advance(bytes);
        return span;
    }
}
