using System.Diagnostics;
using System.Text.Json;
using HpcBatchNorm.Sessions;

namespace HpcBatchNorm.Peers;

/// <summary>Times of single steps after a warm-up, and the memory the process took for them.</summary>
internal sealed record Timing(IReadOnlyList<double> Milliseconds, double PeakMemoryMb)
{
    public static Timing Run(Action step, int warmup, int steps)
    {
        for (int i = 0; i < warmup; i++)
        {
            step();
        }

        double[] milliseconds = new double[steps];
        for (int i = 0; i < steps; i++)
        {
            long start = Stopwatch.GetTimestamp();
            step();
            milliseconds[i] = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
        }

        return new Timing(milliseconds, ProcessMemory.PeakMb());
    }

    /// <summary>One line of JSON on standard output.</summary>
    public void Write(string peer, string version, string mode, string precision, int batch, params (string Name, object Value)[] more)
    {
        using Stream output = Console.OpenStandardOutput();
        using var json = new Utf8JsonWriter(output);
        json.WriteStartObject();
        json.WriteString("peer", peer);
        json.WriteString("version", version);
        json.WriteString("mode", mode);
        json.WriteString("precision", precision);
        json.WriteNumber("batch", batch);
        foreach ((string name, object value) in more)
        {
            json.WritePropertyName(name);
            JsonSerializer.Serialize(json, value);
        }

        json.WriteStartArray("step_ms");
        foreach (double value in Milliseconds)
        {
            json.WriteNumberValue(Math.Round(value, 3));
        }

        json.WriteEndArray();
        json.WriteNumber("peak_memory_mb", Math.Round(PeakMemoryMb, 1));
        json.WriteEndObject();
        json.Flush();
        output.Write("\n"u8);
    }
}
