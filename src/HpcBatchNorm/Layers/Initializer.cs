using System.Text.Json;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>How a parameter is filled before training. A pure function of the seed and the parameter's name, whatever the order or the thread.</summary>
public abstract record Initializer
{
    /// <summary>What layers have when nothing is said: <see cref="FanIn"/> with gain 2, for ReLU (He et al. 2015).</summary>
    public static Initializer He { get; } = new FanInInitializer(2);

    /// <summary>All elements equal.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is not finite.</exception>
    public static Initializer Constant(float value) => new ConstantInitializer(float.IsFinite(value)
        ? value
        : throw new ArgumentOutOfRangeException(nameof(value), value, "The constant of an initializer must be a finite number."));

    /// <summary>Normal with mean 0 and the given deviation.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The deviation is negative or no number of single precision.</exception>
    public static Initializer Gaussian(double deviation) => new GaussianInitializer(IsMagnitude(deviation)
        ? deviation
        : throw new ArgumentOutOfRangeException(nameof(deviation), deviation, "The deviation of an initializer must be a finite number and not negative."));

    /// <summary>
    /// Normal with mean 0 and deviation sqrt(gain / fan-in), fan-in = inputs of one output. Gain 2 is He et al. (2015), for ReLU;
    /// 1/3 has the deviation of the uniform distribution that is PyTorch's default.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The gain is negative or no number of single precision.</exception>
    public static Initializer FanIn(double gain) => new FanInInitializer(IsMagnitude(gain)
        ? gain
        : throw new ArgumentOutOfRangeException(nameof(gain), gain, "The gain of an initializer must be a finite number and not negative."));

    /// <summary>Fills <paramref name="values"/>, which has the shape <paramref name="shape"/>.</summary>
    public abstract void Fill(Shape shape, Span<float> values, ulong seed, string name);

    /// <summary>Reads what <see cref="Write(Utf8JsonWriter)"/> writes; null when it is something else.</summary>
    internal static Initializer? Read(JsonElement json)
    {
        if (json.ValueKind != JsonValueKind.Object || json.EnumerateObject().Take(2).ToArray() is not [JsonProperty form]
            || form.Value.ValueKind != JsonValueKind.Number || !form.Value.TryGetDouble(out double value) || !double.IsFinite(value))
        {
            return null;
        }

        return form.Name switch
        {
            ConstantInitializer.Word when float.IsFinite((float)value) => Constant((float)value),
            GaussianInitializer.Word when IsMagnitude(value) => Gaussian(value),
            FanInInitializer.Word when IsMagnitude(value) => FanIn(value),
            _ => null,
        };
    }

    private static bool IsMagnitude(double value) => value >= 0 && value <= float.MaxValue;

    /// <summary>Writes the initializer as it stands in a network file.</summary>
    /// <exception cref="NotSupportedException">It is not one of the library's.</exception>
    internal virtual void Write(Utf8JsonWriter json) => throw new NotSupportedException(
        $"The initializer {GetType().Name} is made elsewhere and has no form in a network file. Use one of Initializer's, or set the initial values after the network is made.");

    private protected static void FillGaussian(Span<float> values, double deviation, ulong seed, string name)
    {
        var random = new RandomSequence(seed, RandomPurpose.InitialWeights, StableHash(name));
        for (int i = 0; i < values.Length; i++)
        {
            values[i] = (float)(deviation * random.NextGaussian());
        }
    }

    /// <summary>FNV-1a: the same on every run and machine, unlike <see cref="string.GetHashCode()"/>.</summary>
    private static uint StableHash(string name)
    {
        uint hash = 2166136261;
        foreach (char c in name)
        {
            hash = (hash ^ c) * 16777619;
        }

        return hash;
    }

    private static void Write(Utf8JsonWriter json, string word, Action value)
    {
        json.WriteStartObject();
        json.WritePropertyName(word);
        value();
        json.WriteEndObject();
    }

    private sealed record ConstantInitializer(float Value) : Initializer
    {
        public const string Word = "constant";

        internal override void Write(Utf8JsonWriter json) => Write(json, Word, () => json.WriteNumberValue(Value));

        public override void Fill(Shape shape, Span<float> values, ulong seed, string name) => values.Fill(Value);
    }

    private sealed record GaussianInitializer(double Deviation) : Initializer
    {
        public const string Word = "gaussian";

        internal override void Write(Utf8JsonWriter json) => Write(json, Word, () => json.WriteNumberValue(Deviation));

        public override void Fill(Shape shape, Span<float> values, ulong seed, string name) => FillGaussian(values, Deviation, seed, name);
    }

    private sealed record FanInInitializer(double Gain) : Initializer
    {
        public const string Word = "fan_in";

        internal override void Write(Utf8JsonWriter json) => Write(json, Word, () => json.WriteNumberValue(Gain));

        public override void Fill(Shape shape, Span<float> values, ulong seed, string name) =>
            FillGaussian(values, Math.Sqrt(Gain / shape.ImageCount), seed, name);
    }
}
