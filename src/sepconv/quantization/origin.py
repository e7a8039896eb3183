"""What the bytes of an int8 network stand for, which the network itself does not say.

An int8 step multiplies sums by a number and looks results up in a table. Which scale a value has,
and which function a table is of, it need not know. To train the network, or to make a float one of
it, both are needed: so they are written down beside it, as a note of its file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sepconv.program.dtypes import value_dtypes
from sepconv.program.network import UNARY, Network, Step
from sepconv.program.shapes import Shape, shapes
from sepconv.quantization.ranges import Scale
from sepconv.quantization.ratios import said_ratios

__all__ = [
    "NOTE",
    "Origin",
    "Rounding",
    "origin_of",
    "value_scales",
    "write_origin",
    "zero_points",
]

#: The name of the note.
NOTE = "quantization"


class Rounding(NamedTuple):
    """What the results of a step, or of a part of one, are rounded to.

    Attributes:
        scale: of the rounded numbers.
        result: of the numbers that come out: another one where these are looked up.
        clamp: the least and the greatest result, where these are not all.
        function: attributes of the unary step that the table is of; None without a table, or where
            the table only changes the scale.
    """

    scale: Scale
    result: Scale
    clamp: tuple[float, float] | None = None
    function: Mapping[str, Any] | None = None


#: Of every step of an int8 network its roundings: two of a separable convolution, or one where its
#: results are float32; none of other steps that give floats or move bytes.
Origin = Sequence[Sequence[Rounding]]

#: Where a step holds the zero points of its roundings.
_POINTS = {
    "quantize": "zero_point",
    "quantized_dense": "output_zero_point",
    "quantized_binary": "output_zero_point",
    "quantized_mean": "output_zero_point",
    "quantized_average_pool": "output_zero_point",
}


#: How far a ratio of scales may be from the float32 that a step multiplies by, relative to it.
_APART = 1e-4


def write_origin(origin: Origin) -> str:
    """An origin as the text of a note.

    Example:
        >>> write_origin([[Rounding(Scale(0.5, 3), Scale(0.5, 3), (0.0, math.inf))], []])
        '[[{"scale":[0.5,3],"result":[0.5,3],"clamp":[0.0,"Infinity"]}],[]]'
    """
    steps = [[_as_json(rounding) for rounding in roundings] for roundings in origin]
    return json.dumps(steps, allow_nan=False, separators=(",", ":"))


def _as_json(rounding: Rounding) -> dict[str, Any]:
    found: dict[str, Any] = {"scale": list(rounding.scale), "result": list(rounding.result)}
    if rounding.clamp is not None:
        found["clamp"] = [_number(end) for end in rounding.clamp]
    if rounding.function is not None:
        given = rounding.function
        found["function"] = [given["function"], *(_number(given[name]) for name in "abc")]
    return found


def _number(value: float) -> float | str:
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(value)


def origin_of(network: Network, notes: Mapping[str, str], name: str) -> Origin:
    """The origin of an int8 network, from the notes of its file.

    Args:
        network: the network.
        notes: those of its file.
        name: what errors call it.

    Raises:
        ValueError: there is no such note, or it is not of this network.
    """
    if NOTE not in notes:
        raise ValueError(
            f"{name} is not an int8 network of sepconv.quantize, or one of an older version, which "
            f"did not write down what its bytes stand for. Received: notes named {sorted(notes)}"
        )
    try:
        found = [[_rounding(each) for each in step] for step in json.loads(notes[NOTE])]
        if len(found) != len(network.steps):
            raise ValueError(f"it is of {len(found)}")
        for step, roundings in zip(network.steps, found, strict=True):
            _check(step, roundings)
        _check_ratios(network, found)
    # Whatever a note of a stranger's may have in the place of lists and numbers.
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            f"{name}: the note {NOTE!r} beside the network does not fit its {len(network.steps)} "
            f"steps: {error}"
        ) from error
    return found


def _rounding(given: Mapping[str, Any]) -> Rounding:
    clamp, function = given.get("clamp"), given.get("function")
    attributes = None
    if function is not None:
        if function[0] not in UNARY:
            raise ValueError(f"there is no function {function[0]!r}")
        numbers = dict(zip("abc", map(float, function[1:]), strict=True))
        attributes = {"function": function[0], **numbers}
    return Rounding(
        _scale(*given["scale"]),
        _scale(*given["result"]),
        None if clamp is None else (float(clamp[0]), float(clamp[1])),
        attributes,
    )


def _scale(scale: float, zero_point: int) -> Scale:
    if not (0 < scale < math.inf and zero_point in range(256)):
        raise ValueError(f"there is no scale of {scale!r} with the zero point {zero_point!r}")
    return Scale(float(scale), int(zero_point))


def _check(step: Step, roundings: Sequence[Rounding]) -> None:
    """Raises unless roundings are those of a step."""
    found = [rounding.scale.zero_point for rounding in roundings]
    wanted = zero_points(step)
    if step.operation == "lookup":  # which says none
        wanted = found[:1] or [0]
    if found != wanted:
        raise ValueError(f"the step {step.name!r} has other zero points than {found}")


def _check_ratios(network: Network, origin: Origin) -> None:
    """Raises where scales are not those that the steps themselves multiply by."""
    scales, sizes = value_scales(network, origin), shapes(network)
    for y, (step, roundings) in enumerate(
        zip(network.steps, origin, strict=True), len(network.inputs)
    ):
        if scales[y] is None and step.operation != "dequantize":
            continue
        if step.operation == "quantized_mean" and _is_open(step, sizes[step.inputs[0]]):
            continue
        for a, b, times in said_ratios(step, y, sizes):
            first, second = (1.0 if i is None else _known(scales[i]).scale for i in (a, b))
            _check_ratio(step, first / second, times)
        if step.operation == "quantized_convolution" and len(step.inputs) > 1:
            # Of the sums, whose scale is not the value's where they are looked up.
            added, times = _known(scales[step.inputs[1]]), abs(step.attributes["residual_scale"])
            _check_ratio(step, added.scale / roundings[-1].scale.scale, times)


def _is_open(step: Step, x: Shape) -> bool:
    """Whether a step takes a mean over sizes that are not known yet."""
    return any(x[axis] is None for axis in step.attributes["axes"])


def _known(scale: Scale | None) -> Scale:
    if scale is None:
        raise ValueError("it takes floats for bytes")
    return scale


def _check_ratio(step: Step, found: float, wanted: float) -> None:
    # Steps have them in float32.
    if wanted and abs(found - wanted) > _APART * wanted:
        raise ValueError(
            f"the step {step.name!r} multiplies by {wanted:.6g}, where its scales give {found:.6g}"
        )


def zero_points(step: Step) -> list[int]:
    """The zero points that a step says itself, of its roundings in their order.

    Example:
        >>> zero_points(Step("quantize", "begin", [0], {"multiplier": 4.0, "zero_point": 3}))
        [3]
    """
    if step.operation in ("quantized_convolution", "dequantized_convolution"):
        depthwise = "depthwise_kernel" in step.weights, "depthwise_zero_point"
        rounds = step.operation == "quantized_convolution"
        ordinary = rounds and "pointwise_kernel" in step.weights, "output_zero_point"
        return [step.attributes[point] for there, point in (depthwise, ordinary) if there]
    return [step.attributes[_POINTS[step.operation]]] if step.operation in _POINTS else []


def value_scales(network: Network, origin: Origin) -> list[Scale | None]:
    """The scales of all values of an int8 network; None of those that are floats.

    Raises:
        ValueError: a step makes bytes of nothing, and the origin does not say what they are.
    """
    scales: list[Scale | None] = [None] * len(network.inputs)
    dtypes = value_dtypes(network)[len(network.inputs) :]
    for step, roundings, dtype in zip(network.steps, origin, dtypes, strict=True):
        if dtype != "uint8":
            scales.append(None)
        elif roundings:
            scales.append(roundings[-1].result)
        else:
            if not step.inputs:
                raise ValueError(f"nothing says what the bytes of the step {step.name!r} are")
            # What only moves bytes leaves them as they are.
            scales.append(scales[step.inputs[0]])
    return scales
