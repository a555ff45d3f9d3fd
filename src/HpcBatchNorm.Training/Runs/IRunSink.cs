using HpcBatchNorm.Data;

namespace HpcBatchNorm.Training;

/// <summary>What a sink needs to know of the run it is made for.</summary>
/// <param name="Folder">The folder of the run, which exists.</param>
/// <param name="FirstStep">Steps done before this process began.</param>
/// <param name="ImagesPerStep">Images of one step.</param>
/// <param name="Validation">The images that evaluations look at; null for a run without evaluations.</param>
/// <param name="EvaluationLoading">How evaluations load them.</param>
public sealed record RunContext(string Folder, long FirstStep, int ImagesPerStep, IImageSource? Validation, LoaderOptions EvaluationLoading);

/// <summary>Makes a sink for a run; the trainer calls it when the folder of the run is ready, and disposes of the sink.</summary>
public delegate IRunSink RunSinkFactory(RunContext context);

/// <summary>
/// Keeps something of a run besides its metrics: TensorBoard's events, a report. It is told on the thread that trains, after the metrics are on the disk.
/// </summary>
public interface IRunSink : IDisposable
{
    /// <summary>A log step is done.</summary>
    void Logged(in StepReport report)
    {
    }

    /// <summary>An evaluation begins.</summary>
    void EvaluationStarted()
    {
    }

    /// <summary>An evaluation has classified an image; <paramref name="probabilities"/> has one value per class.</summary>
    void Predicted(int image, int label, ReadOnlySpan<double> probabilities)
    {
    }

    /// <summary>An evaluation is done.</summary>
    /// <param name="report">What it found.</param>
    /// <param name="drift">How the inputs of batch normalizations moved since the evaluation before.</param>
    void Evaluated(in EvaluationReport report, IReadOnlyList<LayerDrift> drift)
    {
    }

    /// <summary>The run has ended in this process.</summary>
    void Ended()
    {
    }
}
