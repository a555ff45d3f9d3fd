using HpcBatchNorm.Interop;
using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <content>
/// Averages over ranks, by NCCL: on a stream of their own, which waits for the gradients and is waited for before the update, so that they travel while the rest of the
/// backward pass is computed. All of it is part of a recorded step.
/// </content>
internal sealed partial class CudnnBackend
{
    /// <summary>When what an operation averages is there, for the operation that waits for it.</summary>
    private readonly Dictionary<AllReduceStart, CudaEvent> _averaged = new(ReferenceEqualityComparer.Instance);
    private (ICollectives Ranks, NcclCommunicator Nccl, CudaStream Stream)? _connected;

    /// <inheritdoc/>
    private protected override Kernel CreateCore(AllReduceStart operation, BufferMap buffers)
    {
        if (operation.Narrow)
        {
            throw new UserErrorException("Gradients travel in fp32 between GPUs, not in bf16 yet: set gradient-wire to fp32, or backend to onednn.");
        }

        CudnnBuffer[] tensors = [.. operation.Tensors.Select(t => Buffer(buffers, t))];
        if (_device is null)
        {
            return new CudnnKernel(this, operation, "nccl", 0, Traffic(tensors));
        }

        (_, NcclCommunicator nccl, CudaStream stream) = Connect(ConnectedBy(operation));
        string name = CudnnKernel.Describe(operation);
        var values = new (nint Address, long Count)[tensors.Length];
        CudaEvent ready = _device.CreateEvent(), averaged = _device.CreateEvent();
        _averaged[operation] = averaged;
        return new CudnnKernel(this, operation, FormattableString.Invariant($"nccl, {Collectives!.Ranks} ranks"), 0, Traffic(tensors), new CudnnCall(
            "nccl all-reduce", tensors[0].Tensor.DataType, _ =>
            {
                for (int i = 0; i < values.Length; i++)
                {
                    values[i] = (tensors[i].Address, tensors[i].Tensor.Shape.Count);
                }

                ready.Record();
                stream.Wait(ready);
                nccl.Average(values, stream, name);
                stream.Record(averaged);
            },
            ready, averaged, new Forget(() => _averaged.Remove(operation))));
    }

    /// <inheritdoc/>
    private protected override Kernel CreateCore(AllReduceFinish operation) => _device is null
        ? new CudnnKernel(this, operation, "nccl", 0, 0)
        : _averaged.TryGetValue(operation.Start, out CudaEvent? averaged)
            ? new CudnnKernel(this, operation, "nccl", 0, 0, new CudnnCall("wait for nccl", DataType.Float32, _ => averaged.WaitOnDevice()))
            : throw new InvalidOperationException($"{CudnnKernel.Describe(operation)}: what it waits for is not among the kernels.");

    /// <summary>The ranks' GPUs, connected at the first average; all ranks come here together.</summary>
    private (ICollectives Ranks, NcclCommunicator Nccl, CudaStream Stream) Connect(ICollectives ranks)
    {
        if (_connected is { } connected && ReferenceEquals(connected.Ranks, ranks))
        {
            return connected;
        }

        Disconnect();

        // Everybody says whether it has NCCL before anybody waits in it for the others; rank 0's bytes are the id.
        CudaLibrary library = _libraries!.Nccl;
        double[] mine = new double[1 + NcclUniqueId.Bytes], all = new double[mine.Length * ranks.Ranks];
        string problem = library.Problem ?? "";
        if (library.Usable && ranks.Rank == 0)
        {
            try
            {
                NcclUniqueId made = NcclCommunicator.NewId(_libraries.NcclApi!);
                for (int i = 0; i < NcclUniqueId.Bytes; i++)
                {
                    mine[1 + i] = made[i];
                }
            }
            catch (NativeException error)
            {
                problem = error.Message;
            }
        }

        mine[0] = problem.Length == 0 ? 1 : 0;
        ranks.AllGather(mine, all, ranks.Ranks);
        int lacking = Enumerable.Range(0, ranks.Ranks).FirstOrDefault(r => all[r * mine.Length] == 0, -1);
        if (problem.Length > 0 || lacking >= 0)
        {
            throw new UserErrorException(problem.Length > 0
                ? $"Several GPUs train together by NCCL, which cannot be used here: {problem}. It comes with pip install nvidia-nccl-cu12 (or -cu13), or as libnccl2."
                : FormattableString.Invariant($"Several GPUs train together by NCCL, which rank {lacking} cannot use; its own message says why."));
        }

        NcclUniqueId id = default;
        for (int i = 0; i < NcclUniqueId.Bytes; i++)
        {
            id[i] = (byte)all[1 + i];
        }

        var nccl = new NcclCommunicator(_libraries.NcclApi!, _device!, id, ranks.Rank, ranks.Ranks);
        _connected = (ranks, nccl, _device!.CreateStream());
        return _connected.Value;
    }

    private void Disconnect()
    {
        _connected?.Nccl.Dispose();
        _connected?.Stream.Dispose();
        _connected = null;
    }

    private sealed class Forget(Action action) : IDisposable
    {
        public void Dispose() => action();
    }
}
