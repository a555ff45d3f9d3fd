using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Verification;

/// <summary>Faults that real backends have had. Each must be found, in the output it is in and in no other.</summary>
public sealed class PlantedFaultTests
{
    private static readonly Dictionary<string, (string Case, string[] Roles, AlteredBackend Backend)> Faults = new()
    {
        ["convolution padded one pixel off"] = ("convolution/3x3/random", ["dst"], Rewritten<ConvolutionForward>(o =>
            o with { Spec = o.Spec with { PadTop = o.Spec.PadTop + 1, PadBottom = o.Spec.PadBottom - 1 } })),
        ["stride where dilation belongs"] = ("convolution/3x3-dilation2/exact", ["dst"], Rewritten<ConvolutionForward>(o =>
            o with { Spec = o.Spec with { DilationW = 1, PadLeft = 1, PadRight = 1 } })),
        ["one tap of one weight gradient missing"] = ("convolution/3x3/exact", ["diffWeights"], Changed<ConvolutionBackwardWeights>(o => o.DiffWeights, v => v[17] -= 1)),
        ["bias forgotten"] = ("convolution/bias/random", ["dst"], Rewritten<ConvolutionForward>(o => o with { Bias = null, Spec = o.Spec with { Bias = false } })),
        ["bias gradient halved"] = ("convolution/bias/random", ["diffBias"], Changed<ConvolutionBackwardWeights>(o => o.DiffBias!, Scaled(0.5))),
        ["groups crossed"] = ("convolution/depthwise/random", ["diffSrc"], Changed<ConvolutionBackwardData>(o => o.DiffSrc, v => Array.Reverse(v))),
        ["running variance biased"] = ("batch-norm/basic/random", ["running variance"], Changed<BatchNormForward>(o => o.RunningVariance!, v =>
        {
            // m = 256: a difference of 1/255 of a tenth of the value.
            for (int i = 0; i < v.Length; i++)
            {
                v[i] *= 1 - 0.1 / 256;
            }
        })),
        ["variance unbiased"] = ("batch-norm/large-map/random", ["variance"], Changed<BatchNormForward>(o => o.Variance!, Scaled(6272.0 / 6271))),
        ["scale and shift swapped"] = ("batch-norm/relu/random", ["dst"], Rewritten<BatchNormForward>(o => o with { Scale = o.Shift, Shift = o.Scale })),
        ["epsilon of another library"] = ("batch-norm/tiny-batch/random", ["dst"], Rewritten<BatchNormForward>(o => o with { Spec = o.Spec with { Epsilon = 1e-4f } })),
        ["averaging factor complemented"] = ("batch-norm/relu/random", ["running mean", "running variance"],
            Rewritten<BatchNormForward>(o => o with { AveragingFactor = 1 - o.AveragingFactor })),
        ["ReLU forgotten backward"] = ("batch-norm/relu/random", ["diffShift", "diffScale", "diffSrc"],
            Rewritten<BatchNormBackward>(o => o with { Spec = o.Spec with { Relu = false } })),
        ["batch statistics treated as constants backward"] = ("batch-norm/basic/random", ["diffSrc"],
            Rewritten<BatchNormBackward>(o => o with { Statistics = BatchNormStatistics.Running })),
        ["variance by E[x2]-E[x]2 in single"] = ("batch-norm/large-offset/random", ["variance"], Changed<BatchNormForward>(o => o.Variance!, v =>
        {
            for (int i = 0; i < v.Length; i++)
            {
                v[i] = (float)(v[i] + 1e8) - 1e8;
            }
        })),
        ["a rank's gradient with its own sums"] = ("batch-norm/ranks-unequal/random", ["diffSrc"], Rewritten<BatchNormBackward>(o => o with { Synchronized = false })),
        ["joined running variance made unbiased by a rank's number of values"] = ("batch-norm/ranks-averaging-1/random", ["running variance"],
            Changed<BatchNormForward>(o => o.RunningVariance!, Scaled(63.0 / 64 * 16 / 15))),
        ["gradient of scale summed over ranks already"] = ("batch-norm/ranks-basic/random", ["diffScale"], Changed<BatchNormBackward>(o => o.DiffScale, Scaled(2))),
        ["padding counted in an average that excludes it"] = ("pooling/average-exclude/3x3-stride1-pad1/exact", ["dst"],
            Rewritten<PoolingForward>(o => o with { Spec = o.Spec with { Kind = PoolingKind.AverageIncludePadding } })),
        ["padding wins a maximum"] = ("pooling/max/negative-padded/random", ["dst"], Changed<PoolingForward>(o => o.Dst, v => v[0] = Math.Max(v[0], 0))),
        ["LRN divides by nothing"] = ("lrn/size5/random", ["dst"], Rewritten<LrnForward>(o => o with { Spec = o.Spec with { Alpha = o.Spec.Alpha * o.Spec.Size } })),
        ["dropout keeps its values unscaled"] = ("dropout/40%/random", ["dst"], Changed<Dropout>(o => o.Dst, Scaled(0.6))),
        ["dropout mask from another stream"] = ("dropout/late-step/random", ["dst"],
            Rewritten<Dropout>(o => o with { Spec = o.Spec with { Stream = o.Spec.Stream + 1 } })),
        ["concatenation one channel off"] = ("copy/concat-unaligned-plain", ["dst"], Changed<Copy>(o => o.Dst, v => Array.Reverse(v))),
        ["label smoothing forgotten"] = ("softmax-cross-entropy/smoothing/random", ["loss", "diffLogits"], Rewritten<SoftmaxCrossEntropy>(o => o with { LabelSmoothing = 0 })),
        ["gradient not divided by the batch"] = ("softmax-cross-entropy/1000-classes/random", ["diffLogits"], Changed<SoftmaxCrossEntropy>(o => o.DiffLogits!, Scaled(4))),
        ["weight decay left out"] = ("sgd/weight-decay/random", ["momentum", "parameter"], Rewritten<SgdUpdate>(o => o with { WeightDecay = 0 })),
        ["Nesterov taken for classical"] = ("sgd/nesterov/random", ["parameter"], Rewritten<SgdUpdate>(o => o with { Nesterov = false })),
        ["gradient scale ignored"] = ("sgd/scaled/random", ["momentum", "parameter"], Rewritten<SgdUpdate>(o => o with { GradientScale = null })),
        ["rate factor ignored"] = ("sgd/rate-factor/random", ["momentum", "parameter"], Rewritten<SgdUpdate>(o => o with { RateFactor = 1 })),
        ["decay coupled to the gradient's average"] = ("adam/weight-decay-scaled/random", ["parameter"], Rewritten<AdamUpdate>(o => o with { WeightDecay = 0 })),
        ["beta1 and beta2 swapped"] = ("adam/late/random", ["first moment", "second moment", "parameter"], Rewritten<AdamUpdate>(o => o with { Beta1 = o.Beta2, Beta2 = o.Beta1 })),
        ["epsilon of another optimizer"] = ("adam/first-step/random", ["parameter"], Rewritten<AdamUpdate>(o => o with { Epsilon = 1e-3f })),
        ["trust ratio left out"] = ("adam/lamb/random", ["parameter"], Rewritten<AdamUpdate>(o => o with { TrustRatio = false })),
        ["norm not clipped"] = ("clip-gradients/active/random", ["gradientScale"], Rewritten<ClipGradients>(o => o with { MaximumNorm = 1e9f })),
        ["average decays the wrong way"] = ("update-average/0.9999/random", ["average"], Rewritten<UpdateAverage>(o => o with { Decay = 1 - o.Decay })),
        ["pixels not centred"] = ("prepare-input/rgb-plain/random", ["dst"], Rewritten<PrepareInput>(o => o with { Mean = [0, 0, 0] })),
    };

    public static TheoryData<string> FaultNames => [.. Faults.Keys];

    [Theory]
    [MemberData(nameof(FaultNames))]
    public void Run_PlantedFault_IsReportedInItsOutput(string fault)
    {
        (string name, string[] roles, AlteredBackend backend) = Faults[fault];
        using ReferenceBackend reference = new();
        CaseResult result = Verifier.Run(backend, reference, Case(name));
        Assert.False(result.Passed);
        Assert.Empty(result.Problems);
        Assert.Equal(roles.Order(), result.Tensors.Where(t => t.Failed > 0).Select(t => t.Role).Distinct().Order());
        Assert.Contains($"reproduce: hpcbn verify --backend altered --case {(name.Contains('%', StringComparison.Ordinal) ? $"'{name}'" : name)}",
            result.Describe(), StringComparison.Ordinal);
    }

    [Fact]
    public void Run_WriteBesideTheSlice_IsReported()
    {
        CaseResult result = RunAltered("batch-norm/slice-relu/random", Changed<BatchNormForward>(o => o.Dst!.Root, v => v[0] += 1e-3));
        Assert.Contains("changed dst.whole where it has nothing to write: channel 0 of image 0", Assert.Single(result.Problems), StringComparison.Ordinal);
    }

    [Fact]
    public void Run_InputOverwritten_IsReported()
    {
        CaseResult result = RunAltered("convolution/1x1/random", Changed<ConvolutionForward>(o => o.Weights, v => v[3] = 0));
        Assert.Contains(result.Problems, p => p.Contains("changed weights where it has nothing to write", StringComparison.Ordinal));
    }

    [Fact]
    public void Run_ElementNotWritten_IsReported()
    {
        CaseResult result = RunAltered("copy/plain/random", Changed<Copy>(o => o.Dst, v => v[^1] = double.NaN));
        TensorResult failed = Assert.Single(result.Tensors, t => t.Failed > 0);
        Assert.Equal((1, "2,4,1,1"), (failed.Failed, failed.Worst.Position));
    }

    [Fact]
    public void Run_OtherBitsTheSecondTime_IsReported()
    {
        int runs = 0;
        CaseResult result = RunAltered("convolution/3x3/random", Changed<ConvolutionForward>(o => o.Dst, v => v[5] *= runs++ == 0 ? 1 : 1 + 1.2e-7));
        Assert.Equal("a second run gives other bits in dst, first at element 5", Assert.Single(result.Problems));
        Assert.Equal(0, result.Tensors.Sum(t => t.Failed));
    }

    [Fact]
    public void Run_RankWithItsOwnStatistics_IsReported()
    {
        CaseResult result = RunAltered("batch-norm/ranks-unequal/random", Rewritten<BatchNormForward>(o => o with { Synchronized = false }));
        Assert.Contains("mean of rank 1 is not that of rank 0", result.Problems);
        Assert.Contains("dst", result.Tensors.Where(t => t.Failed > 0).Select(t => t.Role));
    }

    [Fact]
    public void Run_ExceptionInACase_IsAFailureAndTheNextCaseRuns()
    {
        AlteredBackend backend = Rewritten<Copy>(o => throw new NotSupportedException("no copies today"));
        using ReferenceBackend reference = new();
        VerificationReport report = Verifier.Run(
            backend, reference, [Case("copy/plain/random"), Case("sum/two/exact")], null, TestContext.Current.CancellationToken);
        Assert.Equal((2, 1), (report.Cases, report.Failed));
        Assert.Equal("NotSupportedException: no copies today", Assert.Single(report.Results[0].Problems));
        Assert.Same(report.Results[0], report.Worst);
    }

    private static CaseResult RunAltered(string name, AlteredBackend backend)
    {
        using ReferenceBackend reference = new();
        return Verifier.Run(backend, reference, Case(name));
    }

    private static VerificationCase Case(string name) => HardCases.For(new BackendTraits(16, true, CustomOperations: true, TrainingVariants: true)).Single(c => c.Name == name);

    private static AlteredBackend Rewritten<T>(Func<T, Operation> rewrite)
        where T : Operation => new() { Rewrite = o => o is T operation ? rewrite(operation) : o };

    private static AlteredBackend Changed<T>(Func<T, Tensor> tensor, Action<double[]> change)
        where T : Operation => new()
        {
            After = (operation, values) =>
            {
                if (operation is T wanted)
                {
                    values.Change(tensor(wanted), change);
                }
            },
        };

    private static Action<double[]> Scaled(double factor) => values =>
    {
        for (int i = 0; i < values.Length; i++)
        {
            values[i] *= factor;
        }
    };
}
