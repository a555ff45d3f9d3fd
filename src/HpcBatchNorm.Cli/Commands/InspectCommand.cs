using System.CommandLine;
using System.Globalization;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Interchange;
using HpcBatchNorm.Layers;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Tensors;
using HpcBatchNorm.Training;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn inspect</c>.</summary>
internal static class InspectCommand
{
    private static readonly string[] SettingNames =
    [
        "model", "width", "separable-first-convolution", "activation", "batch-norm", "lrn", "dropout", "per-activation-norm", "auxiliary-heads",
        "image-size", "batch-size", "backend", "precision", "threads", "conv-algorithm", "bn-algorithm", "library-relu", "recompute", "no-fuse",
    ];

    public static Command Create()
    {
        var classes = new Option<int>("--classes") { Description = "Classes", DefaultValueFactory = _ => 1000 };
        var plan = new Option<bool>("--plan") { Description = "Print the plan: every operation, its implementation, reorders and memory" };
        var infer = new Option<bool>("--infer") { Description = "With --plan: the inference plan" };
        var gpu = new Option<string>("--gpu")
        {
            HelpName = "NAME",
            Description = $"With --plan of backend cudnn: the GPU whose limits the estimates take: {string.Join(", ", GpuModel.All.Select(m => m.Key))}",
            DefaultValueFactory = _ => GpuModel.All[0].Key,
        };
        var checkpoint = new Option<string>("--checkpoint") { HelpName = "FILE", Description = "Print a checkpoint's (or any safetensors file's) metadata and tensors" };
        var recipe = new Option<string>("--recipe") { HelpName = "NAME", Description = "Print a recipe with the reasons for its values" };
        var asJson = new Option<bool>("--json") { Description = "Print the network, or that of --checkpoint, as the JSON that --model FILE.json takes" };
        var command = new Command("inspect", "Show a network, its plan, a checkpoint or a recipe") { classes, plan, infer, gpu, checkpoint, recipe, asJson };
        (Setting Setting, Option<string[]> Option)[] settings = [.. SettingNames.Select(TrainingSettings.Find).Select(s => (s, SettingOption.Create(s)))];
        foreach ((_, Option<string[]> option) in settings)
        {
            command.Add(option);
        }

        CommandLine.AddExamples(command,
            "hpcbn inspect --model bn-inception --width 576       layers, shapes, parameters, multiply-adds",
            "hpcbn inspect --model bn-inception --plan -b 32      what runs, in order, and the memory it takes",
            "hpcbn inspect --plan --backend cudnn --precision bf16 -b 32     and every kernel with its registers, bytes and least time on an H100; needs no GPU",
            "hpcbn inspect --model inception-tiny --classes 10 --json > my.json     to change it; train --model my.json trains it",
            "hpcbn inspect --checkpoint run/checkpoints/step-00000640.safetensors",
            "hpcbn inspect --recipe bn-x5");

        command.SetAction(parsed =>
        {
            TextWriter output = parsed.InvocationConfiguration.Output;
            if (parsed.GetValue(recipe) is string name)
            {
                output.Write(RecipeCatalog.Text(name));
            }
            else if (parsed.GetValue(checkpoint) is string path)
            {
                if (parsed.GetValue(asJson))
                {
                    using Checkpoint opened = Checkpoint.Open(path);
                    output.Write(opened.ReadNetwork().ToJson());
                }
                else
                {
                    PrintCheckpoint(output, path);
                }
            }
            else
            {
                var builder = new TrainingConfigBuilder();
                foreach ((Setting setting, Option<string[]> option) in settings.Where(s => parsed.GetResult(s.Option) is not null))
                {
                    builder.Set(setting.Name, SettingOption.Value(parsed, setting, option));
                }

                RunConfig config = builder.Config;
                Network network = NetworkSource.Resolve(config.Model, config.Network with { Classes = parsed.GetValue(classes) });
                if (parsed.GetValue(asJson))
                {
                    output.Write(network.ToJson());
                }
                else if (parsed.GetValue(plan) || parsed.GetValue(infer))
                {
                    PrintPlan(output, config, network, parsed.GetValue(infer), parsed.GetValue(gpu)!);
                }
                else
                {
                    PrintNetwork(output, config, network);
                }
            }

            return ExitCode.Done;
        });
        return command;
    }

    private static void PrintNetwork(TextWriter output, RunConfig config, Network network)
    {
        NetworkShapes shapes = network.Infer(1, config.ImageSize, config.ImageSize);
        var table = new TextTable("layer", "operation", "output", "parameters", "MMAC");
        foreach (Node node in network.Nodes)
        {
            long parameters = shapes.Parameters.Where(p => p.Node == node && p.Spec.Kind != ParameterKind.RunningStatistic).Sum(p => p.Spec.Shape.Count);
            Shape shape = shapes[node];
            table.Add(node.Name, node.Layer.Description, Invariant($"{shape.C}x{shape.H}x{shape.W}"), parameters == 0 ? "" : Invariant($"{parameters:N0}"),
                node.Layer.MultiplyAdds(shapes.Inputs(node)) is > 0 and var macs ? Invariant($"{macs / 1e6:0.00}") : "");
        }

        table.Write(output);
        output.WriteLine(Invariant(
            $"{network.Name} at {config.ImageSize} px: {network.Nodes.Count} layers, {shapes.ParameterCount:N0} parameters, {shapes.MultiplyAdds / 1e9:0.000} GMAC per image"));
        output.WriteLine($"Other networks: {string.Join(", ", NetworkCatalog.All.Select(n => n.Name).Where(n => n != network.Name))}");
    }

    private static void PrintPlan(TextWriter output, RunConfig config, Network network, bool inference, string gpu)
    {
        GpuModel model = GpuModel.Find(gpu);
        using Backend backend = Backend.CreateForPlanning(config.Backend, config.BackendOptions);
        Plan plan = inference
            ? ForwardSession.PlanFor(backend.Traits, network, EvaluationSetup.Session(config))
            : TrainingSession.PlanFor(backend.Traits, network, config.Optimizer);
        using var prepared = new PreparedPlan(backend, plan);
        DeviceRoofline? roofline = prepared.Kernels.Sum(k => k.Launches) > 0 ? new DeviceRoofline(prepared, model) : null;
        string[] columns = ["#", "operation", "layer", "dst", "implementation", "MFLOP"], onDevice = roofline is null ? [] : ["launches", "MB", "us at least"];
        var table = new TextTable([.. columns, .. onDevice, "notes"]);
        foreach (PlanRow row in PlanPrinter.Rows(prepared))
        {
            Kernel kernel = prepared.Kernels[row.Index];
            string[] device = roofline is null
                ? []
                : [Invariant($"{kernel.Launches}"), Invariant($"{kernel.MemoryBytes / 1e6:0.00}"), Invariant($"{roofline.OperationSeconds[row.Index] * 1e6:0.00}")];
            table.Add([Invariant($"{row.Index}"), row.Operation, row.Layer, row.Dst, row.Implementation, row.MegaFlops == 0 ? "" : Invariant($"{row.MegaFlops:0.0}"), .. device, row.Notes]);
        }

        table.Write(output);
        if (roofline is not null)
        {
            output.WriteLine();
            PrintKernels(output, roofline);
            output.WriteLine();
        }

        foreach (string line in PlanPrinter.Summary(prepared).Concat(roofline?.Summary ?? []))
        {
            output.WriteLine(line);
        }
    }

    private static void PrintKernels(TextWriter output, DeviceRoofline roofline)
    {
        var table = new TextTable("kernel", "launches", "blocks", "registers", "spilled", "shared", "MB", "GFLOP", "us at least", "bound by");
        foreach (KernelRow row in roofline.Rows)
        {
            table.Add(
                row.Kernel, Invariant($"{row.Launches}"), row.Blocks, row.Resources is { } r ? Invariant($"{r.Registers}") : "", row.Resources is { } s ? Invariant($"{s.SpilledBytes}") : "",
                row.Resources is null ? "" : Invariant($"{row.SharedBytes}"), Invariant($"{row.Bytes / 1e6:0.00}"), Invariant($"{row.Flops / 1e9:0.00}"), Invariant($"{row.Seconds * 1e6:0.00}"),
                row.Seconds <= row.MemorySeconds ? "memory" : row.MemorySeconds * 2 < row.Seconds ? "arithmetic" : "both");
        }

        table.Write(output);
    }

    private static void PrintCheckpoint(TextWriter output, string path)
    {
        // Any safetensors file; of a run's folder, the checkpoint that it stands for.
        if (Directory.Exists(path))
        {
            using Checkpoint checkpoint = Checkpoint.Open(path);
            path = checkpoint.Path;
        }

        using SafetensorsFile file = SafetensorsFile.Open(path);
        output.WriteLine(path);
        foreach ((string key, string value) in file.Metadata.OrderBy(m => m.Value.Contains('\n')))
        {
            if (key == "network")
            {
                output.WriteLine(Invariant($"  {key}: {value.Count(c => c == '\n')} lines of JSON, which --json prints"));
                continue;
            }

            output.WriteLine(value.Contains('\n') ? $"  {key}:\n    {value.TrimEnd().Replace("\n", "\n    ", StringComparison.Ordinal)}" : $"  {key}: {value}");
        }

        var table = new TextTable("tensor", "type and shape", "elements");
        foreach (SafetensorsTensor tensor in file.Tensors)
        {
            table.Add(tensor.Name, tensor.ToString(), Invariant($"{tensor.Count:N0}"));
        }

        table.Write(output);
        output.WriteLine(Invariant($"{file.Tensors.Count} tensors, {file.Tensors.Sum(t => t.Bytes) / 1e6:0.0} MB; checksum {(file.VerifyChecksum() ? "correct" : "absent")}"));
    }

    private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
