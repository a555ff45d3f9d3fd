using System.Globalization;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Sessions;

/// <summary>One operation of a prepared plan, for tables.</summary>
internal sealed record PlanRow(int Index, string Operation, string Layer, string Dst, string Implementation, double MegaFlops, string Notes);

/// <summary>A prepared plan for people: rows and a summary.</summary>
internal static class PlanPrinter
{
    /// <summary>One row per operation.</summary>
    public static IReadOnlyList<PlanRow> Rows(PreparedPlan prepared) =>
    [
        .. prepared.Kernels.Select((kernel, i) => new PlanRow(
            i, kernel.Operation.Kind, kernel.Operation.Name, Describe(kernel.Operation), kernel.Implementation, kernel.Operation.Flops / 1e6, Notes(kernel))),
    ];

    /// <summary>What the plan is for, what it takes, which rules applied, which reorders remain and what runs on slow implementations.</summary>
    public static IReadOnlyList<string> Summary(PreparedPlan prepared)
    {
        Plan plan = prepared.Plan;
        PlanOptions options = plan.Options;
        string[] reorders = [.. prepared.Kernels.Where(k => k.Operation is Copy { Kind: "reorder" }).Select(k => k.Operation.Name)];
        string[] slow = [.. prepared.Kernels.Where(k => k.Implementation.Contains("ref:", StringComparison.Ordinal)).Select(k => $"{k.Operation.Name} ({k.Implementation})")];
        int widening = prepared.Kernels.Count(Widens);
        int converting = prepared.Kernels.Count(k => k.Conversions.Length > 0 && !Widens(k));
        int launches = prepared.Kernels.Sum(k => k.Launches);
        string[] device = launches == 0 ? [] :
        [
            string.Create(CultureInfo.InvariantCulture,
                $"device: {launches} launches and {prepared.Kernels.Sum(k => k.MemoryBytes) / 1e9:F3} GB of memory traffic per execution, caches left out"),
        ];
        return
        [
            string.Create(CultureInfo.InvariantCulture,
                $"{plan.Network.Name}, {(options is TrainingOptions ? "training" : "inference")}, batch {options.Batch}, {options.Height}x{options.Width}, {options.Precision.Word()}, backend {prepared.Backend.Name} ({prepared.Backend.Description})"),
            string.Create(CultureInfo.InvariantCulture,
                $"{plan.Shapes.ParameterCount:N0} parameters, {plan.Shapes.MultiplyAdds / 1e9 / options.Batch:F3} GMAC per image forward, {plan.Operations.Sum(o => o.Flops) / 1e9:F1} GFLOP per step, {plan.Operations.Count} operations"),
            string.Create(CultureInfo.InvariantCulture,
                $"memory: arena {Megabytes(prepared.ArenaBytes)} MB (without reuse {Megabytes(prepared.ArenaBytesWithoutReuse)}), state {Megabytes(prepared.StateBytes)} MB, total {Megabytes(prepared.ArenaBytes + prepared.StateBytes)} MB"),
            .. device,
            $"fusions: {(plan.Fusions.Count == 0 ? "none" : string.Join(", ", plan.Fusions.OrderBy(f => f.Key, StringComparer.Ordinal).Select(f => $"{f.Key} x{f.Value}")))}",
            $"reorders between layers: {(reorders.Length == 0 ? "none" : string.Join(", ", reorders))}",
            $"kernels that convert weights internally: {converting}",
            .. widening == 0 ? Array.Empty<string>() : [$"kernels of the library on copies widened to fp32: {widening}"],
            $"slow implementations: {(slow.Length == 0 ? "none" : string.Join(", ", slow))}",
        ];
    }

    private static bool Widens(Kernel kernel) => kernel.Implementation.Contains("widened", StringComparison.Ordinal);

    private static string Megabytes(long bytes) => (bytes / 1e6).ToString("F1", CultureInfo.InvariantCulture);

    private static string Describe(Operation operation)
    {
        Tensor[] written = [.. operation.Writes];
        return operation is SgdUpdate or AdamUpdate or AccumulateGradients or ClipGradients or UpdateAverage or ConvertParameters ? $"{written.Length} tensors" : written.Length > 0 ? written[0].ToString() : "";
    }

    private static string Notes(Kernel kernel)
    {
        string fused = kernel.Operation switch
        {
            BatchNormForward { Residual: not null, Spec.Relu: true } or BatchNormBackward { Spec: { Residual: true, Relu: true } } => "with sum and ReLU",
            BatchNormForward { Dst: null } => "statistics alone",
            ConvolutionForward { Normalization: { } n } => Normalizing(n),
            ConvolutionBackwardWeights { Normalization: { } n } => Normalizing(n),
            ConvolutionForward { Residual: not null, Relu: true } => "with sum and ReLU",
            ConvolutionForward { Residual: not null } => "with sum",
            BatchNormForward { Spec.Relu: true } or BatchNormBackward { Spec.Relu: true } => "with ReLU",
            ConvolutionForward { Relu: true } => "with ReLU",
            _ => "",
        };
        return string.Join("; ", new[] { fused, kernel.Conversions }.Where(n => n.Length > 0));

        static string Normalizing(SourceNormalization normalization) => normalization.Spec.Relu ? "normalizes src, with ReLU" : "normalizes src";
    }
}
