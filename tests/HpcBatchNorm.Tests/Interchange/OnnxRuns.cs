using HpcBatchNorm.Backends;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tests.Support;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;

namespace HpcBatchNorm.Tests.Interchange;

/// <summary>One model, run by ONNX Runtime and, imported, by this library, on the same pixels.</summary>
internal static class OnnxRuns
{
    public const int Batch = 2;

    public static byte[] Pixels(ImportedModel model)
    {
        byte[] pixels = new byte[Batch * model.Height * model.Width * model.Network.InputChannels];
        new Random(3).NextBytes(pixels);
        return pixels;
    }

    public static float[] Ours(ImportedModel model, byte[] pixels, string backendName = "reference")
    {
        using Backend backend = Backend.Create(backendName);
        using var session = new ForwardSession(
            backend, model.Network,
            new InferenceOptions { Batch = Batch, Height = model.Height, Width = model.Width, PixelMean = model.PixelMean, PixelDeviation = model.PixelDeviation }, model.State);
        float[] probabilities = new float[Batch * model.Network.Classes];
        session.Forward(pixels, probabilities);
        return probabilities;
    }

    /// <summary>The probabilities of ONNX Runtime for (pixel - mean) / deviation, or for bytes where the model takes these.</summary>
    public static float[] Theirs(string path, byte[] pixels, int channels, int height, int width, float mean, float deviation)
    {
        using var options = new SessionOptions { IntraOpNumThreads = 1, LogSeverityLevel = OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR };
        using InferenceSession session = OnnxFile.Open(path, options);
        (string name, NodeMetadata metadata) = session.InputMetadata.First();
        NamedOnnxValue value;
        if (metadata.ElementType == typeof(byte))
        {
            value = NamedOnnxValue.CreateFromTensor(name, new DenseTensor<byte>(pixels, [Batch, height, width, channels]));
        }
        else
        {
            float[] images = new float[pixels.Length];
            int area = height * width;
            for (int i = 0; i < pixels.Length; i++)
            {
                (int image, int position, int channel) = (i / (area * channels), i / channels % area, i % channels);
                images[(image * channels + channel) * area + position] = (pixels[i] - mean) / deviation;
            }

            value = NamedOnnxValue.CreateFromTensor(name, new DenseTensor<float>(images, [Batch, channels, height, width]));
        }

        using var results = session.Run([value]);
        return [.. results[0].AsEnumerable<float>()];
    }

    /// <summary>Relative to each probability.</summary>
    public static void AssertClose(float[] expected, float[] actual, float bound = 1e-5f)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (int i = 0; i < expected.Length; i++)
        {
            Assert.True(Math.Abs(actual[i] - expected[i]) <= bound * Math.Abs(expected[i]) + 1e-9f, $"element {i} is {actual[i]:R}, expected {expected[i]:R}");
        }
    }
}
