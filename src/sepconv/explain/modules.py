"""Says what each step of a PyTorch module costs, as a program of `sepconv.optimize`'s."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sepconv import _native
from sepconv.bench import roofline
from sepconv.bench.roofline import Machine
from sepconv.explain.programs import ProgramExplanation, explain_program
from sepconv.modules.optimize import optimize
from sepconv.modules.program_module import ProgramModule
from sepconv.modules.verify import as_arguments

__all__ = ["ModuleExplanation", "explain_module"]


class ModuleExplanation:
    """What `explain_module` found; prints as tables.

    Attributes:
        found: the numbers, a row a step.
    """

    def __init__(self, found: ProgramExplanation) -> None:
        self.found = found

    def __str__(self) -> str:
        import io

        from rich.console import Console

        from sepconv.explain.program_table import program_table

        stream = io.StringIO()
        console = Console(file=stream, width=110)
        for part in program_table(self.found):
            console.print(part)
        return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())

    def __repr__(self) -> str:
        return f"ModuleExplanation({self.found!r})"


def explain_module(
    module: nn.Module,
    example_inputs: Any,
    *,
    machine: Machine | None = None,
    seconds: float = 1.0,
) -> ModuleExplanation:
    """Says what each step of a module costs: its work, its floor, its time, and how it goes.

    The steps are those of `sepconv.optimize`, which runs first if it has not yet. A step's floor is
    the least time that its multiply-adds take on this machine. It prints with `rich`.

    Args:
        module: what `sepconv.optimize` takes, or gave.
        example_inputs: a tensor, or a tuple of what the module is called with.
        machine: this machine's limits; None to measure them, which takes some seconds.
        seconds: how long to measure, of whole calls and of steps each.

    Returns:
        The numbers, in ``found``; it prints as tables.

    Raises:
        TypeError: as `sepconv.optimize`.
        ValueError: likewise.

    Example:
        >>> from sepconv.bench.roofline import Level
        >>> limits = Machine(1, 1e11, (Level("memory", float("inf"), 1e10),))
        >>> layers = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        >>> found = explain_module(layers, torch.ones(1, 4, 6, 6), machine=limits, seconds=0).found
        >>> [(row.name, row.multiply_adds) for row in found.rows]
        [('0', 0), ('2', 4608), ('2', 0)]
    """
    arguments = as_arguments(example_inputs)
    name = type(module).__name__
    if not isinstance(module, ProgramModule):
        module = optimize(module, example_inputs, verify=False).module
    program = module.program
    leaves = torch.utils._pytree.tree_leaves(arguments)
    arrays = [
        leaf.detach().numpy().astype(program.dtype) for leaf in leaves if isinstance(leaf, Tensor)
    ]
    limits = roofline.measure(_native.num_threads(), 0.3) if machine is None else machine
    return ModuleExplanation(explain_program(name, program, arrays, limits, seconds))
