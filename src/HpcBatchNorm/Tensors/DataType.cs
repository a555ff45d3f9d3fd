namespace HpcBatchNorm.Tensors;

/// <summary>Element type of a tensor as users see it; a backend may store it wider (the reference stores all in double, rounded to the type).</summary>
public enum DataType
{
    /// <summary>IEEE single precision.</summary>
    Float32,

    /// <summary>IEEE double precision; only the reference backend takes it.</summary>
    Float64,

    /// <summary>Signed 32-bit integers: labels.</summary>
    Int32,

    /// <summary>Bytes: decoded pixels in NHWC order, and opaque workspaces.</summary>
    UInt8,

    /// <summary>The upper half of single precision (bfloat16): its range, 8 bits of significand.</summary>
    BFloat16,

    /// <summary>IEEE half precision: 11 bits of significand, largest value 65504.</summary>
    Float16,
}

/// <summary>What follows from an element type.</summary>
internal static class DataTypeProperties
{
    // Of a double's 52 stored bits of significand bfloat16 keeps 7.
    private const int BFloat16DroppedBits = 45;

    // The smallest normal bfloat16 and the distance of the subnormal ones.
    private const double BFloat16Normal = 1.1754943508222875e-38, BFloat16Quantum = 9.183549615799121e-41;

    /// <summary>True for the 16-bit floating-point types.</summary>
    public static bool IsNarrow(this DataType type) => type is DataType.BFloat16 or DataType.Float16;

    /// <summary>True for floating-point types.</summary>
    public static bool IsFloat(this DataType type) => type is DataType.Float32 or DataType.Float64 || type.IsNarrow();

    /// <summary>Bytes of an element.</summary>
    public static int Bytes(this DataType type) => type switch { DataType.UInt8 => 1, DataType.Float64 => 8, _ => type.IsNarrow() ? 2 : 4 };

    /// <summary>Half the distance between 1 and the next larger number: the largest relative error of one rounding.</summary>
    public static double UnitRoundoff(this DataType type) => type switch
    {
        DataType.BFloat16 => 1.0 / (1 << 8),
        DataType.Float16 => 1.0 / (1 << 11),
        DataType.Float32 => 1.0 / (1 << 24),
        DataType.Float64 => 1.0 / (1L << 53),
        _ => 0,
    };

    /// <summary>The nearest number of the type, of two equally near ones the one with an even last bit; whole numbers for integer types.</summary>
    public static double Round(this DataType type, double value) => type switch
    {
        DataType.Float32 => (float)value,
        DataType.BFloat16 => RoundToBFloat16(value),
        DataType.Float16 => (double)(Half)value,
        DataType.Int32 or DataType.UInt8 => Math.Round(value),
        _ => value,
    };

    private static double RoundToBFloat16(double value)
    {
        if (!double.IsFinite(value))
        {
            return value;
        }

        if (Math.Abs(value) < BFloat16Normal)
        {
            return Math.Round(value / BFloat16Quantum, MidpointRounding.ToEven) * BFloat16Quantum;
        }

        long bits = BitConverter.DoubleToInt64Bits(value);
        bits += (1L << (BFloat16DroppedBits - 1)) - 1 + ((bits >> BFloat16DroppedBits) & 1);
        double rounded = BitConverter.Int64BitsToDouble(bits & -(1L << BFloat16DroppedBits));
        return Math.Abs(rounded) > float.MaxValue ? Math.CopySign(double.PositiveInfinity, value) : rounded;
    }
}
