using System.Globalization;
using System.Reflection;
using HpcBatchNorm.Tensors;

namespace HpcBatchNorm.Backends.Cudnn;

/// <summary>What a compiler made of our kernels, as it was written down (native/kernels/resources.csv): known where there is neither a compiler nor a GPU.</summary>
internal static class KernelTable
{
    private const int FirstRegisters = 3;

    /// <summary>The table, line by line: a comment, names of columns, kernels.</summary>
    public static string Text { get; } = ReadText();

    private static readonly Lazy<Dictionary<string, string[]>> Rows = new(() => Text.Split('\n', StringSplitOptions.RemoveEmptyEntries)
        .Where(l => !l.StartsWith('#')).Select(l => l.Split(',')).ToDictionary(r => r[0]));

    /// <summary>The row of a kernel; null for one that is not ours, or was not compiled for the type.</summary>
    /// <param name="kernel">Name of the kernel.</param>
    /// <param name="type">Element type of activations.</param>
    /// <param name="architecture">Compute capability, 90 for 9.0; below 90 the numbers are those of 8.0.</param>
    public static KernelResources? Find(string kernel, DataType type, int architecture)
    {
        int column = FirstRegisters + (architecture < 90 ? 0 : 3) + type switch { DataType.BFloat16 => 1, DataType.Float16 => 2, _ => 0 };
        return Rows.Value.TryGetValue(kernel, out string[]? row) && row[column].Length > 0
            ? new KernelResources(Number(row[column]), Number(row[2]), Number(row[1]), $"NVRTC 11.8 for {(architecture < 90 ? "8.0" : "9.0")}")
            : null;

        static int Number(string text) => int.Parse(text, CultureInfo.InvariantCulture);
    }

    private static string ReadText()
    {
        using Stream stream = Assembly.GetExecutingAssembly().GetManifestResourceStream("HpcBatchNorm.Cuda.resources.csv")!;
        using StreamReader reader = new(stream);
        return reader.ReadToEnd();
    }
}
