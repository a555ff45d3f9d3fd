using System.Buffers;
using System.Runtime.InteropServices;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <content>Values in logical (NCHW) order to and from memory (NHWC), through the host.</content>
internal sealed partial class CudnnBackend
{
    /// <inheritdoc/>
    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<double> values) => Write((CudnnBuffer)buffer, values);

    /// <inheritdoc/>
    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<float> values)
    {
        var to = (CudnnBuffer)buffer;
        if (IsInLogicalOrder(to) && to.Tensor.DataType == DataType.Float32)
        {
            _uploads!.Upload(to.Address, MemoryMarshal.AsBytes(values));
        }
        else
        {
            Write(to, values);
        }
    }

    /// <inheritdoc/>
    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<int> values)
    {
        Require(buffer, DataType.Int32);
        _uploads!.Upload(buffer.Address, MemoryMarshal.AsBytes(values));
    }

    /// <inheritdoc/>
    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<byte> values)
    {
        Require(buffer, DataType.UInt8);
        _uploads!.Upload(buffer.Address, values);
    }

    /// <inheritdoc/>
    private protected override void ReadCore(DeviceBuffer buffer, Span<double> values) => Read((CudnnBuffer)buffer, values);

    /// <inheritdoc/>
    private protected override void ReadCore(DeviceBuffer buffer, Span<float> values)
    {
        var from = (CudnnBuffer)buffer;
        if (IsInLogicalOrder(from) && from.Tensor.DataType == DataType.Float32)
        {
            _device!.Download(MemoryMarshal.AsBytes(values), from.Address);
        }
        else
        {
            Read(from, values);
        }
    }

    private static bool IsInLogicalOrder(CudnnBuffer buffer) => buffer.IsDense && (buffer.Tensor.Shape.Area == 1 || buffer.Columns == 1);

    private void Write<T>(CudnnBuffer buffer, ReadOnlySpan<T> values)
        where T : unmanaged, System.Numerics.INumber<T>
    {
        int bytes = SpanBytes(buffer), size = buffer.ElementBytes;
        byte[] rented = ArrayPool<byte>.Shared.Rent(bytes);
        Span<byte> memory = rented.AsSpan(0, bytes);
        if (!buffer.IsDense)
        {
            // What lies between a slice's rows belongs to others.
            _device!.Download(memory, buffer.Address);
        }

        Shape shape = buffer.Tensor.Shape;
        int i = 0;
        for (int n = 0; n < shape.N; n++)
        {
            for (int c = 0; c < shape.C; c++)
            {
                for (int p = 0; p < shape.Area; p++, i++)
                {
                    Put(memory[(((n * shape.Area + p) * buffer.RowStride + c) * size)..], buffer.Tensor.DataType, double.CreateTruncating(values[i]));
                }
            }
        }

        _device!.Upload(buffer.Address, memory);
        ArrayPool<byte>.Shared.Return(rented);
    }

    private void Read<T>(CudnnBuffer buffer, Span<T> values)
        where T : unmanaged, System.Numerics.INumber<T>
    {
        int bytes = SpanBytes(buffer), size = buffer.ElementBytes;
        byte[] rented = ArrayPool<byte>.Shared.Rent(bytes);
        Span<byte> memory = rented.AsSpan(0, bytes);
        _device!.Download(memory, buffer.Address);
        Shape shape = buffer.Tensor.Shape;
        int i = 0;
        for (int n = 0; n < shape.N; n++)
        {
            for (int c = 0; c < shape.C; c++)
            {
                for (int p = 0; p < shape.Area; p++, i++)
                {
                    values[i] = T.CreateTruncating(Get(memory[(((n * shape.Area + p) * buffer.RowStride + c) * size)..], buffer.Tensor.DataType));
                }
            }
        }

        ArrayPool<byte>.Shared.Return(rented);
    }

    /// <summary>Bytes from a tensor's first element to its last.</summary>
    private static int SpanBytes(CudnnBuffer buffer) => checked(((buffer.Rows - 1) * buffer.RowStride + buffer.Columns) * buffer.ElementBytes);

    private static void Put(Span<byte> to, DataType type, double value)
    {
        switch (type)
        {
            case DataType.Float32:
                MemoryMarshal.Write(to, (float)value);
                break;
            case DataType.Float16:
                MemoryMarshal.Write(to, (Half)value);
                break;
            case DataType.BFloat16:
                MemoryMarshal.Write(to, (ushort)(BitConverter.SingleToUInt32Bits((float)type.Round(value)) >> 16));
                break;
            case DataType.Int32:
                MemoryMarshal.Write(to, (int)value);
                break;
            default:
                to[0] = (byte)value;
                break;
        }
    }

    private static double Get(ReadOnlySpan<byte> from, DataType type) => type switch
    {
        DataType.Float32 => MemoryMarshal.Read<float>(from),
        DataType.Float16 => (double)MemoryMarshal.Read<Half>(from),
        DataType.BFloat16 => BitConverter.UInt32BitsToSingle((uint)MemoryMarshal.Read<ushort>(from) << 16),
        DataType.Int32 => MemoryMarshal.Read<int>(from),
        _ => from[0],
    };

    private static void Require(DeviceBuffer buffer, DataType type)
    {
        if (buffer.Tensor.DataType != type)
        {
            throw new ArgumentException($"'{buffer.Tensor.Name}' holds {buffer.Tensor.DataType}, not {type}.");
        }
    }
}
