using System.Globalization;
using System.Numerics.Tensors;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Experiments;

/// <summary>
/// One training of a fully connected network on binary digits by plain gradient descent, without momentum or decay. Its text holds every setting: it is what a
/// kept result is recognised by.
/// </summary>
internal sealed record MlpSettings
{
    public required bool BatchNorm { get; init; }

    public required float LearningRate { get; init; }

    public required int Steps { get; init; }

    public ActivationKind Activation { get; init; } = ActivationKind.Sigmoid;

    public int HiddenLayers { get; init; } = 3;

    public int HiddenUnits { get; init; } = 100;

    /// <summary>0 for He's.</summary>
    public double InitialDeviation { get; init; } = 0.1;

    public float Dropout { get; init; }

    public int Batch { get; init; } = 60;

    /// <summary>The first so many of all training images; 0 for all.</summary>
    public int TrainImages { get; init; }

    /// <summary>The same images always make a batch together; only the order of the batches changes from epoch to epoch.</summary>
    public bool FixedBatches { get; init; }

    public bool ConstantStatistics { get; init; }

    public ulong Seed { get; init; } = 1;

    /// <summary>Accuracy is measured every so many steps, and at the last.</summary>
    public int EvaluateEvery { get; init; } = 1000;

    /// <summary>More steps to measure accuracy at, with blanks between.</summary>
    public string EvaluateAlsoAt { get; init; } = "";

    /// <summary>Test images, 0 for all.</summary>
    public int TestImages { get; init; }

    /// <summary>Measure accuracy by running statistics and by those of the test batches too.</summary>
    public bool AllStatistics { get; init; }

    /// <summary>Keep the percentiles of the last hidden layer's inputs.</summary>
    public bool Percentiles { get; init; }
}

/// <summary>What a training showed. Lists run along <see cref="Steps"/>; from a divergence on, what would be measured is not a number.</summary>
internal sealed record MlpRun
{
    /// <summary>Where accuracy was measured.</summary>
    public List<int> Steps { get; init; } = [];

    /// <summary>Percent of the test images, by population statistics (Algorithm 2) where there is batch normalization.</summary>
    public List<double> Accuracy { get; init; } = [];

    /// <summary>By running statistics; with <see cref="MlpSettings.AllStatistics"/>.</summary>
    public List<double> RunningAccuracy { get; init; } = [];

    /// <summary>By the statistics of test batches as large as the training's; with <see cref="MlpSettings.AllStatistics"/>.</summary>
    public List<double> BatchAccuracy { get; init; } = [];

    /// <summary>Mean training loss of the 50 steps before.</summary>
    public List<double> Loss { get; init; } = [];

    /// <summary>Norm of the second hidden layer's weights.</summary>
    public List<double> WeightNorm { get; init; } = [];

    /// <summary>The 15th, 50th and 85th percentile of the inputs of units 0, 1 and 2 of the last hidden layer over test images: nine values a step.</summary>
    public List<double[]> Percentiles { get; init; } = [];

    /// <summary>Norm of the second hidden layer's weights before the first step.</summary>
    public double InitialWeightNorm { get; set; }

    /// <summary>The first step after which something was not finite, the loss or, where accuracy is measured, weights and statistics; 0 for none.</summary>
    public int DivergedAt { get; set; }

    /// <summary>Largest difference of a class probability when one image is predicted alone, in a batch, and in another; with <see cref="MlpSettings.AllStatistics"/>.</summary>
    public double Dependence { get; set; }

    /// <summary>A loss, the weights or their statistics were not finite.</summary>
    public bool Diverged => DivergedAt > 0;

    /// <summary>After the last step; not a number for a run that diverged.</summary>
    public double FinalAccuracy => Diverged ? double.NaN : Accuracy[^1];

    /// <summary>The highest of all; not a number for a run that diverged. What it reached before is <see cref="BestBefore"/>.</summary>
    public double BestAccuracy => Diverged ? double.NaN : Accuracy.Max();

    /// <summary>The highest accuracy while numbers were finite; not a number when none was measured by then.</summary>
    public double BestBefore => Steps.Zip(Accuracy).Where(p => !Diverged || p.First < DivergedAt).Select(p => p.Second).DefaultIfEmpty(double.NaN).Max();

    public double At(int step) => Accuracy[Steps.IndexOf(step)];

    /// <summary>The first measured step whose accuracy is as high as wanted; null when none is.</summary>
    public int? FirstStepAt(double accuracy) => Accuracy.FindIndex(a => a >= accuracy) is var i and >= 0 ? Steps[i] : null;

    /// <summary>The curve for a figure.</summary>
    public FigureSeries Curve(string name, int style = 0, bool dashed = false) => FigureSeries.Of(name, Steps.Zip(Accuracy, (s, a) => ((double)s, a)), style, dashed);
}

/// <summary>Trains what <see cref="MlpSettings"/> says. On top of the library's public parts alone.</summary>
internal sealed class MlpTraining : IDisposable
{
    private const int TestBatch = 500, PopulationBatches = 100, LossWindow = 50, ProbedImages = 1000, ProbedUnits = 3;

    private static readonly double[] Probed = [0.15, 0.50, 0.85];

    private readonly MlpSettings _settings;
    private readonly MnistImages _train, _test;
    private readonly Backend _backend;
    private readonly Network _network;
    private readonly TrainingSession _session;
    private readonly byte[] _pixels;
    private readonly int[] _labels;
    private readonly int _trainImages, _testImages;

    private MlpTraining(MlpSettings settings, MnistImages train, MnistImages test, Backend backend)
    {
        (_settings, _train, _test, _backend) = (settings, train, test, backend);
        _trainImages = settings.TrainImages > 0 ? Math.Min(settings.TrainImages, train.Count) : train.Count;
        _testImages = settings.TestImages > 0 ? Math.Min(settings.TestImages, test.Count) : test.Count;
        _network = NetworkCatalog.Create("mnist-mlp", new NetworkOptions
        {
            Classes = MnistImages.Classes,
            BatchNorm = settings.BatchNorm,
            Activation = settings.Activation,
            HiddenLayers = settings.HiddenLayers,
            HiddenUnits = settings.HiddenUnits,
            InitialDeviation = settings.InitialDeviation,
            Dropout = settings.Dropout,
            AveragingFactor = 0.01f,
        });
        _session = new TrainingSession(backend, _network, new TrainingOptions
        {
            Batch = settings.Batch,
            Height = MnistImages.Size,
            Width = MnistImages.Size,
            PixelMean = [0],
            PixelDeviation = [255],
            Mu = 0,
            Seed = settings.Seed,
            ConstantStatistics = settings.ConstantStatistics,
        });
        _pixels = new byte[settings.Batch * MnistImages.Pixels];
        _labels = new int[settings.Batch];
    }

    private static InferenceOptions Options(int batch) =>
        new() { Batch = batch, Height = MnistImages.Size, Width = MnistImages.Size, PixelMean = [0], PixelDeviation = [255] };

    /// <summary>A training as a run of an experiment.</summary>
    public static ExperimentRun<MlpRun> Run(ExperimentContext context, string key, MlpSettings settings, Lazy<(MnistImages Train, MnistImages Test)> data) =>
        new(key, settings.ToString(), progress =>
        {
            using Backend backend = context.CreateBackend();
            using var training = new MlpTraining(settings, data.Value.Train, data.Value.Test, backend);
            return training.Run(progress);
        });

    /// <summary>The digits of a context, read when the first run needs them.</summary>
    public static Lazy<(MnistImages Train, MnistImages Test)> Data(ExperimentContext context) => new(() => MnistImages.Load(
        context.DataPath ?? throw new UserErrorException("This experiment trains on MNIST; name its folder as the data."), context.Cancellation));

    /// <inheritdoc/>
    public void Dispose() => _session.Dispose();

    private MlpRun Run(IProgress<double> progress)
    {
        var run = new MlpRun { InitialWeightNorm = WeightNorm(_session.ReadNetworkState()) };
        HashSet<int> also = [.. _settings.EvaluateAlsoAt.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(s => int.Parse(s, CultureInfo.InvariantCulture))];
        Queue<float> losses = new();
        for (int step = 1; step <= _settings.Steps; step++)
        {
            if (run.DivergedAt == 0)
            {
                Fill(step - 1);
                float loss = _session.Step(_pixels, _labels, new StepContext(step - 1, _settings.LearningRate));
                run.DivergedAt = float.IsFinite(loss) ? 0 : step;
                losses.Enqueue(loss);
                if (losses.Count > LossWindow)
                {
                    losses.Dequeue();
                }
            }

            if (step % _settings.EvaluateEvery == 0 || step == _settings.Steps || also.Contains(step))
            {
                run.Steps.Add(step);
                run.Loss.Add(losses.Average());
                Evaluate(run);
                progress.Report((double)step / _settings.Steps);
            }
            else if (step % 100 == 0)
            {
                progress.Report((double)step / _settings.Steps);
            }
        }

        return run;
    }

    /// <summary>The images of a step, counted from 0: a new order of all images in each epoch, or of the batches, whose images stay together.</summary>
    private void Fill(long step)
    {
        int batch = _settings.Batch;
        if (_settings.FixedBatches)
        {
            int batches = _trainImages / batch;
            int number = new EpochOrder(~_settings.Seed, (uint)(step / batches), batches)[(int)(step % batches)];
            var first = new EpochOrder(_settings.Seed, 0, _trainImages);
            for (int i = 0; i < batch; i++)
            {
                _train.CopyTo(first[number * batch + i], _pixels, _labels, i);
            }

            return;
        }

        for (int i = 0; i < batch; i++)
        {
            long place = step * batch + i;
            _train.CopyTo(new EpochOrder(_settings.Seed, (uint)(place / _trainImages), _trainImages)[(int)(place % _trainImages)], _pixels, _labels, i);
        }
    }

    private void Evaluate(MlpRun run)
    {
        NetworkState state = _session.ReadNetworkState();
        double norm = WeightNorm(state);
        run.WeightNorm.Add(norm);
        NetworkState population = state;
        bool broken = run.Diverged || !double.IsFinite(norm);
        if (!broken && _settings.BatchNorm)
        {
            try
            {
                population = Population(state);
            }
            catch (UserErrorException)
            {
                broken = true; // statistics that are not finite
            }
        }

        if (broken && !run.Diverged)
        {
            run.DivergedAt = run.Steps[^1];
        }

        run.Accuracy.Add(broken ? double.NaN : Accuracy(population, BatchNormStatistics.Running, TestBatch));
        if (_settings.AllStatistics)
        {
            run.RunningAccuracy.Add(broken ? double.NaN : Accuracy(state, BatchNormStatistics.Running, TestBatch));
            run.BatchAccuracy.Add(broken ? double.NaN : Accuracy(state, BatchNormStatistics.Batch, _settings.Batch));
            run.Dependence = broken ? double.NaN : Math.Max(run.Dependence, Dependence(population));
        }

        if (_settings.Percentiles)
        {
            run.Percentiles.Add(broken ? [] : InputPercentiles(state));
        }
    }

    /// <summary>Algorithm 2 over batches of the coming epochs' order; which images come next does not change.</summary>
    private NetworkState Population(NetworkState state)
    {
        using var statistics = new PopulationStatistics(_backend, _network, Options(_settings.Batch), state);
        for (int i = 0; i < PopulationBatches; i++)
        {
            Fill(i);
            statistics.Add(_pixels);
        }

        return statistics.ToState();
    }

    private double Accuracy(NetworkState state, BatchNormStatistics statistics, int batch)
    {
        using var session = new ForwardSession(_backend, _network, Options(batch) with { Statistics = statistics }, state);
        byte[] pixels = new byte[batch * MnistImages.Pixels];
        int[] labels = new int[batch];
        float[] probabilities = new float[batch * MnistImages.Classes];
        int right = 0;
        for (int first = 0; first < _testImages; first += batch)
        {
            // The last batch is filled up with images that were counted already.
            for (int i = 0; i < batch; i++)
            {
                _test.CopyTo((first + i) % _testImages, pixels, labels, i);
            }

            session.Forward(pixels, probabilities);
            for (int i = 0; i < Math.Min(batch, _testImages - first); i++)
            {
                right += TensorPrimitives.IndexOfMax(probabilities.AsSpan(i * MnistImages.Classes, MnistImages.Classes)) == labels[i] ? 1 : 0;
            }
        }

        return 100.0 * right / _testImages;
    }

    /// <summary>How much an image's prediction depends on the others in its batch; with population statistics it must not.</summary>
    private double Dependence(NetworkState state)
    {
        const int Batch = 60;
        using ForwardSession alone = new(_backend, _network, Options(1), state), together = new(_backend, _network, Options(Batch), state);
        byte[] pixels = new byte[Batch * MnistImages.Pixels];
        int[] labels = new int[Batch];
        float[] one = new float[MnistImages.Classes], all = new float[Batch * MnistImages.Classes];
        double largest = 0;
        foreach (int others in new[] { 0, 1000 })
        {
            for (int i = 0; i < Batch; i++)
            {
                _test.CopyTo((i == 0 ? 0 : others + i) % _test.Count, pixels, labels, i);
            }

            alone.Forward(pixels.AsSpan(0, MnistImages.Pixels), one);
            together.Forward(pixels, all);
            largest = Math.Max(largest, one.Select((p, i) => Math.Abs((double)p - all[i])).Max());
        }

        return largest;
    }

    /// <summary>As Figure 1 (b, c): with batch normalization its output, computed by the training network from the statistics of these images.</summary>
    private double[] InputPercentiles(NetworkState state)
    {
        int images = Math.Min(ProbedImages, _test.Count);
        using var session = new ForwardSession(_backend, _network, Options(images) with { Statistics = BatchNormStatistics.Batch }, state);
        float[] inputs = new float[images * _settings.HiddenUnits];
        session.Forward(_test.Images.AsSpan(0, images * MnistImages.Pixels), $"hidden{_settings.HiddenLayers}/{(_settings.BatchNorm ? "bn" : "fc")}", inputs);
        List<double> percentiles = [];
        for (int unit = 0; unit < ProbedUnits; unit++)
        {
            float[] values = [.. Enumerable.Range(0, images).Select(i => inputs[i * _settings.HiddenUnits + unit]).Order()];
            percentiles.AddRange(Probed.Select(p => (double)values[(int)(p * (images - 1))]));
        }

        return [.. percentiles];
    }

    private double WeightNorm(NetworkState state) =>
        TensorPrimitives.Norm(state.Get("hidden2/fc.weights", Shape.Matrix(_settings.HiddenUnits, _settings.HiddenUnits)));
}
