"""Verifies that a copy of a model predicts the same as the model.

Both compute one batch, of inputs that are made for the model or given. Predictions must agree. The
outputs of corresponding layers must agree roughly, since the predictions of a network with its
initial random weights hardly depend on any layer, and would hide errors. Only where something
differs, more is computed: whether the model's own predictions differ from run to run, how much all
outputs change with the last digit of the input, and which layer's output is the first to differ. No
computation has side effects: see `sepconv.models.running`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from sepconv.models.comparing import (
    allowed,
    difference,
    differences,
    moved,
    plainly_apart,
    precision,
    precision_of,
    within,
)
from sepconv.models.files import first_line
from sepconv.models.inputs import InputsError, generate, random_inputs
from sepconv.models.running import LayerOutput, Outcome, run, without_collecting
from sepconv.models.warning import warn

__all__ = [
    "Pairing",
    "check_copy",
    "difference",
    "first_run",
    "predict",
    "random_inputs",
    "refusal",
]

#: The difference of a layer's output, relative to its largest value, that shows an error.
_PLAINLY = 1e-2
#: A layer's output that rounding changes by this fraction is mostly rounding error, such as a
#: difference of equal numbers.
_NOISE = 1e-1
_ANYWAY = "Give verify=False to get the copy anyway."

#: The name of the original's layer (its path, "encoder/conv") whose output a layer of the copy must
#: have, by the copy's name; None for a layer without a counterpart.
Pairing = Mapping[str, str] | Callable[[str], str | None]


def check_copy(
    original: Any,
    copy: Any,
    verify: Any = True,
    *,
    title: str,
    paired: Pairing | None = None,
    values: Sequence[tuple[Any, Any]] = (),
    dtype: str | None = None,
) -> str:
    """Compares a copy's predictions with the original's; both stay as they are.

    Args:
        original: a Keras model.
        copy: a model with the same inputs and outputs.
        verify: True for inputs that are made for the model; inputs, as the structure of arrays that
            the model takes; False for no comparison.
        title: the function that made the copy, for the start of messages: ``"accelerate"``.
        paired: which layers correspond; None where they have the same names in both. Of a mapping,
            layers that are not in it keep their names.
        values: pairs of a variable of the original and an array to use as its value, as `factorize`
            needs.
        dtype: a coarser dtype than the original's that the copy computes in, as it was asked to.

    Returns:
        The result, in a line.

    Raises:
        ValueError: the predictions differ, or the copy fails on inputs that the original takes. The
            message names the first layer whose output differs. Or `verify` is no inputs of it.

    Warns:
        UserWarning: no inputs can be made, and nothing was compared.

    Example:
        >>> dense = keras.layers.Dense(3, name="dense")
        >>> model = keras.Sequential([keras.Input((4,)), dense])
        >>> copy = keras.models.clone_model(model)
        >>> copy.set_weights(model.get_weights())
        >>> check_copy(model, copy, title="clone")
        'verified: the predictions are the same'
        >>> _ = copy.layers[0].bias.assign([1.0, 2.0, 3.0])
        >>> try:
        ...     check_copy(model, copy, title="clone")
        ... except ValueError as error:
        ...     print("'dense' (Dense)" in str(error))
        True
    """
    if verify is False:
        return "not verified: verify=False"
    with without_collecting():
        try:
            inputs, outcome = first_run(original, verify, values)
        except InputsError as error:
            reason = first_line(error)
            warn(
                f"{title}: the copy was not verified, since {reason}. verify=<inputs of the model> "
                "compares the predictions for these, verify=False keeps this quiet.",
            )
            return f"not verified: {reason}"
        comparison = _Comparison(original, copy, inputs, values, title, paired, dtype)
        return comparison.judge(outcome)


def first_run(original: Any, verify: Any, values: Sequence[tuple[Any, Any]]) -> tuple[Any, Outcome]:
    """Inputs that the original takes, and its results for them."""
    layers = list(_names(original))
    if verify is not True:
        inputs = keras.tree.map_structure(_given, verify)
        try:
            return inputs, run(original, inputs, values=values, layers=layers)
        # The engines raise different exceptions for shapes that do not fit.
        except Exception as error:
            raise ValueError(
                f"verify must be True, False or inputs of the model {original.name!r}, which "
                f"{refusal(inputs, error)}"
            ) from error
    failure = None
    for inputs in generate(original):
        try:
            return inputs, run(original, inputs, values=values, layers=layers)
        except Exception as error:
            failure = failure or refusal(inputs, error)
    raise InputsError(f"the model {original.name!r} {failure}")


def _given(value: Any) -> Any:
    """A given value, which may be a list or a tensor of the engine, as an array."""
    if hasattr(value, "dense_shape") or hasattr(value, "row_splits") or hasattr(value, "todense"):
        return value
    if keras.ops.is_tensor(value):
        return keras.ops.convert_to_numpy(value)
    return np.asarray(value)


class _Comparison:
    """The comparison of a copy with its original on certain inputs.

    Args:
        original: as for `check_copy`, and so the rest.
        copy: see there.
        inputs: arrays that the original predicts on.
        values: see `check_copy`.
        title: see there.
        paired: see there.
        dtype: see there.
    """

    def __init__(
        self,
        original: Any,
        copy: Any,
        inputs: Any,
        values: Sequence[tuple[Any, Any]],
        title: str,
        paired: Pairing | None,
        dtype: str | None,
    ) -> None:
        self._original, self._copy, self._inputs = original, copy, inputs
        self._values, self._title = values, title
        self._precision = precision(original)
        if dtype is not None:
            self._precision = max(self._precision, precision_of(dtype))
        self._names = _names(original)
        #: The names of the original's layers that the copy's layers correspond to.
        self._counterparts: dict[Any, str | None] = {}
        for layer, name in _names(copy).items():
            if callable(paired):
                self._counterparts[layer] = paired(name)
            else:
                self._counterparts[layer] = name if paired is None else paired.get(name, name)

    def judge(self, outcome: Outcome) -> str:
        """The result in words, given what the original computes; raises where the copy differs."""
        expected = outcome.outputs
        found = self._run_copy(by_engine=False)
        bounds = allowed(expected, expected, self._precision)
        alike = self._layers_alike(outcome, found)
        if alike and within(differences(expected, found.outputs), bounds):
            return self._verified(expected, found.outputs)
        # From here on the checks are thorough, since they may accuse the copy.
        outcome = self._run_original()
        expected = outcome.outputs
        if not within(differences(expected, self._run_original().outputs), bounds):
            return "not verifiable: the model's own predictions differ from run to run"
        found = self._run_copy(by_engine=True)
        close = self._run_moved()
        bounds = allowed(expected, close.outputs, self._precision)
        apart = differences(expected, found.outputs)
        if not within(apart, bounds):
            first = self._first_layer(outcome, close, found)
            raise ValueError(self._complaint(apart, bounds, first))
        first = None if alike else self._first_layer(outcome, close, found, _NOISE)
        if first is not None:
            raise ValueError(
                f"{self._title}: the copy of {self._original.name!r} does not compute what the "
                f"original does, though the predictions on this input agree. {first}. {_ANYWAY}"
            )
        return self._verified(expected, found.outputs)

    def _run_original(
        self, inputs: Any = None, values: Sequence[tuple[Any, Any]] | None = None
    ) -> Outcome:
        inputs = self._inputs if inputs is None else inputs
        values = self._values if values is None else values
        layers = list(self._names)
        return run(self._original, inputs, values=values, layers=layers, by_engine=True)

    def _run_moved(self) -> Outcome:
        """The original's results on inputs changed by one rounding, to see the effect of roundings.

        Integers and strings cannot be changed so; where there are no floats, the weights are.
        """
        inputs = moved(self._inputs, self._precision)
        arrays = zip(keras.tree.flatten(inputs), keras.tree.flatten(self._inputs), strict=True)
        if any(a is not b for a, b in arrays):
            return self._run_original(inputs)
        values = {id(v): (v, value) for v, value in self._values}
        for variable in self._original.trainable_variables:
            value = values.get(id(variable), (variable, variable))[1]
            if keras.backend.standardize_dtype(variable.dtype) in ("float32", "float64"):
                value = moved(np.asarray(keras.ops.convert_to_numpy(value)), self._precision)
                values[id(variable)] = variable, value
        return self._run_original(values=list(values.values()))

    def _run_copy(self, by_engine: bool) -> Outcome:
        try:
            layers = list(self._counterparts)
            return run(self._copy, self._inputs, layers=layers, by_engine=by_engine)
        except Exception as error:
            raise ValueError(
                f"{self._title}: the copy of {self._original.name!r} {refusal(self._inputs, error)}"
                f". The original does. {_ANYWAY}"
            ) from error

    def _pairs(self, outcome: Outcome, found: Outcome) -> Iterator[tuple[str, Any, Any]]:
        """Calls of corresponding layers in the original's order: (name, output, the copy's).

        A copy may call a layer that is used several times in another order, so each of its calls is
        paired with the one whose output is nearest.
        """
        copies: dict[str, list[LayerOutput]] = {}
        for output in found.layers:
            counterpart = self._counterparts[output.layer]
            if counterpart is not None:
                copies.setdefault(counterpart, []).append(output)
        for (name, call), output in _numbered(outcome.layers, self._names).items():
            left = copies.get(name, [])
            if left:
                apart = [_apart(output, other) for other in left] if len(left) > 1 else [0.0]
                other = left.pop(apart.index(min(apart)))
                kinds = sorted({type(layer).__name__ for layer in (output.layer, other.layer)})
                times = f", call {call + 1}" if call else ""
                yield f"{name!r} ({' and '.join(kinds)}){times}", output, other

    def _layers_alike(self, outcome: Outcome, found: Outcome) -> bool:
        """Whether no layer's output is plainly different."""
        limit = max(_PLAINLY, 30 * self._precision)
        for _, output, other in self._pairs(outcome, found):
            if len(output.arrays) != len(other.arrays):
                return False
            for a, b in zip(output.arrays, other.arrays, strict=True):
                if plainly_apart(a, b, limit):
                    return False
        return True

    def _verified(self, expected: list[np.ndarray], found: list[np.ndarray]) -> str:
        worst = difference(expected, found)
        note = (
            f"verified: the predictions differ by at most {worst:.0e} of the largest"
            if worst
            else "verified: the predictions are the same"
        )
        numbers = [a for a in expected if a.dtype.kind not in "biuSUO"]
        strange = sum(int((~np.isfinite(a.astype("complex128"))).sum()) for a in numbers)
        if strange:
            total = sum(a.size for a in numbers)
            note += f" ({strange} of {total} are not finite, in both)"
        return note

    def _complaint(self, apart: list[float], bounds: list[float], first: str | None) -> str:
        worst = max(range(len(apart)), key=lambda i: apart[i])
        bound = bounds[min(worst, len(bounds) - 1)] if bounds else 0.0
        which = f" (output {worst})" if len(apart) > 1 else ""
        return (
            f"{self._title}: the copy of {self._original.name!r} does not predict what the "
            f"original does: it differs{which} {_amount(apart[worst], bound)}. "
            f"{first or 'No single layer differs by more than it may'}. {_ANYWAY}"
        )

    def _first_layer(
        self, outcome: Outcome, close: Outcome, found: Outcome, noise: float = np.inf
    ) -> str | None:
        """The first layer, in the order of computation, whose output differs, in words.

        Layers whose outputs rounding changes by more than `noise` are skipped.
        """
        moved_by_name = _numbered(close.layers, self._names)
        keys = {id(output): key for key, output in _numbered(outcome.layers, self._names).items()}
        for said, output, other in self._pairs(outcome, found):
            near = moved_by_name.get(keys[id(output)], output)
            bounds = allowed(output.arrays, near.arrays, self._precision)
            if max(bounds, default=0.0) > noise:
                continue
            apart = differences(output.arrays, other.arrays)
            if not within(apart, bounds):
                amount = _amount(max(apart), max(bounds, default=0.0))
                return f"The first layer whose output differs is {said}, {amount}"
        return None


def _apart(one: LayerOutput, other: LayerOutput) -> float:
    """The difference of the outputs of two calls; infinite where they are of different kinds."""
    return max(differences(one.arrays, other.arrays), default=0.0)


def _amount(apart: float, bound: float) -> str:
    if not np.isfinite(apart):
        return "in shape, in what is not finite, or from nothing but zeros"
    return f"by {apart:.1e} of the largest, where {bound:.1e} is allowed"


def _names(model: Any) -> dict[Any, str]:
    """The layers in a model, with their paths."""
    from sepconv.models.copying import named_layers

    return {layer: name for name, layer in named_layers(model)}


def _numbered(
    outputs: Sequence[LayerOutput], names: Mapping[Any, str]
) -> dict[tuple[str, int], LayerOutput]:
    """Outputs by the layer's name and the number of the call, in the same order."""
    calls: dict[str, int] = {}
    found = {}
    for output in outputs:
        name = names[output.layer]
        calls[name] = calls.get(name, -1) + 1
        found[name, calls[name]] = output
    return found


def predict(model: Any, inputs: Any) -> list[np.ndarray]:
    """The model's outputs for one batch, flat.

    Raises:
        ValueError: the model does not compute with such inputs.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU()])
        >>> predict(model, np.array([[1.0, -1.0]]))
        [array([[1., 0.]], dtype=float32)]
    """
    with without_collecting():
        try:
            return run(model, inputs).outputs
        # The engines raise different exceptions for shapes that do not fit.
        except Exception as error:
            raise ValueError(refusal(inputs, error)) from error


def refusal(inputs: Any, error: Exception) -> str:
    """The message about a model that failed on inputs, with their shapes."""
    shapes = ", ".join(str(tuple(x.shape)) for x in keras.tree.flatten(inputs))
    text = re.sub("\x1b\\[[0-9;]*m", "", str(error))  # bold, for terminals
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Keras' message begins with the place, then has the cause.
    told = [line for line in lines if not line.startswith("Exception encountered when")]
    reason = told[0] if told else first_line(error)
    return f"does not predict on inputs of the shape {shapes}: {reason.rstrip('.')}"
