using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Layers;

/// <summary>How a parameter is filled before training. A pure function of the seed and the parameter's name, whatever the order or the thread.</summary>
public abstract record Initializer
{
    /// <summary>What layers have when nothing is said: <see cref="FanIn"/> with gain 2, for ReLU (He et al. 2015).</summary>
    public static Initializer He { get; } = new FanInInitializer(2);

    /// <summary>All elements equal.</summary>
    public static Initializer Constant(float value) => new ConstantInitializer(value);

    /// <summary>Normal with mean 0 and the given deviation.</summary>
    public static Initializer Gaussian(double deviation) => new GaussianInitializer(deviation);

    /// <summary>
    /// Normal with mean 0 and deviation sqrt(gain / fan-in), fan-in = inputs of one output. Gain 2 is He et al. (2015), for ReLU;
    /// 1/3 has the deviation of the uniform distribution that is PyTorch's default.
    /// </summary>
    public static Initializer FanIn(double gain) => new FanInInitializer(gain);

    /// <summary>Fills <paramref name="values"/>, which has the shape <paramref name="shape"/>.</summary>
    public abstract void Fill(Shape shape, Span<float> values, ulong seed, string name);

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

    private sealed record ConstantInitializer(float Value) : Initializer
    {
        public override void Fill(Shape shape, Span<float> values, ulong seed, string name) => values.Fill(Value);
    }

    private sealed record GaussianInitializer(double Deviation) : Initializer
    {
        public override void Fill(Shape shape, Span<float> values, ulong seed, string name) => FillGaussian(values, Deviation, seed, name);
    }

    private sealed record FanInInitializer(double Gain) : Initializer
    {
        public override void Fill(Shape shape, Span<float> values, ulong seed, string name) =>
            FillGaussian(values, Math.Sqrt(Gain / shape.ImageCount), seed, name);
    }
}
