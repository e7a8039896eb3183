"""Times PyTorch networks: a training step and inference, stock and accelerated, in turns.

python benchmarks/torch_networks.py                          all networks
python benchmarks/torch_networks.py mixnet_s --seconds 20    some, for so long each
python benchmarks/torch_networks.py --no-compile             without torch.compile, which takes long

PyTorch itself computes in channels_last memory, eager and by torch.compile (for inference with
frozen weights). Ours are the same network after `sepconv.accelerate`, and for inference also after
`sepconv.optimize` and as a program, which NumPy calls. Losses and predictions are compared first.

For inference they take turns in one process (`turns.py`). Training steps take turns in a process
each (`processes.py`), as people train, since what PyTorch frees at a step's end may cost page
faults in the next: eager and accelerated as they are, and both with `sepconv.torch.keep_memory`.
The networks are of geffnet and timm:

    pip install --no-deps geffnet timm torchvision huggingface_hub safetensors pyyaml
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from networks import GEFFNET
from processes import Participant, answer_turns, team
from torch import nn
from turns import in_turns

import sepconv
import sepconv.torch

TASKS = ("training", "inference")
#: What a way's name ends with where it keeps the memory that it frees.
KEPT = ", memory kept"
#: Measured steps of a turn.
STEPS = 4

TIMM = ("convnext_tiny", "xception41", "repvit_m1", "fastvit_t8", "mobilenetv4_conv_small")


def installed() -> tuple[str, ...]:
    """The networks of the packages that are installed; a line for those of the others."""
    missing = [name for name in ("timm", "torchvision") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"without the networks of timm, since {' and '.join(missing)} is not installed")
    return GEFFNET if missing else GEFFNET + TIMM


def network(name: str) -> nn.Module:
    """A network with random weights, without dropout."""
    torch.manual_seed(0)
    if name in TIMM:
        import_torchvision()
        import timm

        return timm.create_model(name, num_classes=10)
    import geffnet

    return geffnet.create_model(name, num_classes=10, drop_rate=0.0, drop_connect_rate=0.0)


class _OfChannelsLastImages(nn.Module):
    """A network that takes images with the channels last."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The network's outputs."""
        return self.network(images.permute(0, 3, 1, 2))


def of_channels_last_images(name: str) -> nn.Module:
    """A network for inference, in channels_last memory, that takes images in the same order."""
    return _OfChannelsLastImages(network(name).to(memory_format=torch.channels_last)).eval()


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


Run = Callable[[], torch.Tensor]


def training_step(module: Callable[..., torch.Tensor], x: torch.Tensor) -> Run:
    """Forward, loss, backward and update; gives the loss."""
    labels = torch.arange(len(x)) % 10
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)

    def run() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(x), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run


def inference(module: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Run:
    """The prediction for images."""

    def run() -> torch.Tensor:
        with torch.no_grad():
            return module(x)

    return run


def compiled(module: nn.Module, task: str) -> Callable[..., torch.Tensor]:
    """The module by torch.compile; for inference with its weights as constants."""
    torch._dynamo.reset()
    torch._inductor.config.freezing = task == "inference"
    return torch.compile(module)


def prepared(
    way: str, name: str, batch: int, pixels: int
) -> tuple[dict[str, Any], Callable[[], Any]]:
    """A way of training in its process: the loss of its first step, and what computes a step."""
    if way.endswith(KEPT) and not sepconv.torch.keep_memory():
        raise SystemExit("this C library keeps no memory")
    module: Any = network(name).to(memory_format=torch.channels_last)
    x = torch.randn(batch, 3, pixels, pixels).to(memory_format=torch.channels_last)
    if way.startswith("accelerated"):
        module = sepconv.accelerate(module).module
    elif way.startswith("compiled"):
        module = compiled(module, "training")
    step = training_step(module, x)
    return {"loss": float(step())}, step


def measure_training(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Prints a line, and gives how many times as fast as eager each way of training is."""
    ways = ["eager", "accelerated", f"eager{KEPT}", f"accelerated{KEPT}"]
    ways += ["compiled"] * options.compile
    with tempfile.TemporaryDirectory() as folder, team() as members:
        for way in ways:
            sizes = ["--batch", options.batch, "--train-pixels", options.train_pixels]
            command = [sys.executable, __file__, name, *map(str, sizes), "--serve", way]
            member = Participant(command, dict(os.environ), Path(folder) / way)
            members[way] = member
            if "failed" in member.first:
                raise SystemExit(f"{name}: {way}: {member.first['failed']}")
        check(name, {way: torch.tensor(each.first["loss"]) for way, each in members.items()})
        end, turn = time.perf_counter() + options.seconds, 0
        while time.perf_counter() < end or turn < 4:
            for each in list(members.values())[:: -1 if turn % 2 else 1]:
                each.turn(STEPS)
            turn += 1
    return told(name, "training", {way: each.seconds for way, each in members.items()})


def ways_of_inference(stock: nn.Module, x: torch.Tensor, compile: bool) -> dict[str, Run]:
    """The prediction by PyTorch itself, accelerated, by torch.compile, optimized, by a program."""
    stock.eval()
    modules: dict[str, Callable[..., torch.Tensor]] = {
        "eager": stock,
        "accelerated": sepconv.accelerate(copy.deepcopy(stock)).module,
        "optimized": sepconv.optimize(stock, x)[0],
    }
    if compile:
        modules["compiled"] = compiled(stock, "inference")
    program, image = sepconv.compile(stock, x), x.numpy()
    ways: dict[str, Run] = {way: inference(module, x) for way, module in modules.items()}
    return ways | {"program": lambda: torch.from_numpy(program(image))}


def check(name: str, outputs: dict[str, torch.Tensor]) -> None:
    """Raises where a way's predictions are not those of PyTorch itself, or its loss is not."""
    expected, *others = outputs.values()
    for way, found in zip(list(outputs)[1:], others, strict=True):
        apart = float((found - expected).abs().max() / expected.abs().max())
        if not apart < 1e-4:
            raise SystemExit(f"{name}: {way} is {apart:.1e} apart from eager")


def measure_inference(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Prints a line, and gives how many times as fast as eager each way of predicting is."""
    stock = network(name).to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, options.pixels, options.pixels).to(memory_format=torch.channels_last)
    ways = ways_of_inference(stock, x, options.compile)
    check(name, {way: run() for way, run in ways.items()})
    times = in_turns(list(ways.values()), options.seconds)
    return told(name, "inference", dict(zip(ways, times, strict=True)))


def told(name: str, task: str, times: dict[str, list[float]]) -> dict[str, float]:
    """Prints medians, and gives the factors beside eager."""
    medians = {way: 1e3 * statistics.median(each) for way, each in times.items()}
    factors = {way: medians["eager"] / median for way, median in medians.items()}
    columns = "  ".join(
        f"{way} {median:6.1f} ms {factors[way]:.2f}" for way, median in medians.items()
    )
    print(f"{name:22} {task:9}  {columns}", flush=True)
    return factors


def main() -> None:
    """Measures each network at each task, and prints the geometric means."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("networks", nargs="*", help=f"some of {', '.join(GEFFNET + TIMM)}")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--seconds", type=float, default=10.0, help="a network and a task")
    parser.add_argument("--batch", type=int, default=8, help="images of a training step")
    parser.add_argument("--train-pixels", type=int, default=128)
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        sizes = options.batch, options.train_pixels
        answer_turns(lambda: prepared(options.serve, *options.networks, *sizes))
        return
    for task in options.tasks:
        measure = measure_training if task == "training" else measure_inference
        rows = [measure(name, options) for name in options.networks or installed()]
        for way in rows[0]:
            mean = statistics.geometric_mean(row[way] for row in rows)
            print(f"{task}: {way} is {mean:.2f} times as fast as eager in the mean")


if __name__ == "__main__":
    main()
