using Microsoft.ML.OnnxRuntime;

namespace HpcBatchNorm.Tests.Support;

/// <summary>The one place where tests begin ONNX Runtime: without its telemetry, which is on unless it is switched off.</summary>
internal static class OnnxFile
{
    private static readonly Lazy<bool> Silent = new(() =>
    {
        OrtEnv.Instance().DisableTelemetryEvents();
        return true;
    });

    /// <summary>A session on a file.</summary>
    public static InferenceSession Open(string path, SessionOptions? options = null)
    {
        _ = Silent.Value;
        return options is null ? new InferenceSession(path) : new InferenceSession(path, options);
    }
}
