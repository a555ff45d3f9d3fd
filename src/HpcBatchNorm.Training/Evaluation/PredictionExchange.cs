using System.Buffers.Binary;
using System.Runtime.InteropServices;
using HpcBatchNorm.Training.Distributed;

namespace HpcBatchNorm.Training.Evaluation;

/// <summary>Brings the predictions of all ranks to the first one, batch by batch, so that one of them counts every image once and none holds more than a batch.</summary>
internal sealed class PredictionExchange(Communicator ranks, int classes)
{
    private const double Fine = 0, Cancelled = 1, Mistaken = 2;

    private readonly double[] _states = new double[ranks.Size];
    private byte[] _parcel = [];
    private int _length;

    private int RowBytes => 2 * sizeof(int) + classes * sizeof(double);

    /// <summary>One prediction of this rank's batch.</summary>
    public void Add(int image, int label, ReadOnlySpan<double> probabilities)
    {
        if (_parcel.Length < _length + RowBytes)
        {
            Array.Resize(ref _parcel, Math.Max(2 * _parcel.Length, _length + RowBytes));
        }

        Span<byte> row = _parcel.AsSpan(_length, RowBytes);
        BinaryPrimitives.WriteInt32LittleEndian(row, image);
        BinaryPrimitives.WriteInt32LittleEndian(row[sizeof(int)..], label);
        MemoryMarshal.AsBytes(probabilities).CopyTo(row[(2 * sizeof(int))..]);
        _length += RowBytes;
    }

    /// <summary>Sends what was added since the last time; on the first rank <paramref name="receive"/> is told everybody's, rank by rank.</summary>
    /// <param name="error">Why this rank has nothing to send; null where all is well.</param>
    /// <param name="receive">Told each prediction.</param>
    /// <exception cref="OperationCanceledException">A rank was asked to stop.</exception>
    /// <exception cref="UserErrorException">A rank cannot go on; the message names it.</exception>
    public void Share(Exception? error, PredictionHandler receive)
    {
        ranks.AllGather([error is null ? Fine : error is OperationCanceledException ? Cancelled : Mistaken], _states);
        if (_states.Contains(Mistaken))
        {
            ranks.ThrowIfAny(error is OperationCanceledException ? null : error);
        }

        if (_states.Contains(Cancelled))
        {
            throw new OperationCanceledException("A rank was asked to stop.");
        }

        byte[][]? all = ranks.Gather(_parcel.AsSpan(0, _length));
        _length = 0;
        foreach (byte[] parcel in all ?? [])
        {
            for (int at = 0; at < parcel.Length; at += RowBytes)
            {
                ReadOnlySpan<byte> row = parcel.AsSpan(at, RowBytes);
                receive(
                    BinaryPrimitives.ReadInt32LittleEndian(row), BinaryPrimitives.ReadInt32LittleEndian(row[sizeof(int)..]),
                    MemoryMarshal.Cast<byte, double>(row[(2 * sizeof(int))..]));
            }
        }
    }
}
