using HpcBatchNorm.Interop.Cuda;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>What the device can do at best: kernels that only multiply, or only copy (native/kernels/probe.cu), timed by events.</summary>
internal sealed class CudnnLimits(CudaDevice device, CudaModules modules)
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
        return new MachineLimits(single / 1e9, narrow / 1e9, CopyRate() / 1e9);
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
            float milliseconds = BestOf(launch);
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
        return 2.0 * bytes / (BestOf(launch) * 1e-3);
    }

    private float BestOf(CudaLaunch launch)
    {
        using CudaEvent start = device.CreateEvent(timing: true), end = device.CreateEvent(timing: true);
        float best = float.PositiveInfinity;
        for (int i = 0; i < Repetitions; i++)
        {
            start.Record();
            launch.Launch();
            end.Record();
            end.WaitOnHost();
            best = Math.Min(best, end.Since(start));
        }

        return best;
    }
}
