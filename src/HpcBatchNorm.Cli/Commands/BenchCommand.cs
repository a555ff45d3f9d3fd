using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Training;
using HpcBatchNorm.Verification;
using HpcBatchNorm.Verification.Benchmarking;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn bench</c>.</summary>
internal static class BenchCommand
{
    private static readonly string[] SettingNames = ["precision", "image-size", "batch-size", "threads", "conv-algorithm", "bn-algorithm", "library-relu", "recompute", "no-fuse"];

    public static Command Create()
    {
        var backend = new Option<string>("--backend") { HelpName = "NAME[,NAME...]", Description = "Backends, one after the other", DefaultValueFactory = _ => "auto" };
        var network = new Option<string>("--network") { HelpName = "NAME|FILE.json", Description = "Network to time [bn-inception]" };
        var shapes = new Option<string>("--shapes") { HelpName = "FILE", Description = "Layers from a file of benchdnn problem lines instead of a network" };
        var mode = new Option<string>("--mode") { HelpName = "train|infer", Description = "A whole training step, or classification", DefaultValueFactory = _ => "train" };
        mode.AcceptOnlyFromAmong("train", "infer");
        var steps = new Option<int>("--steps") { HelpName = "N", Description = "Steps timed as a whole, and as many operation by operation", DefaultValueFactory = _ => 7 };
        steps.Validators.Add(r =>
        {
            if (r.GetValueOrDefault<int>() < 1)
            {
                r.AddError("--steps: expected 1 or more.");
            }
        });
        var profile = new Option<bool>("--profile") { Description = "A row for every operation, slowest first" };
        Option<string> trace = ResultFile.CheckedFirst(new("--trace") { HelpName = "FILE", Description = "Write the last step as a Chrome trace (open in Perfetto or chrome://tracing)" });
        var noVerify = new Option<bool>("--no-verify") { Description = "Do not compare with the reference before timing" };
        var scaling = new Option<bool>("--scaling") { Description = "Predict the step on 1 to 64 nodes and on 16 to 128 threads from what is measured here (docs/distributed.md)" };
        Option<string> link = ScalingReport.CreateLinkOption();
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("bench", "Time a network or single layers, verified before they are timed, beside the machine's limits")
        {
            backend, network, shapes, mode, steps, profile, trace, noVerify, scaling, link,
        };
        (Setting Setting, Option<string[]> Option)[] settings = [.. SettingNames.Select(TrainingSettings.Find).Select(s => (s, SettingOption.Create(s)))];
        foreach ((_, Option<string[]> option) in settings)
        {
            command.Add(option);
        }

        command.Add(result);
        CommandLine.AddExamples(command,
            "hpcbn bench                                     a training step of bn-inception at 224 pixels, batch 32",
            "hpcbn bench --mode infer --profile              classification, every operation",
            "hpcbn bench --scaling --link 25                 the step on more nodes, at 25 Gb/s, and on more threads",
            "hpcbn bench --network inception-tiny --image-size 64 --backend onednn,reference",
            "hpcbn bench --shapes shapes_googlenet_v2 -b 32  oneDNN's own list of layers");
        command.SetAction(parsed =>
        {
            NodeLink[] links = ScalingReport.ParseLinks(parsed.GetRequiredValue(link));
            bool predict = parsed.GetValue(scaling);
            if (predict && (parsed.GetValue(mode) != "train" || parsed.GetValue(shapes) is not null))
            {
                throw new UserErrorException("--scaling predicts the training step of a network; leave out --mode infer and --shapes.");
            }

            TextWriter output = ResultFile.HumanOutput(parsed, result);
            List<Measured> measured = [];
            foreach (string name in parsed.GetRequiredValue(backend).Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
            {
                var builder = new TrainingConfigBuilder();
                foreach ((Setting setting, Option<string[]> option) in settings.Where(s => parsed.GetResult(s.Option) is not null))
                {
                    builder.Set(setting.Name, SettingOption.Value(parsed, setting, option));
                }

                using Backend running = Backend.Create(name, builder.Config.BackendOptions);
                var run = new Run(running, builder.Config, parsed.GetValue(mode) == "train", !parsed.GetValue(noVerify), output);
                output.WriteLine($"{running.Name} ({running.Description})");
                measured.Add(parsed.GetValue(shapes) is string file
                    ? run.Shapes(ShapeFile.Read(file, builder.IsSet("batch-size") ? builder.Config.BatchSize : 0, output.WriteLine))
                    : run.Network(parsed.GetValue(network) ?? "bn-inception", parsed.GetValue(steps), parsed.GetValue(profile), parsed.GetValue(trace), predict ? links : []));
            }

            ResultFile.Write(parsed, result, json => WriteResult(json, measured, parsed.GetRequiredValue(mode)));
            return ExitCode.Done;
        });
        return command;
    }

    private static void WriteResult(Utf8JsonWriter json, List<Measured> all, string mode)
    {
        // One backend: its numbers at the top; several: a list of the same objects.
        if (all.Count > 1)
        {
            json.WriteStartArray("backends");
        }

        foreach (Measured measured in all)
        {
            if (all.Count > 1)
            {
                json.WriteStartObject();
            }

            json.WriteString("backend", measured.Backend);
            json.WriteString("precision", measured.Precision);
            json.WriteString("mode", mode);
            json.WriteNumber("batch", measured.Batch);
            if (measured.Network is BenchmarkResult network)
            {
                json.WriteNumber("step_ms", network.MedianSeconds * 1e3);
                json.WriteNumber("step_ms_min", network.StepSeconds.Min() * 1e3);
                json.WriteNumber("img_per_s", network.ImagesPerSecond);
                json.WriteNumber("peak_memory_mb", network.PeakMemoryMb);
                if (network.PeakDeviceMemoryMb is double device)
                {
                    json.WriteNumber("peak_device_memory_mb", device);
                }

                json.WriteNumber("planned_memory_mb", network.PlannedBytes / 1e6);
                json.WriteNumber("outside_share", network.OutsideShare);
                json.WriteNumber("allocated_bytes_per_step", network.AllocatedBytesPerStep);
            }

            json.WriteFinite("limit_gflops", measured.LimitGflops);
            json.WriteFinite("limit_gbs", measured.Limits?.TriadGbs);
            json.WriteStartArray("rows");
            foreach (BenchmarkRow row in measured.Rows)
            {
                json.WriteStartObject();
                json.WriteString("name", row.Name);
                json.WriteString("op", row.Operation);
                json.WriteString("implementation", row.Implementation);
                json.WriteNumber("ms", row.Seconds * 1e3);
                json.WriteNumber("gflops", row.Gflops);
                json.WriteNumber("gbs", row.GigabytesPerSecond);
                json.WriteFinite("share_of_limit", row.ShareOfLimit);
                json.WriteEndObject();
            }

            json.WriteEndArray();
            measured.Scaling?.Write(json);
            if (all.Count > 1)
            {
                json.WriteEndObject();
            }
        }

        if (all.Count > 1)
        {
            json.WriteEndArray();
        }
    }

    private sealed record Measured(
        string Backend, string Precision, int Batch, MachineLimits? Limits, double? LimitGflops, IReadOnlyList<BenchmarkRow> Rows, BenchmarkResult? Network)
    {
        public ScalingReport? Scaling { get; init; }
    }

    /// <summary>One backend's turn.</summary>
    private sealed class Run(Backend backend, RunConfig config, bool training, bool verify, TextWriter output)
    {
        private Precision Precision => config.Optimizer.Precision;

        public Measured Network(string name, int steps, bool profile, string? trace, NodeLink[] links)
        {
            var request = new BenchmarkRequest
            {
                Network = name,
                NetworkOptions = config.Network,
                Steps = steps,
                Options = training
                    ? config.Optimizer
                    : new InferenceOptions
                    {
                        Batch = config.BatchSize,
                        Height = config.ImageSize,
                        Width = config.ImageSize,
                        Precision = Precision,
                        DisabledFusions = config.Optimizer.DisabledFusions,
                    },
            };
            if (verify && backend.Name != "reference")
            {
                CaseResult verified = request.Verify(backend);
                output.WriteLine(Invariant($"verified against the reference: {verified.Tensors.Count} buffers, worst {verified.Worst?.Worst.Error:g2} of {verified.Worst?.Worst.Bound:g2} allowed ({verified.Worst?.Role})"));
            }

            BenchmarkResult found = request.Run(backend);
            output.WriteLine(Invariant($"{name}, {(training ? "training" : "inference")}, {Precision.Word()}, {config.ImageSize}x{config.ImageSize}, batch {config.BatchSize}:"));
            output.WriteLine(Invariant($"{found.MedianSeconds * 1e3:F1} ms a step (best {found.StepSeconds.Min() * 1e3:F1}), {found.ImagesPerSecond:F1} img/s, {found.PeakMemoryMb:F0} MB peak{(found.PeakDeviceMemoryMb is double device ? Invariant($" of the host, {device:F0} of the device") : "")} ({found.PlannedBytes / 1e6:F0} planned)"));
            WriteLimits(found.Limits);
            output.WriteLine(Invariant($"outside kernels: at most {100 * found.OutsideShare:F2} % of the step; {found.AllocatedBytesPerStep:F0} managed bytes allocated per step"));
            output.WriteLine();
            BenchmarkRow[] kinds =
            [
                .. found.Rows.GroupBy(r => r.Operation).Select(g => BenchmarkRow.Sum($"{g.Count()} operations", g.Key, [.. g])).OrderByDescending(r => r.Seconds),
                BenchmarkRow.Sum($"{found.Rows.Count} operations", "all", [.. found.Rows]),
            ];
            WriteTable(kinds, found.MedianSeconds);
            if (profile)
            {
                output.WriteLine();
                WriteTable([.. found.Rows.OrderByDescending(r => r.Seconds)], found.MedianSeconds);
            }

            if (trace is not null)
            {
                ChromeTrace.Write(trace, $"{name} on {backend.Name}", found);
                output.WriteLine($"trace: {trace}");
            }

            ScalingReport? scaling = links.Length == 0 ? null : ScalingReport.Measure(request, backend, config.BackendOptions, found, links);
            scaling?.Write(output);
            return Result(config.BatchSize, found.Limits, found.Rows, found) with { Scaling = scaling };
        }

        public Measured Shapes(IReadOnlyList<ShapeProblem> problems)
        {
            MachineLimits? limits = backend.MeasureLimits();
            WriteLimits(limits);
            List<BenchmarkRow> rows = [];
            using Backend reference = Backend.Create("reference");
            foreach (ShapeProblem problem in problems)
            {
                rows.AddRange(LayerBenchmark.Run(backend, verify ? reference : null, problem, Precision, limits));
            }

            output.WriteLine(verify ? $"{problems.Count} layers verified against the reference, then timed" : $"{problems.Count} layers timed, not verified");
            WriteTable(rows, rows.Sum(r => r.Seconds));
            return Result(problems[0].Convolution?.Src.N ?? problems[0].BatchNorm!.Value.Src.N, limits, rows, null);
        }

        private Measured Result(int batch, MachineLimits? limits, IReadOnlyList<BenchmarkRow> rows, BenchmarkResult? network) =>
            new(backend.Name, Precision.Word(), batch, limits, limits?.Gflops(Precision), rows, network);

        private void WriteLimits(MachineLimits? limits)
        {
            if (limits is not null)
            {
                string narrow = limits.Bf16Gflops is double bf16 ? Invariant($", {bf16:F0} bf16") : "";
                output.WriteLine(Invariant($"this machine at best: {limits.Fp32Gflops:F0} GFLOP/s fp32{narrow}, {limits.TriadGbs:F1} GB/s (triad)"));
            }
        }

        private void WriteTable(IReadOnlyList<BenchmarkRow> rows, double step)
        {
            var table = new TextTable("operation", "layer", "ms", "% of step", "GFLOP/s", "GB/s", "% of limit", "implementation");
            foreach (BenchmarkRow row in rows)
            {
                table.Add(
                    row.Operation, row.Name, Invariant($"{row.Seconds * 1e3:F3}"), Invariant($"{100 * row.Seconds / step:F1}"),
                    row.Flops > 0 ? Invariant($"{row.Gflops:F0}") : "", Invariant($"{row.GigabytesPerSecond:F1}"),
                    row.ShareOfLimit is double share ? Invariant($"{100 * share:F0}") : "", Short(row.Implementation));
            }

            table.Write(output);
        }

        private static string Short(string implementations) => implementations.Length <= 60 ? implementations : implementations[..57] + "...";

        private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
    }
}
