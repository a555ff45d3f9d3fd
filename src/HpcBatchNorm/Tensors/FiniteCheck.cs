using System.Numerics.Tensors;

namespace HpcBatchNorm.Tensors;

/// <summary>Whether values are numbers. One vectorised pass at the speed of memory, so that it costs nothing beside what made or moved them.</summary>
internal static class FiniteCheck
{
    /// <summary>True when no value is infinite or NaN.</summary>
    public static bool AreFinite(ReadOnlySpan<float> values) => values.IsEmpty || float.IsFinite(TensorPrimitives.MaxMagnitude(values));

    /// <summary>The first value that is not finite, in words; null when all are.</summary>
    /// <param name="values">What to look at.</param>
    public static string? Describe(ReadOnlySpan<float> values)
    {
        if (AreFinite(values))
        {
            return null;
        }

        int first = 0, count = 0;
        for (int i = values.Length - 1; i >= 0; i--)
        {
            if (!float.IsFinite(values[i]))
            {
                (first, count) = (i, count + 1);
            }
        }

        return FormattableString.Invariant($"{count} of its {values.Length} values are not finite numbers, the first, number {first}, is {values[first]}");
    }
}
