using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tests.Support;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;

namespace HpcBatchNorm.Tests.Interchange;

/// <summary>
/// A model that others have trained: the ResNet-18 of the NuGet package Microsoft.ML.DnnImageFeaturizer.ResNet18, where it is on this machine. It was made with
/// CNTK, takes B, G, R, and gives 512 features.
/// </summary>
[Trait("Category", "Slow")]
public class PublishedModelTests
{
    private const int Size = 224, Photos = 64, Features = 512;

    /// <summary>The mean of its own preprocessing model, over all places of its mean image; R, G, B.</summary>
    private static readonly float[] Mean = [123.15f, 115.9f, 103.06f];

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void ResNet18_FeaturesOf64Photos_AreThoseOfOnnxRuntime(bool bgr)
    {
        string photos = RepoPaths.SharedDataOrSkip("imagenet-photos");
        string packages = Environment.GetEnvironmentVariable("NUGET_PACKAGES") ?? Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".nuget", "packages");
        string path = Path.Combine(packages, "microsoft.ml.dnnimagefeaturizer.resnet18", "0.23.1", "tools", "DnnImageModels", "ResNet18Onnx", "ResNet18.onnx");
        Assert.SkipUnless(File.Exists(path), $"{path} is not there; restoring the package Microsoft.ML.DnnImageFeaturizer.ResNet18 0.23.1 puts it there");

        ImportedModel model = OnnxImport.Read(path, new OnnxImportOptions { PixelMean = Mean, PixelDeviation = [1], Bgr = bgr });
        Assert.Equal((Size, Size, OnnxOutput.Logits, Features), (model.Height, model.Width, model.Output, model.Network.Classes));

        using ImageDataset images = ImageDataset.Open(photos, DatasetSplit.Validation, cacheDirectory: null);
        using var loader = new BatchLoader(images, LoaderOptions.ForEvaluation(8, Size));
        using Backend backend = Backend.Create(Backend.Probe().Any(p => p is { Name: "onednn", Available: true }) ? "onednn" : "reference");
        using var session = new ForwardSession(backend, model.Network, new InferenceOptions { Batch = 8, Height = Size, Width = Size, PixelMean = Mean, PixelDeviation = [1] }, model.State);
        using var options = new SessionOptions { LogSeverityLevel = OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR, IntraOpNumThreads = 2 };
        using InferenceSession theirs = OnnxFile.Open(path, options);
        float[] probabilities = new float[8 * Features];
        double worst = 0, spread = 0;
        int seen = 0;
        while (seen < Photos)
        {
            using Batch batch = loader.Next(TestContext.Current.CancellationToken);
            session.Forward(batch.Pixels, probabilities);
            for (int image = 0; image < 8; image++)
            {
                float[] features = Run(theirs, batch.Pixels.Slice(image * Size * Size * 3, Size * Size * 3), bgr);
                double most = features.Max(), sum = Math.Log(features.Sum(f => Math.Exp(f - most))) + most;
                spread = Math.Max(spread, most - features.Min());
                for (int i = 0; i < Features; i++)
                {
                    // A network's output is always probabilities: the features less the logarithm of the sum of their exponentials.
                    worst = Math.Max(worst, Math.Abs(Math.Log(probabilities[image * Features + i]) - (features[i] - sum)));
                }
            }

            seen += 8;
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"the worst of {seen * Features} features differs by {worst:g3}, of a spread of {spread:g3}");
        Assert.Equal(Photos, seen);
        Assert.True(spread > 1, $"features lie within {spread}: the comparison would prove nothing");
        Assert.True(worst <= 1e-5 * Math.Max(1, spread), $"the worst of {seen * Features} features differs by {worst}, of a spread of {spread}");
    }

    private static float[] Run(InferenceSession session, ReadOnlySpan<byte> pixels, bool bgr)
    {
        float[] images = new float[pixels.Length];
        for (int i = 0; i < pixels.Length; i++)
        {
            (int place, int channel) = (i / 3, i % 3);
            images[(bgr ? 2 - channel : channel) * Size * Size + place] = pixels[i] - Mean[channel];
        }

        using var results = session.Run([NamedOnnxValue.CreateFromTensor(session.InputMetadata.Keys.Single(), new DenseTensor<float>(images, [1, 3, Size, Size]))]);
        return [.. results[0].AsEnumerable<float>()];
    }
}
