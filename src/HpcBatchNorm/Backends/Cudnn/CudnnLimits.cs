using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>
/// What the device can do at best: kernels that only multiply, or only copy (native/kernels/probe.cu), and cuDNN's fastest product of large matrices, timed by
/// events.
/// </summary>
internal sealed class CudnnLimits(CudaDevice device, CudaModules modules, CudnnHandle cudnn)
{
    /// <summary>A probe runs longer until one launch takes this.</summary>
    private const float LeastMilliseconds = 5;

    private const int MostIterations = 1 << 20, Repetitions = 3, Threads = 256, Warp = 32;

    private readonly LaunchShape _full = new(device.Multiprocessors * 8, 1, 1, Threads, 1, 0);

    public MachineLimits Measure()
    {
        device.Enter();
        long threads = (long)_full.GridX * Threads;

        // Eight multiply-adds per thread and iteration; eight products of 16x8x16 per warp and iteration.
        double single = Rate(DataType.Float32, "probe_multiply_add", threads * 8 * 2, [BitConverter.SingleToUInt32Bits(0.999f), BitConverter.SingleToUInt32Bits(0.001f)]);
        double? narrow = device.Major < 8 ? null : Rate(DataType.BFloat16, "probe_tensor_core", threads / Warp * 8 * 2 * 16 * 8 * 16, [0x3F803F80]);
        if (narrow is double ofOneWarp)
        {
            // From compute capability 9.0 on tensor cores are at their fastest only in products of several warps together, which cuDNN has.
            narrow = Math.Max(ofOneWarp, ProductRate() ?? 0);
        }

        return new MachineLimits(single / 1e9, narrow / 1e9, CopyRate() / 1e9);
    }

    /// <summary>Operations per second of a 1x1 convolution whose three matrices have equal sides, in bf16; null where cuDNN refuses it.</summary>
    private double? ProductRate()
    {
        const int Height = 64;
        const long Workspace = 64L << 20;
        const string Name = "measuring the device";
        int side = device.Multiprocessors * Height;
        long bytes = (long)side * side * sizeof(ushort);
        List<IDisposable> made = [];
        try
        {
            CudnnDescriptor Matrix()
            {
                CudnnDescriptor descriptor = cudnn.Tensor(CudnnApi.BFloat16, 1, side, Height, device.Multiprocessors, side, Name);
                made.Add(descriptor);
                return descriptor;
            }

            CudnnDescriptor weights = cudnn.Filter(CudnnApi.BFloat16, side, side, 1, 1, Name);
            made.Add(weights);
            CudnnDescriptor arithmetic = cudnn.Convolution(0, 0, 1, 1, 1, 1, 1, CudnnApi.MathTensorOp, Name);
            made.Add(arithmetic);
            using CudnnConvolution product = new(cudnn, CudnnPass.Forward, Matrix(), weights, arithmetic, Matrix(), Name);
            using CudaDeviceMemory a = new(device, bytes), b = new(device, bytes), c = new(device, bytes), workspace = new(device, Workspace);
            CudnnAlgorithm? best = null;
            for (int search = 0; search < 2; search++)
            {
                best = product.Search(a.Address, b.Address, c.Address, workspace.Address, Workspace).MinBy(r => r.Milliseconds);
            }

            if (best is null || product.WorkspaceBytes(best) is not { } needed || needed > Workspace)
            {
                return null;
            }

            float milliseconds = BestOf(() => product.Execute(a.Address, b.Address, c.Address, best.Algorithm, workspace.Address, needed));
            return 2.0 * side * side * side / (milliseconds * 1e-3);
        }
        catch (Exception e) when (e is NotSupportedException or OutOfMemoryException)
        {
            made.ForEach(m => m.Dispose());
            return null;
        }
    }

    private double Rate(DataType type, string kernel, double operationsPerIteration, uint[] numbers)
    {
        using CudaDeviceMemory unused = new(device, sizeof(float));
        CudaLaunch launch = new(device, modules.Function(type, kernel), 2 + numbers.Length, _full, () => "measuring the device");
        launch.Set(0, unused.Address);
        for (int i = 0; i < numbers.Length; i++)
        {
            launch.Set(2 + i, numbers[i]);
        }

        for (int iterations = 64; ; iterations *= 4)
        {
            launch.Set(1, iterations);
            float milliseconds = BestOf(launch.Launch);
            if (milliseconds >= LeastMilliseconds || iterations >= MostIterations)
            {
                return operationsPerIteration * iterations / (milliseconds * 1e-3);
            }
        }
    }

    /// <summary>Bytes per second of a copy beyond the last cache: each read once and written once.</summary>
    private double CopyRate()
    {
        const int Quad = 16;
        long bytes = Math.Max(8L * device.L2Bytes, 1 << 20) / Quad * Quad;
        using CudaDeviceMemory from = new(device, bytes), to = new(device, bytes);
        CudaLaunch launch = new(device, modules.Function(DataType.Float32, "probe_copy"), 3, _full, () => "measuring the device");
        launch.Set(0, from.Address);
        launch.Set(1, to.Address);
        launch.Set(2, (uint)(bytes / Quad));
        return 2.0 * bytes / (BestOf(launch.Launch) * 1e-3);
    }

    private float BestOf(Action launch)
    {
        using CudaEvent start = device.CreateEvent(timing: true), end = device.CreateEvent(timing: true);
        float best = float.PositiveInfinity;
        for (int i = 0; i < Repetitions; i++)
        {
            start.Record();
            launch();
            end.Record();
            end.WaitOnHost();
            best = Math.Min(best, end.Since(start));
        }

        return best;
    }
}
