using System.Numerics.Tensors;
using System.Text.Json;
using HpcBatchNorm.Data;
using HpcBatchNorm.Interop;
using HpcBatchNorm.Training.Evaluation;

namespace HpcBatchNorm.Reporting;

/// <summary>
/// What one evaluation said of single images and classes, kept in <c>predictions.json</c>: some images spread over the validation set, always the same;
/// the most confident mistakes; the classes with the lowest accuracy; the pairs confused most often. It is told of every image while the evaluation
/// runs, and costs a look at each image's probabilities.
/// </summary>
internal sealed class PredictionLog(IImageSource validation, LoaderOptions loading, string path)
{
    private const int Spread = 12, Mistakes = 12, Top = 3, ThumbnailSize = 160, WorstClasses = 12, Confusions = 12;

    private readonly Dictionary<int, byte[]?> _thumbnails = [];
    private readonly List<Prediction> _spread = [];
    private readonly PriorityQueue<Prediction, double> _mistakes = new();
    private readonly HashSet<int> _chosen = [.. Enumerable.Range(0, Spread).Select(i => (int)((2L * i + 1) * validation.Count / (2 * Spread)))];

    private sealed record Prediction(int Image, int Label, (int Class, double Probability)[] Top);

    /// <summary>Forgets the last evaluation.</summary>
    public void Begin()
    {
        _spread.Clear();
        _mistakes.Clear();
    }

    /// <summary>One image's class probabilities.</summary>
    public void Add(int image, int label, ReadOnlySpan<double> probabilities)
    {
        if (_chosen.Contains(image))
        {
            _spread.Add(new Prediction(image, label, TopOf(probabilities)));
        }

        int best = TensorPrimitives.IndexOfMax(probabilities);
        if (best != label)
        {
            double confidence = probabilities[best];
            if (_mistakes.Count < Mistakes)
            {
                _mistakes.Enqueue(new Prediction(image, label, TopOf(probabilities)), confidence);
            }
            else if (_mistakes.TryPeek(out _, out double least) && confidence > least)
            {
                _mistakes.DequeueEnqueue(new Prediction(image, label, TopOf(probabilities)), confidence);
            }
        }
    }

    /// <summary>Writes the file: what was added since <see cref="Begin"/>, and the classes of the evaluation's result.</summary>
    public void Write(long step, EvaluationResult result)
    {
        Prediction[] mistakes = [.. _mistakes.UnorderedItems.OrderByDescending(m => m.Priority).ThenBy(m => m.Element.Image).Select(m => m.Element)];
        using var thumbnailer = new Thumbnailer(validation, loading, ThumbnailSize);
        using var buffer = new MemoryStream();
        using (var json = new Utf8JsonWriter(buffer))
        {
            json.WriteStartObject();
            json.WriteNumber("step", step);
            WriteImages(json, "spread", _spread, thumbnailer);
            WriteImages(json, "mistakes", mistakes, thumbnailer);
            json.WriteStartArray("worst_classes");
            foreach (ClassAccuracy c in result.Classes.Where(c => c.Images > 0).OrderBy(c => c.Top1).ThenByDescending(c => c.Images).Take(WorstClasses))
            {
                json.WriteStartObject();
                json.WriteString("class", NameOf(c.Index));
                json.WriteNumber("images", c.Images);
                json.WriteNumber("right", c.Top1Images);
                json.WriteEndObject();
            }

            json.WriteEndArray();
            json.WriteStartArray("confusions");
            foreach (Confusion confusion in result.Confusions.Take(Confusions))
            {
                json.WriteStartObject();
                json.WriteString("class", NameOf(confusion.Label.Index));
                json.WriteString("predicted", NameOf(confusion.Predicted.Index));
                json.WriteNumber("count", confusion.Images);
                json.WriteNumber("images", confusion.Label.Images);
                json.WriteEndObject();
            }

            json.WriteEndArray();
            json.WriteEndObject();
        }

        AtomicFile.ReplaceText(path, System.Text.Encoding.UTF8.GetString(buffer.GetBuffer(), 0, (int)buffer.Length));
    }

    private void WriteImages(Utf8JsonWriter json, string name, IEnumerable<Prediction> predictions, Thumbnailer thumbnailer)
    {
        json.WriteStartArray(name);
        foreach (Prediction prediction in predictions)
        {
            json.WriteStartObject();
            json.WriteString("image", validation.Name(prediction.Image));
            json.WriteString("class", NameOf(prediction.Label));
            json.WriteStartArray("top");
            foreach ((int c, double probability) in prediction.Top)
            {
                json.WriteStartObject();
                json.WriteString("class", NameOf(c));
                json.WriteNumber("probability", Math.Round(probability, 5));
                json.WriteBoolean("right", c == prediction.Label);
                json.WriteEndObject();
            }

            json.WriteEndArray();
            if (Thumbnail(prediction.Image, thumbnailer) is byte[] jpeg)
            {
                json.WriteBase64String("jpeg", jpeg);
            }

            json.WriteEndObject();
        }

        json.WriteEndArray();
    }

    /// <summary>The chosen images stay the same, so theirs are kept; mistakes change.</summary>
    private byte[]? Thumbnail(int image, Thumbnailer thumbnailer)
    {
        if (!_chosen.Contains(image))
        {
            return thumbnailer.Encode(image);
        }

        if (!_thumbnails.TryGetValue(image, out byte[]? jpeg))
        {
            _thumbnails[image] = jpeg = thumbnailer.Encode(image);
        }

        return jpeg;
    }

    private static (int Class, double Probability)[] TopOf(ReadOnlySpan<double> probabilities)
    {
        double[] rest = probabilities.ToArray();
        var top = new (int Class, double Probability)[Math.Min(Top, rest.Length)];
        for (int i = 0; i < top.Length; i++)
        {
            int best = TensorPrimitives.IndexOfMax<double>(rest);
            top[i] = (best, rest[best]);
            rest[best] = double.NegativeInfinity;
        }

        return top;
    }

    /// <summary>The first of the synset's words, where they are known.</summary>
    private string NameOf(int c) => validation.ClassDescriptions[c] is { Length: > 0 } words ? words.Split(',')[0] : validation.ClassNames[c];
}
