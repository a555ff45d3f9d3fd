using System.Globalization;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Data;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Experiments;

/// <summary>How a network learned a few images by heart.</summary>
internal sealed record OverfitRun
{
    /// <summary>Steps after which the inference network classified every image correctly; null when it never did.</summary>
    public required int? Steps { get; init; }

    /// <summary>Loss of every step, nats per image.</summary>
    public required IReadOnlyList<double> Losses { get; init; }

    /// <summary>Images classified correctly at the end, with population statistics.</summary>
    public required int Right { get; init; }
}

/// <summary>
/// Not of the paper: whether everything between a photo and the update of a weight is connected. BN-Inception at full size must be able to learn a few photos by heart,
/// in each precision that the backend computes in here, and to know them again as an inference network with population statistics (Algorithm 2).
/// </summary>
internal sealed class OverfitExperiment : Experiment
{
    /// <inheritdoc/>
    public override string Name => "overfit";

    /// <inheritdoc/>
    public override string Title => "BN-Inception learns a few photos by heart";

    /// <inheritdoc/>
    public override string Claim => "The whole pipeline at full size: BN-Inception at 224 px fits 64 photos to 100 %, in fp32 and in bf16 (a check of ours, not a claim of the paper).";

    /// <inheritdoc/>
    public override ExperimentData Data => ExperimentData.ImageNet;

    /// <inheritdoc/>
    public override double Minutes => 5;

    /// <summary>Photos to learn.</summary>
    public int Images { get; init; } = 64;

    /// <summary>Photos in a step.</summary>
    public int Batch { get; init; } = 32;

    /// <summary>Height and width of the network's input.</summary>
    public int ImageSize { get; init; } = 224;

    /// <summary>The learning rate, of every step.</summary>
    public float LearningRate { get; init; } = 0.02f;

    /// <summary>Steps allowed.</summary>
    public int MostSteps { get; init; } = 80;

    /// <inheritdoc/>
    public override ExperimentResult Run(ExperimentContext context)
    {
        OverfitExperiment size = context.Quick ? new OverfitExperiment { Images = 16, Batch = 16, ImageSize = 96, MostSteps = 40 } : this;
        string data = ImageNetTraining.DataOf(context);
        (IReadOnlyList<Precision> precisions, IReadOnlyList<string> notRun) = Precisions(context);
        IReadOnlyList<OverfitRun> runs = context.All([.. precisions.Select(p => new ExperimentRun<OverfitRun>(
            p.Word(), FormattableString.Invariant($"{size.Images} images, batch {size.Batch}, {size.ImageSize} px, learning rate {size.LearningRate}, {size.MostSteps} steps"),
            progress => size.Learn(context, data, p, progress)))]);
        return new ExperimentResult
        {
            Findings = [.. runs.Select((r, i) => new Finding(
                FormattableString.Invariant($"steps of {size.Batch} until all {size.Images} images are right, {precisions[i].Word()}"), "-",
                r.Steps is int steps ? FormattableString.Invariant($"{steps} ({steps * size.Batch / size.Images} epochs)") : FormattableString.Invariant($"never: {r.Right} of {size.Images} after {size.MostSteps}"),
                FormattableString.Invariant($"at most {size.MostSteps}"), Finding.Judge(r.Steps is not null, false)))],
            Figures =
            [
                new Figure("overfit", FormattableString.Invariant($"Training loss on {size.Images} photos"), "steps", "loss, nats per image")
                {
                    Series = [.. runs.Select((r, i) => FigureSeries.Of(precisions[i].Word(), r.Losses.Select((l, step) => (step + 1.0, l)), i))],
                    Marks = [.. precisions.Zip(runs).Where(p => p.Second.Steps is not null).Select(p => new FigureMark($"{p.First.Word()}: all right", X: p.Second.Steps))],
                    LogarithmicY = true,
                },
            ],
            NotRun = notRun,
            Notes =
            [
                string.Create(CultureInfo.InvariantCulture,
                    $"bn-inception at {size.ImageSize} px, {size.Images} images drawn with seed 1, central crops without variation, batches of {size.Batch} in a new order each epoch, learning rate {size.LearningRate}, momentum 0.9, no weight decay. \"Right\" is the most probable class of the inference network, batch normalization folded with population statistics of the same images."),
            ],
        };
    }

    /// <summary>The precisions that the backend can compute in here, and a sentence for each that it cannot, with its reason.</summary>
    private static (IReadOnlyList<Precision> Precisions, IReadOnlyList<string> NotRun) Precisions(ExperimentContext context)
    {
        using Backend backend = context.CreateBackend();
        List<Precision> precisions = [];
        List<string> notRun = [];
        foreach (Precision precision in new[] { Precision.Fp32, Precision.Bf16 })
        {
            if (backend.Supports(precision, out string reason))
            {
                precisions.Add(precision);
            }
            else
            {
                notRun.Add($"Not run in {precision.Word()}: {backend.Name} cannot compute in it here. {reason}");
            }
        }

        return (precisions, notRun);
    }

    private OverfitRun Learn(ExperimentContext context, string data, Precision precision, IProgress<double> progress)
    {
        using ImageDataset dataset = ImageDataset.Open(data, DatasetSplit.Train);
        if (dataset.Count < Images)
        {
            throw new UserErrorException(FormattableString.Invariant($"'{data}' has {dataset.Count} training images; this experiment takes {Images}."));
        }

        (byte[] pixels, int[] labels) = Load(dataset);
        int bytes = pixels.Length / Images;
        Network network = NetworkCatalog.Create("bn-inception", new NetworkOptions { Classes = dataset.ClassCount });
        using Backend backend = context.CreateBackend();
        var options = new TrainingOptions { Batch = Batch, Height = ImageSize, Width = ImageSize, Precision = precision, Seed = 1 };
        using var session = new TrainingSession(backend, network, options);
        byte[] batchPixels = new byte[Batch * bytes];
        int[] batchLabels = new int[Batch], order = [.. Enumerable.Range(0, Images)];
        float[] probabilities = new float[Batch * dataset.ClassCount];
        var random = new Random(1);
        List<double> losses = [];
        int steps = Images / Batch, wrong = 0, right = 0;
        for (int step = 0; step < MostSteps; step++)
        {
            if (step % steps == 0)
            {
                random.Shuffle(order);
                wrong = 0;
            }

            for (int i = 0; i < Batch; i++)
            {
                int image = order[step % steps * Batch + i];
                pixels.AsSpan(image * bytes, bytes).CopyTo(batchPixels.AsSpan(i * bytes));
                batchLabels[i] = labels[image];
            }

            losses.Add(session.Step(batchPixels, batchLabels, new StepContext(step, LearningRate)));
            session.ReadProbabilities(probabilities);
            wrong += Batch - Right(probabilities, batchLabels);
            progress.Report((step + 1.0) / MostSteps);

            // The inference network is made when the training network knew all images in the epoch that ends here, and at the very end.
            bool epochEnds = (step + 1) % steps == 0;
            if ((epochEnds && wrong == 0) || step == MostSteps - 1)
            {
                right = RightInInference(backend, session, pixels, labels);
                if (right == Images)
                {
                    return new OverfitRun { Steps = step + 1, Losses = losses, Right = right };
                }
            }
        }

        return new OverfitRun { Steps = null, Losses = losses, Right = right };
    }

    private int RightInInference(Backend backend, TrainingSession training, byte[] pixels, int[] labels)
    {
        var options = new InferenceOptions { Batch = Batch, Height = ImageSize, Width = ImageSize, Precision = training.Options.Precision };
        int bytes = pixels.Length / Images * Batch;
        NetworkState state;
        using (var statistics = new PopulationStatistics(backend, training.Plan.Network, options, training.ReadNetworkState(), training.Arena))
        {
            for (int i = 0; i < pixels.Length; i += bytes)
            {
                statistics.Add(pixels.AsSpan(i, bytes));
            }

            state = statistics.ToState();
        }

        using var inference = new ForwardSession(backend, training.Plan.Network, options, state, training.Arena);
        float[] probabilities = new float[Batch * inference.Plan.Probabilities.Shape.C];
        int right = 0;
        for (int i = 0; i < Images; i += Batch)
        {
            inference.Forward(pixels.AsSpan(i / Batch * bytes, bytes), probabilities);
            right += Right(probabilities, labels.AsSpan(i, Batch));
        }

        return right;
    }

    private (byte[] Pixels, int[] Labels) Load(ImageDataset dataset)
    {
        using var loader = new BatchLoader(dataset, LoaderOptions.ForEvaluation(Images, ImageSize) with { Shuffle = ShuffleMode.Global, Seed = 1, OnBadImage = BadImagePolicy.Fail });
        using Batch batch = loader.Next();
        return (batch.Pixels.ToArray(), batch.Labels[..Images].ToArray());
    }

    private static int Right(ReadOnlySpan<float> probabilities, ReadOnlySpan<int> labels)
    {
        int classes = probabilities.Length / labels.Length, right = 0;
        for (int i = 0; i < labels.Length; i++)
        {
            ReadOnlySpan<float> own = probabilities.Slice(i * classes, classes);
            right += System.Numerics.Tensors.TensorPrimitives.IndexOfMax(own) == labels[i] ? 1 : 0;
        }

        return right;
    }
}
