"""A network's layers, each with its cost, its floor and its measured time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from sepconv import _native
from sepconv.bench.roofline import Machine
from sepconv.explain.plans import Step, steps
from sepconv.explain.timing import compiled, example, median_seconds
from sepconv.models.cost import Call, Cost, calls, cost
from sepconv.models.verify import refusal

__all__ = ["Explanation", "Row", "explain", "floor"]


class Row(NamedTuple):
    """One use of a layer.

    Attributes:
        name: the layer's name, with those of the models around it.
        kind: "depthwise", "separable", "convolution", "transposed" or "dense".
        output_shape: with the batch.
        cost: what it needs.
        floor: seconds that it takes at least on this machine.
        seconds: what it took, alone; the median of several runs.
        steps: how sepconv's kernels compute it, or would; none where there is no kernel for it.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    cost: Cost
    floor: float
    seconds: float
    steps: tuple[Step, ...]


class Explanation(NamedTuple):
    """What `explain` found.

    Attributes:
        name: the network's.
        engine: what it ran on.
        batch: examples a prediction.
        rows: in the order of computing.
        parameters: of the whole network, other layers included.
        seconds: one prediction of the whole network.
        threads: the bound on threads that the rows' steps are for.
    """

    name: str
    engine: str
    batch: int
    rows: list[Row]
    parameters: int
    seconds: float
    threads: int

    @property
    def total(self) -> Cost:
        """The sum of the rows' costs."""
        costs = [row.cost for row in self.rows]
        return (
            Cost(*(sum(column) for column in zip(*costs, strict=True))) if costs else Cost(*[0] * 5)
        )

    def share(self, seconds: float) -> str:
        """A part of the sum of the rows' times, for people."""
        part = seconds / self.layers if self.layers else 0.0
        return "<1%" if part < 0.005 else f"{part:.0%}"

    @property
    def floor(self) -> float:
        """The sum of the rows' floors."""
        return math.fsum(row.floor for row in self.rows)

    @property
    def layers(self) -> float:
        """The sum of the rows' times, each alone."""
        return math.fsum(row.seconds for row in self.rows)


def floor(needs: Cost, machine: Machine) -> float:
    """The seconds that work takes at least: that of its arithmetic or of its bytes."""
    return max(needs.operations / machine.peak, needs.bytes / machine.level(needs.bytes).bandwidth)


def explain(
    model: Any, inputs: Any, machine: Machine, progress: Callable[[int, int, str], None]
) -> Explanation:
    """Explains a network.

    Args:
        model: any Keras model.
        inputs: one batch: arrays, or the model's structure of them.
        machine: the limits to compare with.
        progress: called with how many measurements are done, of how many, and what is next.

    Returns:
        The explanation; a layer that is used more than once has a row a use.

    Raises:
        ValueError: the model does not take such inputs.
    """
    import keras

    progress(0, 1, "the whole network")
    xla = all(layer.supports_jit for layer in model._flatten_layers())
    predict = compiled(model, (inputs,), xla)
    try:
        found = calls(model, predict)
    # Every engine has exceptions of its own for shapes that do not fit.
    except Exception as error:
        raise ValueError(refusal(inputs, error)) from error
    whole = median_seconds(predict, seconds=1.0)
    threads, measurements = _native.num_threads(), len(found) + 1
    rows = []
    # Equal layers on equal inputs are timed once: networks repeat their blocks.
    known: dict[Any, float] = {}
    for index, call in enumerate(found, 1):
        progress(index, measurements, call.name)
        key = _likeness(call)
        if key not in known:
            tensors = tuple(map(example, call.input_shapes))
            known[key] = median_seconds(compiled(call.layer, tensors, xla))
        needs = cost(call)
        least, plan = floor(needs, machine), steps(call, threads)
        rows.append(Row(call.name, call.kind, call.output_shape, needs, least, known[key], plan))
    progress(measurements, measurements, "")
    batch = keras.tree.flatten(inputs)[0].shape[0]
    return Explanation(
        model.name, keras.backend.backend(), batch, rows, model.count_params(), whole, threads
    )


def _likeness(call: Call) -> Any:
    """What layers that take the same time have in common."""
    config = call.layer.get_config()
    names = (
        *("strides", "padding", "dilation_rate", "data_format", "groups"),
        *("use_bias", "activation", "depthwise_use_bias", "depthwise_activation"),
    )
    shapes = tuple(tuple(weight.shape) for weight in call.layer.weights)
    options = tuple(str(config.get(name)) for name in names)
    return type(call.layer), call.input_shapes, shapes, options
