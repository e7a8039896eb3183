"""Rewrites atoms of float to int8 steps, and fuses these to as few as there were in the float one.

A step that is written asks for what it takes, as bytes or as floats (`values.py`). Sums that
nothing takes as bytes become floats at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sepconv.program.network import OPERATIONS, Network, Step
from sepconv.program.shapes import shapes
from sepconv.quantization.atoms import CLAMPS, Atoms, consumers
from sepconv.quantization.forms import (
    Finish,
    bounds_of,
    clamp_of,
    function_of,
    kind_of,
    table_of,
)
from sepconv.quantization.kept import kept_float
from sepconv.quantization.moments import Moments
from sepconv.quantization.observe import Seen
from sepconv.quantization.origin import Origin, Rounding
from sepconv.quantization.ranges import Scale
from sepconv.quantization.scales import shared
from sepconv.quantization.values import Values
from sepconv.quantization.weights import Weights, fit, kernel_of

__all__ = ["Rewritten", "rewrite"]

_TOO_LARGE = "its sums could leave int32"

#: Steps that move the numbers of one value, as many as there are, before they are floats.
_MOVES = ("reshape", "transpose")

#: What sums become that are not rounded.
_UNIT = Scale(1.0, 0)


class Rewritten(NamedTuple):
    """A network with int8 steps.

    Attributes:
        network: which computes it; its tensors are of several dtypes.
        floats: why a block stays float, by its number.
        values: where a value of the atoms is: the number of the new network's value, and its scale
            where that is quantised. A value that is inside of a step is missing.
        origin: of the new network's steps.
    """

    network: Network
    floats: Mapping[int, str]
    values: Mapping[int, tuple[int, Scale | None]]
    origin: Origin


def rewrite(
    atoms: Atoms,
    seen: Sequence[Seen],
    scales: Sequence[Scale],
    keep: Mapping[int, str] | None = None,
    *,
    correct: bool = False,
    moments: Mapping[int, Moments] | None = None,
) -> Rewritten:
    """The int8 network.

    Args:
        atoms: of a float network.
        seen: of each of their values.
        scales: of each of their values, if it is quantised.
        keep: blocks that stay float, by their number, and why.
        correct: whether biases make up for mean errors of rounded weights.
        moments: of layers' rows, by the numbers of their atoms, where weights are rounded by them.
    """
    floats = dict(keep or {})
    while True:
        writer = _Writer(atoms, seen, scales, floats, correct, moments or {})
        try:
            writer.write()
        except _NotQuantizedError as error:
            floats[error.block] = error.why
        else:
            return Rewritten(writer.network(), writer.floats, writer.where(), writer.origin)


class _NotQuantizedError(Exception):
    """A block turned out to have no int8 form."""

    def __init__(self, block: int, why: str) -> None:
        super().__init__(why)
        self.block, self.why = block, why


class _Writer(Values):
    def __init__(
        self,
        atoms: Atoms,
        seen: Sequence[Seen],
        scales: Sequence[Scale],
        keep: Mapping[int, str],
        correct: bool,
        moments: Mapping[int, Moments],
    ) -> None:
        #: Blocks that stay float, and why.
        self.floats = kept_float(atoms, seen, keep)
        super().__init__(atoms.network, shared(atoms, scales, self.floats))
        self._blocks = atoms.blocks
        self._seen, self._correct, self._moments = seen, correct, moments
        self._shapes = shapes(self._float)
        self._consumers = consumers(self._float)
        self._middles: dict[int, tuple[dict[str, Any], dict[str, np.ndarray], int, Rounding]] = {}
        #: Steps that were written with the one before.
        self._done: set[int] = set()
        #: Values that are floats though their steps compute on bytes.
        self._sums: set[int] = set()

    def _is_int8(self, i: int) -> bool:
        return self._blocks[i] not in self.floats

    def _kind(self, i: int) -> str | None:
        return kind_of(self._float.steps[i])

    def _next(self, value: int) -> int | None:
        """The one int8 step that takes a value, if there is no other and it is no output."""
        found = self._consumers[value]
        return found[0] if len(found) == 1 and found[0] >= 0 and self._is_int8(found[0]) else None

    def _ends_as_floats(self, value: int) -> bool:
        """Whether nothing takes a value as bytes, also where it is only moved before."""
        users = self._consumers[value]
        return bool(users) and all(
            i < 0
            or not self._is_int8(i)
            or (self._float.steps[i].operation in _MOVES and self._ends_as_floats(self._first + i))
            for i in users
        )

    # ---- what is written

    def write(self) -> None:
        """Writes all steps, and the outputs as floats."""
        for i, step in enumerate(self._float.steps):
            if i in self._done:
                continue
            if self._is_int8(i):
                self._write_int8(i, step)
            else:
                self._write_float(i, step)
        for value in self._float.outputs:
            self._as_float(value)

    def _write_int8(self, i: int, step: Step) -> None:
        kind = kind_of(step)
        if kind == "weights":
            self._write_weights(i, step)
        elif kind == "binary":
            self._write_binary(i, step)
        elif kind == "unary":
            self._write_unary(i, step)
        elif kind == "move":
            self._write_move(i, step)
        else:
            self._write_mean(i, step)

    def _fail(self, i: int, why: str) -> None:
        raise _NotQuantizedError(self._blocks[i], why)

    # ---- steps with weights

    def _finish(self, i: int) -> Finish:
        """What follows a step that gives sums: rounding, and maybe a clamp or a table."""
        step, value = self._float.steps[i], self._first + i
        activation = step.attributes.get("activation", "none")
        if activation != "none":
            largest = CLAMPS[activation]
            assert largest is not None
            return self._clamped(value, (0.0, largest))
        scale, follower = self._scales[value], self._next(value)
        if follower is not None and self._kind(follower) == "unary":
            other, result = self._float.steps[follower], self._first + follower
            clamp = clamp_of(other)
            if clamp is not None:
                self._done.add(follower)
                return self._clamped(result, clamp)
            if kind_of(step) == "weights":
                table = table_of(scale, self._scales[result], function_of(other))
                if table is not None:
                    self._done.add(follower)
                    rounding = Rounding(scale, self._scales[result], function=other.attributes)
                    return Finish(result, rounding, table=table)
        return Finish(value, Rounding(scale, scale))

    def _clamped(self, value: int, clamp: tuple[float, float]) -> Finish:
        scale = self._scales[value]
        return Finish(value, Rounding(scale, scale, clamp), *bounds_of(scale, clamp))

    def _fitted(self, i: int, step: Step, part: str) -> Weights:
        value = step.inputs[0]
        array = self._float.tensors[step.weights[part]]
        bias = step.weights.get("bias")
        kernel = kernel_of(array, part == "depthwise_kernel")
        return self._fit(i, kernel, None if bias is None else self._float.tensors[bias], value)

    def _fit(self, i: int, kernel: Any, bias: np.ndarray | None, value: int) -> Weights:
        channels = self._seen[value].channels
        mean, square = (None, None) if channels is None else channels[:2]
        made = fit(
            kernel,
            bias,
            self._scales[value].scale,
            mean,
            square,
            correct=self._correct,
            moments=self._moments.get(i),
        )
        if not made.fits:
            self._fail(i, _TOO_LARGE)
        return made

    def _write_weights(self, i: int, step: Step) -> None:
        if step.operation == "dense":
            self._write_dense(i, step)
        elif step.operation == "scale":
            self._write_scale(i, step)
        elif "depthwise_kernel" in step.weights:
            self._write_depthwise(i, step, self._fitted(i, step, "depthwise_kernel"))
        else:
            self._write_ordinary(i, step)

    def _multipliers(self, made: Weights, value: int, scale: Scale) -> np.ndarray:
        return (made.scale * self._scales[value].scale / scale.scale).astype(np.float32)

    def _gives_sums(self, i: int, step: Step) -> bool:
        """Whether a step's sums become floats at once, since nothing else is done to them."""
        plain = step.attributes.get("activation", "none") == "none" and len(step.inputs) == 1
        return plain and self._ends_as_floats(self._first + i)

    def _write_dense(self, i: int, step: Step) -> None:
        made, source = self._fitted(i, step, "kernel"), step.inputs[0]
        given = {"input_zero_point": self._scales[source].zero_point}
        weights = {"kernel": made.kernel, "bias": made.bias}
        if self._gives_sums(i, step):
            weights["scale"] = self._multipliers(made, source, _UNIT)
            self._emit_sums(i, "dequantized_dense", self._as_bytes(source), given, weights)
            return
        result, rounding, lower, upper, table = self._finish(i)
        given |= {
            "output_zero_point": rounding.scale.zero_point,
            "lower": lower,
            "upper": upper,
        }
        weights["scale"] = self._multipliers(made, source, rounding.scale)
        if table is not None:
            weights["table"] = table
        x = self._as_bytes(source)
        self._bytes[result] = self._emit(
            "quantized_dense", step.name, [x], given, weights, [rounding]
        )

    def _emit_sums(
        self,
        i: int,
        operation: str,
        x: int,
        given: Mapping[str, Any],
        weights: Mapping[str, np.ndarray],
        roundings: Sequence[Rounding] = (),
    ) -> None:
        value, name = self._first + i, self._float.steps[i].name
        own = {field.name: given[field.name] for field in OPERATIONS[operation].fields}
        self._floats[value] = self._emit(operation, name, [x], own, weights, roundings)
        self._sums.add(value)

    def _write_scale(self, i: int, step: Step) -> None:
        """A number a channel, as a depthwise convolution of one tap."""
        rank = len(self._shapes[step.inputs[0]])
        axis = step.attributes["axis"]
        parts = {part: self._float.tensors[n] for part, n in step.weights.items()}
        count = len(next(iter(parts.values())))
        factors = parts.get("scale", np.ones(count, np.float32)).reshape(1, 1, -1, 1)
        first = int(axis == 1 and axis != rank - 1)
        spec = (1, 1, 1, 1, 0, 0, 0, 0, 0, first)
        made = self._fit(i, kernel_of(factors, True), parts.get("shift"), step.inputs[0])
        self._write_depthwise(i, step._replace(attributes={"spec": spec}), made)

    def _write_depthwise(self, i: int, step: Step, made: Weights) -> None:
        result, rounding, lower, upper, table = self._finish(i)
        given = {
            "spec": tuple(step.attributes["spec"]),
            "input_zero_point": self._scales[step.inputs[0]].zero_point,
            "depthwise_zero_point": rounding.scale.zero_point,
            "depthwise_lower": lower,
            "depthwise_upper": upper,
            "output_zero_point": 0,
            "lower": 0,
            "upper": 0,
            "residual_zero_point": 0,
            "residual_scale": 0.0,
        }
        weights = {
            "depthwise_kernel": made.kernel,
            "depthwise_bias": made.bias,
            "depthwise_scale": self._multipliers(made, step.inputs[0], rounding.scale),
        }
        if table is not None:
            weights["depthwise_table"] = table
        x = self._as_bytes(step.inputs[0])
        follower = self._next(result)
        if follower is not None and self._blocks[follower] == self._blocks[i]:
            # The first part of a separable convolution: written with the second one.
            self._middles[result] = given, weights, x, rounding
        else:
            self._bytes[result] = self._emit(
                "quantized_convolution", step.name, [x], given, weights, [rounding]
            )

    def _write_ordinary(self, i: int, step: Step) -> None:
        made = self._fitted(i, step, "pointwise_kernel")
        source, roundings = step.inputs[0], list[Rounding]()
        given: dict[str, Any] = {
            "spec": tuple(step.attributes["spec"]),
            "input_zero_point": self._scales[source].zero_point,
            "depthwise_zero_point": 0,
            "depthwise_lower": 0,
            "depthwise_upper": 0,
        }
        bias = made.bias
        weights: dict[str, np.ndarray] = {}
        if source in self._middles:
            given, weights, x, middle = self._middles[source]
            roundings = [middle]
            # The product centers what it takes by the zero point of the rounding; a table's results
            # have another one.
            apart = given["depthwise_zero_point"] - self._scales[source].zero_point
            if apart:
                wide = bias + apart * made.kernel[0, 0].astype(np.int64).sum(0)
                bias = wide.astype(np.int32)
                if (bias != wide).any():
                    self._fail(i, _TOO_LARGE)
        else:
            x = self._as_bytes(source)
        weights = weights | {"pointwise_kernel": made.kernel, "bias": bias}
        if self._gives_sums(i, step):
            weights["scale"] = self._multipliers(made, source, _UNIT)
            self._emit_sums(i, "dequantized_convolution", x, given, weights, roundings)
            return
        result, rounding, lower, upper, table = self._finish(i)
        scale = rounding.scale
        given = given | {
            "output_zero_point": scale.zero_point,
            "lower": lower,
            "upper": upper,
            "residual_zero_point": 0,
            "residual_scale": 0.0,
        }
        inputs = [x]
        if len(step.inputs) > 1:
            inputs.append(self._as_bytes(step.inputs[1]))
            other = self._scales[step.inputs[1]]
            given["residual_zero_point"] = other.zero_point
            given["residual_scale"] = float(np.float32(other.scale / scale.scale))
        weights["scale"] = self._multipliers(made, source, scale)
        if table is not None:
            weights["table"] = table
        self._bytes[result] = self._emit(
            "quantized_convolution", step.name, inputs, given, weights, [*roundings, rounding]
        )

    # ---- steps without

    def _write_binary(self, i: int, step: Step) -> None:
        result, rounding, lower, upper, _ = self._finish(i)
        scale = rounding.scale
        a, b = (self._scales[value] for value in step.inputs)
        function = step.attributes["function"]
        factors = (a.scale / scale.scale, b.scale / scale.scale)
        if function == "multiply":
            factors = (a.scale * b.scale / scale.scale, 1.0)
        elif function == "subtract":
            factors = (factors[0], -factors[1])
        given = {
            "function": "multiply" if function == "multiply" else "add",
            "a_zero_point": a.zero_point,
            "b_zero_point": b.zero_point,
            "a_scale": float(np.float32(factors[0])),
            "b_scale": float(np.float32(factors[1])),
            "output_zero_point": scale.zero_point,
            "lower": lower,
            "upper": upper,
        }
        inputs = [self._as_bytes(value) for value in step.inputs]
        self._bytes[result] = self._emit(
            "quantized_binary", step.name, inputs, given, roundings=[rounding]
        )

    def _write_unary(self, i: int, step: Step) -> None:
        value, (source,) = self._first + i, step.inputs
        rounding = Rounding(self._scales[source], self._scales[value], function=step.attributes)
        table = table_of(rounding.scale, rounding.result, function_of(step))
        if table is None:
            self._fail(i, f"{step.attributes['function']} is not finite on all of its range")
            return
        self._bytes[value] = self._looked_up(step.name, self._as_bytes(source), table, rounding)

    def _looked_up(self, name: str, x: int, table: np.ndarray, rounding: Rounding) -> int:
        # A table may leave bytes as they are and yet change what they stand for.
        alike = math.isclose(rounding.scale.scale, rounding.result.scale, rel_tol=0.01)
        if alike and (table == np.arange(256)).all():
            return x
        return self._emit("lookup", name, [x], {}, {"table": table}, [rounding])

    def _write_move(self, i: int, step: Step) -> None:
        value, given = self._first + i, dict(step.attributes)
        if step.inputs[0] in self._sums:
            self._write_float(i, step)
            self._sums.add(value)
            return
        inputs = [self._as_bytes(each) for each in step.inputs]
        if step.operation == "concatenate":
            target = self._scales[value]
            for k, each in enumerate(step.inputs):
                table = table_of(self._scales[each], target)
                assert table is not None
                rounding = Rounding(self._scales[each], target)
                inputs[k] = self._looked_up(step.name, inputs[k], table, rounding)
        else:
            self._scales[value] = self._scales[step.inputs[0]]
        if step.operation == "pad":
            given["value"] = self._pad_value(i, given["value"])
        self._bytes[value] = self._emit(step.operation, step.name, inputs, given)

    def _pad_value(self, i: int, real: float) -> float:
        """The number that stands for what is padded with."""
        scale, zero_point = self._scales[self._first + i]
        q = zero_point + real / scale
        if not -0.5 <= q <= 255.5:
            self._fail(i, f"it pads with {real}, which is out of its range")
        return float(min(max(round(q), 0), 255))

    def _write_mean(self, i: int, step: Step) -> None:
        value, (source,) = self._first + i, step.inputs
        before, after = self._scales[source], self._scales[value]
        given: dict[str, Any] = {
            "input_zero_point": before.zero_point,
            "output_zero_point": after.zero_point,
        }
        x, roundings = self._as_bytes(source), [Rounding(after, after)]
        ratio = before.scale / after.scale
        if step.operation == "pool":
            given |= {key: step.attributes[key] for key in ("window", "spec")}
            given["scale"] = float(np.float32(ratio))
            self._bytes[value] = self._emit(
                "quantized_average_pool", step.name, [x], given, roundings=roundings
            )
            return
        sizes = [self._shapes[source][axis] or 1 for axis in step.attributes["axes"]]
        given |= {key: step.attributes[key] for key in ("axes", "keepdims")}
        given["scale"] = float(np.float32(ratio / math.prod(sizes)))
        self._bytes[value] = self._emit(
            "quantized_mean", step.name, [x], given, roundings=roundings
        )
