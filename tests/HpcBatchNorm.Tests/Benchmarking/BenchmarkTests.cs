using System.Text.Json;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Models;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Native;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Verification;
using HpcBatchNorm.Verification.Benchmarking;

namespace HpcBatchNorm.Tests.Benchmarking;

public sealed class BenchmarkTests
{
    private static readonly Shape Src = new(2, 16, 8, 8);

    [Fact]
    public void MinimumBytes_BatchNorm_CountsWhatIsReadTwice()
    {
        Plan plan = TrainingSession.PlanFor(
            new BackendTraits(16, BatchNormTakesSlices: true), NetworkCatalog.Create("bn-inception", new NetworkOptions()), new TrainingOptions { Batch = 2, Height = 64, Width = 64 });
        BatchNormForward forward = plan.Operations.OfType<BatchNormForward>().First();
        BatchNormBackward backward = plan.Operations.OfType<BatchNormBackward>().Single(o => o.Name == forward.Name);
        long map = 4 * forward.Src.Shape.Count, channels = 4 * forward.Src.Shape.C;

        // src twice, dst; scale, shift, two running statistics read and written, mean and variance written.
        Assert.Equal((3 * map) + (8 * channels), forward.MinimumBytes);
        // src and diffDst twice, diffSrc; scale, shift, mean, variance read, two gradients written.
        Assert.Equal((5 * map) + (6 * channels), backward.MinimumBytes);
    }

    [Fact]
    public void Run_OfATrainingStep_TimesEveryOperationAndAllocatesNothing()
    {
        using Backend backend = OneDnn.Create();
        var request = new BenchmarkRequest { Network = "inception-tiny", NetworkOptions = new NetworkOptions { Classes = 10 }, Options = new TrainingOptions { Batch = 2, Height = 32, Width = 32 }, Steps = 3 };

        Assert.True(request.Verify(backend).Passed);
        BenchmarkResult result = request.Run(backend);

        Plan plan = TrainingSession.PlanFor(backend.Traits, NetworkCatalog.Create("inception-tiny", request.NetworkOptions), (TrainingOptions)request.Options);
        Assert.Equal(plan.Operations.Select(o => (o.Name, o.Kind)), result.Rows.Select(r => (r.Name, r.Operation)));
        Assert.Equal(0, result.AllocatedBytesPerStep);
        Assert.Equal(3, result.StepSeconds.Count);
        Assert.All(result.Rows, r => Assert.True(r.Seconds > 0 && r.LeastSeconds > 0));
        Assert.Equal(plan.Operations.Sum(o => o.Flops), result.Rows.Sum(r => r.Flops));
        Assert.InRange(result.OutsideShare, 0, 1);

        // Registers are faster than memory on any machine; the triad alone moves more than a hundredth of what the processor computes.
        Assert.InRange(result.Limits!.Fp32Gflops, 1, 1e6);
        Assert.InRange(result.Limits.TriadGbs, 0.1, 1e4);

        string trace = Path.Combine(Directory.CreateTempSubdirectory("hpcbn-trace").FullName, "trace.json");
        ChromeTrace.Write(trace, "test", result);
        using var document = JsonDocument.Parse(File.ReadAllText(trace));
        JsonElement[] events = [.. document.RootElement.GetProperty("traceEvents").EnumerateArray().Where(e => e.GetProperty("ph").GetString() == "X")];
        Assert.Equal(result.Rows.Count, events.Length);
        for (int i = 1; i < events.Length; i++)
        {
            double end = events[i - 1].GetProperty("ts").GetDouble() + events[i - 1].GetProperty("dur").GetDouble();
            Assert.True(events[i].GetProperty("ts").GetDouble() >= end - 0.01, "operations run one after the other");
        }

        File.Delete(trace);
    }

    [Fact]
    public void Run_OfInference_IsVerifiedBufferByBuffer()
    {
        using Backend backend = OneDnn.Create();
        var request = new BenchmarkRequest { Network = "inception-tiny", NetworkOptions = new NetworkOptions { Classes = 10 }, Options = new InferenceOptions { Batch = 2, Height = 32, Width = 32 }, Steps = 1 };

        CaseResult verified = request.Verify(backend);
        Assert.Equal("inference", verified.Case.Name);
        Assert.Contains(verified.Tensors, t => t.Role == "probabilities");
        Assert.DoesNotContain(request.Run(backend).Rows, r => r.Operation.Contains("backward", StringComparison.Ordinal));
    }

    [Fact]
    public void Layer_WhoseResultIsWrong_IsNotTimed()
    {
        using Backend reference = Backend.Create("reference");
        using var wrong = new AlteredBackend
        {
            Rewrite = o => o is ConvolutionForward c ? c with { Spec = c.Spec with { PadTop = c.Spec.PadTop + 1, PadBottom = c.Spec.PadBottom - 1 } } : o,
        };
        var problem = new ShapeProblem("layer", 1, ConvolutionSpec.Square(Src, 16, 3, pad: 1), null);

        UserErrorException error = Assert.Throws<UserErrorException>(() => LayerBenchmark.Run(wrong, reference, problem, Precision.Fp32, null));
        Assert.StartsWith("Not timed, as it differs from the reference.", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Layer_Rows_AreItsDirections()
    {
        using Backend reference = Backend.Create("reference");
        using Backend backend = OneDnn.Create();
        var problem = new ShapeProblem("layer", 1, null, new BatchNormSpec(Src, 1e-5f));

        IReadOnlyList<BenchmarkRow> rows = LayerBenchmark.Run(backend, reference, problem, Precision.Fp32, null);

        Assert.Equal(["batch-norm forward", "batch-norm backward"], rows.Select(r => r.Operation));
        Assert.All(rows, r => Assert.Null(r.ShareOfLimit));
    }
}
