using System.Buffers.Binary;
using System.Text;

namespace HpcBatchNorm.Tests.Fuzzing;

/// <summary>Changes files as damage, other programs and malice do: the same seed gives the same changes.</summary>
internal sealed class Mutator(int seed)
{
    private const int MostChanges = 6, LongestInsertion = 4096;

    private static readonly ulong[] Numbers =
    [
        0, 1, 2, 3, 7, 8, 255, 256, 32767, 32768, 65535, 65536, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 0x100000000,
        0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF, 0x4000000000000000, 0x7FF0000000000000, 0x7FF8000000000000,
    ];

    // Pieces of the text formats, which flipped bits seldom make.
    private static readonly string[] Texts =
    [
        "null", "[1]", "{}", "[]", "true", "\"\\ud800\"", "1e999", "-1", "0", "99999999999999999999", "2147483648", "NaN", "\"", "{", "[[[[[[[[[[", ",", ":", "\n", "\0", "'", "\u202e", "&", "*a", "!!x", "---", "<script>",
        "../../", "|", ">", "? ", "é", "\t", "%", "#",
    ];

    private readonly Random _random = new(seed);

    /// <summary>A changed copy.</summary>
    public byte[] Change(ReadOnlySpan<byte> original)
    {
        var bytes = new List<byte>(original.ToArray());
        for (int changes = _random.Next(1, MostChanges + 1); changes > 0; changes--)
        {
            int at = bytes.Count == 0 ? 0 : _random.Next(bytes.Count), rest = bytes.Count - at;
            switch (_random.Next(9))
            {
                case 0 when rest > 0:
                    bytes[at] ^= (byte)(1 << _random.Next(8));
                    break;
                case 1 when rest > 0:
                    bytes[at] = (byte)_random.Next(256);
                    break;
                case 2:
                    Overwrite(bytes, at, Number());
                    break;
                case 3:
                    bytes.RemoveRange(at, Math.Min(rest, _random.Next(1, 64)));
                    break;
                case 4:
                    bytes.InsertRange(at, bytes.GetRange(at, Math.Min(rest, _random.Next(1, 256))));
                    break;
                case 5 when _random.Next(4) == 0:
                    bytes.RemoveRange(at, rest);
                    break;
                case 6:
                    bytes.InsertRange(at, Encoding.UTF8.GetBytes(Texts[_random.Next(Texts.Length)]));
                    break;
                case 7:
                    Overwrite(bytes, at, Encoding.UTF8.GetBytes(Texts[_random.Next(Texts.Length)]));
                    break;
                case 8 when _random.Next(8) == 0:
                    bytes.InsertRange(at, Enumerable.Repeat((byte)_random.Next(256), _random.Next(LongestInsertion)));
                    break;
                default:
                    // A number in words, where there is one.
                    int digit = bytes.FindIndex(at, b => b is >= (byte)'0' and <= (byte)'9');
                    if (digit >= 0)
                    {
                        bytes.RemoveAt(digit);
                        bytes.InsertRange(digit, Encoding.ASCII.GetBytes(Numbers[_random.Next(Numbers.Length)].ToString(System.Globalization.CultureInfo.InvariantCulture)));
                    }

                    break;
            }
        }

        return [.. bytes];
    }

    /// <summary>True in one of <paramref name="n"/> cases.</summary>
    public bool OneOf(int n) => _random.Next(n) == 0;

    /// <summary>A number from 0 to below <paramref name="n"/>.</summary>
    public int Next(int n) => _random.Next(n);

    private byte[] Number()
    {
        byte[] number = new byte[8];
        ulong value = Numbers[_random.Next(Numbers.Length)];
        if (_random.Next(2) == 0)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(number, value);
            return number[..(1 << _random.Next(4))];
        }

        BinaryPrimitives.WriteUInt64BigEndian(number, value);
        return number[^(1 << _random.Next(4))..];
    }

    private static void Overwrite(List<byte> bytes, int at, byte[] by)
    {
        for (int i = 0; i < by.Length && at + i < bytes.Count; i++)
        {
            bytes[at + i] = by[i];
        }
    }
}
