"""Random steps of int8: one of each kind, with the inputs that it is computed on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sepconv.geometry import conv_spec
from sepconv.program.network import DEQUANTIZED_PRODUCTS, OPERATIONS, Input, Network, Step
from sepconv.program.shapes import shapes

#: A network's inputs and outputs are float32; whole numbers become uint8 and back as they are.
_AS_BYTES = {"multiplier": 1.0, "zero_point": 0}
_AS_FLOATS = {"scale": 1.0, "zero_point": 0}


class Drawn:
    """Parts of a random step."""

    def __init__(self, seed: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.inputs: list[np.ndarray] = []
        self.weights: dict[str, np.ndarray] = {}

    def choice(self, values: Any) -> Any:
        return values[int(self.draw.integers(len(values)))]

    def flag(self) -> bool:
        return bool(self.draw.integers(2))

    def byte(self) -> int:
        return int(self.choice((0, 255, *self.draw.integers(0, 256, 6))))

    def input(self, *shape: int) -> None:
        low, high = self.choice(((0, 256), (0, 2)))
        x = self.draw.integers(low, high, shape).astype(np.uint8)
        self.inputs.append(x * 255 if high == 2 else x)

    def bounds(self, prefix: str = "") -> dict[str, int]:
        lower, upper = sorted(self.draw.integers(0, 256, 2).tolist())
        return {f"{prefix}lower": lower, f"{prefix}upper": self.choice((upper, 255))}

    def part(
        self, prefix: str, kernel: str, shape: tuple[int, ...], channels: int, table: bool = True
    ) -> None:
        """A kernel, whose sums are of so many products a channel, and what follows the sums."""
        products = int(np.prod(shape)) // channels
        spread = 9000 * products**0.5
        self.weights[kernel] = self.draw.integers(-127, 128, shape).astype(np.int8)
        scales = self.draw.uniform(50, 200, channels) / spread
        self.weights[f"{prefix}scale"] = scales.astype(np.float32)
        if self.flag():
            bias = self.draw.integers(-int(spread), int(spread), channels)
            self.weights[f"{prefix}bias"] = bias.astype(np.int32)
        if table and self.draw.integers(3) == 0:
            self.weights[f"{prefix}table"] = self.draw.integers(0, 256, 256).astype(np.uint8)

    def image(self, channels: int) -> tuple[bool, int]:
        """Draws an input: whether its channels come first, and its spatial axes."""
        first, rank, batch = self.draw.integers(4) == 0, self.choice((1, 2, 2)), self.choice((1, 3))
        space = self.draw.integers(5, 15, rank).tolist()
        self.input(*((batch, channels, *space) if first else (batch, *space, channels)))
        return bool(first), rank

    def spec(self, first: bool, rank: int, kernel: int) -> tuple[int, ...]:
        data_format = "channels_first" if first else "channels_last"
        stride = self.choice((1, 1, 2, 3))
        dilation = 1 if stride > 1 else self.choice((1, 1, 2))
        pads = self.draw.integers(0, kernel, 4).tolist()
        explicit = ((pads[0], pads[1]), (pads[2], pads[3]))
        padding: Any = self.choice(("same", "valid", explicit))
        if rank == 1:
            padding = ((0, 0), explicit[1]) if padding == explicit else padding
            return tuple(conv_spec((1, stride), padding, (1, dilation), data_format))
        return tuple(conv_spec(stride, padding, dilation, data_format))

    def network(self, operation: str, attributes: dict[str, Any]) -> Network:
        count = len(self.inputs)
        entries = [Input(f"x{i}", (None, *x.shape[1:])) for i, x in enumerate(self.inputs)]
        steps = [Step("quantize", f"bytes {i}", (i,), _AS_BYTES) for i in range(count)]
        parts = {part: i for i, part in enumerate(self.weights)}
        given = tuple(range(count, 2 * count))
        steps.append(Step(operation, "step", given, attributes, parts))
        if operation not in DEQUANTIZED_PRODUCTS:
            steps.append(Step("dequantize", "floats", (2 * count,), _AS_FLOATS))
        tensors = list(self.weights.values())
        return Network("float32", entries, steps, [count + len(steps) - 1], ["y"], tensors)


def _convolution(d: Drawn, operation: str = "quantized_convolution") -> Network:
    floats = operation in DEQUANTIZED_PRODUCTS
    channels = d.choice((1, 3, 16, 24, 40, 64, 80))
    first, rank = d.image(channels)
    kinds = ("separable", "ordinary", "pointwise")
    kind = d.choice(kinds if floats else ("depthwise", *kinds))
    kernel = 1 if kind == "pointwise" else d.choice((2, 3, 3, 5))
    window = (1, kernel) if rank == 1 else (kernel, kernel)
    middle = channels
    if kind in ("depthwise", "separable"):
        multiplier = d.choice((1, 1, 1, 2))
        middle *= multiplier
        d.part("depthwise_", "depthwise_kernel", (*window, channels, multiplier), middle)
        window = (1, 1)
    if kind != "depthwise":
        filters = d.choice((1, 5, 17, 64, 70))
        d.part("", "pointwise_kernel", (*window, middle, filters), filters, not floats)
    attributes = {
        "spec": d.spec(first, rank, kernel),
        "input_zero_point": d.byte(),
        "depthwise_zero_point": d.byte(),
        **d.bounds("depthwise_"),
        "output_zero_point": d.byte(),
        **d.bounds(),
        "residual_zero_point": d.byte(),
        "residual_scale": float(d.draw.uniform(0, 3)),
    }
    attributes = {field.name: attributes[field.name] for field in OPERATIONS[operation].fields}
    network = d.network(operation, attributes)
    *_, y = shapes(network)  # an error where a window does not fit
    if not floats and kind != "depthwise" and d.flag():
        d.input(*(s or d.inputs[0].shape[0] for s in y))
        network = d.network(operation, attributes)
    return network


def _dequantized_convolution(d: Drawn) -> Network:
    return _convolution(d, "dequantized_convolution")


def _dense(d: Drawn, operation: str = "quantized_dense") -> Network:
    floats = operation in DEQUANTIZED_PRODUCTS
    shape = d.draw.integers(1, 9, d.choice((1, 2, 3))).tolist()
    depth, units = (int(n) for n in d.draw.integers(1, 70, 2))
    d.input(*shape, depth)
    d.part("", "kernel", (depth, units), units, not floats)
    attributes: dict[str, Any] = {"input_zero_point": d.byte()}
    if not floats:
        attributes |= {"output_zero_point": d.byte(), **d.bounds()}
    return d.network(operation, attributes)


def _dequantized_dense(d: Drawn) -> Network:
    return _dense(d, "dequantized_dense")


def _binary(d: Drawn) -> Network:
    shape = d.draw.integers(1, 9, d.choice((1, 2, 4))).tolist()
    for _ in range(2):
        # Of one size along some axes but the batch's.
        d.input(shape[0], *(1 if d.draw.integers(4) == 0 else size for size in shape[1:]))
    adds = d.flag()
    scale = 3 if adds else 0.02
    attributes = {
        "function": "add" if adds else "multiply",
        "a_zero_point": d.byte(),
        "b_zero_point": d.byte(),
        "a_scale": float(d.draw.uniform(0, scale)),
        "b_scale": float(d.draw.uniform(0, scale)) if adds else 1.0,
        "output_zero_point": d.byte(),
        **d.bounds(),
    }
    return d.network("quantized_binary", attributes)


def _lookup(d: Drawn) -> Network:
    d.input(*d.draw.integers(1, 9, d.choice((1, 2, 4))).tolist())
    d.weights["table"] = d.draw.integers(0, 256, 256).astype(np.uint8)
    return d.network("lookup", {})


def _mean(d: Drawn) -> Network:
    shape = d.draw.integers(1, 9, d.choice((2, 3, 4))).tolist()
    shape[-1] = d.choice((1, 3, 300))
    d.input(*shape)
    axes = tuple(i for i in range(len(shape)) if d.flag()) or (1,)
    scale = float(d.draw.uniform(0.5, 3)) / float(np.prod([shape[axis] for axis in axes]))
    points = {"input_zero_point": d.byte(), "scale": scale, "output_zero_point": d.byte()}
    return d.network("quantized_mean", {"axes": axes, "keepdims": d.flag(), **points})


def _average_pool(d: Drawn) -> Network:
    first, rank = d.image(d.choice((1, 5, 300)))
    size = d.choice((2, 3))
    attributes = {
        "window": (1, size) if rank == 1 else (size, size),
        "spec": d.spec(first, rank, size),
        "input_zero_point": d.byte(),
        "scale": float(d.draw.uniform(0.5, 3)),
        "output_zero_point": d.byte(),
    }
    return d.network("quantized_average_pool", attributes)


#: What draws the network of a kind of step between a `quantize` and, unless it gives floats itself,
#: a `dequantize`.
DRAWN: dict[str, Callable[[Drawn], Network]] = {
    "quantized_convolution": _convolution,
    "quantized_dense": _dense,
    "dequantized_convolution": _dequantized_convolution,
    "dequantized_dense": _dequantized_dense,
    "quantized_binary": _binary,
    "lookup": _lookup,
    "quantized_mean": _mean,
    "quantized_average_pool": _average_pool,
}
