using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <content>Loss, and operations over groups of parameters: one launch for all of them.</content>
internal sealed partial class CudnnBackend
{
    /// <inheritdoc/>
    private protected override Kernel CreateCore(SoftmaxCrossEntropy operation, BufferMap buffers)
    {
        if (operation.Binary || operation.SecondLabels is not null)
        {
            throw new UserErrorException("Binary cross-entropy, mixup and cutmix are not there on backend cudnn yet: leave them out, or set backend to onednn or reference.");
        }

        CudnnBuffer logits = Buffer(buffers, operation.Logits);
        CudnnBuffer? diffLogits = Optional(buffers, operation.DiffLogits);
        int images = logits.Rows, classes = logits.Columns;
        DataType type = operation.DiffLogits?.DataType ?? buffers.Precision.ActivationType();
        CudnnLaunch launch = Launch("softmax_cross_entropy", type, PerRow(images), CudnnKernel.Describe(operation))
            .Address(logits).Address(Buffer(buffers, operation.Labels)).Address(Buffer(buffers, operation.Probabilities)).Scratch()
            .Address(Buffer(buffers, operation.Loss)).Address(diffLogits).Number(images).Number(classes).Number(operation.LabelSmoothing)
            .Number(operation.Weight).Address(Optional(buffers, operation.LossScale)).Number(_counters);
        return new CudnnKernel(this, operation, "native", images * sizeof(float), 3 * operation.Logits.Shape.Count * sizeof(float), launch);
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(Softmax operation, BufferMap buffers)
    {
        CudnnBuffer src = Buffer(buffers, operation.Src), dst = Buffer(buffers, operation.Dst);
        return Native(operation, Traffic(src, dst), Launch("softmax", buffers.Precision.ActivationType(), PerRow(src.Rows), CudnnKernel.Describe(operation))
            .Address(src).Address(dst).Number(src.Columns));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(SgdUpdate operation, BufferMap buffers)
    {
        PieceTable table = new(_device, buffers, operation.Parameters, operation.Gradients, operation.Momenta, gradient: 1);
        CudnnLaunch launch = Launch("sgd", buffers.Precision.ActivationType(), PerPiece(table), CudnnKernel.Describe(operation))
            .Table(table).Number(_stepState).Address(Optional(buffers, operation.GradientScale)).Address(Optional(buffers, operation.LossScale))
            .Number(operation.Mu).Flag(operation.Nesterov).Number(operation.WeightDecay).Flag(operation.Form == MomentumForm.PyTorch).Number(operation.RateFactor);
        return Native(operation, 4 * table.Elements * sizeof(float) + table.GradientBytes, launch.Owns(table));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(AdamUpdate operation, BufferMap buffers)
    {
        if (operation.TrustRatio)
        {
            throw new UserErrorException("LAMB is not there on backend cudnn yet: set optimizer to adamw or sgd, or backend to onednn or reference.");
        }

        PieceTable table = new(_device, buffers, operation.Parameters, operation.Gradients, operation.FirstMoments, operation.SecondMoments, gradient: 1);
        (float high1, float low1) = Split(Math.Log(operation.Beta1));
        (float high2, float low2) = Split(Math.Log(operation.Beta2));
        CudnnLaunch launch = Launch("adam", buffers.Precision.ActivationType(), PerPiece(table), CudnnKernel.Describe(operation))
            .Table(table).Number(_stepState).Address(Optional(buffers, operation.GradientScale)).Address(Optional(buffers, operation.LossScale))
            .Number((float)operation.Beta1).Number((float)(1 - operation.Beta1)).Number(high1).Number(low1)
            .Number((float)operation.Beta2).Number((float)(1 - operation.Beta2)).Number(high2).Number(low2)
            .Number(operation.Epsilon).Number(operation.WeightDecay).Number(operation.RateFactor);
        return Native(operation, 6 * table.Elements * sizeof(float) + table.GradientBytes, launch.Owns(table));

        // A double as two numbers that a kernel takes; a beta of 0 has no logarithm, and its powers are as good as 0.
        static (float High, float Low) Split(double x)
        {
            double finite = Math.Max(x, -1e4);
            return ((float)finite, (float)(finite - (float)finite));
        }
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ClipGradients operation, BufferMap buffers)
    {
        PieceTable table = new(_device, buffers, operation.Gradients, null, null, gradient: 0);
        LaunchShape shape = PerPiece(table) with { SharedBytes = 256 * sizeof(float) };
        CudnnLaunch launch = Launch("clip", buffers.Precision.ActivationType(), shape, CudnnKernel.Describe(operation))
            .Table(table).Scratch().Number(_counters).Address(Buffer(buffers, operation.GradientScale)).Address(Buffer(buffers, operation.Norm)).Number(operation.MaximumNorm)
            .Address(Optional(buffers, operation.Unscale));
        return new CudnnKernel(this, operation, "native", table.Pieces * sizeof(float), table.GradientBytes, launch.Owns(table));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(UpdateLossScale operation, BufferMap buffers)
    {
        PieceTable table = new(_device, buffers, operation.Gradients, null, null, gradient: 0);
        LaunchShape shape = PerPiece(table) with { SharedBytes = 256 * sizeof(float) };
        CudnnLaunch launch = Launch("update_loss_scale", buffers.Precision.ActivationType(), shape, CudnnKernel.Describe(operation))
            .Table(table).Scratch().Number(_counters).Address(Buffer(buffers, operation.LossScale)).Address(Buffer(buffers, operation.Unscale))
            .Number((float)operation.GrowthSteps).Number(UpdateLossScale.MostScale);
        return new CudnnKernel(this, operation, "native", table.Pieces * sizeof(float), table.GradientBytes, launch.Owns(table));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(AccumulateGradients operation, BufferMap buffers)
    {
        PieceTable table = new(_device, buffers, operation.Gradients, operation.Sums, null, gradient: 0);
        CudnnLaunch launch = Launch("accumulate", buffers.Precision.ActivationType(), PerPiece(table), CudnnKernel.Describe(operation))
            .Table(table).Number(_stepState).Number((uint)operation.Count);
        return Native(operation, 2 * table.Elements * sizeof(float) + table.GradientBytes, launch.Owns(table));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(UpdateAverage operation, BufferMap buffers)
    {
        PieceTable table = new(_device, buffers, operation.Sources, operation.Averages, null);
        CudnnLaunch launch = Launch("average", buffers.Precision.ActivationType(), PerPiece(table), CudnnKernel.Describe(operation)).Table(table).Number(operation.Decay);
        return Native(operation, 3 * table.Elements * sizeof(float), launch.Owns(table));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(ConvertParameters operation, BufferMap buffers)
    {
        PieceTable table = new(_device, buffers, operation.Parameters, operation.Copies, null);
        CudnnLaunch launch = Launch("convert", operation.Copies[0].DataType, PerPiece(table), CudnnKernel.Describe(operation)).Table(table);
        return Native(operation, 6 * table.Elements, launch.Owns(table));
    }

    private static LaunchShape PerRow(int rows) => new(rows, 1, 1, 256, 1, 256 * sizeof(float));

    private static LaunchShape PerPiece(PieceTable table) => new(table.Pieces, 1, 1, 256, 1, 0);
}

/// <summary>
/// Groups of tensors cut into pieces that a block each works on, as a table in device memory. The first four tensors of a row are those of the kernel's
/// a, b, c and d; gradients, of which the group is named, may be of 16 bits. Filled when the tensors have addresses.
/// </summary>
internal sealed class PieceTable : IDisposable
{
    /// <summary>Elements per piece: 256 threads times 32.</summary>
    private const int PieceElements = 8192;

    private readonly CudaDevice? _device;
    private readonly CudnnBuffer[][] _groups;
    private readonly CudaDeviceMemory? _memory;
    private readonly int? _gradient;
    private nint _filledFor;

    public PieceTable(
        CudaDevice? device, BufferMap buffers, IReadOnlyList<Tensor> a, IReadOnlyList<Tensor>? b, IReadOnlyList<Tensor>? c, IReadOnlyList<Tensor>? d = null, int? gradient = null)
    {
        (_device, _gradient) = (device, gradient);
        _groups = [.. new[] { a, b, c, d }.Where(g => g is not null).Select(g => g!.Select(t => (CudnnBuffer)buffers[t]).ToArray())];
        foreach (CudnnBuffer buffer in _groups.SelectMany(g => g))
        {
            if (!buffer.IsDense)
            {
                throw new NotSupportedException($"'{buffer.Tensor.Name}' is a slice; operations over parameters take whole tensors.");
            }
        }

        foreach (CudnnBuffer buffer in _groups[0])
        {
            Pieces += (int)((buffer.Tensor.Shape.Count + PieceElements - 1) / PieceElements);
            Elements += buffer.Tensor.Shape.Count;
        }

        GradientBytes = gradient is int g ? _groups[g].Sum(b => b.Bytes) : 0;

        _memory = device is null ? null : new CudaDeviceMemory(device, Pieces * (long)Unsafe.SizeOf<Piece>());
    }

    /// <summary>Blocks that work on the table.</summary>
    public int Pieces { get; }

    /// <summary>Elements of one group.</summary>
    public long Elements { get; }

    /// <summary>Bytes of the gradients.</summary>
    public long GradientBytes { get; }

    /// <summary>The table's address; filled again when the tensors have moved.</summary>
    public nint Address()
    {
        nint first = _groups[0][0].Address;
        if (_filledFor != first)
        {
            Fill();
            _filledFor = first;
        }

        return _memory!.Address;
    }

    public void Dispose() => _memory?.Dispose();

    private void Fill()
    {
        var pieces = new Piece[Pieces];
        int next = 0;
        for (int t = 0; t < _groups[0].Length; t++)
        {
            long count = _groups[0][t].Tensor.Shape.Count;
            for (long start = 0; start < count; start += PieceElements)
            {
                pieces[next++] = new Piece
                {
                    A = At(0, t, start),
                    B = At(1, t, start),
                    C = At(2, t, start),
                    D = At(3, t, start),
                    Count = (uint)Math.Min(PieceElements, count - start),
                    NarrowGradient = _gradient is int g && _groups[g][t].Tensor.DataType.IsNarrow() ? 1u : 0u,
                };
            }
        }

        _device!.Upload(_memory!.Address, MemoryMarshal.AsBytes(pieces.AsSpan()));
    }

    private nint At(int group, int tensor, long element) =>
        group < _groups.Length ? _groups[group][tensor].Address + (nint)(element * _groups[group][tensor].ElementBytes) : 0;

    [StructLayout(LayoutKind.Sequential)]
    private struct Piece
    {
        public nint A;
        public nint B;
        public nint C;
        public nint D;
        public uint Count;
        public uint NarrowGradient;
    }
}
