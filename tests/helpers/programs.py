"""Programs for tests: a network with every kind of step, and files with a header of one's own.

The layout of a file is written down here a second time, so that tests hold the package against
``docs/program-file.md`` and not against itself.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from sepconv.geometry import conv_spec
from sepconv.program.dtypes import as_bfloat16
from sepconv.program.network import Input, Network, Step

PRELUDE = "<8sIIQQ"  # magic, version, checksum, bytes of the header, bytes of the file
MAGIC = b"\x89SEPC\r\n\x1a"

_SAME = conv_spec(padding="same")
_PLAIN = {"depthwise_activation": "none", "activation": "none"}


def every_operation(dtype: str = "float32") -> Network:
    """A network with every kind of step, for x of 8 by 8 pixels of 3 channels.

    In float64 there is no cast.
    """
    draw = np.random.default_rng(1)

    def tensor(*shape: int) -> np.ndarray:
        tensors.append(draw.standard_normal(shape).astype(dtype))
        return len(tensors) - 1

    def step(operation: str, *inputs: int, weights: Any = None, **attributes: Any) -> None:
        name = f"the {operation} {len(steps)}"
        steps.append(Step(operation, name, inputs, attributes, weights or {}))

    tensors: list[np.ndarray] = []
    steps: list[Step] = []
    step("pad", 0, before=(0, 0, 1, 0), after=(0, 1, 0, 0), value=0.5)
    separable = {
        "depthwise_kernel": tensor(3, 3, 3, 2),
        "depthwise_bias": tensor(6),
        "pointwise_kernel": tensor(1, 1, 6, 4),
        "bias": tensor(4),
    }
    block = {"depthwise_activation": "silu", "activation": "relu6"}
    step("convolution", 1, spec=_SAME, weights=separable, **block)
    ordinary = {"pointwise_kernel": tensor(3, 3, 4, 4)}
    step("convolution", 2, 2, spec=_SAME, weights=ordinary, **_PLAIN)
    step("unary", 3, function="relu", a=0.1, b=float("inf"), c=-0.0)
    step("binary", 3, 4, function="add")
    step("scale", 5, axis=3, weights={"scale": tensor(4), "shift": tensor(4)})
    step("pool", 6, function="max", window=(2, 2), spec=conv_spec(strides=2))
    step("resize", 7, interpolation="nearest", factors=(2, 1), channels_first=False)
    step("slice", 8, starts=(0, 0, 0, 0), stops=(None, 4, -1, None), steps=(1, 2, 1, 1))
    step("concatenate", 9, 9, axis=3)
    step("transpose", 10, permutation=(0, 3, 1, 2))
    step("reshape", 11, shape=(0, -1, 3))
    normalized = {"gamma": tensor(3), "beta": tensor(3)}
    step("layer_normalization", 12, axes=1, epsilon=1e-6, weights=normalized)
    step("softmax", 13, axis=2, logarithm=False)
    step("reduce", 14, function="mean", axes=(1,), keepdims=False)
    step("dense", 15, activation="relu", weights={"kernel": tensor(3, 5), "bias": tensor(5)})
    step("constant", weights={"value": tensor(5)})
    step("binary", 16, 17, function="multiply")
    if dtype == "float32":
        step("cast", 18, dtype="bfloat16")
        step("cast", 19, dtype="float32")
    inputs = (Input("x", (None, 8, 8, 3)),)
    outputs = (len(steps), 6)
    return Network(dtype, inputs, tuple(steps), outputs, ("y", "größe"), tuple(tensors))


def without_casts(network: Network) -> Network:
    """A network up to its first cast, whose value is its first output."""
    first = len(network.inputs)
    (i, cast), *_ = ((i, step) for i, step in enumerate(network.steps) if step.operation == "cast")
    kept = tuple(value for value in network.outputs if value < first + i)
    outputs = (cast.inputs[0], *kept)
    return network._replace(
        steps=network.steps[:i], outputs=outputs, output_names=network.output_names[: len(outputs)]
    )


def halves() -> Network:
    """A network of a separable block and a dense layer in bfloat16, for x of 12 by 16."""
    draw = np.random.default_rng(3)
    shapes = ((3, 3, 16, 1), (16,), (1, 1, 16, 20), (20,), (20, 5))
    tensors = tuple(as_bfloat16(draw.standard_normal(shape) / 3) for shape in shapes)
    block = {"depthwise_kernel": 0, "depthwise_bias": 1, "pointwise_kernel": 2, "bias": 3}
    activations = {"depthwise_activation": "relu", "activation": "silu"}
    steps = (
        Step("cast", "narrow", (0,), {"dtype": "bfloat16"}),
        Step("convolution", "block", (1,), {"spec": _SAME, **activations}, block),
        Step("reshape", "rows", (2,), {"shape": (0, -1, 20)}),
        Step("dense", "classes", (3,), {"activation": "none"}, {"kernel": 4}),
        Step("cast", "wide", (4,), {"dtype": "float32"}),
    )
    return Network("float32", (Input("x", (None, 12, 12, 16)),), steps, (5,), ("y",), tensors)


def quantized() -> Network:
    """A network with every kind of step of int8, for x of 12 by 10 pixels of 3 channels."""
    draw = np.random.default_rng(4)
    tensors: list[np.ndarray] = []
    steps: list[Step] = []

    def step(operation: str, *inputs: int, weights: Any = None, **attributes: Any) -> None:
        name = f"the {operation} {len(steps)}"
        steps.append(Step(operation, name, inputs, attributes, weights or {}))

    def part(prefix: str, kernel: tuple[int, ...], channels: int, table: bool) -> dict[str, int]:
        """A kernel, its biases, scales and maybe a table."""
        made = {
            "kernel": draw.integers(-127, 128, kernel).astype(np.int8),
            "bias": draw.integers(-9000, 9000, channels).astype(np.int32),
            "scale": draw.uniform(0.001, 0.006, channels).astype(np.float32),
        }
        if table:
            made["table"] = draw.integers(0, 256, 256).astype(np.uint8)
        tensors.extend(made.values())
        first = len(tensors) - len(made)
        others = "depthwise_" if prefix == "depthwise_" else ""  # of all but the kernel
        names = [f"{prefix if name == 'kernel' else others}{name}" for name in made]
        return {name: first + i for i, name in enumerate(names)}

    around = {"depthwise_zero_point": 90, "depthwise_lower": 90, "depthwise_upper": 255}
    ends = {"output_zero_point": 120, "lower": 0, "upper": 250}
    added = {"residual_zero_point": 120, "residual_scale": 0.75}
    step("quantize", 0, multiplier=40.0, zero_point=110)
    step(
        *("quantized_convolution", 1),
        weights=part("pointwise_", (3, 3, 3, 16), 16, False),
        **{"spec": conv_spec(padding="same"), "input_zero_point": 110, **around, **ends, **added},
    )
    separable = {
        **part("depthwise_", (3, 3, 16, 1), 16, True),
        **part("pointwise_", (1, 1, 16, 16), 16, True),
    }
    step(
        *("quantized_convolution", 2, 2),
        weights=separable,
        **{"spec": conv_spec(padding="same"), "input_zero_point": 120, **around, **ends, **added},
    )
    step(
        *("quantized_convolution", 3),
        weights=part("depthwise_", (5, 5, 16, 1), 16, False),
        **{"spec": conv_spec(2, "same"), "input_zero_point": 120, **around, **ends, **added},
    )
    table = len(tensors)
    tensors.append(draw.integers(0, 256, 256).astype(np.uint8))
    step("lookup", 4, weights={"table": table})
    window = {"window": (2, 2), "spec": conv_spec(1, "same")}
    points = {"input_zero_point": 90, "output_zero_point": 100}
    step("quantized_average_pool", 5, **window, scale=1.25, **points)
    step("pool", 5, function="max", **window)
    binary = {"a_zero_point": 100, "b_zero_point": 90, "a_scale": 0.7, "b_scale": 0.4, **ends}
    step("quantized_binary", 6, 7, function="add", **binary)
    mean = {"axes": (1, 2), "keepdims": True, "input_zero_point": 120}
    step("quantized_mean", 8, **mean, scale=0.05, output_zero_point=60)
    binary = {**binary, "a_scale": 0.02, "b_scale": 1.0}
    step("quantized_binary", 8, 9, function="multiply", **binary)
    step("reshape", 10, shape=(0, -1))
    kernel = part("", (480, 7), 7, True)
    step("quantized_dense", 11, weights=kernel, input_zero_point=120, **ends)
    step("dequantize", 12, scale=0.125, zero_point=120)
    kernel = part("", (480, 5), 5, False)
    step("dequantized_dense", 11, weights=kernel, input_zero_point=120)
    around |= {"spec": conv_spec(padding="same"), "input_zero_point": 120}
    separable = {
        **part("depthwise_", (3, 3, 16, 1), 16, True),
        **part("pointwise_", (1, 1, 16, 6), 6, False),
    }
    step("dequantized_convolution", 3, weights=separable, **around)
    inputs, outputs = (Input("x", (None, 12, 10, 3)),), (13, 14, 15)
    names = ("y", "numbers", "image")
    return Network("float32", inputs, tuple(steps), outputs, names, tuple(tensors))


def blocks(dtype: str = "float32") -> Network:
    """A network of separable blocks with a residual, which go together by bands of rows."""
    draw = np.random.default_rng(2)
    tensors = [
        draw.standard_normal(shape).astype(dtype)
        for shape in (
            *((3, 3, 16, 1), (1, 1, 16, 16), (5, 5, 16, 1)),
            *((16,), (1, 1, 16, 20), (3, 3, 20, 1)),
        )
    ]
    relu = {"depthwise_activation": "none", "activation": "relu"}
    strided = {"spec": conv_spec(strides=2, padding="same"), **_PLAIN}
    both = {"depthwise_kernel": 0, "pointwise_kernel": 1}
    five = {"depthwise_kernel": 2, "depthwise_bias": 3, "pointwise_kernel": 4}
    steps = (
        Step("convolution", "first", (0,), {"spec": _SAME, **relu}, both),
        Step("convolution", "second", (1, 0), {"spec": _SAME, **relu}, {**both, "bias": 3}),
        Step("convolution", "third", (2,), {"spec": _SAME, **_PLAIN}, five),
        Step("convolution", "last", (3,), strided, {"depthwise_kernel": 5}),
    )
    inputs = (Input("x", (None, None, 12, 16)),)
    return Network(dtype, inputs, steps, (4,), ("y",), tuple(tensors))


def same(a: Network, b: Network) -> bool:
    """Whether two networks are equal, to the bits of their tensors."""
    return a._replace(tensors=()) == b._replace(tensors=()) and [
        (t.dtype, t.shape, t.tobytes()) for t in a.tensors
    ] == [(t.dtype, t.shape, t.tobytes()) for t in b.tensors]


def split(raw: bytes) -> tuple[bytes, bytes]:
    """The header of a file, and what follows it and the bytes that align the first tensor."""
    _, _, _, length, _ = struct.unpack_from(PRELUDE, raw)
    end = 32 + length
    return raw[32:end], raw[-(-end // 64) * 64 :]


def join(header: bytes, tensors: bytes, version: int = 3) -> bytes:
    """A file with a right checksum."""
    body = header + bytes(-(32 + len(header)) % 64) + tensors
    sizes = (len(header), 32 + len(body))
    checksum = zlib.crc32(struct.pack(PRELUDE, MAGIC, version, 0, *sizes) + body)
    return struct.pack(PRELUDE, MAGIC, version, checksum, *sizes) + body


def edited(raw: bytes, edit: Callable[[Any], None]) -> bytes:
    """A file whose header `edit` changed, with a right checksum."""
    text, tensors = split(raw)
    header = json.loads(text)
    edit(header)
    return join(json.dumps(header).encode(), tensors)
