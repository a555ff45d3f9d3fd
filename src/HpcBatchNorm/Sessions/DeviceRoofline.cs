using System.Globalization;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;

namespace HpcBatchNorm.Sessions;

/// <summary>What a GPU can do at most, by its data sheet: products are dense ones.</summary>
/// <param name="Key">By which it is asked for.</param>
/// <param name="Name">For people.</param>
/// <param name="Architecture">Compute capability: 90 is 9.0.</param>
/// <param name="BytesPerSecond">Of its memory.</param>
/// <param name="Single">FLOP/s in single precision, without tensor cores.</param>
/// <param name="Tf32">FLOP/s of tensor cores with 10 bits of significand.</param>
/// <param name="Narrow">FLOP/s of tensor cores in bf16 and fp16.</param>
internal sealed record GpuModel(string Key, string Name, int Architecture, double BytesPerSecond, double Single, double Tf32, double Narrow)
{
    /// <summary>Those known by name. Sources: NVIDIA's data sheets of H100 (SXM), H200 (SXM) and A100 (SXM, 80 GB).</summary>
    public static IReadOnlyList<GpuModel> All { get; } =
    [
        new("h100", "H100 SXM", 90, 3.35e12, 66.9e12, 494.7e12, 989.4e12),
        new("h200", "H200 SXM", 90, 4.8e12, 66.9e12, 494.7e12, 989.4e12),
        new("a100", "A100 SXM 80 GB", 80, 2.039e12, 19.5e12, 156e12, 312e12),
    ];

    /// <summary>The one of a name.</summary>
    /// <exception cref="UserErrorException">There is none.</exception>
    public static GpuModel Find(string key) => All.FirstOrDefault(m => m.Key.Equals(key, StringComparison.OrdinalIgnoreCase))
        ?? throw new UserErrorException($"No GPU '{key}' is known; there are {string.Join(", ", All.Select(m => m.Key))}.");
}

/// <summary>All launches of a kernel in one execution of a plan.</summary>
/// <param name="Kernel">Its name.</param>
/// <param name="Launches">How many.</param>
/// <param name="Blocks">Blocks of the smallest and of the largest grid; empty for a library's.</param>
/// <param name="Resources">What the compiler made of it; null where that is not known.</param>
/// <param name="SharedBytes">Shared memory of a block, at most.</param>
/// <param name="Bytes">Device memory read and written by all launches.</param>
/// <param name="Flops">Multiplications and additions of all launches.</param>
/// <param name="Seconds">The roofline's: the sum over the launches of what memory or arithmetic takes at least.</param>
/// <param name="MemorySeconds">What memory alone takes.</param>
internal sealed record KernelRow(
    string Kernel, int Launches, string Blocks, KernelResources? Resources, int SharedBytes, long Bytes, double Flops, double Seconds, double MemorySeconds);

/// <summary>
/// The least time a plan can take on a GPU (Williams, Waterman and Patterson, Roofline, 2009): each launch takes as long as its bytes through the memory or
/// its operations through the arithmetic, whichever is longer. Caches are left out of account, and so is what a launch itself takes.
/// </summary>
internal sealed class DeviceRoofline(PreparedPlan prepared, GpuModel gpu)
{
    /// <summary>What a kernel of a recorded step takes at least, whatever it does: it begins when the one before it has ended.</summary>
    private const double LaunchSeconds = 2e-6;

    /// <summary>Seconds of each operation, in the plan's order.</summary>
    public IReadOnlyList<double> OperationSeconds { get; } = [.. prepared.Kernels.Select(k => Works(k).Sum(w => Seconds(prepared, gpu, w)))];

    /// <summary>The kernels, by time.</summary>
    public IReadOnlyList<KernelRow> Rows { get; } =
    [
        .. prepared.Kernels.SelectMany(Works).GroupBy(w => (w.Launch.Kernel, w.Launch.IsLibrary)).Select(g =>
        {
            DeviceLaunch first = g.First().Launch;
            int least = g.Min(w => w.Launch.Blocks), most = g.Max(w => w.Launch.Blocks);
            KernelResources? resources = first.IsLibrary ? null : prepared.Backend.ResourcesOf(first.Kernel, first.Type, gpu.Architecture);
            return new KernelRow(
                first.Kernel, g.Count(), first.IsLibrary ? "" : least == most ? Invariant($"{least}") : Invariant($"{least}-{most}"), resources,
                (resources?.StaticSharedBytes ?? 0) + g.Max(w => w.Launch.SharedBytes), g.Sum(w => w.Launch.Bytes), g.Sum(w => w.Flops),
                g.Sum(w => Seconds(prepared, gpu, w)), g.Sum(w => w.Launch.Bytes / gpu.BytesPerSecond));
        }).OrderByDescending(r => r.Seconds).ThenBy(r => r.Kernel, StringComparer.Ordinal),
    ];

    /// <summary>What the table is about, and what it comes to.</summary>
    public IReadOnlyList<string> Summary
    {
        get
        {
            double all = Rows.Sum(r => r.Seconds), library = Rows.Where(r => r.Blocks.Length == 0).Sum(r => r.Seconds);
            int launches = Rows.Sum(r => r.Launches), brief = prepared.Kernels.SelectMany(Works).Count(w => Seconds(prepared, gpu, w) < LaunchSeconds);
            Precision precision = prepared.Plan.Options.Precision;
            string[] compilers = [.. Rows.Select(r => r.Resources?.Compiler).OfType<string>().Distinct()];
            return
            [
                Invariant($"roofline of an {gpu.Name} ({gpu.BytesPerSecond / 1e9:F0} GB/s; {Peak(gpu, precision, true) / 1e12:F1} TFLOP/s in {precision.Word()} by the library, {gpu.Single / 1e12:F1} in ours; without caches and launches): {all * 1e3:F3} ms per execution, {library * 1e3:F3} of them the library's"),
                Invariant($"{brief} of {launches} launches have less than {LaunchSeconds * 1e6:F0} us to do, where the launch itself decides"),
                .. compilers.Select(c => $"registers, spilled bytes and static shared memory by {c}"),
            ];
        }
    }

    /// <summary>Launches of a kernel with the operation's arithmetic, which is the library's where it is called, else the first launch's.</summary>
    private static IEnumerable<(DeviceLaunch Launch, double Flops)> Works(Kernel kernel)
    {
        IReadOnlyList<DeviceLaunch> launches = kernel.DeviceLaunches;
        int main = Math.Max(0, launches.ToList().FindIndex(l => l.IsLibrary));
        return launches.Select((l, i) => (l, i == main ? (double)kernel.Operation.Flops : 0));
    }

    private static double Seconds(PreparedPlan prepared, GpuModel gpu, (DeviceLaunch Launch, double Flops) work) => Math.Max(
        work.Launch.Bytes / gpu.BytesPerSecond, work.Flops / Peak(gpu, prepared.Plan.Options.Precision, work.Launch.IsLibrary));

    private static double Peak(GpuModel gpu, Precision precision, bool library) =>
        !library || precision == Precision.Fp32 ? gpu.Single : precision == Precision.Tf32 ? gpu.Tf32 : gpu.Narrow;

    private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
