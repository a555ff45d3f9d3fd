#!/usr/bin/env python3
"""BN-Inception in PyTorch, as a yardstick for the cudnn backend: one training step, eager and compiled, channels-last, bf16 autocast.

    python3 bn_inception_pytorch.py --batch 32 256 [--steps 30] [--size 224]

Prints one JSON line per measurement: images per second by the median of the steps' device times. The network is the one of `hpcbn inspect
--model bn-inception` (width 608): the same branches, strides and pooling.
"""
import argparse
import json
import statistics

import torch
from torch import nn
from torch.nn import functional as F

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


def measure(batch, size, steps, compiled):
    torch.manual_seed(1)
    network = BnInception().cuda().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    forward = torch.compile(network, mode="max-autotune") if compiled else network
    images = torch.randn(batch, 3, size, size, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,), device="cuda")
    times = []
    for step in range(steps + 10):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = F.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        end.record()
        torch.cuda.synchronize()
        if step >= 10:
            times.append(start.elapsed_time(end))
    milliseconds = statistics.median(times)
    print(json.dumps({
        "peer": f"pytorch {torch.__version__}", "mode": "compile" if compiled else "eager", "precision": "bf16", "batch": batch, "image_size": size,
        "step_ms": round(milliseconds, 3), "img_per_s": round(batch / milliseconds * 1000, 1),
        "peak_memory_mb": round(torch.cuda.max_memory_allocated() / 1e6, 1), "parameters": sum(p.numel() for p in network.parameters())}), flush=True)
    torch.cuda.reset_peak_memory_stats()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--eager-only", action="store_true")
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    for batch in arguments.batch:
        measure(batch, arguments.size, arguments.steps, compiled=False)
        if not arguments.eager_only:
            measure(batch, arguments.size, arguments.steps, compiled=True)


if __name__ == "__main__":
    main()
