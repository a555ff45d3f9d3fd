namespace HpcBatchNorm.Data;

/// <summary>Neighbouring images of a source, as a source of their own with the same classes.</summary>
/// <param name="source">All images.</param>
/// <param name="first">The first of the range.</param>
/// <param name="count">How many.</param>
internal sealed class ImageRange(IImageSource source, int first, int count) : IImageSource
{
    /// <summary>One of <paramref name="parts"/> ranges that together are all images, and differ in length by one at most.</summary>
    public static ImageRange Part(IImageSource source, int part, int parts)
    {
        int begin = (int)((long)source.Count * part / parts), end = (int)((long)source.Count * (part + 1) / parts);
        return new ImageRange(source, begin, end - begin);
    }

    /// <summary>Which image of the whole source the range begins with.</summary>
    public int First => first;

    public string Source => source.Source;

    public string Layout => source.Layout;

    public int Count => count;

    public IReadOnlyList<string> ClassNames => source.ClassNames;

    public IReadOnlyList<string> ClassDescriptions => source.ClassDescriptions;

    public int Label(int index) => source.Label(first + index);

    public string Name(int index) => source.Name(first + index);

    public StoredImage Read(int index, ref byte[] buffer) => source.Read(first + index, ref buffer);
}
