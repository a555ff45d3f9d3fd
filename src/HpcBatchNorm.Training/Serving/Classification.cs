namespace HpcBatchNorm.Training.Serving;

/// <summary>A class with its probability.</summary>
/// <param name="Index">Index of the class among the network's outputs.</param>
/// <param name="Name">Its name, as the checkpoint knows it.</param>
/// <param name="Probability">Between 0 and 1.</param>
public readonly record struct ClassScore(int Index, string Name, float Probability);

/// <summary>What a network says of an image.</summary>
public sealed class Classification
{
    internal Classification(float[] probabilities, IReadOnlyList<string> names, int top)
    {
        Probabilities = probabilities;
        top = Math.Min(top, probabilities.Length);
        int[] indices = new int[top];
        int found = 0;
        // The list is short: insertion keeps it sorted, the lower index first among equals.
        for (int i = 0; i < probabilities.Length; i++)
        {
            int at = found;
            while (at > 0 && probabilities[i] > probabilities[indices[at - 1]])
            {
                at--;
            }

            if (at < top)
            {
                found = Math.Min(found + 1, top);
                indices.AsSpan(at, found - 1 - at).CopyTo(indices.AsSpan(at + 1));
                indices[at] = i;
            }
        }

        Top = Array.ConvertAll(indices, i => new ClassScore(i, names[i], probabilities[i]));
    }

    /// <summary>The most probable class.</summary>
    public ClassScore Best => Top[0];

    /// <summary>The most probable classes, the most probable first (<see cref="ClassifierOptions.TopClasses"/>).</summary>
    public IReadOnlyList<ClassScore> Top { get; }

    /// <summary>The probability of every class, by index; their sum is 1.</summary>
    public ReadOnlyMemory<float> Probabilities { get; }
}
