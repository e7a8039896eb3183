"""The dtypes of values and tensors: rounding to bfloat16, and which steps take and give which."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import programs

from sepconv.program import reference
from sepconv.program.dtypes import as_bfloat16, as_float64, round_to, tensor_dtype, value_dtypes
from sepconv.program.network import Input, Network, Step
from sepconv.program.program import Program
from sepconv.program.validate import validate

EDGES = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 1e-40, 3.4e38, 3.3895e38, 1.00390625, 1.01171875],
    "float32",
)


def _numbers(count: int = 4000) -> np.ndarray:
    """Numbers of all sizes, and such that lie between two of bfloat16."""
    draw = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        any_bits = draw.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    ties = (draw.integers(0, 2**16, count, dtype=np.uint32) << 16 | 0x8000).view(np.float32)
    return np.concatenate([EDGES, any_bits, ties])


def _same(a: np.ndarray, b: np.ndarray) -> None:
    """Equal bits, but for which NaN it is."""
    np.testing.assert_array_equal(np.isnan(as_float64(a)), np.isnan(as_float64(b)))
    finite = ~np.isnan(as_float64(a))
    np.testing.assert_array_equal(a[finite], b[finite])


def test_rounding_is_that_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")  # which comes with the engines
    numbers = _numbers()
    with np.errstate(all="ignore"):
        expected = numbers.astype(ml_dtypes.bfloat16)
    _same(as_bfloat16(numbers), expected.view(np.uint16))
    np.testing.assert_array_equal(as_float64(as_bfloat16(numbers)), expected.astype(np.float64))


def test_float64_is_rounded_once() -> None:
    """Just above a tie, where float32 would make a tie of it."""
    above, below = 1 + 2.0**-8 + 2.0**-40, 1 + 3 * 2.0**-8 - 2.0**-40
    np.testing.assert_array_equal(
        round_to("bfloat16", np.array([above, below, -above, 1 + 2.0**-8, 1e300])),
        [1 + 2.0**-7, 1 + 2.0**-7, -1 - 2.0**-7, 1, np.inf],
    )
    assert round_to("bfloat16", np.array(above)).shape == ()
    np.testing.assert_array_equal(round_to("uint8", np.array([3.0, 255.0])), [3, 255])


def test_programs_cast_to_the_bit() -> None:
    numbers = _numbers()
    steps = [
        Step("cast", "narrow", (0,), {"dtype": "bfloat16"}),
        Step("cast", "same", (1,), {"dtype": "bfloat16"}),
        Step("cast", "wide", (2,), {"dtype": "float32"}),
    ]
    network = Network("float32", [Input("x", (None,))], steps, [3], ["y"], [])
    assert value_dtypes(network) == ["float32", "bfloat16", "bfloat16", "float32"]
    for count in (1, 7, 100, len(numbers)):
        found = Program(network)(numbers[:count])
        with np.errstate(invalid="ignore"):  # of NaN that signal
            (expected,) = reference.run(network, numbers[:count])
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


def test_networks_of_bfloat16_are_the_references() -> None:
    network = programs.halves()
    x = np.random.default_rng(0).standard_normal((2, 12, 12, 16)).astype("float32")
    (expected,) = reference.run(network, x)
    np.testing.assert_allclose(Program(network)(x), expected, rtol=2**-6, atol=2**-5)


#: Steps that move elements, from [2, 4, 6, 3].
_MOVES = [
    Step("pad", "", (0,), {"before": (0, 1, 0, 0), "after": (0, 0, 2, 0), "value": 7.0}),
    Step("slice", "", (0,), {"starts": (0, 1, 0, 0), "stops": (None,) * 4, "steps": (1, 2, 3, 1)}),
    Step("transpose", "", (0,), {"permutation": (0, 3, 2, 1)}),
    Step("reshape", "", (0,), {"shape": (0, -1)}),
    Step("concatenate", "", (0, 0), {"axis": 2}),
]
_NEAREST = {"interpolation": "nearest", "factors": (2, 3)}
_LARGEST = {"function": "max", "window": (2, 3), "spec": (1, 2, 1, 1, 1, 0, 0, 0, 0, 0)}
_OF_BYTES = [
    Step("resize", "", (0,), {**_NEAREST, "channels_first": False}),
    Step("resize", "", (0,), {**_NEAREST, "channels_first": True}),
    Step("pool", "", (0,), _LARGEST),
    Step("pool", "", (0,), {**_LARGEST, "spec": (1, 2, 1, 2, 0, 1, 0, 1, 2, 1)}),
]


@pytest.mark.parametrize("step", _MOVES, ids=lambda step: step.operation)
def test_what_moves_elements_takes_bfloat16(step: Step) -> None:
    narrow = Step("cast", "narrow", (0,), {"dtype": "bfloat16"})
    moved = step._replace(inputs=tuple(1 for _ in step.inputs))
    wide = Step("cast", "wide", (2,), {"dtype": "float32"})
    inputs = [Input("x", (None, 4, 6, 3))]
    network = Network("float32", inputs, [narrow, moved, wide], [3], ["y"], [])
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 3)).astype("float32")
    np.testing.assert_array_equal(Program(network)(x), reference.run(network, x)[0])


@pytest.mark.parametrize(
    ("steps", "tensors", "message"),
    [
        (
            [Step("unary", "u", (0,), {"function": "exp", "a": 0.0, "b": 0.0, "c": 0.0})],
            [],
            None,
        ),
        (
            [Step("scale", "s", (0,), {"axis": 1}, {"scale": 0})],
            [np.ones(3)],
            "scale must be of float32, as its inputs say. Received: float64",
        ),
        (
            [
                Step("cast", "c", (0,), {"dtype": "bfloat16"}),
                Step("concatenate", "j", (0, 1), {"axis": 1}),
            ],
            [],
            "inputs must be of one dtype. Received: float32, bfloat16",
        ),
        (
            [Step("constant", "k", (), {}, {"value": 0}), Step("dense", "d", (1,))],
            [np.ones(3, "int8")],
            "value must be of float32, float64, bfloat16 or uint8. Received: int8",
        ),
        (
            [Step("cast", "c", (0,), {"dtype": "float16"})],
            [],
            "dtype must be one of float32, bfloat16. Received: 'float16'",
        ),
        (
            [Step("cast", "c", (0,), {"dtype": "bfloat16"})],
            [],
            "must be a value of float32, the network's dtype, as a cast makes one",
        ),
    ],
)
def test_dtypes_that_do_not_fit_are_named(
    steps: list[Step], tensors: list[np.ndarray], message: str | None
) -> None:
    network = Network("float32", [Input("x", (None, 3))], steps, [len(steps)], ["y"], tensors)
    if message is None:
        validate(network)
        return
    with pytest.raises(ValueError) as error:
        validate(network)
    assert message in str(error.value)


@pytest.mark.parametrize("step", [*_MOVES, *_OF_BYTES], ids=lambda step: step.operation)
def test_what_moves_elements_takes_bytes(step: Step) -> None:
    constant = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3)).astype("uint8")
    network = Network(
        "float32",
        [Input("x", (None,))],
        [
            Step("constant", "bytes", (), {}, {"value": 0}),
            step._replace(inputs=tuple(1 for _ in step.inputs)),
        ],
        [0],
        ["y"],
        [constant],
    )
    assert value_dtypes(network) == ["float32", "uint8", "uint8"]
    assert Program(network)(np.ones(1)).shape == (1,)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (_MOVES[0]._replace(attributes={**_MOVES[0].attributes, "value": 0.5}), "value must be"),
        (_MOVES[0]._replace(attributes={**_MOVES[0].attributes, "value": np.inf}), "value must be"),
        (_OF_BYTES[0]._replace(attributes={**_NEAREST, "interpolation": "bilinear"}), "nearest"),
        (_OF_BYTES[2]._replace(attributes={**_LARGEST, "function": "average"}), "'max'"),
    ],
)
def test_what_bytes_cannot_be_is_refused(step: Step, message: str) -> None:
    steps = [Step("constant", "k", (), {}, {"value": 0}), step._replace(inputs=(1,))]
    network = Network(
        "float32", [Input("x", (None,))], steps, [0], ["y"], [np.ones((1, 4, 4, 3), "uint8")]
    )
    with pytest.raises(ValueError, match=message):
        value_dtypes(network)


def test_tensors_are_of_known_dtypes() -> None:
    assert tensor_dtype(np.ones(1, ">f4")) == "float32"
    with pytest.raises(ValueError, match=r"a tensor must be of float32, .*int64"):
        tensor_dtype(np.ones(1, "int64"))
