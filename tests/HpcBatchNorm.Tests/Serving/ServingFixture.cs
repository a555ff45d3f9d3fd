using HpcBatchNorm.Tests.Data;
using HpcBatchNorm.Tests.Training;
using HpcBatchNorm.Training;
using SkiaSharp;

namespace HpcBatchNorm.Tests.Serving;

/// <summary>A small network, trained for some steps, and pictures to show it.</summary>
public sealed class ServingFixture : IDisposable
{
    private readonly TrainingFixture _training = new();

    public ServingFixture()
    {
        using var observer = new RecordingObserver();
        var request = new TrainingRequest
        {
            Flags = _training.Flags(_training.NewFolder(), ("steps", "7"), ("eval-every", "0"), ("threads", "1"), ("average-decay", "0.5"), ("image-size", "16")),
        };
        Checkpoint = TrainingFixture.Run(request, observer).Checkpoint;
    }

    /// <summary>A checkpoint of inception-tiny for three classes.</summary>
    public string Checkpoint { get; }

    /// <summary>The data set it was trained on.</summary>
    public string Data => _training.Data;

    /// <summary>Twenty different pictures, encoded.</summary>
    public IReadOnlyList<byte[]> Pictures { get; } = [.. Enumerable.Range(0, 20).Select(i => TestImages.Encode(
        30 + i, 40 - i, (x, y) => new SKColor((byte)(x * (i + 3)), (byte)(y * 11 + i), (byte)(x * y + 40 * i)), i % 2 == 0 ? SKEncodedImageFormat.Jpeg : SKEncodedImageFormat.Png))];

    public void Dispose() => _training.Dispose();
}
