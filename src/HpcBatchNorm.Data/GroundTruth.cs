using System.Diagnostics.CodeAnalysis;
using HpcBatchNorm.Interop;

namespace HpcBatchNorm.Data;

/// <summary>
/// Labels of a validation folder without class folders, from what lies beside it: Kaggle's <c>LOC_val_solution.csv</c> (a WNID for each name) or the
/// development kit (a class for each place in name order).
/// </summary>
internal static class GroundTruth
{
    public const string SolutionName = "LOC_val_solution.csv", MappingName = "LOC_synset_mapping.txt";

    /// <summary>Tiny-ImageNet's folder of validation images.</summary>
    public const string AnnotatedFolder = "images";

    private const string AnnotationsName = "val_annotations.txt", WordsName = "words.txt";

    /// <summary>Where Kaggle's archive has the images; the two text files lie three folders further up.</summary>
    private static readonly string KaggleFolder = Path.Combine("ILSVRC", "Data", "CLS-LOC");

    /// <summary>
    /// The folder with train/ and val/ when <paramref name="path"/> is where Kaggle's download was unpacked, or one of the folders on the way; otherwise
    /// <paramref name="path"/>.
    /// </summary>
    public static string FindImages(string path)
    {
        string[] parts = KaggleFolder.Split(Path.DirectorySeparatorChar);
        return Enumerable.Range(0, parts.Length).Select(skip => Path.Combine([path, .. parts[skip..]])).FirstOrDefault(Directory.Exists) ?? path;
    }

    /// <summary>A file that lies in <paramref name="folder"/> or, when that is Kaggle's, where its archive was unpacked; null when there is none.</summary>
    public static string? FindBeside(string folder, string name)
    {
        string[] candidates = folder.EndsWith(KaggleFolder, StringComparison.Ordinal)
            ? [folder, Path.GetFullPath(Path.Combine(folder, "..", "..", ".."))]
            : [folder];
        return candidates.Select(candidate => Path.Combine(candidate, name)).FirstOrDefault(File.Exists);
    }

    /// <summary>Labels of loose images, and the words for where they come from.</summary>
    /// <param name="images">The images of the validation folder.</param>
    /// <param name="folder">The validation folder.</param>
    /// <param name="classes">The training folder's classes, which the labels must be of; null to take those of the ground truth.</param>
    public static (int[] Labels, string[] Classes, string Origin) Read(ImageTable images, string folder, string[]? classes)
    {
        string parent = Path.GetDirectoryName(folder)!;
        if (FindBeside(parent, SolutionName) is string solution)
        {
            return FromSolution(images, folder, classes, solution);
        }

        if ((FindBeside(parent, DevelopmentKit.FileName) ?? FindBeside(parent, DevelopmentKit.FileName[..^".gz".Length])) is string kitPath)
        {
            DevelopmentKit kit = DevelopmentKit.Read(kitPath);
            if (classes is not null && !classes.SequenceEqual(kit.Wnids))
            {
                string odd = classes.Except(kit.Wnids).Concat(kit.Wnids.Except(classes)).First();
                throw new UserErrorException(
                    $"'{kitPath}' and the training folder beside '{folder}' have other classes ('{odd}' is only in one); the two do not belong together.");
            }

            kit.CheckValidationCount(images.Count, folder, kitPath);
            return (kit.ValidationLabels, kit.Wnids, DevelopmentKit.FileName);
        }

        throw new UserErrorException(
            $"'{folder}' holds {images.Count} images but no class folders, so their labels are unknown; put {SolutionName} (Kaggle) or " +
            $"{DevelopmentKit.FileName} beside it, or move each image into a folder named after its class.");
    }

    /// <summary>Tiny-ImageNet's list of labels when <paramref name="validation"/> is its validation folder; otherwise null.</summary>
    public static string? Annotations(string validation)
    {
        string list = Path.Combine(validation, AnnotationsName);
        return File.Exists(list) && Directory.Exists(Path.Combine(validation, AnnotatedFolder)) ? list : null;
    }

    /// <summary>Labels of Tiny-ImageNet's validation images, from lines of a file name, a WNID and a box, with tabs between them.</summary>
    public static (int[] Labels, string[] Classes, string Origin) FromAnnotations(ImageTable images, string folder, string[]? classes, string path)
    {
        var wnids = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (string line in RegularFile.ReadLines(path))
        {
            string[] fields = line.Split('\t');
            if (fields.Length >= 2 && fields[1].Length > 0)
            {
                wnids[fields[0]] = fields[1];
            }
            else if (line.Length > 0)
            {
                throw new UserErrorException($"'{path}': '{UserErrorException.Excerpt(line)}' is no line of a file name, a class and a box; get the file again.");
            }
        }

        return (FromNames(images, folder, ref classes, path, wnids, name => name), classes, AnnotationsName);
    }

    /// <summary>What classes are called, from Kaggle's list (<c>n01440764 tench, Tinca tinca</c>); empty strings where unknown.</summary>
    public static string[] Descriptions(string folder, string[] classes)
    {
        // Tiny-ImageNet's list is of all 82,115 synsets, with a tab.
        (string? path, char separator) = FindBeside(folder, MappingName) is string mapping ? (mapping, ' ') : (FindBeside(folder, WordsName), '\t');
        var words = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (string line in path is not null ? RegularFile.ReadLines(path) : [])
        {
            int space = line.IndexOf(separator, StringComparison.Ordinal);
            if (space > 0)
            {
                words[line[..space]] = line[(space + 1)..].Trim();
            }
        }

        return [.. classes.Select(name => words.GetValueOrDefault(name, ""))];
    }

    private static (int[] Labels, string[] Classes, string Origin) FromSolution(ImageTable images, string folder, string[]? classes, string path)
    {
        var wnids = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (string line in RegularFile.ReadLines(path).Skip(1))
        {
            // ILSVRC2012_val_00048981,n03995372 85 1 499 272 n03995372 ...: the boxes are all of one class.
            string[] fields = line.Split(',', 2);
            if (fields.Length == 2 && fields[1].Length > 0)
            {
                wnids[fields[0]] = fields[1].Split(' ')[0];
            }
            else if (line.Length > 0)
            {
                throw new UserErrorException($"'{path}': '{UserErrorException.Excerpt(line)}' is no line of ImageId,PredictionString; get the file again.");
            }
        }

        return (FromNames(images, folder, ref classes, path, wnids, name => Path.GetFileNameWithoutExtension(name)), classes, SolutionName);
    }

    private static int[] FromNames(
        ImageTable images, string folder, [NotNull] ref string[]? classes, string path, Dictionary<string, string> wnids, Func<string, string> key)
    {
        classes ??= [.. wnids.Values.Distinct().Order(StringComparer.Ordinal)];
        string[] known = classes;
        Dictionary<string, int> indices = Enumerable.Range(0, known.Length).ToDictionary(i => known[i], StringComparer.Ordinal);
        int[] labels = new int[images.Count];
        for (int i = 0; i < labels.Length; i++)
        {
            string name = images.Name(i);
            if (!wnids.TryGetValue(key(name), out string? wnid))
            {
                throw new UserErrorException($"'{path}' has no line for '{name}' in '{folder}'; the two do not belong together.");
            }

            if (!indices.TryGetValue(wnid, out labels[i]))
            {
                throw new UserErrorException($"'{path}' says that '{name}' is of class {UserErrorException.Excerpt(wnid)}, of which there is no training folder beside '{folder}'.");
            }
        }

        return labels;
    }
}
