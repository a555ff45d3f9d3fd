using HpcBatchNorm.Interop;
using HpcBatchNorm.Interop.Cuda;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>
/// A session's kernels as one CUDA graph. The first executions run kernel by kernel, so that everything loaded or built at first use is there; then the
/// sequence is recorded once and replayed. What changes from step to step lies in device memory and is set before each replay.
/// </summary>
internal sealed class CudnnRecordedKernels(CudnnBackend backend, CudnnKernel[] kernels) : RecordedKernels
{
    private const int WarmUps = 2;

    private CudaGraph? _graph;
    private int _executions;
    private string? _refusal;

    /// <inheritdoc/>
    public override string Description => _graph is not null
        ? FormattableString.Invariant($"one CUDA graph of {_graph.Nodes} nodes")
        : _refusal ?? "kernel by kernel until recorded";

    /// <inheritdoc/>
    protected override void ExecuteCore(in StepContext context)
    {
        backend.Begin(context);
        if (_graph is null && _refusal is null && _executions++ >= WarmUps)
        {
            _graph = TryRecord();
        }

        if (_graph is not null)
        {
            _graph.Launch();
        }
        else
        {
            EnqueueAll();
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        _graph?.Dispose();
        _graph = null;
        base.Dispose(disposing);
    }

    private CudaGraph? TryRecord()
    {
        CudaDevice device = backend.Device!;
        device.BeginCapture();
        try
        {
            EnqueueAll();
            return device.EndCapture();
        }
        catch (Exception e) when (e is NativeException or NotSupportedException && device.Fault is null)
        {
            // Something in the step cannot be recorded; it runs as before, only slower.
            device.AbandonCapture();
            _refusal = $"kernel by kernel; recording failed: {e.Message}";
            return null;
        }
    }

    private void EnqueueAll()
    {
        foreach (CudnnKernel kernel in kernels)
        {
            kernel.Enqueue();
        }
    }
}
