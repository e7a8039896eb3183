"""Which steps of a model's graph go into programs, and which are left to Keras: its parts.

Every step has a level: along each path through the graph, steps that programs know and steps that
are left to Keras take turns, in levels that grow by one. The steps of a level are a part. So parts
are as long as can be, and each needs only parts of lower levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sepconv.models.graph import Graph, Step, Value
from sepconv.models.lowering.checks import check_inputs, fits, is_float, obstacle, own_dtype
from sepconv.models.lowering.table import moves
from sepconv.program.building.refusal import NotLowered

__all__ = ["Partition", "Section"]


class Section(NamedTuple):
    """A part of a graph.

    Attributes:
        known: whether it goes into a program.
        steps: in an order in which they can be computed.
        inputs: the values that it takes.
        outputs: those of its values that other parts or the model's outputs need.
    """

    known: bool
    steps: list[Step]
    inputs: list[Value]
    outputs: list[Value]


class Partition:
    """The steps of a graph in parts.

    Args:
        graph: of the model as it was given.

    Attributes:
        dtype: that the model computes in.
        why: the reasons of the steps that are left to Keras.

    Raises:
        ValueError: the model computes in several dtypes or in half precision; or an input may be
            missing, or is sparse.

    Example:
        >>> import keras
        >>> layers = [keras.layers.ReLU(), keras.layers.GRU(3), keras.layers.Dense(2)]
        >>> partition = Partition(Graph(keras.Sequential([keras.Input((5, 4)), *layers])))
        >>> [(section.known, len(section.steps)) for section in partition.sections()]
        [(True, 1), (False, 1), (True, 1)]
    """

    def __init__(self, graph: Graph) -> None:
        self.dtype = own_dtype(graph)
        try:
            check_inputs(graph)
        except NotLowered as error:
            raise ValueError(
                f"compile: the input {error.label!r} must be an array, since parts of a model are "
                f"given arrays; {error.why}"
            ) from error
        self._graph = graph
        self._producers = {value: step for step in graph.steps for value in step.outputs}
        self.why: dict[Step, str] = {}

    def leave(self, step: Step, why: str) -> None:
        """Leaves a step to Keras, with all other calls of its layer."""
        for other in self._graph.steps:
            if other.operation is step.operation:
                self.why.setdefault(other, why)

    def sections(self) -> list[Section]:
        """The parts, in an order in which they can be computed."""
        while True:
            before = len(self.why)
            self._leave_unknown()
            self._leave_integers()
            levels = self._levels()
            self._leave_between(levels)
            self._leave_idle(levels)
            # What is left to Keras changes the levels, and what crosses from one to the next.
            if len(self.why) == before:
                break
        return [self._section(steps) for steps in self._by_level(levels)]

    def _leave_unknown(self) -> None:
        """Leaves what no network has, and what takes something else than the program's numbers."""
        integers = {value for value in self._graph.inputs if not is_float(value)}
        for step in self._graph.steps:
            if step in self.why:
                continue
            why = obstacle(step, self.dtype, integers)
            if not why:
                why = next(filter(None, (self._foreign(v, integers) for v in step.inputs)), "")
            if why:
                self.leave(step, why)
            elif moves(step.operation) and not integers.isdisjoint(step.inputs):
                integers.update(step.outputs)
        self._integers = integers

    def _foreign(self, value: Value, integers: set[Value]) -> str:
        """Why a value cannot be given to a program; empty where it can."""
        if not value.dense:
            return "it takes a sparse tensor"
        if value in integers or fits(value.dtype, self.dtype):
            return ""
        if value.dtype is None:
            return "it takes values of which the dtype is not known"
        return f"it takes values of the dtype {value.dtype}, not {self.dtype}"

    def _leave_integers(self) -> None:
        """Leaves what moves integers to where they must stay integers."""
        taken = {value for step in self.why for value in step.inputs} | set(self._graph.outputs)
        for step in reversed(self._graph.steps):
            if step in self.why:
                continue
            if any(value in self._integers and value in taken for value in step.outputs):
                self.leave(step, "it moves integers, which programs give as floats")
                taken.update(step.inputs)

    def _levels(self) -> dict[Step, int]:
        """The level of each step: odd for programs, even for Keras."""
        levels: dict[Step, int] = {}
        for step in self._graph.steps:
            known = step not in self.why
            level = int(known)
            for value in step.inputs:
                before = self._producers.get(value)
                if before is not None:
                    level = max(level, levels[before] + (known == (before in self.why)))
            levels[step] = level
        return levels

    def _leave_between(self, levels: dict[Step, int]) -> None:
        """Leaves what would cut apart two of Keras' steps between which more than an array goes.

        A mask goes from layer to layer beside a tensor; and of some values nobody knows the dtype.
        """
        for step in self.why.copy():
            for value in step.inputs:
                before = self._producers.get(value)
                if before is None or levels[before] == levels[step] or _is_array(value):
                    continue
                for other in self._before(step):
                    if other not in self.why and levels[other] > levels[before]:
                        self.leave(other, f"a mask, or more, goes around it to {step.label!r}")

    def _before(self, step: Step) -> Iterator[Step]:
        """All steps that a step needs."""
        waiting, seen = [step], {step}
        while waiting:
            for value in waiting.pop().inputs:
                before = self._producers.get(value)
                if before is not None and before not in seen:
                    seen.add(before)
                    waiting.append(before)
                    yield before

    def _leave_idle(self, levels: dict[Step, int]) -> None:
        """Leaves parts that compute nothing: a program would copy arrays, and no more."""
        for steps in self._by_level(levels):
            if all(step not in self.why and moves(step.operation) for step in steps):
                for step in steps:
                    self.leave(step, "it only moves values between layers that are left to Keras")

    def _by_level(self, levels: dict[Step, int]) -> list[list[Step]]:
        found: dict[int, list[Step]] = {}
        for step in self._graph.steps:
            found.setdefault(levels[step], []).append(step)
        return [found[level] for level in sorted(found)]

    def _section(self, steps: list[Step]) -> Section:
        inside = set(steps)
        taken = [v for step in self._graph.steps if step not in inside for v in step.inputs]
        needed = {*taken, *self._graph.outputs}
        given = [value for step in steps for value in step.outputs]
        inputs = dict.fromkeys(v for step in steps for v in step.inputs)
        return Section(
            steps[0] not in self.why,
            steps,
            [v for v in inputs if self._producers.get(v) not in inside],
            [v for v in given if v in needed],
        )


def _is_array(value: Value) -> bool:
    """Whether an array holds all that there is of a value."""
    return value.dense and not value.masked and value.dtype not in (None, "string")
