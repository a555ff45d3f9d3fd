using HpcBatchNorm.Data;
using HpcBatchNorm.Tensors;

namespace OwnData;

/// <summary>
/// Pictures that are nowhere until they are asked for: waves along the rows, along the columns or in rings, computed from their index. The members without a
/// body of one's own in the interface are left as they are; a source with a better answer would write them too.
/// </summary>
/// <param name="count">How many pictures there are.</param>
/// <param name="seed">Another seed gives other pictures.</param>
internal sealed class Waves(int count, ulong seed) : IImageSource
{
    public const int Side = 24;

    private int _reads;

    public string Source => "computed waves";

    public int Count => count;

    public IReadOnlyList<string> ClassNames { get; } = ["rows", "columns", "rings"];

    /// <summary>How often a picture was asked for.</summary>
    public int Reads => _reads;

    public int Label(int index) => index % 3;

    /// <summary>
    /// Called by several threads at once, in any order, and again in every epoch. The picture must be the same every time: that is all that an exact resume
    /// needs. Numbers drawn from the index do it; one generator for all pictures would not.
    /// </summary>
    public StoredImage Read(int index, ref byte[] buffer)
    {
        Interlocked.Increment(ref _reads);
        StoredImage image = StoredImage.Rgb(Side, Side);
        if (buffer.Length < image.Length)
        {
            buffer = new byte[image.Length];
        }

        var random = new RandomSequence(seed, stream: 0, (uint)index);
        float frequency = 0.6f + random.NextBelow(100) * 0.008f, phase = random.NextBelow(100) * 0.0628f;
        float centreX = random.NextBelow(Side), centreY = random.NextBelow(Side);
        for (int i = 0; i < image.Length; i++)
        {
            float x = i / 3 % Side - centreX, y = i / 3 / Side - centreY;
            float position = Label(index) switch { 0 => y, 1 => x, _ => MathF.Sqrt(x * x + y * y) };
            buffer[i] = (byte)(110 + 70 * MathF.Sin(position * frequency + phase) + random.NextBelow(40));
        }

        return image;
    }
}
