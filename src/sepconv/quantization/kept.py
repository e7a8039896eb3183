"""Which blocks of a network stay float, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sepconv.program.network import Step
from sepconv.program.shapes import shapes
from sepconv.quantization.atoms import Atoms
from sepconv.quantization.forms import kind_of, why_not
from sepconv.quantization.observe import Seen

__all__ = ["kept_float"]


def kept_float(atoms: Atoms, seen: Sequence[Seen], keep: Mapping[int, str]) -> dict[int, str]:
    """The numbers of the blocks that stay float, and why.

    Args:
        atoms: of a float network.
        seen: of each of their values.
        keep: blocks that stay float anyway, and why.
    """
    network, blocks = atoms
    first, found, floats = len(network.inputs), shapes(network), dict(keep)
    of_block: dict[int, list[int]] = {}
    for i, block in enumerate(blocks):
        of_block.setdefault(block, []).append(i)

    def why_float(i: int) -> str | None:
        step = network.steps[i]
        why = why_not(step, [found[value] for value in step.inputs])
        values = [*step.inputs, first + i]
        if why is None and not all(seen[value].finite for value in values):
            return "its numbers are not all finite"
        return why

    natural = set(range(first))  # values that are there as bytes
    for block, members in of_block.items():
        if block not in floats:
            why = next(filter(None, map(why_float, members)), None)
            if why is None and not _pays([network.steps[i] for i in members], natural):
                why = "what it takes is float"
            if why is not None:
                floats[block] = why
        if block not in floats:
            natural |= {first + i for i in members}
    return floats


def _pays(steps: Sequence[Step], natural: set[int]) -> bool:
    """Whether a block computes enough to be quantised for, or takes what is."""
    if any(kind_of(step) == "weights" for step in steps):
        return True
    return any(value in natural for step in steps for value in step.inputs)
