using System.Runtime.CompilerServices;

namespace HpcBatchNorm.Tensors;

/// <summary>
/// Philox4x32-10 (Salmon et al. 2011): four random words as a pure function of a 128-bit counter and a 64-bit key. Everything random in this
/// library (initial weights, dropout masks, shuffling, augmentation) is drawn from it, so any draw can be repeated from its coordinates alone,
/// whatever the thread, the order or the backend.
/// </summary>
internal static class CounterRandom
{
    /// <summary>The four words at a counter.</summary>
    public static (uint X, uint Y, uint Z, uint W) Words(ulong key, uint c0, uint c1, uint c2, uint c3)
    {
        uint k0 = (uint)key, k1 = (uint)(key >> 32);
        for (int round = 0; round < 10; round++)
        {
            ulong p0 = 0xD2511F53UL * c0;
            ulong p1 = 0xCD9E8D57UL * c2;
            (c0, c1, c2, c3) = ((uint)(p1 >> 32) ^ c1 ^ k0, (uint)p1, (uint)(p0 >> 32) ^ c3 ^ k1, (uint)p0);
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }

        return (c0, c1, c2, c3);
    }
}

/// <summary>
/// A sequence of draws at fixed coordinates: (seed, stream, epoch or step, item), by Philox4x32-10 (Salmon et al. 2011), whose words are a function of the
/// coordinates and the number of the draw alone. A value type: copying it forks it.
/// </summary>
public struct RandomSequence(ulong seed, uint stream, uint major = 0, uint minor = 0)
{
    private uint _next;
    private (uint X, uint Y, uint Z, uint W) _words;

    /// <summary>32 random bits.</summary>
    public uint NextUInt32()
    {
        uint lane = _next & 3;
        if (lane == 0)
        {
            _words = CounterRandom.Words(seed, _next >> 2, stream, major, minor);
        }

        _next++;
        return lane switch { 0 => _words.X, 1 => _words.Y, 2 => _words.Z, _ => _words.W };
    }

    /// <summary>Uniform in [0, 1), 53 bits.</summary>
    public double NextDouble()
    {
        ulong high = NextUInt32() >> 5, low = NextUInt32() >> 6;
        return ((high << 26) + low) * (1.0 / (1UL << 53));
    }

    /// <summary>Uniform in [<paramref name="low"/>, <paramref name="high"/>).</summary>
    public double NextDouble(double low, double high) => low + (high - low) * NextDouble();

    /// <summary>Uniform in 0 .. <paramref name="bound"/> - 1, without bias.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public uint NextBelow(uint bound)
    {
        ArgumentOutOfRangeException.ThrowIfZero(bound);
        uint reject = (0u - bound) % bound;
        while (true)
        {
            ulong product = (ulong)NextUInt32() * bound;
            if ((uint)product >= reject)
            {
                return (uint)(product >> 32);
            }
        }
    }

    /// <summary>Normal with mean 0 and deviation 1 (Box and Muller).</summary>
    public double NextGaussian()
    {
        double radius = Math.Sqrt(-2 * Math.Log(1 - NextDouble()));
        return radius * Math.Cos(2 * Math.PI * NextDouble());
    }
}
