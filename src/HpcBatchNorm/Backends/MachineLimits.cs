using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Backends;

/// <summary>What a machine can do at best, as measured by <see cref="Backend.MeasureLimits"/>.</summary>
/// <param name="Fp32Gflops">10^9 fp32 operations per second of multiply-adds on registers, two per multiply-add.</param>
/// <param name="Bf16Gflops">
/// The same of bfloat16 dot products into fp32, on a GPU of the tensor cores' warp-wide products or of cuDNN's product of large matrices, whichever is the
/// faster; null where the processor has none.
/// </param>
/// <param name="TriadGbs">
/// 10^9 bytes per second of a = b + s*c on arrays beyond every cache, two reads and one write counted; on a GPU of a copy, one read and one write.
/// </param>
internal sealed record MachineLimits(double Fp32Gflops, double? Bf16Gflops, double TriadGbs)
{
    /// <summary>The arithmetic limit of a precision.</summary>
    public double Gflops(Precision precision) => precision is Precision.Bf16 or Precision.Fp16 && Bf16Gflops is double narrow ? narrow : Fp32Gflops;

    /// <summary>Seconds that work must take at least: its arithmetic or its memory traffic, whichever takes longer.</summary>
    public double LeastSeconds(Precision precision, double flops, double bytes) =>
        Math.Max(flops / (Gflops(precision) * 1e9), bytes / (TriadGbs * 1e9));
}
