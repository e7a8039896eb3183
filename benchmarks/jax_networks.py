"""Times networks of flax and programs of plain JAX, stock and under `sepconv.patch_jax()`.

    python benchmarks/jax_networks.py
    python benchmarks/jax_networks.py mobilenet convnext --seconds 60

Prints rows of a table. Both ways run the same functions on the same arrays, and their results are
compared first; then they take turns, so that whatever else the machine does meets both. Each way's
program is compiled once, ahead of time, so that switching the patch costs nothing in between.

The programs besides networks are those that people have reported as slow: a depthwise layer of
flax (google/flax#4207, jax-ml/jax#23713), the gradient of a stack of depthwise layers in one
dimension (jax-ml/jax#13800), and dilated ones written in two ways (jax-ml/jax#26266).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

import sepconv

__all__ = ["PROGRAMS", "Program", "compare", "convnext", "mobilenet"]

HEADER = (
    "| program | stock, ms | patched, ms | speed-up | served |\n| --- | --- | --- | --- | --- |"
)


class Program(NamedTuple):
    """A function of arrays, to be compiled and timed."""

    function: Callable[..., Any]
    arrays: Sequence[Any]


# --- Networks -------------------------------------------------------------------------------------


class _Separable(nnx.Module):
    """A depthwise and a 1x1 convolution, each with batch normalization and relu6."""

    def __init__(self, channels: int, filters: int, stride: int, rngs: nnx.Rngs) -> None:
        self.depthwise = nnx.Conv(
            channels,
            channels,
            (3, 3),
            strides=stride,
            feature_group_count=channels,
            use_bias=False,
            rngs=rngs,
        )
        self.first = nnx.BatchNorm(channels, rngs=rngs)
        self.pointwise = nnx.Conv(channels, filters, (1, 1), use_bias=False, rngs=rngs)
        self.second = nnx.BatchNorm(filters, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu6(self.first(self.depthwise(x)))
        return nnx.relu6(self.second(self.pointwise(x)))


class _MobileNet(nnx.Module):
    """MobileNetV1. Source: Howard et al., 2017, https://arxiv.org/abs/1704.04861."""

    def __init__(self, width: int, blocks: Sequence[tuple[int, int]], rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, width, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        layers, channels = [], width
        for factor, stride in blocks:
            layers.append(_Separable(channels, factor * width, stride, rngs))
            channels = factor * width
        self.blocks = nnx.List(layers)
        self.head = nnx.Linear(channels, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu6(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


class _ConvNeXt(nnx.Module):
    """Blocks of ConvNeXt. Source: Liu et al., 2022, https://arxiv.org/abs/2201.03545."""

    def __init__(self, channels: int, blocks: int, rngs: nnx.Rngs) -> None:
        def block() -> nnx.Sequential:
            return nnx.Sequential(
                nnx.Conv(channels, channels, (7, 7), feature_group_count=channels, rngs=rngs),
                nnx.LayerNorm(channels, rngs=rngs),
                nnx.Conv(channels, 4 * channels, (1, 1), rngs=rngs),
                nnx.gelu,
                nnx.Conv(4 * channels, channels, (1, 1), rngs=rngs),
            )

        self.stem = nnx.Conv(3, channels, (4, 4), strides=4, rngs=rngs)
        self.blocks = nnx.List([block() for _ in range(blocks)])
        self.head = nnx.Linear(channels, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean((1, 2)))


def _training_step(model: nnx.Module, batch: int, size: int) -> Program:
    """A step of SGD on random images: from the state, images and classes to state and loss."""
    graph, state = nnx.split(model)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, size, size, 3)), "float32")
    y = jnp.arange(batch) % 10

    def step(state: Any, x: Any, y: Any) -> Any:
        model = nnx.merge(graph, state)

        def loss(model: Any) -> Any:
            scores = jax.nn.log_softmax(model(x))
            return -jnp.take_along_axis(scores, y[:, None], 1).mean()

        value, gradients = nnx.value_and_grad(loss)(model)
        parameters = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda p, g: p - 1e-3 * g, parameters, gradients))
        return nnx.state(model), value

    return Program(step, (state, x, y))


_BLOCKS = [(2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *[(16, 1)] * 5, (32, 2), (32, 1)]


def mobilenet(
    batch: int = 8, size: int = 128, width: int = 32, blocks: Sequence[tuple[int, int]] = _BLOCKS
) -> Program:
    """A training step of MobileNetV1, by default whole."""
    return _training_step(_MobileNet(width, blocks, nnx.Rngs(0)), batch, size)


def convnext(batch: int = 8, size: int = 128, channels: int = 96, blocks: int = 6) -> Program:
    """A training step of a stack of ConvNeXt's blocks."""
    return _training_step(_ConvNeXt(channels, blocks, nnx.Rngs(0)), batch, size)


# --- Programs that people have reported as slow ---------------------------------------------------


def layer(channels: int = 256, size: int = 124) -> Program:
    """One depthwise layer of flax on one image."""
    conv = nnx.Conv(
        channels, channels, (3, 3), padding=1, feature_group_count=channels, rngs=nnx.Rngs(0)
    )
    graph, state = nnx.split(conv)
    x = jnp.asarray(np.random.default_rng(0).random((1, size, size, channels)), "float32")
    return Program(lambda state, x: nnx.merge(graph, state)(x), (state, x))


def stack(batch: int = 4, channels: int = 512, steps: int = 1024, layers: int = 12) -> Program:
    """The gradient of depthwise layers in one dimension, channels first."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, channels, steps)), "float32")
    kernels = [jnp.asarray(rng.standard_normal((1, channels, 5)), "float32") / 2] * layers

    def loss(kernels: Any, x: Any) -> Any:
        for kernel in kernels:
            x = lax.conv_general_dilated(
                x,
                kernel,
                (1,),
                "SAME",
                dimension_numbers=("NCW", "IOW", "NCW"),
                feature_group_count=channels,
            )
        return jnp.abs(x).mean()

    return Program(jax.grad(loss), (kernels, x))


def dilated(
    mapped: bool, batch: int = 8, channels: int = 64, steps: int = 1024, dilation: int = 8
) -> Program:
    """The gradient of a dilated depthwise convolution: as groups, or by `vmap` over channels."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, steps, channels)), "float32")
    kernel = jnp.asarray(rng.standard_normal((9, 1, channels)), "float32")

    def convolve(x: Any, kernel: Any, groups: int) -> Any:
        return lax.conv_general_dilated(
            x,
            kernel,
            (1,),
            "SAME",
            rhs_dilation=(dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=groups,
        )

    def loss(x: Any, kernel: Any) -> Any:
        if not mapped:
            return (convolve(x, kernel, channels) ** 2).mean()
        one = jax.vmap(lambda x, k: convolve(x[..., None], k[..., None], 1)[..., 0], 2, 2)
        return (one(x, kernel) ** 2).mean()

    return Program(jax.grad(loss, (0, 1)), (x, kernel))


PROGRAMS: dict[str, Callable[[], Program]] = {
    "mobilenet": mobilenet,
    "convnext": convnext,
    "layer": layer,
    "stack": stack,
    "dilated": lambda: dilated(mapped=False),
    "dilated-vmap": lambda: dilated(mapped=True),
}


# --- Timing ---------------------------------------------------------------------------------------


def difference(program: Program) -> float:
    """The largest difference of the patch's results from stock's, relative to each array's largest.

    In float64: in float32 a number beside 0 may be on the other side of a relu6, and with few
    images a gradient differs then by per cents, however it is computed.
    """

    def precise(array: Any) -> Any:
        floats = jnp.issubdtype(array.dtype, jnp.floating)
        return jnp.asarray(array, "float64") if floats else array

    with jax.enable_x64(True):
        arrays = jax.tree.map(precise, program.arrays)
        results = [jax.tree.leaves(jax.jit(program.function)(*arrays))]
        with sepconv.patch_jax():
            results.append(jax.tree.leaves(jax.jit(program.function)(*arrays)))
        largest = 0.0
        for a, b in zip(*results, strict=True):
            a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
            largest = max(largest, float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)))
    return largest


def compare(program: Program, seconds: float, turns: int) -> tuple[list[list[float]], Any]:
    """Runs a program both ways in turns.

    Returns:
        The seconds of stock and of the patch, each turn; and the patch's record.
    """
    stock = jax.jit(program.function).lower(*program.arrays).compile()
    with sepconv.patch_jax() as record:
        ours = jax.jit(program.function).lower(*program.arrays).compile()
    times: list[list[float]] = [[], []]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < turns:
        for way, spent in zip((stock, ours), times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(way(*program.arrays))
            spent.append(time.perf_counter() - start)
    return times, record


def main() -> int:
    """Runs the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("programs", nargs="*", help=f"of {', '.join(PROGRAMS)}; by default all")
    parser.add_argument("--seconds", type=float, default=20, help="how long to measure each")
    options = parser.parse_args()
    unknown = sorted(set(options.programs) - set(PROGRAMS))
    if unknown:
        parser.error(f"the programs are {', '.join(PROGRAMS)}. Received: {', '.join(unknown)}")
    print(
        f"JAX {jax.__version__}; {sepconv.isa_name()}, {sepconv.num_threads()} threads; medians",
        file=sys.stderr,
    )
    print(HEADER)
    for name in options.programs or PROGRAMS:
        program = PROGRAMS[name]()
        apart = difference(program)
        if not apart < 1e-8:
            print(f"{name}: the results differ by {apart:.1e}: not measured", file=sys.stderr)
            return 1
        times, record = compare(program, options.seconds, turns=3)
        stock, ours = (1e3 * statistics.median(spent) for spent in times)
        served = f"{record.served.total()} of {(record.served + record.handed_on).total()}"
        print(f"| {name} | {stock:.1f} | {ours:.1f} | {stock / ours:.1f}x | {served} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
