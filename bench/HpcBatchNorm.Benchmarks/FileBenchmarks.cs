using BenchmarkDotNet.Attributes;
using HpcBatchNorm.Data;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Benchmarks;

/// <summary>A training batch from images in memory's file cache: read, decode, crop, distort. One call is 32 images.</summary>
[Config(typeof(WholeStepConfig))]
public class LoaderBenchmarks : IDisposable
{
    private readonly string _folder = Path.Combine(Path.GetTempPath(), $"hbn-bench-{Environment.ProcessId}");
    private ImageDataset? _dataset;
    private BatchLoader? _loader;

    /// <summary>Threads that decode.</summary>
    [Params(1, 2)]
    public int Workers { get; set; }

    [GlobalSetup]
    public void Prepare()
    {
        SampleGenerator.Write(_folder, new SampleOptions());
        _dataset = ImageDataset.Open(_folder, DatasetSplit.Train);
        _loader = new BatchLoader(_dataset, LoaderOptions.ForTraining(32, 64, seed: 1) with { Workers = Workers });
        Batch();
    }

    [Benchmark]
    public void Batch() => _loader!.Next();

    [GlobalCleanup]
    public void Dispose()
    {
        _loader?.Dispose();
        _dataset?.Dispose();
        if (Directory.Exists(_folder))
        {
            Directory.Delete(_folder, recursive: true);
        }

        GC.SuppressFinalize(this);
    }
}

/// <summary>A checkpoint of BN-Inception (11.3 million parameters and as many momenta, 90 MB): written and flushed to the disk; opened, verified and read.</summary>
[Config(typeof(WholeStepConfig))]
public class CheckpointBenchmarks : IDisposable
{
    private readonly string _path = Path.Combine(Path.GetTempPath(), $"hbn-bench-{Environment.ProcessId}.safetensors");
    private Tensor[] _state = [];
    private float[] _values = [];

    [GlobalSetup]
    public void Prepare()
    {
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions());
        _state = [.. TrainingSession.PlanFor(BnInceptionLayers.AnyTraits, network, new TrainingOptions()).State.Select(s => s.Tensor)];
        _values = new float[_state.Max(t => t.Shape.Count)];
        Save();
    }

    [Benchmark]
    public void Save() => Checkpoint.Save(_path, _state, (tensor, values) => _values.AsSpan(0, values.Length).CopyTo(values), new CheckpointInfo
    {
        Step = 1,
        StepsPerEpoch = 1,
        Model = "bn-inception",
        Config = "",
        ConfigHash = "",
        ClassNames = [],
    });

    [Benchmark]
    public void Load()
    {
        using Checkpoint checkpoint = Checkpoint.Open(_path);
        checkpoint.Restore("bn-inception", _state, (_, _) => { });
    }

    [GlobalCleanup]
    public void Dispose()
    {
        File.Delete(_path);
        GC.SuppressFinalize(this);
    }
}
