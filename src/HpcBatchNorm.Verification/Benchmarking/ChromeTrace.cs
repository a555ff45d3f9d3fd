using System.Text.Json;

namespace HpcBatchNorm.Verification.Benchmarking;

/// <summary>A profiled step in the trace event format that Chrome's <c>about:tracing</c> and Perfetto open.</summary>
internal static class ChromeTrace
{
    /// <summary>Writes one complete event per operation, times in microseconds.</summary>
    public static void Write(string path, string process, BenchmarkResult result)
    {
        using var stream = new MemoryStream();
        using (var json = new Utf8JsonWriter(stream))
        {
            Write(json, process, result);
        }

        OutputFile.WriteText(path, System.Text.Encoding.UTF8.GetString(stream.GetBuffer(), 0, (int)stream.Length));
    }

    private static void Write(Utf8JsonWriter json, string process, BenchmarkResult result)
    {
        json.WriteStartObject();
        json.WriteString("displayTimeUnit", "ms");
        json.WriteStartArray("traceEvents");
        json.WriteStartObject();
        json.WriteString("name", "process_name");
        json.WriteString("ph", "M");
        json.WriteNumber("pid", 1);
        json.WriteStartObject("args");
        json.WriteString("name", process);
        json.WriteEndObject();
        json.WriteEndObject();
        foreach (BenchmarkSpan span in result.Spans)
        {
            BenchmarkRow row = result.Rows[span.Row];
            json.WriteStartObject();
            json.WriteString("name", row.Name);
            json.WriteString("cat", row.Operation);
            json.WriteString("ph", "X");
            json.WriteNumber("pid", 1);
            json.WriteNumber("tid", 1);
            json.WriteNumber("ts", Math.Round(span.Start * 1e6, 3));
            json.WriteNumber("dur", Math.Round(span.Seconds * 1e6, 3));
            json.WriteStartObject("args");
            json.WriteString("operation", row.Operation);
            json.WriteString("implementation", row.Implementation);
            json.WriteNumber("gflops", Math.Round(row.Gflops, 1));
            json.WriteNumber("gbs", Math.Round(row.GigabytesPerSecond, 1));
            json.WriteEndObject();
            json.WriteEndObject();
        }

        json.WriteEndArray();
        json.WriteEndObject();
    }
}
