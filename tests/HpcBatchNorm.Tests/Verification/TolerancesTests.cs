using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Support;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Tests.Verification;

public sealed class TolerancesTests
{
    [Theory]
    [InlineData("convolution/3x3/exact")]
    [InlineData("convolution/7x7-stride2-image/exact")]
    [InlineData("inner-product/1024-1000/exact")]
    [InlineData("pooling/max/ties/exact")]
    [InlineData("sum/five/exact")]
    public void Exact_OneUnitInTheLastPlace_IsTooMuch(string name) =>
        AssertFound(name, (value, _) => value == 0 ? 1e-6 : MathF.BitIncrement((float)value));

    /// <summary>An error of four times the bound is found in each output; a tenth of the bound in all of them is not.</summary>
    [Theory]
    [InlineData("convolution/3x3/random")]
    [InlineData("convolution/depthwise/random")]
    [InlineData("batch-norm/relu/random")]
    [InlineData("batch-norm/large-offset/random")]
    [InlineData("lrn/size5/random")]
    [InlineData("softmax-cross-entropy/1000-classes/random")]
    [InlineData("sgd/nesterov/random")]
    public void Random_ErrorBeyondTheBound_Fails(string name)
    {
        AssertFound(name, (value, bound) => value + 4 * bound + 1e-30);
        VerificationCase verificationCase = Case(name);
        Dictionary<string, double> bounds = Bounds(verificationCase);
        using ReferenceBackend reference = new();
        using AlteredBackend altered = Altered(_ => true, (tensor, v) => v[0] += 0.1 * bounds[tensor.Name]);
        Assert.True(Verifier.Run(altered, reference, verificationCase).Passed);
    }

    /// <summary>Values one part in a thousand too large are found in every output of every case: bounds are for rounding, not for carelessness.</summary>
    [Fact]
    public void HardCases_OutputsScaledByAThousandth_AllFail()
    {
        using ReferenceBackend reference = new();
        using AlteredBackend altered = Altered(_ => true, (_, v) =>
        {
            for (int i = 0; i < v.Length; i++)
            {
                v[i] *= 1 + 1e-3;
            }
        });
        foreach (VerificationCase verificationCase in HardCases.For(new BackendTraits(16, true)))
        {
            // Outputs that the error of another output of the same operation explains are not wrong by themselves.
            foreach (TensorResult tensor in Verifier.Run(altered, reference, verificationCase).Tensors.Where(t => t.Role is not ("running mean" or "running variance")
                && !(t.Operation.StartsWith("batch-norm", StringComparison.Ordinal) && t.Role is "dst" or "diffSrc")))
            {
                Assert.True(tensor.Failed > 0 || tensor.Worst.Error == 0, $"{verificationCase.Name}: {tensor.Role} of {tensor.Operation} {tensor.Worst}");
            }
        }
    }

    /// <summary>In bf16 a value three parts in a hundred too large is found everywhere: a unit in the last place is at most 2^-7, and two may be missing.</summary>
    [Fact]
    public void HardCases_InBf16OutputsScaledByThreeHundredths_AllFail()
    {
        using ReferenceBackend reference = new();
        using AlteredBackend altered = Altered(_ => true, (_, v) =>
        {
            for (int i = 0; i < v.Length; i++)
            {
                v[i] *= 1.03;
            }
        });
        foreach (VerificationCase verificationCase in HardCases.For(new BackendTraits(16, true), Precision.Bf16))
        {
            foreach (TensorResult tensor in Verifier.Run(altered, reference, verificationCase).Tensors.Where(t => t.Role is not ("running mean" or "running variance")
                && !(t.Operation.StartsWith("batch-norm", StringComparison.Ordinal) && t.Role is "dst" or "diffSrc")))
            {
                Assert.True(tensor.Failed > 0 || tensor.Worst.Error == 0, $"{verificationCase.Name}: {tensor.Role} of {tensor.Operation} {tensor.Worst}");
            }
        }
    }

    /// <summary>Truncation instead of rounding is found where the result is exact but for the store.</summary>
    [Fact]
    public void HardCases_InBf16TowardsZero_FailWhereOnlyTheStoreRounds()
    {
        using ReferenceBackend reference = new();
        foreach (string name in new[] { "convert-parameters/uniform/random", "convert-parameters/ties/random", "copy/from-single/random" })
        {
            VerificationCase wanted = HardCases.For(new BackendTraits(16, true), Precision.Bf16).Single(c => c.Name == name);
            using AlteredBackend truncating = new()
            {
                After = (operation, access) =>
                {
                    foreach ((Tensor from, Tensor to) in operation.Reads.Zip(operation.Writes))
                    {
                        access.Write(to, Array.ConvertAll(access.Read(from), v => (double)BitConverter.UInt32BitsToSingle(BitConverter.SingleToUInt32Bits((float)v) & 0xFFFF0000u)));
                    }
                },
            };
            Assert.False(Verifier.Run(truncating, reference, wanted).Passed, name);
        }
    }

    [Fact]
    public void Stored_AddsOneRoundingPerSideButNothingToAnExactResult()
    {
        Assert.Equal(Tolerance.Floor, Tolerances.Stored(DataType.BFloat16, Tolerance.Floor, 1));
        Assert.InRange(Tolerances.Stored(DataType.BFloat16, 1e-6, 1), 2.0 / 256, 2.1 / 256);
        Assert.InRange(Tolerances.Stored(DataType.Float16, 1e-6, 1), 2.0 / 2048, 2.1 / 2048);
    }

    [Fact]
    public void Of_Winograd_IsWiderThanDirect()
    {
        Tolerance direct = Tolerances.Of("convolution forward", "dst"), winograd = Tolerances.Of("convolution forward", "dst", Arithmetic.Winograd);
        Assert.True(winograd.Bound(InputKind.Random, 1, 1, 576) > direct.Bound(InputKind.Random, 1, 1, 576));
        Assert.Equal(Tolerance.Floor, direct.Bound(InputKind.Exact, 1, 1, 576));
        Assert.True(winograd.Bound(InputKind.Exact, 1, 1, 576) > 0);
    }

    [Theory]
    [InlineData("convolution forward", "jit_wino_4x3:avx512_core", Arithmetic.Winograd)]
    [InlineData("convolution forward", "winograd:hbn:avx2", Arithmetic.NativeWinograd)]
    [InlineData("convolution forward", "jit:avx512_core", Arithmetic.Ordinary)]
    [InlineData("batch-norm forward", "native", Arithmetic.Ordinary)]
    [InlineData("batch-norm forward", "reference", Arithmetic.Ordinary)]
    [InlineData("batch-norm forward", "bnorm_jit:avx512_core", Arithmetic.UnshiftedStatistics)]
    [InlineData("batch-norm backward", "native", Arithmetic.Ordinary)]
    [InlineData("batch-norm backward", "bnorm_jit:avx512_core", Arithmetic.RunningSums)]
    public void ArithmeticOf_ImplementationName_Tells(string kind, string implementation, Arithmetic expected) =>
        Assert.Equal(expected, Tolerances.ArithmeticOf(kind, implementation));

    [Fact]
    public void Of_UnknownOutput_Throws() =>
        Assert.Contains("no entry for dst of fusion", Assert.Throws<ArgumentException>(() => Tolerances.Of("fusion", "dst")).Message, StringComparison.Ordinal);

    [Fact]
    public void Bounds_ReluMaskRecomputedNearZero_AllowsEitherAnswerThereOnly()
    {
        // Two values per channel, normalised to -1 and 1; shift 1 puts the first pre-activation within rounding of 0, shift 0 does not.
        BatchNormSpec spec = new(new(1, 2, 1, 2), Epsilon: 0, Relu: true);
        Tensor Vector(string n) => new(n, spec.Parameters, TensorRole.Parameter);
        Tensor src = new("src", spec.Src, TensorRole.Activation), diffDst = new("diffDst", spec.Src, TensorRole.Gradient), diffSrc = new("diffSrc", spec.Src, TensorRole.Gradient);
        Tensor scale = Vector("scale"), shift = Vector("shift"), mean = Vector("mean"), variance = Vector("variance");
        BatchNormBackward operation = new("bn", spec)
        {
            Src = src,
            Scale = scale,
            Shift = shift,
            Mean = mean,
            Variance = variance,
            DiffDst = diffDst,
            DiffSrc = diffSrc,
            DiffScale = Vector("diffScale"),
            DiffShift = Vector("diffShift"),
        };
        Dictionary<Tensor, double[]> inputs = new()
        {
            [src] = [-1, 1, -1, 1],
            [diffDst] = [0.5, 0.25, 0.5, 0.25],
            [scale] = [1, 1],
            [shift] = [1, 0],
            [mean] = [0, 0],
            [variance] = [1, 1],
        };
        OperationValues values = new(InputKind.Random, default, inputs);
        foreach (Tensor output in operation.Writes)
        {
            values.Expected[output] = values.Actual[output] = new double[output.Shape.Count];
        }

        Dictionary<string, double[]> bounds = ErrorModel.Bounds(operation, values, "native").ToDictionary(b => b.Role, b => b.Bound);
        Assert.InRange(bounds["diffShift"][0], 0.5, 0.5 + 1e-5);
        Assert.InRange(bounds["diffShift"][1], 0, 1e-5);
        Assert.InRange(bounds["diffSrc"][0], 0.5, 0.5 + 1e-5);
        Assert.All(bounds["diffSrc"].Skip(1), b => Assert.InRange(b, 0, 1e-5));
    }

    /// <summary>Changes the first element of one output after the other, as a function of value and bound; each must be reported, and alone.</summary>
    private static void AssertFound(string name, Func<double, double, double> change)
    {
        VerificationCase verificationCase = Case(name);
        Dictionary<string, double> bounds = Bounds(verificationCase);
        using ReferenceBackend reference = new();
        foreach (string output in bounds.Keys)
        {
            using AlteredBackend altered = Altered(tensor => tensor.Name == output, (_, v) => v[0] = change(v[0], bounds[output]));
            TensorResult failed = Assert.Single(Verifier.Run(altered, reference, verificationCase).Tensors, t => t.Failed > 0);
            Assert.Equal((output, 1, "0,0,0,0"), (failed.Tensor, failed.Failed, failed.Worst.Position));
        }
    }

    /// <summary>The bound of each output's first element, which is the worst where nothing is wrong.</summary>
    private static Dictionary<string, double> Bounds(VerificationCase verificationCase)
    {
        using ReferenceBackend reference = new(), clean = new();
        return Verifier.Run(clean, reference, verificationCase).Tensors.ToDictionary(t => t.Tensor, t => t.Worst.Bound);
    }

    private static VerificationCase Case(string name) => HardCases.For(new BackendTraits(16, true)).Single(c => c.Name == name);

    private static AlteredBackend Altered(Func<Tensor, bool> which, Action<Tensor, double[]> change) => new()
    {
        After = (operation, values) =>
        {
            foreach (Tensor tensor in operation.Writes.Where(t => t.Role != TensorRole.Workspace && which(t)))
            {
                values.Change(tensor, v => change(tensor, v));
            }
        },
    };
}
