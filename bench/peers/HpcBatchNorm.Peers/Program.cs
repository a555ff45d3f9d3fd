using System.CommandLine;
using HpcBatchNorm.Peers;

var mode = new Option<string>("--mode") { DefaultValueFactory = _ => "train", Description = "train or infer" };
mode.AcceptOnlyFromAmong("train", "infer");
var precision = new Option<string>("--precision") { DefaultValueFactory = _ => "fp32", Description = "fp32 or bf16" };
precision.AcceptOnlyFromAmong("fp32", "bf16");
var layout = new Option<string>("--layout") { DefaultValueFactory = _ => "nchw", Description = "nchw or nhwc (channels last)" };
layout.AcceptOnlyFromAmong("nchw", "nhwc");
var network = new Option<string>("--network") { DefaultValueFactory = _ => "bn-inception" };
var model = new Option<string>("--model") { Required = true, Description = "ONNX file that takes normalised images and nothing else, as hpcbn export --fold --input images writes it" };
var batch = new Option<int>("--batch") { DefaultValueFactory = _ => 32 };
var imageSize = new Option<int>("--image-size") { DefaultValueFactory = _ => 224 };
var threads = new Option<int>("--threads") { DefaultValueFactory = _ => Environment.ProcessorCount };
var warmup = new Option<int>("--warmup") { DefaultValueFactory = _ => 2, Description = "Steps before the first that is timed" };
var steps = new Option<int>("--steps") { DefaultValueFactory = _ => 7, Description = "Steps timed" };
Option[] shared = [batch, imageSize, threads, warmup, steps];

var torchSharp = new Command("torchsharp", "TorchSharp on the network that our own description says, with our initial parameters") { network, mode, precision, layout };
torchSharp.SetAction(parsed =>
{
    using var peer = new TorchPeer(parsed.GetRequiredValue(network), new TorchSettings(
        parsed.GetValue(mode) == "train", parsed.GetValue(precision) == "bf16", parsed.GetValue(layout) == "nhwc",
        parsed.GetValue(batch), parsed.GetValue(imageSize), parsed.GetValue(threads)));
    double difference = peer.Verify();
    Timing.Run(peer.Step, parsed.GetValue(warmup), parsed.GetValue(steps)).Write(
        "torchsharp", peer.Version, parsed.GetRequiredValue(mode), parsed.GetRequiredValue(precision), parsed.GetValue(batch),
        ("layout", parsed.GetRequiredValue(layout)), ("largest_difference", difference));
});

var onnxRuntime = new Command("onnxruntime", "ONNX Runtime on an exported network") { model };
onnxRuntime.SetAction(parsed =>
{
    using var peer = new OnnxRuntimePeer(parsed.GetRequiredValue(model), parsed.GetValue(batch), parsed.GetValue(imageSize), parsed.GetValue(threads));
    Timing.Run(peer.Step, parsed.GetValue(warmup), parsed.GetValue(steps)).Write(
        "onnxruntime", OnnxRuntimePeer.Version, "infer", "fp32", parsed.GetValue(batch));
});

var root = new RootCommand("Other libraries doing the step that hpcbn bench times; one JSON object on standard output.") { torchSharp, onnxRuntime };
foreach (Command command in root.Subcommands)
{
    foreach (Option option in shared)
    {
        command.Add(option);
    }
}

return root.Parse(args).Invoke();
