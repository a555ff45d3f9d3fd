#!/usr/bin/env python3
"""BN-Inception in PyTorch, as a yardstick for the cudnn backend: one training step, eager and compiled, channels-last, bf16 autocast.

    python3 bn_inception_pytorch.py --batch 32 256 [--steps 50] [--size 224] [--seconds 560]

Prints one JSON line per measurement as it comes: eager first, then compiled, the slowest to compile last. Each is a process of its own with a limit
of its own, so that one which fails or never ends costs no other: its line has "error" instead of numbers.

A step's time is the median over windows of ten steps, between two events of the device, so that the host runs ahead as it does in a training;
"step_ms_synchronized" is the median of single steps that the host waits for. The images lie on the device. The network is the one of `hpcbn inspect
--model bn-inception` (width 608): the same branches, strides and pooling.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

MODES = ["eager", "reduce-overhead", "max-autotune"]
# Seconds a measurement may take: compiling takes minutes, and tuning more.
LIMITS = {"eager": 60, "reduce-overhead": 150, "max-autotune": 240}
WINDOW = 10

if "--mode" in sys.argv:
    import torch
    from torch import nn
    from torch.nn import functional as F
else:
    # The process that only starts the others; it needs the network's text, not PyTorch.
    class nn:
        Module = Sequential = object

# name, 1x1, 3x3 reduce, 3x3, double reduce, double, pool (avg, max, pass), projection: Figure 5 of the paper by its branch widths.
ROWS = [
    ("3a", 64, 64, 64, 64, 96, "avg", 32), ("3b", 64, 64, 96, 64, 96, "avg", 64), ("3c", 0, 128, 160, 64, 96, "pass", 0),
    ("4a", 224, 64, 96, 96, 128, "avg", 128), ("4b", 192, 96, 128, 96, 128, "avg", 128), ("4c", 160, 128, 160, 128, 160, "avg", 128),
    ("4d", 96, 128, 192, 160, 192, "avg", 128), ("4e", 0, 128, 192, 192, 256, "pass", 0),
    ("5a", 352, 192, 320, 160, 224, "avg", 128), ("5b", 352, 192, 320, 192, 224, "max", 128),
]


class Unit(nn.Sequential):
    def __init__(self, inputs, outputs, kernel, stride=1):
        super().__init__(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Module(nn.Module):
    def __init__(self, inputs, conv1, reduce3, conv3, reduce5, conv5, pool, projection):
        super().__init__()
        stride = 2 if pool == "pass" else 1
        self.one = Unit(inputs, conv1, 1) if conv1 else None
        self.three = nn.Sequential(Unit(inputs, reduce3, 1), Unit(reduce3, conv3, 3, stride))
        self.double = nn.Sequential(Unit(inputs, reduce5, 1), Unit(reduce5, conv5, 3), Unit(conv5, conv5, 3, stride))
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False) if pool == "avg" else nn.MaxPool2d(3, stride, 1)
        self.projection = Unit(inputs, projection, 1) if projection else nn.Identity()
        self.outputs = conv1 + conv3 + conv5 + (projection or inputs)

    def forward(self, x):
        branches = [self.three(x), self.double(x), self.projection(self.pool(x))]
        return torch.cat(([self.one(x)] if self.one is not None else []) + branches, 1)


class BnInception(nn.Module):
    def __init__(self, classes=1000):
        super().__init__()
        self.stem = nn.Sequential(
            Unit(3, 64, 7, 2), nn.MaxPool2d(3, 2, ceil_mode=True), Unit(64, 64, 1), Unit(64, 192, 3), nn.MaxPool2d(3, 2, ceil_mode=True))
        modules, channels = [], 192
        for _, *row in ROWS:
            modules.append(Module(channels, *row))
            channels = modules[-1].outputs
        self.modules_ = nn.Sequential(*modules)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        return self.fc(F.adaptive_avg_pool2d(self.modules_(self.stem(x)), 1).flatten(1))


def optimizer_of(network):
    """SGD with momentum in one launch where this version has it."""
    try:
        return torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=True), "fused"
    except (TypeError, RuntimeError):
        return torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9), "foreach"


def measure(mode, batch, size, steps):
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(1)
    network = BnInception().cuda().to(memory_format=torch.channels_last)
    optimizer, kind = optimizer_of(network)
    forward = network if mode == "eager" else torch.compile(network, mode=mode)
    images = torch.randn(batch, 3, size, size, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,), device="cuda")

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = F.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()

    def timed(count):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(count):
            step()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / count

    for _ in range(WINDOW):
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    windows = statistics.median(timed(WINDOW) for _ in range(max(1, steps // WINDOW)))
    single = statistics.median(timed(1) for _ in range(steps))
    print(json.dumps({
        "peer": f"pytorch {torch.__version__}", "mode": mode, "precision": "bf16", "batch": batch, "image_size": size, "optimizer": kind,
        "step_ms": round(windows, 3), "step_ms_synchronized": round(single, 3), "img_per_s": round(batch / windows * 1000, 1),
        "peak_device_memory_mb": round(torch.cuda.max_memory_allocated() / 1e6, 1), "parameters": sum(p.numel() for p in network.parameters())}), flush=True)


def run(mode, batch, arguments, limit):
    """One measurement in a process of its own; the line to print, and whether it is one with numbers."""
    command = [sys.executable, __file__, "--mode", mode, "--batch", str(batch), "--size", str(arguments.size), "--steps", str(arguments.steps)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode == 0 and lines:
            return lines[-1], True
        error = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        error = f"no result within {limit:.0f} s"
    return json.dumps({"mode": mode, "batch": batch, "error": error}), False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--mode", choices=MODES, help="measure this one here, in this process")
    parser.add_argument("--limit", type=float, help="seconds each measurement may take, instead of " + ", ".join(f"{LIMITS[m]} ({m})" for m in MODES))
    parser.add_argument("--seconds", type=float, default=560, help="seconds all of them may take")
    arguments = parser.parse_args()
    if arguments.mode:
        measure(arguments.mode, arguments.batch[0], arguments.size, arguments.steps)
        return 0
    end, good = time.monotonic() + arguments.seconds, True
    for mode in MODES:
        for batch in arguments.batch:
            line, ok = run(mode, batch, arguments, max(1, min(arguments.limit or LIMITS[mode], end - time.monotonic())))
            print(line, flush=True)
            good = good and ok
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
