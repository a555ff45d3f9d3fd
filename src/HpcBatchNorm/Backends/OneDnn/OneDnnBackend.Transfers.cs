using System.Buffers;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.OneDnn;

/// <content>Values in logical order to and from memory. Dense plain tensors are copied here; libhbn knows the other layouts.</content>
internal sealed partial class OneDnnBackend
{
    /// <inheritdoc/>
    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<double> values)
    {
        switch (buffer.Tensor.DataType)
        {
            case DataType.Int32:
                Convert(values, Memory<int>(buffer), v => (int)v);
                break;
            case DataType.UInt8:
                Convert(values, Memory<byte>(buffer), v => (byte)v);
                break;
            default:
                float[] rented = ArrayPool<float>.Shared.Rent(values.Length);
                Span<float> floats = rented.AsSpan(0, values.Length);
                for (int i = 0; i < floats.Length; i++)
                {
                    floats[i] = (float)values[i];
                }

                WriteCore(buffer, floats);
                ArrayPool<float>.Shared.Return(rented);
                break;
        }
    }

    /// <inheritdoc/>
    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<float> values)
    {
        RequireReal(buffer);
        if (IsDensePlain(buffer) && buffer.Tensor.DataType == DataType.Float32)
        {
            values.CopyTo(Memory<float>(buffer));
            return;
        }

        NativeException.ThrowIfFailed(
            Hbn.hbn_tensor_write(_engine, ((OneDnnBuffer)buffer).Describe(), buffer.Address, values), $"writing '{buffer.Tensor.Name}'");
    }

    /// <inheritdoc/>
    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<int> values)
    {
        Require(buffer, DataType.Int32);
        values.CopyTo(Memory<int>(buffer));
    }

    /// <inheritdoc/>
    private protected override void WriteCore(DeviceBuffer buffer, ReadOnlySpan<byte> values)
    {
        Require(buffer, DataType.UInt8);
        values.CopyTo(Memory<byte>(buffer));
    }

    /// <inheritdoc/>
    private protected override void ReadCore(DeviceBuffer buffer, Span<double> values)
    {
        switch (buffer.Tensor.DataType)
        {
            case DataType.Int32:
                Convert(Memory<int>(buffer), values, v => v);
                break;
            case DataType.UInt8:
                Convert(Memory<byte>(buffer), values, v => v);
                break;
            default:
                float[] rented = ArrayPool<float>.Shared.Rent(values.Length);
                Span<float> floats = rented.AsSpan(0, values.Length);
                ReadCore(buffer, floats);
                for (int i = 0; i < floats.Length; i++)
                {
                    values[i] = floats[i];
                }

                ArrayPool<float>.Shared.Return(rented);
                break;
        }
    }

    /// <inheritdoc/>
    private protected override void ReadCore(DeviceBuffer buffer, Span<float> values)
    {
        RequireReal(buffer);
        if (IsDensePlain(buffer) && buffer.Tensor.DataType == DataType.Float32)
        {
            Memory<float>(buffer).CopyTo(values);
            return;
        }

        NativeException.ThrowIfFailed(
            Hbn.hbn_tensor_read(_engine, ((OneDnnBuffer)buffer).Describe(), buffer.Address, values), $"reading '{buffer.Tensor.Name}'");
    }

    /// <inheritdoc/>
    private protected override bool IsFiniteCore(DeviceBuffer buffer) =>
        buffer.Tensor.DataType == DataType.Float32 && !buffer.Tensor.IsSlice && buffer.Tensor.RowOffset == 0 && buffer.Parent is null
            ? FiniteCheck.AreFinite(AlignedMemory.AsSpan<float>(buffer.Address, checked((int)(buffer.Bytes / sizeof(float))))) // padding is zeros, whatever the layout
            : base.IsFiniteCore(buffer);

    private static bool IsDensePlain(DeviceBuffer buffer) => ((OneDnnBuffer)buffer).Layout == TensorLayout.Plain && !buffer.Tensor.IsSlice;

    /// <summary>All elements of a dense plain tensor.</summary>
    private static Span<T> Memory<T>(DeviceBuffer buffer)
        where T : unmanaged
    {
        if (!IsDensePlain(buffer))
        {
            throw new NotSupportedException($"'{buffer.Tensor}' of {buffer.Tensor.DataType} cannot be transferred: only whole plain tensors of this type can.");
        }

        return AlignedMemory.AsSpan<T>(buffer.Address, checked((int)buffer.Tensor.Shape.Count));
    }

    private static void RequireReal(DeviceBuffer buffer)
    {
        if (!buffer.Tensor.DataType.IsFloat())
        {
            throw new ArgumentException($"'{buffer.Tensor.Name}' holds {buffer.Tensor.DataType}, not floating-point numbers.");
        }
    }

    private static void Require(DeviceBuffer buffer, DataType type)
    {
        if (buffer.Tensor.DataType != type)
        {
            throw new ArgumentException($"'{buffer.Tensor.Name}' holds {buffer.Tensor.DataType}, not {type}.");
        }
    }

    private static void Convert<TFrom, TTo>(ReadOnlySpan<TFrom> from, Span<TTo> to, Func<TFrom, TTo> convert)
    {
        for (int i = 0; i < to.Length; i++)
        {
            to[i] = convert(from[i]);
        }
    }
}
