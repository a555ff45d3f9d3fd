using HpcBatchNorm.Interop;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends.Reference;

/// <summary>
/// Any operation of one's own, which is code on single-precision values: they are converted to scratch memory, and back. What the code is to set is NaN
/// before, so that what it forgets shows.
/// </summary>
internal sealed class ReferenceCustom : ReferenceKernel
{
    private const int Alignment = 64;

    private readonly CustomCall _call;
    private readonly ReferenceBuffer[] _buffers;
    private readonly long[] _offsets;

    public ReferenceCustom(Operation operation, CustomCall call, BufferMap buffers, ParallelOptions parallel)
        : base(operation, buffers, parallel)
    {
        _call = call;
        _buffers = Buffers(buffers, call.Slots.Select(s => s.Tensor));
        _offsets = new long[_buffers.Length];
        for (int i = 0; i < _buffers.Length; i++)
        {
            _offsets[i] = ScratchBytes;
            ScratchBytes += (_buffers[i].Tensor.Shape.Count * sizeof(float) + Alignment - 1) / Alignment * Alignment;
        }
    }

    public override long ScratchBytes { get; }

    protected override void Run(in StepContext context)
    {
        for (int i = 0; i < _buffers.Length; i++)
        {
            CustomCall.Slot slot = _call.Slots[i];
            Span<float> values = Values(i);
            if (slot.Reads)
            {
                _buffers[i].Read(values);
            }
            else
            {
                values.Fill(float.NaN);
            }

            _call.SetAddress(slot, Scratch + (nint)_offsets[i]);
        }

        _call.Run(context);
        for (int i = 0; i < _buffers.Length; i++)
        {
            if (_call.Slots[i].Writes)
            {
                _buffers[i].Write<float>(Values(i));
            }
        }
    }

    private Span<float> Values(int i) => AlignedMemory.AsSpan<float>(Scratch + (nint)_offsets[i], (int)_buffers[i].Tensor.Shape.Count);
}
