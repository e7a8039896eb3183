"""Programs against the reference: every operation on random shapes, and how they are called."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.programs import blocks, every_operation

from sepconv.geometry import conv_spec
from sepconv.program import reference
from sepconv.program.dtypes import as_bfloat16
from sepconv.program.network import (
    ACTIVATIONS,
    BINARY,
    OPERATIONS,
    QUANTIZED_OPERATIONS,
    UNARY,
    Input,
    Network,
    Step,
)
from sepconv.program.program import Memory, Program
from sepconv.program.shapes import shapes

Draw = np.random.Generator

#: Numbers a, b and c of the functions that need some.
_NUMBERS = {
    "relu": (0.25, 2.0, 0.5),
    "elu": (0.7, 0.0, 0.0),
    "celu": (0.7, 0.0, 0.0),
    "clip": (-0.5, 1.5, 0.0),
    "linear": (-1.5, 0.25, 0.0),
    "soft_shrink": (0.5, 0.0, 0.0),
    "hard_shrink": (0.5, 0.0, 0.0),
    "threshold": (0.25, -3.0, 0.0),
    "squareplus": (4.0, 0.0, 0.0),
}
#: Functions of positive numbers alone.
_POSITIVE = ("log", "sqrt", "rsqrt", "reciprocal", "power", "divide")


class _Drawn:
    """A network of one random step, and inputs for it."""

    def __init__(self, draw: Draw, dtype: str) -> None:
        self.draw, self.dtype = draw, dtype
        self.inputs: list[np.ndarray] = []
        self.tensors: list[np.ndarray] = []

    def size(self, most: int = 9) -> int:
        return int(self.draw.integers(1, most + 1))

    def shape(self, least: int = 1, most: int = 5) -> tuple[int, ...]:
        return tuple(self.size() for _ in range(self.draw.integers(least, most + 1)))

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        return (2 * self.draw.standard_normal(shape)).astype(self.dtype)

    def input(self, shape: tuple[int, ...]) -> int:
        self.inputs.append(self.array(shape))
        return len(self.inputs) - 1

    def tensor(self, *shape: int) -> int:
        self.tensors.append(self.array(shape) / 2)
        return len(self.tensors) - 1

    def flag(self) -> bool:
        return bool(self.draw.integers(2))

    def choice(self, values: Any) -> Any:
        return values[int(self.draw.integers(len(values)))]

    def image(self, channels: int) -> tuple[bool, int, tuple[int, ...]]:
        """Whether channels come first; the number of spatial axes; a shape."""
        first, rank = self.flag(), self.choice((1, 2))
        space = tuple(int(self.draw.integers(5, 12)) for _ in range(rank))
        batch = self.size(3)
        return first, rank, (batch, channels, *space) if first else (batch, *space, channels)

    def spec(self, first: bool, rank: int, kernel: int) -> tuple[int, ...]:
        """A window's arguments; its output has at least one pixel."""
        data_format = "channels_first" if first else "channels_last"
        stride = self.choice((1, 1, 2, 3))
        dilation = 1 if stride > 1 else self.choice((1, 2))
        pads = tuple(int(self.draw.integers(kernel)) for _ in range(4))
        explicit = ((pads[0], pads[1]), (pads[2], pads[3]))
        padding: Any = self.choice(("same", "valid", explicit))
        if rank == 1:
            padding = (((0, 0), explicit[1])) if padding == explicit else padding
            return tuple(conv_spec((1, stride), padding, (1, dilation), data_format))
        return tuple(conv_spec(stride, padding, dilation, data_format))

    def network(self, operation: str, attributes: dict[str, Any], weights: Any = None) -> Network:
        count = len(self.inputs)
        step = Step(operation, f"the {operation}", tuple(range(count)), attributes, weights or {})
        inputs = [Input(f"x{i}", (None, *x.shape[1:])) for i, x in enumerate(self.inputs)]
        return Network(self.dtype, inputs, [step], [count], ["y"], self.tensors)


def _convolution(d: _Drawn) -> Network:
    channels = d.choice((1, 3, 16, 20))
    first, rank, shape = d.image(channels)
    kind = d.choice(("depthwise", "separable", "ordinary", "pointwise"))
    kernel = 1 if kind == "pointwise" else d.choice((2, 3))
    window = (1, kernel) if rank == 1 else (kernel, kernel)
    d.input(shape)
    weights, attributes = {}, {"depthwise_activation": "none", "activation": d.choice(ACTIVATIONS)}
    middle = channels
    if kind in ("depthwise", "separable"):
        multiplier = d.choice((1, 2))
        weights["depthwise_kernel"] = d.tensor(*window, channels, multiplier)
        middle *= multiplier
        window = (1, 1)
    outputs = middle
    if kind != "depthwise":
        outputs = d.choice((1, 5, 17))
        weights["pointwise_kernel"] = d.tensor(*window, middle, outputs)
    if kind == "separable":
        attributes["depthwise_activation"] = d.choice(ACTIVATIONS)
        if d.flag():
            weights["depthwise_bias"] = d.tensor(middle)
    if d.flag():
        weights["bias"] = d.tensor(outputs)
    attributes["spec"] = d.spec(first, rank, kernel)
    if kind == "pointwise":  # every pixel, none twice
        attributes["spec"] = tuple(
            conv_spec(data_format="channels_first" if first else "channels_last")
        )
    network = d.network("convolution", attributes, weights)
    if kind != "depthwise" and d.flag():
        d.input(tuple(s or shape[0] for s in shapes(network)[-1]))
        network = d.network("convolution", attributes, weights)
    return network


def _dense(d: _Drawn) -> Network:
    shape, units = d.shape(2, 4), d.size(40)
    d.input(shape)
    weights = {"kernel": d.tensor(shape[-1], units)}
    if d.flag():
        weights["bias"] = d.tensor(units)
    if d.flag():
        d.input((*shape[:-1], units))
    return d.network("dense", {"activation": d.choice(ACTIVATIONS)}, weights)


def _scale(d: _Drawn) -> Network:
    shape = d.shape(2)
    axis = int(d.draw.integers(1, len(shape)))
    d.input(shape)
    kinds = d.choice((("scale",), ("shift",), ("scale", "shift")))
    return d.network("scale", {"axis": axis}, {kind: d.tensor(shape[axis]) for kind in kinds})


def _unary(d: _Drawn) -> Network:
    function = d.choice(UNARY)
    d.input(d.shape())
    if function in _POSITIVE:
        d.inputs[0] = np.abs(d.inputs[0]) + np.asarray(0.1, d.dtype)
    a, b, c = _NUMBERS.get(function, (0.0, 0.0, 0.0))
    return d.network("unary", {"function": function, "a": a, "b": b, "c": c})


def _binary(d: _Drawn) -> Network:
    function = d.choice(BINARY)
    shape = d.shape(2)
    d.input(shape)
    other = tuple(1 if i and d.flag() else size for i, size in enumerate(shape))
    d.input(other)
    if d.flag():
        d.inputs.reverse()
    if function in _POSITIVE:
        d.inputs = [np.abs(x) + np.asarray(0.5, d.dtype) for x in d.inputs]
    return d.network("binary", {"function": function})


def _pool(d: _Drawn) -> Network:
    first, rank, shape = d.image(d.choice((1, 3, 16, 20)))
    kernel = d.choice((2, 3))
    d.input(shape)
    spec = d.spec(first, rank, kernel)
    window = (1, kernel) if rank == 1 else (kernel, kernel)
    function = d.choice(("max", "average"))
    return d.network("pool", {"function": function, "window": window, "spec": spec})


def _reduce(d: _Drawn) -> Network:
    shape = d.shape(2)
    axes = tuple(axis for axis in range(1, len(shape)) if d.flag()) or (1,)
    d.input(shape)
    function = d.choice(("mean", "max", "min", "sum"))
    return d.network("reduce", {"function": function, "axes": axes, "keepdims": d.flag()})


def _concatenate(d: _Drawn) -> Network:
    shape = d.shape(2)
    axis = int(d.draw.integers(1, len(shape)))
    for _ in range(d.size(4)):
        d.input((*shape[:axis], d.size(), *shape[axis + 1 :]))
    return d.network("concatenate", {"axis": axis})


def _pad(d: _Drawn) -> Network:
    shape = d.shape()
    d.input(shape)
    before, after = ([int(n) for n in d.draw.integers(0, 4, len(shape))] for _ in range(2))
    return d.network("pad", {"before": before, "after": after, "value": 1.5})


def _slice(d: _Drawn) -> Network:
    shape = d.shape()
    d.input(shape)
    starts = [int(d.draw.integers(-size, size)) for size in shape]
    stops = [d.choice((None, int(d.draw.integers(-size, size + 3)))) for size in shape]
    steps = [d.size(3) for _ in shape]
    return d.network("slice", {"starts": starts, "stops": stops, "steps": steps})


def _transpose(d: _Drawn) -> Network:
    shape = d.shape()
    d.input(shape)
    return d.network("transpose", {"permutation": [int(i) for i in d.draw.permutation(len(shape))]})


def _reshape(d: _Drawn) -> Network:
    shape = d.shape(2)
    d.input(shape)
    target = d.choice(((0, -1), (-1,), (0, -1, shape[-1]), (0, *shape[1:], 1)))
    return d.network("reshape", {"shape": target})


def _resize(d: _Drawn) -> Network:
    d.input(tuple(d.size(6) for _ in range(4)))
    interpolation = d.choice(("nearest", "bilinear"))
    factors = (d.size(3), d.size(3))
    attributes = {"interpolation": interpolation, "factors": factors, "channels_first": d.flag()}
    return d.network("resize", attributes)


def _layer_normalization(d: _Drawn) -> Network:
    shape = (*d.shape(1, 3), 2 + d.size(30))
    d.input(shape)
    axes = d.choice((1, len(shape) - 1)) if len(shape) > 2 else 1
    weights = {part: d.tensor(*shape[-axes:]) for part in ("gamma", "beta") if d.flag()}
    return d.network("layer_normalization", {"axes": axes, "epsilon": 1e-3}, weights)


def _softmax(d: _Drawn) -> Network:
    shape = d.shape(2)
    d.input(shape)
    axis = int(d.draw.integers(1, len(shape)))
    return d.network("softmax", {"axis": axis, "logarithm": d.flag()})


def _constant(d: _Drawn) -> Network:
    d.input((2,))
    network = d.network("constant", {}, {"value": d.tensor(*d.shape())})
    return network._replace(steps=[network.steps[0]._replace(inputs=())])


def _cast(d: _Drawn) -> Network:
    d.input(d.shape())
    narrow = d.network("cast", {"dtype": "bfloat16"})
    wide = Step("cast", "wide", (1,), {"dtype": "float32"})
    return narrow._replace(steps=[*narrow.steps, wide], outputs=[2])


_DRAWN: dict[str, Callable[[_Drawn], Network]] = {
    "convolution": _convolution,
    "dense": _dense,
    "scale": _scale,
    "unary": _unary,
    "binary": _binary,
    "pool": _pool,
    "reduce": _reduce,
    "concatenate": _concatenate,
    "pad": _pad,
    "slice": _slice,
    "transpose": _transpose,
    "reshape": _reshape,
    "resize": _resize,
    "layer_normalization": _layer_normalization,
    "softmax": _softmax,
    "constant": _constant,
    "cast": _cast,
}


def _in_bfloat16(network: Network) -> Network:
    """A network of one step with it in bfloat16, between casts."""
    count = len(network.inputs)
    (step,) = network.steps
    products = step.operation in ("convolution", "dense", "constant")
    tensors = [as_bfloat16(t) if products else t for t in network.tensors]
    narrow = [Step("cast", f"narrow {i}", (i,), {"dtype": "bfloat16"}) for i in range(count)]
    between = step._replace(inputs=tuple(count + i for i in step.inputs))
    wide = Step("cast", "wide", (2 * count,), {"dtype": "float32"})
    steps = [*narrow, between, wide]
    return network._replace(steps=steps, outputs=[2 * count + 1], tensors=tensors)


def _close(found: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    """Holds results against the reference's.

    Those of bfloat16 may be rounded to the next number where the sums of float32 are not exact, and
    what is rounded within a separable convolution changes its results by as much.
    """
    assert found.shape == expected.shape
    assert found.dtype == ("float32" if dtype == "bfloat16" else dtype)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    relative = {"float32": 2e-5, "float64": 1e-11, "bfloat16": 2**-7}[dtype]
    absolute = {"float32": 2e-5, "float64": 1e-11, "bfloat16": 2**-8}[dtype]
    np.testing.assert_allclose(found, expected, rtol=relative, atol=absolute * scale)


@pytest.mark.parametrize(
    ("operation", "dtype"),
    [
        (name, dtype)
        for name in OPERATIONS
        if name not in QUANTIZED_OPERATIONS  # see test_quantized_program.py
        for dtype in ("float32", "float64", "bfloat16")
    ],
)
def test_operation_is_the_references(operation: str, dtype: str) -> None:
    if (operation, dtype) == ("cast", "float64"):
        with pytest.raises(ValueError, match=r"inputs must be of float32 or bfloat16"):
            Program(_cast(_Drawn(np.random.default_rng(0), dtype)))
        return
    count = 150 if operation in ("convolution", "unary") else 40
    compared = 0
    for seed in range(count):
        half = dtype == "bfloat16"
        drawn = _Drawn(np.random.default_rng(seed), "float32" if half else dtype)
        try:
            network = _DRAWN[operation](drawn)
            if half and operation != "cast":
                network = _in_bfloat16(network)
            (expected,) = reference.run(network, *drawn.inputs)
        except ValueError:
            continue  # a window that does not fit, or lies in the padding alone
        program = Program(network)
        found = program(*drawn.inputs)
        _close(found, expected, dtype)
        compared += 1
        known = shapes(network)[-1]
        assert all(a in (None, b) for a, b in zip(known, found.shape, strict=True)), seed
    assert compared > 0.8 * count


def test_networks_are_the_references() -> None:
    for network in (every_operation(), every_operation("float64"), blocks(), blocks("float64")):
        shape = tuple(3 if size is None else size for size in network.inputs[0].shape)
        x = np.random.default_rng(0).standard_normal(shape).astype(network.dtype)
        found = Program(network)(x)
        found = found if isinstance(found, tuple) else (found,)
        for a, b in zip(found, reference.run(network, x), strict=True):
            _close(a, b, network.dtype)


def _steps(*steps: Step, tensors: Any = (), shape: Any = (None, 4)) -> Network:
    return Network("float32", [Input("x", shape)], steps, [len(steps)], ["y"], tensors)


_DOUBLE = Step("unary", "double", (0,), {"function": "linear", "a": 2.0, "b": 0.0, "c": 0.0})


def test_inputs_are_converted() -> None:
    program = Program(_steps(_DOUBLE))
    for x in (
        [[1, 2, 3, 4]],
        np.array([[1, 2, 3, 4]], "uint8"),
        np.array([[1.0, 2.0, 3.0, 4.0]]),
        np.asfortranarray(np.tile(np.array([1, 2, 3, 4], "float16"), (1, 1))),
        np.arange(1, 9, dtype="float32").reshape(1, 8)[:, :4],
    ):
        np.testing.assert_array_equal(program(x), [[2, 4, 6, 8]])
    with pytest.raises(TypeError, match=r"Input 0 must hold numbers.*complex"):
        program(np.ones((1, 4), complex))


def test_shapes_are_checked() -> None:
    program = Program(_steps(_DOUBLE))
    with pytest.raises(ValueError, match=r"must have the shape \(None, 4\).*\(1, 5\)"):
        program(np.ones((1, 5), "float32"))
    with pytest.raises(ValueError, match=r"takes 1 inputs\. Received: 2"):
        program(np.ones((1, 4), "float32"), np.ones((1, 4), "float32"))
    assert program(np.ones((0, 4), "float32")).shape == (0, 4)


def test_out_holds_the_result() -> None:
    program = Program(_steps(_DOUBLE))
    x, out = np.ones((2, 4), "float32"), np.empty((2, 4), "float32")
    assert program(x, out=out) is out
    np.testing.assert_array_equal(out, 2)
    with pytest.raises(ValueError, match="share memory"):
        program(x, out=x)
    with pytest.raises(ValueError, match=r"out must have the shape \(2, 4\)"):
        program(x, out=np.empty((1, 4), "float32"))
    with pytest.raises(TypeError, match="float64"):
        program(x, out=np.empty((2, 4)))
    with pytest.raises(ValueError, match="C-contiguous"):
        program(x, out=np.empty((4, 2), "float32").T)
    with pytest.raises(ValueError, match=r"out must hold 1 arrays\. Received: 2"):
        program(x, out=[out, np.empty_like(out)])


def test_open_sizes_are_planned_anew() -> None:
    network = blocks()
    shape = (None, None, None, network.inputs[0].shape[-1])
    network = network._replace(inputs=[Input("x", shape)])
    program = Program(network)
    draw = np.random.default_rng(0)
    for height, width in ((9, 7), (16, 16), (5, 30)):
        x = draw.standard_normal((2, height, width, shape[-1])).astype("float32")
        found = program(x)
        found = found if isinstance(found, tuple) else (found,)
        for a, b in zip(found, reference.run(network, x), strict=True):
            _close(a, b, "float32")
    for height in range(5, 80):  # more shapes than plans are kept
        assert program(np.ones((1, height, 6, shape[-1]), "float32")) is not None


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_program_is_saved_and_not_pickled(way: Callable[[Program], Any]) -> None:
    with pytest.raises(TypeError, match=r"Write it to a file with Program\.save"):
        way(Program(blocks()))


def test_images_of_any_height_are_planned_at_once() -> None:
    """A file may say any size; whether there is memory for it shows when it is called."""
    network = blocks()
    shape = (1, 1 << 40, 1, network.inputs[0].shape[-1])
    network = network._replace(inputs=[Input("x", shape)])
    assert Program(network).outputs[0].shape is not None


def test_empty_batches() -> None:
    """Shapes are reckoned without the batch, so that none of it is no matter."""
    y, z = Program(every_operation())(np.empty((0, 8, 8, 3), "float32"))
    assert y.shape == (0, 5)
    assert z.shape[0] == 0
    steps = [
        Step("reshape", "flat", (0,), {"shape": (0, -1)}),
        Step("reshape", "groups", (0,), {"shape": (0, 2, -1, 3)}),
    ]
    network = Network("float32", [Input("x", (None, 4, 6))], steps, [1, 2], ["a", "b"], [])
    for batch in (0, 2):
        x = np.ones((batch, 4, 6), "float32")
        assert [y.shape for y in Program(network)(x)] == [(batch, 24), (batch, 2, 4, 3)]
        assert [y.shape for y in reference.run(network, x)] == [(batch, 24), (batch, 2, 4, 3)]


def test_memory_and_profile() -> None:
    program = Program(blocks())
    shape = tuple(size or 12 for size in program.inputs[0].shape)
    memory = program.memory(shape)
    assert isinstance(memory, Memory)
    assert 0 < memory.arena <= memory.naive
    assert memory.weights > 0
    reports = program.profile(np.ones(shape, "float32"))
    assert len(reports) == len(blocks().steps)
    assert sum(report.multiply_adds for report in reports) > 0
    assert reports[-1].shape == program.output_shapes(shape)[0]
    open_sizes = Program(_steps(_DOUBLE, shape=(None, None)))
    with pytest.raises(ValueError, match="shapes must be given"):
        open_sizes.memory()
    assert open_sizes.memory((1, 4)).weights == 0


def test_an_open_batch_may_meet_a_fixed_one() -> None:
    inputs = [Input("x", (None, 3)), Input("more", (2, 3))]
    step = Step("binary", "sum", (0, 1), {"function": "add"})
    program = Program(Network("float32", inputs, [step], [2], ["y"], []))
    np.testing.assert_array_equal(program(np.ones((2, 3)), np.ones((2, 3))), np.full((2, 3), 2.0))
    assert [len(one.shape) for one in program.outputs] == [2]
    with pytest.raises(ValueError, match="The step 'sum'"):
        program(np.ones((4, 3)), np.ones((2, 3)))


def test_errors_name_the_step() -> None:
    wrong = Step("softmax", "the last one", (0,), {"axis": 3, "logarithm": False})
    with pytest.raises(
        ValueError, match=r"The step 'the last one' \(softmax\): axis must be 0 to 1"
    ):
        Program(_steps(wrong))
    with pytest.raises(ValueError, match="float64"):
        Program(
            _steps(Step("constant", "c", (), {}, {"value": 0}), tensors=[np.ones(3)])._replace(
                outputs=[1]
            )
        )
