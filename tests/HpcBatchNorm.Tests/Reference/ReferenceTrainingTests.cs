using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using static HpcBatchNorm.Tests.Reference.ReferenceRun;

namespace HpcBatchNorm.Tests.Reference;

/// <summary>Loss, optimizer, clipping, averaging, and the rounding of persistent state.</summary>
public sealed class ReferenceTrainingTests
{
    [Fact]
    public void CrossEntropy_Smoothed_MatchesHandComputation()
    {
        // Row 0: logits 0, ln 3: p = 1/4, 3/4. Smoothing 1/2 over 2 classes, label 0: t = 3/4, 1/4. Loss -(3/4 ln 1/4 + 1/4 ln 3/4).
        // Row 1: p = 1/2, 1/2, label 1: t = 1/4, 3/4, loss ln 2. Weight 2 cancels the mean over 2 images.
        LossCase c = new(images: 2, classes: 2, smoothing: 0.5f, weight: 2);
        using ReferenceRun run = new(c.Operation);
        run[c.Logits] = [0, Math.Log(3), 5, 5];
        run.Runner.Write(c.Labels, [0, 1]);
        run.Execute();
        AssertEqual([0.25, 0.75, 0.5, 0.5], run[c.Probabilities]);
        AssertEqual([-(0.75 * Math.Log(0.25) + 0.25 * Math.Log(0.75)) + Math.Log(2)], run[c.Loss]);
        AssertEqual([-0.5, 0.5, 0.25, -0.25], run[c.DiffLogits]);
    }

    /// <summary>Logits 0 and ln 3: p = 1/4, 3/4. Three quarters of class 0 and one of class 1, no smoothing: the numbers of the smoothed row 0 above, alone.</summary>
    [Fact]
    public void CrossEntropy_Mixed_MatchesHandComputation()
    {
        LossCase c = new(images: 1, classes: 2, smoothing: 0, weight: 1);
        Tensor second = new("second", Shape.Matrix(1, 1), TensorRole.Label, TensorLayout.Plain, DataType.Int32), share = Float64("share", Shape.Matrix(1, 1));
        using ReferenceRun run = new(c.Operation with { SecondLabels = second, LabelWeights = share });
        run[c.Logits] = [0, Math.Log(3)];
        run.Runner.Write(c.Labels, [0]);
        run.Runner.Write(second, [1]);
        run[share] = [0.75];
        run.Execute();
        AssertEqual([-(0.75 * Math.Log(0.25) + 0.25 * Math.Log(0.75))], run[c.Loss]);
        AssertEqual([-0.5, 0.5], run[c.DiffLogits]);
    }

    // Logits 0 and ln 3: sigmoid 1/2, 3/4. Half of class 0, half of class 1: t = 1/2, 1/2. Loss (ln 2 - (ln 3/4 + ln 1/4)/2)/2; gradient (0, 1/4)/2.
    // Smoothing 1/2 leaves t as it is; with a threshold of 0.6 both targets are 0: loss (ln 2 + ln 4)/2, gradient (1/2, 3/4)/2.
    [Theory]
    [InlineData(0f, 0f, 0.5)]
    [InlineData(0.5f, 0f, 0.5)]
    [InlineData(0f, 0.6f, 0.0)]
    public void BinaryCrossEntropy_Mixed_MatchesHandComputation(float smoothing, float threshold, double target)
    {
        LossCase c = new(images: 1, classes: 2, smoothing, weight: 1);
        Tensor second = new("second", Shape.Matrix(1, 1), TensorRole.Label, TensorLayout.Plain, DataType.Int32), share = Float64("share", Shape.Matrix(1, 1));
        using ReferenceRun run = new(c.Operation with { SecondLabels = second, LabelWeights = share, Binary = true, TargetThreshold = threshold });
        run[c.Logits] = [0, Math.Log(3)];
        run.Runner.Write(c.Labels, [0]);
        run.Runner.Write(second, [1]);
        run[share] = [0.5];
        run.Execute();
        AssertEqual([(Math.Log(2) - target * Math.Log(0.75) - (1 - target) * Math.Log(0.25)) / 2], run[c.Loss]);
        AssertEqual([(0.5 - target) / 2, (0.75 - target) / 2], run[c.DiffLogits]);
        AssertEqual([0.25, 0.75], run[c.Probabilities]); // softmax's, as evaluation shows them
    }

    [Fact]
    public void CrossEntropy_HugeLogits_StaysFinite()
    {
        LossCase c = new(images: 1, classes: 3, smoothing: 0, weight: 1);
        using ReferenceRun run = new(c.Operation);
        run[c.Logits] = [2000, 0, -2000];
        run.Runner.Write(c.Labels, [2]);
        run.Execute();
        Assert.Equal([4000], run[c.Loss]);
        Assert.Equal([1, 0, -1], run[c.DiffLogits]);
    }

    [Theory]
    [InlineData(0f, 1f)]
    [InlineData(0.1f, 0.3f)]
    public void CrossEntropyGradient_MatchesFiniteDifferences(float smoothing, float weight)
    {
        // The operation is its own backward pass: the loss is its output, and a loss of sum(loss * r) has the gradient r * diffLogits.
        LossCase c = new(images: 3, classes: 5, smoothing, weight);
        using ReferenceRun run = new(c.Operation);
        run.Runner.Write(c.Labels, [4, 0, 2]);
        double[] logits = Random(c.Logits, 1, -2, 2);
        run[c.Logits] = logits;
        run.Execute();
        double[] gradient = run[c.DiffLogits];
        for (int i = 0; i < logits.Length; i++)
        {
            double At(double offset)
            {
                run[c.Logits] = [.. logits.Select((z, k) => k == i ? z + offset : z)];
                run.Execute();
                return run[c.Loss][0];
            }

            const double h = 1e-3;
            double difference = (8 * (At(h) - At(-h)) - (At(2 * h) - At(-2 * h))) / (12 * h);
            Assert.Equal(difference, gradient[i], 1e-6 * Math.Abs(difference));
        }
    }

    [Theory]
    [InlineData(-1)]
    [InlineData(3)]
    public void CrossEntropy_LabelOutOfRange_NamesImageAndRange(int label)
    {
        LossCase c = new(images: 2, classes: 3, smoothing: 0, weight: 1);
        using ReferenceRun run = new(c.Operation);
        run.Runner.Write(c.Labels, [0, label]);
        UserErrorException error = Assert.Throws<UserErrorException>(() => run.Execute());
        Assert.Contains($"image 1 has the label {label}, expected 0 to 2", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Softmax_InPlace_MatchesHandComputation()
    {
        Tensor logits = Float64("logits", Shape.Matrix(1, 3));
        using ReferenceRun run = new(new Softmax("softmax", logits, logits.Alias("p", TensorRole.Result)));
        run[logits] = [1000, 1000 + Math.Log(2), 1000 + Math.Log(5)];
        run.Execute();
        AssertEqual([1.0 / 8, 2.0 / 8, 5.0 / 8], run[logits]);
    }

    // w = 1, v = 0.5, gradient 2, mu = 0.5, e = 0.25; g = scale*2 + decay*1.
    // Classical: v' = 0.25 - 0.25*g, w' = 1 + v'.  Nesterov: w' = 1 + 0.5*v' - 0.25*g.
    [Theory]
    [InlineData(false, 0f, null, -0.25, 0.75)]
    [InlineData(false, 0.5f, null, -0.375, 0.625)]
    [InlineData(false, 0.5f, 0.5, -0.125, 0.875)]
    [InlineData(true, 0f, null, -0.25, 0.375)]
    [InlineData(true, 0.5f, null, -0.375, 0.1875)]
    [InlineData(true, 0.5f, 0.5, -0.125, 0.5625)]
    public void Sgd_OneStep_MatchesHandComputation(bool nesterov, float weightDecay, double? gradientScale, double momentum, double parameter) =>
        AssertOneStep(MomentumForm.Sutskever, nesterov, weightDecay, gradientScale, momentum, parameter);

    // w = 1, v = 0.5, gradient 2, mu = 0.5, e = 0.25; g = scale*2 + decay*1.
    // PyTorch: v' = 0.25 + g, w' = 1 - 0.25*v'.  With Nesterov: w' = 1 - 0.25*(g + 0.5*v').
    [Theory]
    [InlineData(false, 0f, null, 2.25, 0.4375)]
    [InlineData(false, 0.5f, null, 2.75, 0.3125)]
    [InlineData(false, 0.5f, 0.5, 1.75, 0.5625)]
    [InlineData(true, 0f, null, 2.25, 0.21875)]
    [InlineData(true, 0.5f, 0.5, 1.75, 0.40625)]
    public void Sgd_PyTorchsForm_MatchesHandComputation(bool nesterov, float weightDecay, double? gradientScale, double momentum, double parameter) =>
        AssertOneStep(MomentumForm.PyTorch, nesterov, weightDecay, gradientScale, momentum, parameter);

    private static void AssertOneStep(MomentumForm form, bool nesterov, float weightDecay, double? gradientScale, double momentum, double parameter)
    {
        Tensor w = Float64("w", Shape.Vector(1), TensorRole.Parameter), g = Float64("g", w.Shape), v = Float64("v", w.Shape, TensorRole.Momentum);
        Tensor? scale = gradientScale is null ? null : Float64("scale", w.Shape);
        using ReferenceRun run = new(new SgdUpdate("sgd", [w], [g], [v], scale, Mu: 0.5f, nesterov, weightDecay, Form: form));
        run[w] = [1];
        run[g] = [2];
        run[v] = [0.5];
        if (scale is not null)
        {
            run[scale] = [gradientScale!.Value];
        }

        run.Execute(learningRate: 0.25f);
        Assert.Equal([momentum], run[v]);
        Assert.Equal([parameter], run[w]);
    }

    /// <summary>Three steps by hand, mu = 0.5, gradient 1 each, rates 0.5, 0.5 and 0.125: the forms agree until the rate changes.</summary>
    [Theory]
    [InlineData(MomentumForm.Sutskever, 0.5, -0.25, -0.75)] // v = -0.5, -0.75, -0.5
    [InlineData(MomentumForm.PyTorch, 0.5, -0.25, -0.46875)] // v = 1, 1.5, 1.75
    public void Sgd_AfterAChangeOfTheRate_TheFormsDiffer(MomentumForm form, double first, double second, double third)
    {
        Tensor w = Float64("w", Shape.Vector(1), TensorRole.Parameter), g = Float64("g", w.Shape), v = Float64("v", w.Shape, TensorRole.Momentum);
        using ReferenceRun run = new(new SgdUpdate("sgd", [w], [g], [v], null, Mu: 0.5f, false, 0, Form: form));
        run[w] = [1];
        run[g] = [1];
        run[v] = [0];
        List<double> seen = [];
        foreach (float rate in new[] { 0.5f, 0.5f, 0.125f })
        {
            run.Execute(learningRate: rate);
            seen.Add(run[w][0]);
        }

        Assert.Equal([first, second, third], seen);
    }

    [Theory]
    [InlineData(6.5f, 0.5)]
    [InlineData(13f, 1)]
    [InlineData(26f, 1)]
    public void ClipGradients_GlobalNorm_SpansAllTensors(float maximum, double expected)
    {
        // sqrt(3^2 + 4^2 + 12^2) = 13
        Tensor a = Float64("a", Shape.Vector(2)), b = Float64("b", new Shape(1, 1, 2, 2));
        Tensor scale = Float64("scale", Shape.Vector(1)), norm = Float64("norm", Shape.Vector(1));
        using ReferenceRun run = new(new ClipGradients("clip", [a, b], scale, norm, maximum));
        run[a] = [3, -4];
        run[b] = [0, 12, 0, 0];
        run.Execute();
        Assert.Equal([13], run[norm]);
        Assert.Equal([expected], run[scale]);
    }

    [Fact]
    public void ClipGradients_ZeroNorm_ScalesByOne()
    {
        Tensor a = Float64("a", Shape.Vector(2)), scale = Float64("scale", Shape.Vector(1)), norm = Float64("norm", Shape.Vector(1));
        using ReferenceRun run = new(new ClipGradients("clip", [a], scale, norm, 1));
        run.Execute();
        Assert.Equal([1], run[scale]);
    }

    [Fact]
    public void AccumulateGradients_OverThreeMicroBatches_IsTheirMean()
    {
        // (3 + 9 - 6) / 3 = 2; the first of the next three forgets it: 12 / 3 = 4.
        Tensor gradient = Float64("gradient", Shape.Vector(1)), sum = Float64("sum", Shape.Vector(1));
        using ReferenceRun run = new(new AccumulateGradients("sum", [gradient], [sum], Count: 3));
        double[] gradients = [3, 9, -6, 12], expected = [1, 4, 2, 4];
        for (int step = 0; step < gradients.Length; step++)
        {
            run[gradient] = [gradients[step]];
            run.Execute(step);
            AssertEqual([expected[step]], run[sum]);
        }
    }

    [Fact]
    public void UpdateLossScale_HalvesAtAnOverflow_AndDoublesAfterEnoughSteps()
    {
        Tensor gradient = Float64("gradient", Shape.Vector(2)), state = Float64("state", UpdateLossScale.State), unscale = Float64("unscale", Shape.Vector(1));
        using ReferenceRun run = new(new UpdateLossScale("scale", [gradient], state, unscale, GrowthSteps: 2));
        run[state] = [8, 0, 0, 0];
        // The gradient's second value, and then: what gradients are multiplied by, and scale, steps without an overflow, whether this one has one, all that have.
        (double Value, double Unscale, double[] State)[] steps =
        [
            (1, 1 / 8.0, [8, 1, 0, 0]), (double.NaN, 1 / 8.0, [4, 0, 1, 1]), (double.PositiveInfinity, 1 / 4.0, [2, 0, 1, 2]),
            (1, 1 / 2.0, [2, 1, 0, 2]), (1, 1 / 2.0, [4, 0, 0, 2]), (1, 1 / 4.0, [4, 1, 0, 2]),
        ];
        foreach ((double value, double factor, double[] expected) in steps)
        {
            run[gradient] = [1, value];
            run.Execute();
            Assert.Equal([factor], run[unscale]);
            Assert.Equal(expected, run[state]);
        }
    }

    [Fact]
    public void UpdateAverage_MovesByOneMinusDecay()
    {
        // 0.75*4 + 0.25*8 = 5; 0.75*0 + 0.25*-4 = -1
        Tensor source = Float64("source", Shape.Vector(2)), average = Float64("average", Shape.Vector(2), TensorRole.Average);
        using ReferenceRun run = new(new UpdateAverage("ema", [source], [average], Decay: 0.75f));
        run[source] = [8, -4];
        run[average] = [4, 0];
        run.Execute();
        Assert.Equal([5, -1], run[average]);
    }

    [Theory]
    [InlineData(TensorRole.Parameter, DataType.Float32, true)]
    [InlineData(TensorRole.Momentum, DataType.Float32, true)]
    [InlineData(TensorRole.SecondMoment, DataType.Float32, true)]
    [InlineData(TensorRole.RunningStatistic, DataType.Float32, true)]
    [InlineData(TensorRole.Average, DataType.Float32, true)]
    [InlineData(TensorRole.Average, DataType.Float64, false)]
    [InlineData(TensorRole.Activation, DataType.Float32, false)]
    public void Result_OfSinglePrecisionState_IsRoundedAndNothingElse(TensorRole role, DataType type, bool rounded)
    {
        const double third = 1.0 / 3;
        Tensor src = Float64("src", Shape.Vector(1)), dst = new("dst", Shape.Vector(1), role, TensorLayout.Plain, type);
        using ReferenceRun run = new(new Copy("copy", src, dst));
        run[src] = [third];
        run.Execute();
        Assert.Equal([rounded ? (float)third : third], run[dst]);
    }

    [Fact]
    public void Write_ToSinglePrecision_RoundsAndToDoubleKeepsAllDigits()
    {
        Tensor single = new("single", Shape.Vector(1), TensorRole.Activation), full = Float64("double", Shape.Vector(1));
        using ReferenceRun run = new(new Copy("copy", single, full));
        run[single] = [0.1];
        run[full] = [0.1];
        Assert.Equal([0.1f], run[single]);
        Assert.Equal([0.1], run[full]);
        float[] back = new float[1];
        run.Runner.Read(full, back);
        Assert.Equal([0.1f], back);
    }

    [Fact]
    public void Training_ResumedFromSinglePrecisionState_ContinuesBitForBit()
    {
        // Ten steps, against five, state through float as a checkpoint keeps it, and five more in a fresh run.
        Tensor w = new("w", Shape.Vector(3), TensorRole.Parameter), v = new("v", w.Shape, TensorRole.Momentum);
        Tensor average = new("average", w.Shape, TensorRole.Average), g = new("g", w.Shape, TensorRole.ParameterGradient);
        Operation[] step = [new Sum("g", [w, w], g), new SgdUpdate("sgd", [w], [g], [v], null, 0.9f, true, 1e-3f), new UpdateAverage("ema", [w], [average], 0.99f)];
        using ReferenceRun whole = new(step), first = new(step), second = new(step);
        whole[w] = first[w] = Random(w, 1);
        Steps(whole, 10);
        Steps(first, 5);
        foreach (Tensor state in new[] { w, v, average })
        {
            float[] checkpoint = new float[3];
            first.Runner.Read(state, checkpoint);
            second.Runner.Write(state, checkpoint);
        }

        Steps(second, 5);
        Assert.Equal(whole[w], second[w]);
        Assert.Equal(whole[v], second[v]);
        Assert.Equal(whole[average], second[average]);

        static void Steps(ReferenceRun run, int count)
        {
            for (int i = 0; i < count; i++)
            {
                run.Execute(learningRate: 0.01f);
            }
        }
    }

    private sealed class LossCase
    {
        public LossCase(int images, int classes, float smoothing, float weight)
        {
            Logits = Float64("logits", Shape.Matrix(images, classes));
            Labels = new Tensor("labels", Shape.Matrix(images, 1), TensorRole.Label, TensorLayout.Plain, DataType.Int32);
            Probabilities = Float64("probabilities", Logits.Shape, TensorRole.Result);
            Loss = Float64("loss", Shape.Vector(1), TensorRole.Result);
            DiffLogits = Float64("diffLogits", Logits.Shape, TensorRole.Gradient);
            Operation = new SoftmaxCrossEntropy("loss", Logits, Labels, Probabilities, Loss, DiffLogits, smoothing, weight);
        }

        public Tensor Logits { get; }

        public Tensor Labels { get; }

        public Tensor Probabilities { get; }

        public Tensor Loss { get; }

        public Tensor DiffLogits { get; }

        public SoftmaxCrossEntropy Operation { get; }
    }
}
