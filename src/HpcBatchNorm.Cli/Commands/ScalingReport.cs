using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Verification.Benchmarking;

namespace HpcBatchNorm.Cli.Commands;

/// <summary>What <c>hpcbn bench --scaling</c> adds: a step on more nodes and on more threads, predicted from what this machine was measured to do.</summary>
/// <param name="Model">A step on several nodes.</param>
/// <param name="Links">What connects them.</param>
/// <param name="Threads">How many threads were measured beside one; 0: none were.</param>
/// <param name="Rows">The step on several threads, by kind of operation.</param>
internal sealed record ScalingReport(ScalingModel Model, IReadOnlyList<NodeLink> Links, int Threads, IReadOnlyList<ThreadScalingRow> Rows)
{
    private static readonly int[] Nodes = [1, 2, 4, 8, 16, 32, 64], Predicted = [16, 64, 128];

    /// <summary>The links' rates and delays.</summary>
    public static Option<string> CreateLinkOption() => new("--link")
    {
        HelpName = "GBITS[@MS][,...]",
        Description = "With --scaling: rates of the links between nodes, in 10^9 bits per second, and where a link is a long one its delay each way in milliseconds",
        DefaultValueFactory = _ => "10,100,400",
    };

    /// <summary>Reads them.</summary>
    /// <exception cref="UserErrorException">One is no positive number.</exception>
    public static NodeLink[] ParseLinks(string text) => [.. text.Split(',', StringSplitOptions.TrimEntries).Select(ParseLink)];

    /// <summary>Measures what is still missing after a step has been timed.</summary>
    public static ScalingReport Measure(BenchmarkRequest request, Backend backend, BackendOptions options, BenchmarkResult measured, NodeLink[] links)
    {
        ScalingModel model = request.ModelNodes(backend, measured);
        int threads = backend.Threads > 1 ? backend.Threads : Math.Min(2, Environment.ProcessorCount);
        if (backend.Threads == 0 || threads == 1)
        {
            return new ScalingReport(model, links, 0, []);
        }

        BenchmarkResult On(int count)
        {
            using Backend other = Backend.Create(backend.Name, options with { Threads = count });
            return request.Run(other);
        }

        BenchmarkResult one = backend.Threads == 1 ? measured : On(1), several = backend.Threads == threads ? measured : On(threads);
        return new ScalingReport(model, links, threads, request.ModelThreads(backend, one, several, threads, Predicted));
    }

    /// <summary>For people.</summary>
    public void Write(TextWriter output)
    {
        output.WriteLine();
        output.WriteLine(Invariant(
            $"on several nodes, one rank each (predicted): {Model.Bytes / 1e6:F1} MB a step in {Model.Buckets.Count} buckets, the first after {1e3 * Model.Buckets[0].Ready:F1} of {1e3 * Model.StepSeconds:F1} ms; {1e3 * Model.Bytes * Model.HandlingSecondsPerByte:F1} ms of a processor to average them"));
        var nodes = new TextTable("link Gb/s", "nodes", "ms a step", "averaging ms", "% hidden", "efficiency %");
        foreach ((NodeLink link, ScalingPrediction p) in Predictions())
        {
            nodes.Add(
                Name(link), Invariant($"{p.Nodes}"), Invariant($"{1e3 * p.StepSeconds:F1}"), Invariant($"{1e3 * p.CommunicationSeconds:F1}"),
                Invariant($"{100 * p.HiddenShare:F0}"), Invariant($"{100 * p.Efficiency:F1}"));
        }

        nodes.Write(output);
        output.WriteLine();
        if (Rows.Count == 0)
        {
            output.WriteLine("on more threads: not predicted, which takes a processor with two cores or more and a backend that computes on it");
            return;
        }

        output.WriteLine(Invariant(
            $"on more threads (predicted): serial share from 1 beside {Threads} threads (Karp-Flatt), imbalance by counting units of work; memory's bandwidth, which cores share, is not in it"));
        var threads = new TextTable(
            ["operation", "ms on 1", Invariant($"ms on {Threads}"), "serial %", .. Predicted.Select(p => Invariant($"imbalance {p}")), .. Predicted.Select(p => Invariant($"speed-up {p}"))]);
        foreach (ThreadScalingRow row in Rows)
        {
            threads.Add(
            [
                row.Operation, Invariant($"{1e3 * row.OneThreadSeconds:F1}"), Invariant($"{1e3 * row.SeveralThreadsSeconds:F1}"), Invariant($"{100 * row.SerialShare:F1}"),
                .. row.Imbalance.Select(i => Invariant($"{i:F2}")), .. row.Speedup.Select(s => Invariant($"{s:F1}")),
            ]);
        }

        threads.Write(output);
    }

    /// <summary>For programs: the properties <c>nodes</c> and <c>threads</c>.</summary>
    public void Write(Utf8JsonWriter json)
    {
        json.WriteNumber("averaged_bytes_per_step", Model.Bytes);
        json.WriteStartArray("nodes");
        foreach ((NodeLink link, ScalingPrediction p) in Predictions())
        {
            json.WriteStartObject();
            json.WriteNumber("link_gbits", link.Gbits);
            json.WriteNumber("link_latency_ms", 1e3 * link.LatencySeconds);
            json.WriteNumber("nodes", p.Nodes);
            json.WriteNumber("step_ms", 1e3 * p.StepSeconds);
            json.WriteNumber("communication_ms", 1e3 * p.CommunicationSeconds);
            json.WriteNumber("hidden_share", p.HiddenShare);
            json.WriteNumber("efficiency", p.Efficiency);
            json.WriteEndObject();
        }

        json.WriteEndArray();
        json.WriteStartArray("threads");
        foreach (ThreadScalingRow row in Rows)
        {
            json.WriteStartObject();
            json.WriteString("op", row.Operation);
            json.WriteNumber("ms_1", 1e3 * row.OneThreadSeconds);
            json.WriteNumber(Invariant($"ms_{Threads}"), 1e3 * row.SeveralThreadsSeconds);
            json.WriteNumber("serial_share", row.SerialShare);
            for (int k = 0; k < Predicted.Length; k++)
            {
                json.WriteNumber(Invariant($"imbalance_{Predicted[k]}"), row.Imbalance[k]);
                json.WriteNumber(Invariant($"speedup_{Predicted[k]}"), row.Speedup[k]);
            }

            json.WriteEndObject();
        }

        json.WriteEndArray();
    }

    private static NodeLink ParseLink(string word)
    {
        string[] parts = word.Split('@');
        double[] numbers =
        [
            .. parts.Select(p => double.TryParse(p, NumberStyles.Float, CultureInfo.InvariantCulture, out double number) && double.IsFinite(number) ? number : -1),
        ];
        return parts.Length <= 2 && numbers[0] > 0 && numbers[^1] >= 0
            ? new NodeLink(numbers[0], NodeLink.UsualLatency + (parts.Length == 2 ? 1e-3 * numbers[1] : 0))
            : throw new UserErrorException(
                $"--link: expected rates in 10^9 bits per second, separated by commas, a delay in milliseconds after an @ or none, such as 10,0.2@5; found '{word}'.");
    }

    private static string Name(NodeLink link)
    {
        double delay = Math.Round(1e3 * (link.LatencySeconds - NodeLink.UsualLatency), 3);
        return delay > 0 ? Invariant($"{link.Gbits:0.###}@{delay:0.###}") : Invariant($"{link.Gbits:0.###}");
    }

    private IEnumerable<(NodeLink Link, ScalingPrediction Prediction)> Predictions() => Links.SelectMany(l => Nodes.Select(n => (l, Model.Predict(n, l))));

    private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
