using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Tests.Planning;

/// <summary>The 16-bit types, and what of a plan is stored in them.</summary>
public class PrecisionTests
{
    private static readonly BackendTraits Blocks = new(16, BatchNormTakesSlices: true);

    // bfloat16 has 7 stored bits of significand: between 1 and 2 numbers are 2^-7 apart.
    [Theory]
    [InlineData(1.0, 1.0)]
    [InlineData(1.00390625, 1.0)] // 1 + 2^-8, half way: to even
    [InlineData(1.01171875, 1.015625)] // 1 + 3 * 2^-8, half way: to even
    [InlineData(1.00390626, 1.0078125)]
    [InlineData(-1.01171875, -1.015625)]
    [InlineData(257.0, 256.0)]
    [InlineData(259.0, 260.0)]
    [InlineData(3.3895313892515355e38, 3.3895313892515355e38)] // the largest
    [InlineData(3.4e38, double.PositiveInfinity)]
    [InlineData(-1e300, double.NegativeInfinity)]
    [InlineData(9.183549615799121e-41, 9.183549615799121e-41)] // the smallest
    [InlineData(4.5e-41, 0.0)]
    [InlineData(double.NaN, double.NaN)]
    public void Round_ToBFloat16_IsToNearestTiesToEven(double value, double expected) => Assert.Equal(expected, DataType.BFloat16.Round(value));

    [Theory]
    [InlineData(1.00048828125, 1.0)] // 1 + 2^-11, half way
    [InlineData(65519.0, 65504.0)]
    [InlineData(65520.0, double.PositiveInfinity)]
    public void Round_ToFloat16_IsToNearestTiesToEven(double value, double expected) => Assert.Equal(expected, DataType.Float16.Round(value));

    [Fact]
    public void Round_OfEveryBFloat16_IsItself()
    {
        for (uint bits = 0; bits <= 0xFFFF; bits++)
        {
            double value = BitConverter.UInt32BitsToSingle(bits << 16);
            Assert.Equal(value, DataType.BFloat16.Round(value));
        }
    }

    [Theory]
    [InlineData("bn-inception", Precision.Bf16)]
    [InlineData("inception", Precision.Bf16)]
    [InlineData("inception-tiny", Precision.Fp16)]
    [InlineData("mnist-mlp", Precision.Bf16)]
    public void TrainingPlan_In16Bits_StoresActivationsAndTheirGradientsInThemAndAllElseInSingle(string name, Precision precision)
    {
        DataType narrow = precision.ActivationType();
        Plan plan = Train(name, precision);

        foreach (Tensor tensor in plan.Operations.SelectMany(o => o.Reads.Concat(o.Writes)).Where(t => t.DataType.IsFloat()))
        {
            bool isNarrow = tensor.Role is TensorRole.Activation or TensorRole.Gradient or TensorRole.ParameterCopy && !IsLogits(plan, tensor);
            Assert.True(tensor.DataType == (isNarrow ? narrow : DataType.Float32), $"{tensor}: {tensor.Role}");
        }

        Assert.All(plan.State, s => Assert.Equal(DataType.Float32, s.Tensor.DataType));
        Assert.DoesNotContain(plan.State, s => s.Tensor.Role == TensorRole.ParameterCopy);
        Assert.All(plan.Operations.OfType<SoftmaxCrossEntropy>(), o => Assert.Equal((DataType.Float32, narrow), (o.Logits.DataType, o.DiffLogits!.DataType)));
    }

    [Fact]
    public void TrainingPlan_In16Bits_ConvertsEveryMultipliedWeightOnceBeforeAllElse()
    {
        Plan plan = Train("bn-inception", Precision.Bf16);

        var convert = Assert.IsType<ConvertParameters>(plan.Operations[0]);
        Assert.Single(plan.Operations.OfType<ConvertParameters>());
        Assert.Equal(45, convert.Copies.Count); // 44 convolutions (parallel ones counted once) and the classifier
        Assert.Equal(convert.Copies, plan.Operations.OfType<ConvolutionForward>().Select(o => o.Weights).Concat(plan.Operations.OfType<InnerProductForward>().Select(o => o.Weights)));
        SgdUpdate update = plan.Operations.OfType<SgdUpdate>().First();
        Assert.Equal(convert.Parameters, update.Parameters);
    }

    [Fact]
    public void Plan_InSingle_HasNoCopiesOfParameters()
    {
        foreach (Precision precision in new[] { Precision.Fp32, Precision.Tf32 })
        {
            Plan plan = Train("bn-inception", precision);
            Assert.DoesNotContain(plan.Operations, o => o is ConvertParameters);
            Assert.DoesNotContain(plan.Operations.SelectMany(o => o.Writes), t => t.DataType.IsNarrow());
        }
    }

    [Fact]
    public void InferencePlan_In16Bits_HoldsItsWeightsInThemAndBiasesInSingle()
    {
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());
        Plan plan = ForwardSession.PlanFor(Blocks, network, new InferenceOptions { Batch = 1, Precision = Precision.Bf16 });

        Assert.DoesNotContain(plan.Operations, o => o is ConvertParameters);
        Assert.All(plan.State, s => Assert.Equal(s.Tensor.Layout == TensorLayout.Opaque ? DataType.BFloat16 : DataType.Float32, s.Tensor.DataType));
        Assert.Equal(DataType.Float32, Assert.Single(plan.Operations.OfType<Softmax>()).Src.DataType);
    }

    [Fact]
    public void Training_OnTheReferenceInBf16_StoresOnlyWhatBf16Holds()
    {
        using var reference = new ReferenceBackend();
        Network network = NetworkCatalog.Create("inception-tiny", new NetworkOptions { Classes = 5 });
        var options = new TrainingOptions { Batch = 2, Height = 32, Width = 32 };
        byte[] pixels = new byte[2 * 32 * 32 * 3];
        new Random(1).NextBytes(pixels);

        // Every tensor keeps memory of its own, so that all of them can be read after the step.
        Plan plan = TrainingSession.PlanFor(reference.Traits, network, options with { Precision = Precision.Bf16 });
        using var runner = new OperationRunner(reference, plan.Operations);
        runner.Write(plan.Pixels, (ReadOnlySpan<byte>)pixels);
        runner.Write(plan.Labels!, [1, 3]);
        foreach (StateTensor entry in plan.State.Where(s => s.Tensor.Role != TensorRole.Momentum))
        {
            float[] values = new float[entry.Tensor.Shape.Count];
            entry.Source.Spec.Initializer.Fill(entry.Tensor.Shape, values, options.Seed, entry.Source.Name);
            runner.Write(entry.Tensor, values);
        }

        runner.Execute();
        foreach (Tensor tensor in plan.Operations.SelectMany(o => o.Writes).Where(t => t.DataType == DataType.BFloat16))
        {
            Assert.All(runner.ReadDouble(tensor), v => Assert.Equal(DataType.BFloat16.Round(v), v));
        }

        // The weights that are kept move by less than bfloat16 resolves.
        Assert.Contains(runner.ReadDouble(plan.State[0].Tensor), v => DataType.BFloat16.Round(v) != v);

        // The step itself is that of single precision but for rounding.
        using var single = new TrainingSession(reference, network, options);
        double expected = single.Step(pixels, [1, 3], default), actual = runner.ReadDouble(plan.Loss!)[0];
        Assert.NotEqual(expected, actual);
        Assert.Equal(expected, actual, 0.02 * expected);
    }

    private static bool IsLogits(Plan plan, Tensor tensor) =>
        plan.Operations.OfType<SoftmaxCrossEntropy>().Any(o => o.Logits == tensor);

    private static Plan Train(string name, Precision precision)
    {
        Network network = NetworkCatalog.Create(name, new NetworkOptions { AuxiliaryHeads = name == "inception" });
        return TrainingSession.PlanFor(Blocks, network, new TrainingOptions { Batch = 2, Height = 64, Width = 64, Precision = precision, ClipNorm = 1, AverageDecay = 0.9f });
    }
}
