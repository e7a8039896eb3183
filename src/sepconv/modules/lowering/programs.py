"""Modules that are programs already: their steps become steps of the new network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from sepconv.modules.lowering.call import Call, array_of
from sepconv.modules.lowering.values import Value
from sepconv.modules.program_module import ProgramModule
from sepconv.program import file
from sepconv.program.dtypes import value_dtypes

__all__ = ["OPERATIONS", "whole_program"]


def whole_program(module: nn.Module, dtype: str | None) -> file.Contents | None:
    """The file of a module that is a program and nothing else, as it is; else None."""
    if type(module) is not ProgramModule:
        return None
    contents = file.decode(array_of(module.file), "The module's program")
    return contents if dtype in (None, contents.network.dtype) else None


def _program(call: Call) -> list[Value]:
    given, data = call["inputs"], call["file"]
    if isinstance(data, Value) or not all(isinstance(x, Value) for x in given):
        call.refuse("an input of it does not depend on those of the module, or its file does")
    network = file.decode(array_of(data), "The module's program").network
    others = sorted(set(value_dtypes(network)) - {network.dtype})
    if others:
        call.refuse(f"its program has values of {', '.join(others)}, as only a whole program may")
    builder, around = call.builder, call.builder.name
    numbers = [call.writer.plain(x) for x in given]
    for step in network.steps:
        builder.name = f"{around}.{step.name}"
        weights = {part: network.tensors[i] for part, i in step.weights.items()}
        inputs = [numbers[i] for i in step.inputs]
        numbers.append(builder.emit(step.operation, inputs, step.attributes, weights))
    return [call.writer.as_plain(numbers[i]) for i in network.outputs]


OPERATIONS: dict[str, Callable[[Call], Any]] = {"sepconv.program.default": _program}
