using HpcBatchNorm.Data;

namespace HpcBatchNorm.Training.Evaluation;

/// <summary>Counts right and wrong predictions, in all, by class and by pair of classes.</summary>
internal sealed class Tally(int classes)
{
    private const int Top = 5;

    private readonly long[] _images = new long[classes], _top1 = new long[classes], _top5 = new long[classes];
    private readonly Dictionary<(int Label, int Predicted), long> _confusions = [];
    private double _loss;

    public long Images { get; private set; }

    public long Top1Images { get; private set; }

    public long Top5Images { get; private set; }

    /// <summary>Counts one image by its class probabilities.</summary>
    public void Add(int label, ReadOnlySpan<double> probabilities)
    {
        // The label's rank: classes that are more probable, and of equally probable ones those before it. What is not a number is never right.
        int rank = 0, predicted = 0;
        double own = probabilities[label];
        for (int c = 0; c < probabilities.Length; c++)
        {
            double value = probabilities[c];
            if (c != label && !(value < own) && !(value == own && c > label))
            {
                rank++;
            }

            predicted = value > probabilities[predicted] ? c : predicted;
        }

        Images++;
        _images[label]++;
        if (rank == 0)
        {
            Top1Images++;
            _top1[label]++;
        }
        else
        {
            (int, int) pair = (label, predicted);
            _confusions[pair] = _confusions.GetValueOrDefault(pair) + 1;
        }

        if (rank < Top)
        {
            Top5Images++;
            _top5[label]++;
        }

        _loss -= Math.Log(Math.Max(own, float.Epsilon));
    }

    public EvaluationResult Result(IImageSource dataset, double seconds)
    {
        ClassAccuracy[] accuracies = [.. Enumerable.Range(0, classes).Select(c =>
            new ClassAccuracy(c, dataset.ClassNames[c], dataset.ClassDescriptions[c], _images[c], _top1[c], _top5[c]))];
        return new EvaluationResult(Images, (double)Top1Images / Images, (double)Top5Images / Images, _loss / Images, seconds)
        {
            Classes = accuracies,
            Confusions = [.. _confusions.OrderByDescending(c => c.Value).ThenBy(c => c.Key.Label).ThenBy(c => c.Key.Predicted)
                .Select(c => new Confusion(accuracies[c.Key.Label], accuracies[c.Key.Predicted], c.Value))],
        };
    }
}
