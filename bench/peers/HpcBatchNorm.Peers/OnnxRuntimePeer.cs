using Microsoft.ML.OnnxRuntime;

namespace HpcBatchNorm.Peers;

/// <summary>ONNX Runtime's CPU provider with all graph optimizations, on normalised images, its inputs and outputs bound once.</summary>
internal sealed class OnnxRuntimePeer : IDisposable
{
    private readonly SessionOptions _options;
    private readonly InferenceSession _session;
    private readonly string _input;
    private readonly OrtValue _images;
    private readonly RunOptions _run = new();

    public OnnxRuntimePeer(string model, int batch, int imageSize, int threads)
    {
        _options = new SessionOptions { IntraOpNumThreads = threads, InterOpNumThreads = 1, GraphOptimizationLevel = GraphOptimizationLevel.ORT_ENABLE_ALL };
        OrtEnv.Instance().DisableTelemetryEvents(); // on unless switched off
        _session = new InferenceSession(model, _options);
        (_input, NodeMetadata input) = _session.InputMetadata.Single();
        if (input.Dimensions is not [_, > 0, int height, _] || (height > 0 && height != imageSize))
        {
            throw new ArgumentException($"'{model}' takes no normalised images of {imageSize} pixels; export with --input images --image-size {imageSize}.");
        }

        float[] values = new float[batch * input.Dimensions[1] * imageSize * imageSize];
        var random = new Random(1);
        foreach (ref float value in values.AsSpan())
        {
            value = random.Next(256) / 128f - 1;
        }

        _images = OrtValue.CreateTensorValueFromMemory(values, [batch, input.Dimensions[1], imageSize, imageSize]);
    }

    public static string Version => $"ONNX Runtime {OrtEnv.Instance().GetVersionString()}";

    public void Step()
    {
        using IDisposableReadOnlyCollection<OrtValue> results = _session.Run(_run, [_input], [_images], _session.OutputNames);
    }

    public void Dispose()
    {
        _images.Dispose();
        _run.Dispose();
        _session.Dispose();
        _options.Dispose();
    }
}
