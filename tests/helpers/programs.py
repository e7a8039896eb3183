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


def join(header: bytes, tensors: bytes, version: int = 2) -> bytes:
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
