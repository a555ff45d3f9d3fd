using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Training.Evaluation;

/// <summary>
/// Which of a network's classes stand for which of a data set's, for evaluation on images of some of the classes it was trained on (ImageNet-A and -R,
/// ImageNet-100) or of coarser ones. A data set's class has the probabilities of its classes of the network together; classes of the network that stand for
/// none are left out, so that only those of the data set compete, as in the published evaluations of these sets.
/// </summary>
public sealed class ClassMap
{
    private readonly int[] _to;
    private readonly int _classes;

    private ClassMap(int[] to, int classes) => (_to, _classes) = (to, classes);

    /// <summary>Number of the network's classes.</summary>
    public int NetworkClasses => _to.Length;

    /// <summary>Number of the network's classes that stand for one of the data set's.</summary>
    public int Used => _to.Count(to => to >= 0);

    /// <summary>Every class of the data set is the network's of the same name.</summary>
    /// <param name="network">The network's classes.</param>
    /// <param name="images">The data set's.</param>
    /// <exception cref="UserErrorException">The network does not know a class of the data set.</exception>
    public static ClassMap ByName(IReadOnlyList<string> network, IReadOnlyList<string> images) =>
        Create(network, images, images.Select(name => (name, name)), "the data set's classes");

    /// <summary>
    /// Reads a map from a file of lines <c>CLASS-OF-THE-DATA CLASS-OF-THE-NETWORK</c>, the two names apart by a tab, or by a space where no name has one.
    /// Empty lines and those that begin with <c>#</c> say nothing. A class of the data may stand in several lines.
    /// </summary>
    /// <param name="path">The file.</param>
    /// <param name="network">The network's classes.</param>
    /// <param name="images">The data set's.</param>
    /// <exception cref="UserErrorException">The file cannot be read, names a class that does not exist, or leaves one of the data set's out.</exception>
    public static ClassMap Read(string path, IReadOnlyList<string> network, IReadOnlyList<string> images)
    {
        var pairs = new List<(string Images, string Network)>();
        try
        {
            foreach (string line in RegularFile.ReadLines(path).Where(line => line.Length > 0 && line[0] != '#'))
            {
                string[] names = line.Split(line.Contains('\t', StringComparison.Ordinal) ? '\t' : ' ', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
                pairs.Add(names.Length == 2 ? (names[0], names[1]) : throw new UserErrorException(
                    $"'{path}': '{UserErrorException.Excerpt(line)}' are not two names; expected a class of the data and one of the network, with a tab between them."));
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new UserErrorException($"The class map '{path}' cannot be read: {error.Message}", error);
        }

        return Create(network, images, pairs, $"'{path}'");
    }

    /// <summary>Probabilities of the data set's classes, which sum to one, from those of the network's.</summary>
    /// <param name="network">The network's.</param>
    /// <param name="images">The data set's, overwritten.</param>
    internal void Apply(ReadOnlySpan<double> network, Span<double> images)
    {
        images.Clear();
        double sum = 0;
        for (int c = 0; c < network.Length; c++)
        {
            if (_to[c] >= 0)
            {
                images[_to[c]] += network[c];
                sum += network[c];
            }
        }

        // Where all of them are zero there is nothing to choose by, and no division.
        for (int c = 0; sum > 0 && c < images.Length; c++)
        {
            images[c] /= sum;
        }
    }

    /// <summary>Number of the data set's classes.</summary>
    internal int ImageClasses => _classes;

    private static ClassMap Create(IReadOnlyList<string> network, IReadOnlyList<string> images, IEnumerable<(string Images, string Network)> pairs, string source)
    {
        Dictionary<string, int> known = Indices(network), wanted = Indices(images);
        int[] to = new int[network.Count];
        Array.Fill(to, -1);
        foreach ((string image, string own) in pairs)
        {
            if (!wanted.TryGetValue(image, out int label))
            {
                throw new UserErrorException($"{source}: '{UserErrorException.Excerpt(image)}' is no class of the data set{NearestName.HintOrStop(image, images)}");
            }

            if (!known.TryGetValue(own, out int output))
            {
                throw new UserErrorException(
                    $"{source}: the network knows no class '{UserErrorException.Excerpt(own)}'{NearestName.HintOrStop(own, network)} Give a file of lines that name a class of the data and the network's that it is.");
            }

            if (to[output] >= 0 && to[output] != label)
            {
                throw new UserErrorException($"{source}: the network's class '{own}' stands for '{images[to[output]]}' and for '{image}'; it can stand for one.");
            }

            to[output] = label;
        }

        int missing = Enumerable.Range(0, images.Count).FirstOrDefault(label => !to.Contains(label), -1);
        return missing < 0 ? new ClassMap(to, images.Count) : throw new UserErrorException(
            $"{source} says of no class of the network that it is '{images[missing]}'; add a line for it.");
    }

    private static Dictionary<string, int> Indices(IReadOnlyList<string> names)
    {
        var indices = new Dictionary<string, int>(StringComparer.Ordinal);
        for (int i = 0; i < names.Count; i++)
        {
            indices.TryAdd(names[i], i);
        }

        return indices;
    }
}
