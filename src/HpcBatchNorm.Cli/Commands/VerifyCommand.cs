using System.CommandLine;
using System.Globalization;
using HpcBatchNorm.Backends;
using HpcBatchNorm.Backends.Reference;
using HpcBatchNorm.Models;
using HpcBatchNorm.Networks;
using HpcBatchNorm.Operations;
using HpcBatchNorm.Planning;
using HpcBatchNorm.Sessions;
using HpcBatchNorm.Training;
using HpcBatchNorm.Verification;

namespace HpcBatchNorm.Cli.Commands;

/// <summary><c>hpcbn verify</c>.</summary>
internal static class VerifyCommand
{
    private static readonly string[] SettingNames = ["backend", "precision", "threads", "conv-algorithm", "bn-algorithm", "recompute", "no-fuse"];

    /// <summary>Settings that a command which repeats one case has to name again.</summary>
    private static readonly string[] RepeatedSettings = ["threads", "conv-algorithm", "bn-algorithm", "recompute", "no-fuse"];

    public static Command Create()
    {
        var shapes = new Option<string>("--shapes") { HelpName = "FILE", Description = "Layers from a file of benchdnn problem lines" };
        var network = new Option<string>("--network") { HelpName = "NAME|FILE.json", Description = "Every distinct layer of a network, then whole training steps of it" };
        var batch = new Option<int>("--batch-size", "-b") { HelpName = "N", Description = "Images, with --network or --shapes [2, or as the file says]" };
        var size = new Option<int>("--image-size") { HelpName = "N", Description = "Image size, with --network [28 for mnist-mlp, 32 for inception-tiny, 32 or what it needs for FILE.json, 224]" };
        var single = new Option<string>("--case") { HelpName = "NAME", Description = "Only the case of this name" };
        Option<string> result = ResultFile.CreateOption();
        var command = new Command("verify", "Compare a backend with the reference: hard cases, a list of layers, or a whole network") { shapes, network, batch, size, single };
        (Setting Setting, Option<string[]> Option)[] settings = [.. SettingNames.Select(TrainingSettings.Find).Select(s => (s, SettingOption.Create(s)))];
        foreach ((_, Option<string[]> option) in settings)
        {
            command.Add(option);
        }

        command.Add(result);
        CommandLine.AddExamples(command,
            "hpcbn verify                                          the hard cases, and a small network step by step",
            "hpcbn verify --network bn-inception --image-size 64   every layer of the paper's network",
            "hpcbn verify --network my.json --image-size 32        the same for a network of your own",
            "hpcbn verify --shapes shapes_googlenet_v2 -b 2        oneDNN's own list of layers");

        command.SetAction(parsed =>
        {
            var builder = new TrainingConfigBuilder();
            foreach ((Setting setting, Option<string[]> option) in settings.Where(s => parsed.GetResult(s.Option) is not null))
            {
                builder.Set(setting.Name, SettingOption.Value(parsed, setting, option));
            }

            TextWriter output = ResultFile.HumanOutput(parsed, result);
            using Backend backend = Backend.Create(builder.Config.Backend, builder.Config.BackendOptions);
            Precision precision = builder.Config.Optimizer.Precision;
            if (!backend.Supports(precision, out string reason))
            {
                throw new UserErrorException($"{backend.Name} cannot compute in {precision.ToString().ToLowerInvariant()} here: {reason}");
            }

            using var reference = new ReferenceBackend();
            output.WriteLine($"{backend.Name} ({backend.Description}) against {reference.Name} ({reference.Description})");
            string repeat = string.Concat(RepeatedSettings.Where(builder.IsSet).Select(n => $" --{n} {TrainingSettings.Find(n).Get(builder.Config)}"));
            Suite suite = parsed.GetValue(shapes) is string file
                ? new Suite(LayerCases.FromShapes(ShapeFile.Read(file, parsed.GetValue(batch), output.WriteLine), $"--shapes {file}{(parsed.GetValue(batch) is > 0 and var b ? $" -b {b}" : "")}{repeat}", precision), [])
                : parsed.GetValue(network) is string name
                    ? NetworkSuite(backend, reference, name, parsed.GetValue(batch), parsed.GetValue(size), layers: true, repeat, builder.Config.Optimizer)
                    : HardSuite(backend, reference, repeat, builder.Config.Optimizer);
            if (parsed.GetValue(single) is string wanted)
            {
                suite = suite.Only(wanted);
            }

            VerificationReport report = Run(suite, backend, reference, precision, output);
            output.WriteLine(report.Describe().Split('\n')[^1]);
            ResultFile.Write(parsed, result, json =>
            {
                json.WriteString("backend", report.Backend);
                json.WriteString("precision", report.Precision);
                json.WriteNumber("cases", report.Cases);
                json.WriteNumber("failed", report.Failed);
                json.WriteStartObject("worst");
                json.WriteString("case", report.Worst?.Case.Name);
                json.WriteString("tensor", report.Worst?.Worst?.Role);
                json.WriteFinite("error", report.Worst?.Worst?.Worst.Error);
                json.WriteFinite("bound", report.Worst?.Worst?.Worst.Bound);
                json.WriteEndObject();
            });
            return report.Failed == 0 ? ExitCode.Done : ExitCode.Failed;
        });
        return command;
    }

    private static VerificationReport Run(Suite suite, Backend backend, Backend reference, Precision precision, TextWriter output)
    {
        List<CaseResult> results = [];
        void Print(CaseResult result)
        {
            results.Add(result);
            output.WriteLine(result.Passed
                ? string.Create(CultureInfo.InvariantCulture, $"ok    {result.Case.Name,-44} {result.Worst?.Role,-18} {result.Worst?.Worst.Error,9:g3} of {result.Worst?.Worst.Bound:g3}")
                : result.Describe());
        }

        _ = Verifier.Run(backend, reference, suite.Cases, Print);
        foreach ((_, Func<CaseResult> run) in suite.Networks)
        {
            Print(run());
        }

        return new VerificationReport(backend.Name, precision.ToString().ToLowerInvariant(), results);
    }

    private static Suite HardSuite(Backend backend, Backend reference, string repeat, TrainingOptions settings)
    {
        Suite small = NetworkSuite(backend, reference, "inception-tiny", 2, 32, layers: false, repeat, settings);
        return small with { Cases = HardCases.For(backend.Traits, settings.Precision) };
    }

    private static Suite NetworkSuite(Backend backend, Backend reference, string name, int batch, int size, bool layers, string repeat, TrainingOptions settings)
    {
        Network network = NetworkSource.Resolve(name, new NetworkOptions { Classes = 10 });
        size = size > 0 ? size
            : NetworkSource.IsFile(name) ? Math.Max(32, network.MinimumImageSize)
            : name switch { "mnist-mlp" => 28, "inception-tiny" => 32, _ => 224 };
        batch = batch > 0 ? batch : 2;

        // The loss scale that a training ends up with, not the one its search begins with: gradients that overflow cannot be compared.
        TrainingOptions training = settings with { Batch = batch, Height = size, Width = size, WeightDecay = 1e-3f, ClipNorm = 1, AverageDecay = 0.9f, LossScale = 256 };
        string options = FormattableString.Invariant($"--network {name} -b {batch} --image-size {size}{repeat}");
        (string, Func<CaseResult>) step = ("training-step", () => NetworkVerifier.Step(backend, reference, network, training, options));
        (string, Func<CaseResult>) replay = ("loss-replay", () => NetworkVerifier.Replay(backend, reference, network, training, options));

        // Ten steps of a large network take the reference an hour, and rounding grows past any useful bound.
        bool isSmall = network.Infer(1, size, size).ParameterCount < 1_000_000;
        return new Suite(
            layers ? LayerCases.FromOperations(TrainingSession.PlanFor(backend.Traits, network, training).Operations, backend.Traits, options, settings.Precision) : [],
            isSmall ? [step, replay] : [step]);
    }

    /// <summary>What to compare: single cases, then whole training steps.</summary>
    private sealed record Suite(IReadOnlyList<VerificationCase> Cases, IReadOnlyList<(string Name, Func<CaseResult> Run)> Networks)
    {
        public Suite Only(string name)
        {
            var only = new Suite([.. Cases.Where(c => c.Name == name)], [.. Networks.Where(n => n.Name == name)]);
            return only.Cases.Count + only.Networks.Count > 0
                ? only
                : throw new UserErrorException($"There is no case '{name}'{NearestName.Hint(name, Cases.Select(c => c.Name).Concat(Networks.Select(n => n.Name)))}");
        }
    }
}
