"""Times PyTorch networks: a training step and inference, stock and accelerated, in turns.

python benchmarks/torch_networks.py                          all networks
python benchmarks/torch_networks.py mixnet_s --seconds 20    some, for so long each
python benchmarks/torch_networks.py --no-compile             without torch.compile, which takes long

Stock is PyTorch in channels_last memory, eager and by torch.compile; ours is the same network after
`sepconv.accelerate`, eager. Every way has its turn before any has the next. The networks are of
geffnet and timm:

    pip install --no-deps geffnet timm torchvision huggingface_hub safetensors pyyaml
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

import sepconv

GEFFNET = (
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mnasnet_100",
    "efficientnet_b0",
    "efficientnet_lite0",
    "fbnetc_100",
    "spnasnet_100",
    "mixnet_s",
)
TIMM = ("convnext_tiny", "xception41", "repvit_m1", "fastvit_t8", "mobilenetv4_conv_small")


def network(name: str) -> nn.Module:
    """A network with random weights, without dropout."""
    torch.manual_seed(0)
    if name in TIMM:
        import_torchvision()
        import timm

        return timm.create_model(name, num_classes=10)
    import geffnet

    return geffnet.create_model(name, num_classes=10, drop_rate=0.0, drop_connect_rate=0.0)


def import_torchvision() -> None:
    """Imports torchvision, which timm does, also where its operators cannot be loaded.

    The package index has it built for CUDA. Beside PyTorch for CPUs it goes on without operators,
    but for two whose shapes it describes, and which must be declared then. No network calls them.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision.")]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", arguments)
        import torchvision  # noqa: F401


def training_step(module: Callable[..., torch.Tensor], x: torch.Tensor) -> Callable[[], None]:
    """Forward, loss, backward and update, for random labels."""
    labels = torch.randint(0, 10, (len(x),))
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), labels).backward()
        optimizer.step()

    return run


def inference(module: Callable[..., torch.Tensor], x: torch.Tensor) -> Callable[[], None]:
    """The prediction for images."""
    module.eval()

    def run() -> None:
        with torch.inference_mode():
            module(x)

    return run


def in_turns(ways: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """The median time of each way, in milliseconds."""
    for run in ways.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(each) for name, each in times.items()}


def measure(name: str, task: str, options: argparse.Namespace) -> float:
    """Prints a line, and gives how many times as fast as eager stock ours is."""
    stock = network(name).to(memory_format=torch.channels_last)
    make, shape = (
        (training_step, (options.batch, 3, options.train_pixels, options.train_pixels))
        if task == "training"
        else (inference, (1, 3, options.pixels, options.pixels))
    )
    x = torch.randn(shape).to(memory_format=torch.channels_last)
    ways = {
        "stock": make(copy.deepcopy(stock), x),
        "ours": make(sepconv.accelerate(copy.deepcopy(stock)).module, x),
    }
    if options.compile:
        torch._dynamo.reset()
        module = copy.deepcopy(stock)
        if task == "inference":
            module.eval()
        ways["compiled"] = make(torch.compile(module), x)
    medians = in_turns(ways, options.seconds)
    factor = medians["stock"] / medians["ours"]
    columns = "  ".join(f"{way} {median:7.1f} ms" for way, median in medians.items())
    print(f"{name:22} {task:9}  {columns}  {factor:.2f} times as fast as eager", flush=True)
    return factor


def main() -> None:
    """Measures each network at each task, and prints the geometric means."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("networks", nargs="*", help=f"some of {', '.join(GEFFNET + TIMM)}")
    parser.add_argument("--tasks", nargs="+", default=["training", "inference"])
    parser.add_argument("--seconds", type=float, default=10.0, help="a network and a task")
    parser.add_argument("--batch", type=int, default=8, help="images of a training step")
    parser.add_argument("--train-pixels", type=int, default=128)
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    for task in options.tasks:
        factors = [measure(name, task, options) for name in options.networks or GEFFNET + TIMM]
        print(f"{task}: {statistics.geometric_mean(factors):.2f} times as fast in the mean")


if __name__ == "__main__":
    main()
