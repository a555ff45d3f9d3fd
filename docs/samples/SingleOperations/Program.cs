// Single operations on spans: a convolution and a batch normalization, forward and backward, on every backend that works here. Ends with 0 only when the
// numbers are those computed by hand and the backends agree.
using System.Globalization;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;

// One image of one channel and 3x3 pixels, and one filter of 2x2 weights without padding: four outputs.
//   1 2 3         1  0
//   4 5 6    *    0 -1
//   7 8 9
// Every output is a pixel less its neighbour to the lower right: 1 - 5 = 2 - 6 = 4 - 8 = 5 - 9 = -4.
using Backend reference = Backend.Create("reference");
Convolution small = Convolve(reference, new ConvolutionSpec(new Shape(1, 1, 3, 3), OutputChannels: 1, KernelH: 2, KernelW: 2),
    src: [1, 2, 3, 4, 5, 6, 7, 8, 9], weights: [1, 0, 0, -1], diffDst: [1, 1, 1, 1]);
Require(small.Dst.SequenceEqual([-4f, -4, -4, -4]), "the convolution gives -4 four times");

// With a gradient of 1 at every output, a weight's gradient is the sum of the pixels it was multiplied by: 1 + 2 + 4 + 5 = 12 for the first.
Require(small.DiffWeights.SequenceEqual([12f, 16, 24, 28]), "the gradients of the weights are 12, 16, 24 and 28");
Require(small.DiffSrc.SequenceEqual([1f, 1, 0, 1, 0, -1, 0, -1, -1]), "the gradient of the image is what each pixel was multiplied by");

// Four images of one channel and one pixel: 1, 2, 3, 6. Their mean is 3, their biased variance (4 + 1 + 0 + 9) / 4 = 3.5. Epsilon is 0.5 here, to make
// the root a round number: sqrt(3.5 + 0.5) = 2. With scale 4 and shift 1, dst = 4 * (src - 3) / 2 + 1.
Normalization tiny = Normalize(reference, new BatchNormSpec(new Shape(4, 1, 1, 1), Epsilon: 0.5f),
    src: [1, 2, 3, 6], scale: [4], shift: [1], diffDst: [1, 0, 0, 0]);
Require(tiny.Mean.SequenceEqual([3f]) && tiny.Variance.SequenceEqual([3.5f]), "the mean is 3 and the biased variance 3.5");
Require(tiny.Dst.SequenceEqual([-3f, -1, 1, 7]), "the normalized values are -3, -1, 1 and 7");

// Of the running values, which began with 0 and 1, a tenth is replaced; the variance is the unbiased one, 3.5 * 4 / 3.
Require(Near(tiny.RunningMean[0], 0.3f) && Near(tiny.RunningVariance[0], 0.9f + 0.1f * 14f / 3), "the running statistics have moved by a tenth");

// Backward: with g = 1, 0, 0, 0 and normalized values x = -1, -0.5, 0, 1.5, diffShift = sum g = 1, diffScale = sum g * x = -1, and
// diffSrc = scale / 2 * (g - (diffShift + x * diffScale) / 4) = 2 * (1 - 2 / 4) = 1 for the first image.
Require(tiny.DiffShift.SequenceEqual([1f]) && tiny.DiffScale.SequenceEqual([-1f]), "the gradients of shift and scale are 1 and -1");
Require(Near(tiny.DiffSrc[0], 1f) && Near(tiny.DiffSrc.Sum(), 0), "the gradient of the first image is 1, and all of them add up to 0");

// The same operations on larger tensors of random numbers, on every other backend of this machine that works, beside the reference.
var image = new Shape(8, 16, 14, 14);
ConvolutionSpec convolution = ConvolutionSpec.Square(image, outputChannels: 32, kernel: 3, stride: 2, pad: 1);
var normalization = new BatchNormSpec(convolution.Dst);
float[] pixels = Random(image.Count, 1), filters = Random(convolution.Weights.Count, 2), gradients = Random(convolution.Dst.Count, 3);
float[] scales = Random(32, 4), shifts = Random(32, 5);
Convolution expected = Convolve(reference, convolution, pixels, filters, gradients);
Normalization normalized = Normalize(reference, normalization, expected.Dst, scales, shifts, gradients);
foreach (BackendProbe found in Backend.Probe())
{
    if (!found.Available || found.Name == "reference")
    {
        Console.WriteLine($"{found.Name}: {(found.Available ? "what the others are compared with" : "not usable here")}");
        continue;
    }

    using Backend backend = Backend.Create(found.Name);
    Convolution other = Convolve(backend, convolution, pixels, filters, gradients);
    Normalization second = Normalize(backend, normalization, expected.Dst, scales, shifts, gradients);
    double worst = new[]
    {
        Distance(expected.Dst, other.Dst), Distance(expected.DiffSrc, other.DiffSrc), Distance(expected.DiffWeights, other.DiffWeights),
        Distance(normalized.Dst, second.Dst), Distance(normalized.DiffSrc, second.DiffSrc), Distance(normalized.DiffScale, second.DiffScale),
        Distance(normalized.RunningVariance, second.RunningVariance),
    }.Max();
    Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{backend.Name}: farthest from the reference by {worst:E1} of the largest value"));
    Require(worst < 1e-4, $"{backend.Name} agrees with the reference");
}

return 0;

// Forward, and backward to the image and to the weights. Tensors say what there is and which operations share it; the runner gives them memory.
static Convolution Convolve(Backend backend, ConvolutionSpec spec, ReadOnlySpan<float> src, ReadOnlySpan<float> weights, ReadOnlySpan<float> diffDst)
{
    var x = new Tensor("src", spec.Src, TensorRole.Activation);
    var w = new Tensor("weights", spec.Weights, TensorRole.Parameter);
    var y = new Tensor("dst", spec.Dst, TensorRole.Activation);
    var dy = new Tensor("diffDst", spec.Dst, TensorRole.Gradient);
    var dx = new Tensor("diffSrc", spec.Src, TensorRole.Gradient);
    var dw = new Tensor("diffWeights", spec.Weights, TensorRole.ParameterGradient);
    using var runner = new OperationRunner(
        backend,
        new ConvolutionForward("forward", spec, x, w, Bias: null, y),
        new ConvolutionBackwardData("backward to the image", spec, dy, w, dx),
        new ConvolutionBackwardWeights("backward to the weights", spec, x, dy, dw, DiffBias: null));
    runner.Write(x, src);
    runner.Write(w, weights);
    runner.Write(dy, diffDst);
    runner.Execute();
    return new Convolution(Read(runner, y), Read(runner, dx), Read(runner, dw));
}

static Normalization Normalize(
    Backend backend, BatchNormSpec spec, ReadOnlySpan<float> src, ReadOnlySpan<float> scale, ReadOnlySpan<float> shift, ReadOnlySpan<float> diffDst)
{
    var x = new Tensor("src", spec.Src, TensorRole.Activation);
    var y = new Tensor("dst", spec.Src, TensorRole.Activation);
    var gamma = new Tensor("scale", spec.Parameters, TensorRole.Parameter);
    var beta = new Tensor("shift", spec.Parameters, TensorRole.Parameter);
    var mean = new Tensor("mean", spec.Statistics, TensorRole.BatchStatistic);
    var variance = new Tensor("variance", spec.Statistics, TensorRole.BatchStatistic);
    var runningMean = new Tensor("running mean", spec.Parameters, TensorRole.RunningStatistic);
    var runningVariance = new Tensor("running variance", spec.Parameters, TensorRole.RunningStatistic);
    var dy = new Tensor("diffDst", spec.Src, TensorRole.Gradient);
    var dx = new Tensor("diffSrc", spec.Src, TensorRole.Gradient);
    var diffGamma = new Tensor("diffScale", spec.Parameters, TensorRole.ParameterGradient);
    var diffBeta = new Tensor("diffShift", spec.Parameters, TensorRole.ParameterGradient);
    using var runner = new OperationRunner(
        backend,
        new BatchNormForward("forward", spec)
        {
            Src = x,
            Dst = y,
            Scale = gamma,
            Shift = beta,
            Mean = mean,
            Variance = variance,
            RunningMean = runningMean,
            RunningVariance = runningVariance,
            AveragingFactor = 0.1f,
        },
        new BatchNormBackward("backward", spec)
        {
            Src = x,
            Scale = gamma,
            Shift = beta,
            Mean = mean,
            Variance = variance,
            DiffDst = dy,
            DiffSrc = dx,
            DiffScale = diffGamma,
            DiffShift = diffBeta,
        });
    runner.Write(x, src);
    runner.Write(gamma, scale);
    runner.Write(beta, shift);
    runner.Write(runningMean, Enumerable.Repeat(0f, (int)spec.Parameters.Count).ToArray());
    runner.Write(runningVariance, Enumerable.Repeat(1f, (int)spec.Parameters.Count).ToArray());
    runner.Write(dy, diffDst);
    runner.Execute();
    return new Normalization(
        Read(runner, y), Read(runner, mean), Read(runner, variance), Read(runner, runningMean), Read(runner, runningVariance), Read(runner, dx),
        Read(runner, diffGamma), Read(runner, diffBeta));
}

static float[] Read(OperationRunner runner, Tensor tensor)
{
    float[] values = new float[tensor.Shape.Count];
    runner.Read(tensor, values);
    return values;
}

static float[] Random(long count, uint stream)
{
    var random = new RandomSequence(7, stream, 0);
    float[] values = new float[count];
    for (int i = 0; i < count; i++)
    {
        values[i] = random.NextBelow(2001) / 1000f - 1;
    }

    return values;
}

// The largest difference, as a part of the largest expected value.
static double Distance(float[] expected, float[] actual) =>
    expected.Zip(actual, (e, a) => Math.Abs((double)e - a)).Max() / expected.Max(e => Math.Abs((double)e));

static bool Near(float value, float expected) => Math.Abs(value - expected) < 1e-5f;

static void Require(bool holds, string claim)
{
    Console.WriteLine($"{(holds ? "ok" : "NOT TRUE")}: {claim}");
    if (!holds)
    {
        Environment.Exit(1);
    }
}

internal sealed record Convolution(float[] Dst, float[] DiffSrc, float[] DiffWeights);

internal sealed record Normalization(
    float[] Dst, float[] Mean, float[] Variance, float[] RunningMean, float[] RunningVariance, float[] DiffSrc, float[] DiffScale, float[] DiffShift);
