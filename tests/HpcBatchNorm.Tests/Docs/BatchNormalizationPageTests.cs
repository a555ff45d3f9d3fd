using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Tests.Support;

namespace HpcBatchNorm.Tests.Docs;

/// <summary>The code of docs/batch-normalization.md is run here and must stand there word for word.</summary>
public sealed class BatchNormalizationPageTests : IDisposable
{
    private readonly Backend backend = Backend.Create("reference");

    public void Dispose() => backend.Dispose();

    [Fact]
    public void Equations_AreWhatTheOperationsCompute()
    {
        // sample: forward
        float[] x = [1, 2, 3, 6, -5, -5, 5, 5];                  // one feature map of two images, 2x2 each: m = 8
        var spec = new BatchNormSpec(new Shape(N: 2, C: 1, H: 2, W: 2), Epsilon: 1e-5f);
        Tensor src = new("src", spec.Src, TensorRole.Activation), dst = new("dst", spec.Src, TensorRole.Activation);
        Tensor gamma = new("scale", spec.Parameters, TensorRole.Parameter), beta = new("shift", spec.Parameters, TensorRole.Parameter);
        Tensor mean = new("mean", spec.Parameters, TensorRole.BatchStatistic), variance = new("variance", spec.Parameters, TensorRole.BatchStatistic);
        using var forward = new OperationRunner(backend, new BatchNormForward("bn", spec) { Src = src, Dst = dst, Scale = gamma, Shift = beta, Mean = mean, Variance = variance });
        forward.Write(src, x);
        forward.Write(gamma, [2f]);
        forward.Write(beta, [0.5f]);
        forward.Execute();
        float[] y = new float[8], mu = new float[1], sigma2 = new float[1];
        forward.Read(dst, y);
        forward.Read(mean, mu);                                   // (1/m) sum x
        forward.Read(variance, sigma2);                           // (1/m) sum (x - mean)^2
        // end

        Assert.Equal(1.5f, mu[0]);
        Assert.Equal(16.5f, sigma2[0]);
        double s = 1 / Math.Sqrt(16.5 + 1e-5);
        Assert.All(x.Zip(y), pair => Assert.Equal(2 * (pair.First - 1.5) * s + 0.5, pair.Second, 1e-5));
        // Section 1.1: exactly sigma^2 / (sigma^2 + epsilon), not 1.
        Assert.Equal(16.5 / (16.5 + 1e-5), x.Sum(v => Math.Pow((v - 1.5) * s, 2)) / 8, 1e-12);

        // sample: backward
        float[] dy = [0.1f, -0.2f, 0.3f, 0.7f, -0.4f, 0.2f, 0.5f, -0.9f];
        Tensor diffDst = new("diffDst", spec.Src, TensorRole.Gradient), diffSrc = new("diffSrc", spec.Src, TensorRole.Gradient);
        Tensor diffGamma = new("diffScale", spec.Parameters, TensorRole.Gradient), diffBeta = new("diffShift", spec.Parameters, TensorRole.Gradient);
        using var backward = new OperationRunner(backend, new BatchNormBackward("bn", spec)
        {
            Src = src,
            Scale = gamma,
            Shift = beta,
            Mean = mean,
            Variance = variance,
            DiffDst = diffDst,
            DiffSrc = diffSrc,
            DiffScale = diffGamma,
            DiffShift = diffBeta,
        });
        backward.Write(src, x);
        backward.Write(gamma, [2f]);
        backward.Write(beta, [0.5f]);
        backward.Write(mean, mu);
        backward.Write(variance, sigma2);
        backward.Write(diffDst, dy);
        backward.Execute();
        float[] dx = new float[8];
        backward.Read(diffSrc, dx);
        // end

        // The chain rule as the paper prints it, before anything is simplified.
        double gammaValue = 2, dSigma2 = 0, dMu = 0;
        for (int i = 0; i < 8; i++)
        {
            dSigma2 += dy[i] * gammaValue * (x[i] - 1.5) * -0.5 * s * s * s;
            dMu -= dy[i] * gammaValue * s;
        }

        for (int i = 0; i < 8; i++)
        {
            Assert.Equal(dy[i] * gammaValue * s + dSigma2 * 2 * (x[i] - 1.5) / 8 + dMu / 8, dx[i], 1e-6);
        }

        Assert.Equal(0, dx.Sum(d => (double)d), 1e-6);
        Assert.Equal(0, x.Zip(dx).Sum(p => (p.First - 1.5) * p.Second), 1e-5);
        string page = Page();
        Assert.Contains(Sample("forward"), page, StringComparison.Ordinal);
        Assert.Contains(Sample("backward"), page, StringComparison.Ordinal);
    }

    private static string Page() => File.ReadAllText(RepoPaths.InRepo("docs", "batch-normalization.md"));

    private static string Sample(string name)
    {
        IEnumerable<string> lines = File.ReadLines(RepoPaths.InRepo("tests", "HpcBatchNorm.Tests", "Docs", "BatchNormalizationPageTests.cs"))
            .SkipWhile(l => l.Trim() != $"// sample: {name}").Skip(1)
            .TakeWhile(l => l.Trim() != "// end")
            .Select(l => l.Length > 8 ? l[8..] : "");
        return string.Join('\n', lines);
    }
}
