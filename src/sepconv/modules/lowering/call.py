"""One operation of a PyTorch graph that is to be lowered: its arguments, and where to write."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import torch

from sepconv.modules.lowering.values import Value, Writer
from sepconv.program.building.builder import Builder
from sepconv.program.building.refusal import NotLowered
from sepconv.program.shapes import Shape

__all__ = ["Call", "array_of", "path_of", "refusal", "size_of"]


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as a NumPy array."""
    return tensor.detach().cpu().resolve_neg().resolve_conj().numpy()


def size_of(size: Any) -> int | None:
    """A size as a network has it: None where it is open."""
    if isinstance(size, torch.SymInt):
        return size.node.maybe_as_int()
    return int(size)


def path_of(node: torch.fx.Node) -> tuple[str, str]:
    """The path of the module that an operation is in, and its class."""
    entered = list((node.meta.get("nn_module_stack") or {}).values())
    known = [(path, kind) for path, kind in entered if not path.startswith("_empty_nn_module")]
    path, kind = known[-1] if known else ("", "")
    kind = kind if isinstance(kind, str) else kind.__name__
    return path, kind.rpartition(".")[2]


def refusal(node: torch.fx.Node, why: str) -> NotLowered:
    """The error that names an operation and the module that it is in."""
    path, kind = path_of(node)
    target = getattr(node.target, "__name__", str(node.target))
    name = str(node.target) if str(node.target).startswith("aten.") else target
    place = f"of the module {path!r}, a {kind}," if path else "of the module itself"
    return NotLowered(
        node.name,
        name,
        why,
        what=f"operation {place} named",
        advice=(
            "Write the module with operations that are known (see 'From a PyTorch module' in the "
            "documents of programs), or compile the part of it that has none of the others."
        ),
    )


class Call:
    """What a function of the table gets.

    Attributes:
        writer: brings axes into order.
        builder: where it writes.
        node: the operation.
        args: its arguments by the names in its schema, with their defaults. Values of the network
            are `Value`, constants tensors, sizes that are open `torch.SymInt`.
    """

    def __init__(self, writer: Writer, node: torch.fx.Node, args: dict[str, Any]) -> None:
        self.writer, self.node, self.args = writer, node, args

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    @property
    def builder(self) -> Builder:
        """Where it writes."""
        return self.writer.builder

    def refuse(self, why: str) -> NoReturn:
        """Raises the error that names the operation."""
        raise refusal(self.node, why)

    @property
    def x(self) -> Value:
        """The first argument, a value of the network."""
        first = next(iter(self.args.values()))
        if not isinstance(first, Value):
            self.refuse("what it is applied to must depend on the inputs")
        return first

    @property
    def rank(self) -> int:
        """The number of axes of the first argument."""
        return len(self.x.axes)

    @property
    def sizes(self) -> tuple[Any, ...]:
        """The shape that PyTorch gives the result, with `torch.SymInt` for sizes that are open."""
        return tuple(self.node.meta["val"].shape)

    @property
    def shape(self) -> Shape:
        """The shape of the first argument in PyTorch."""
        return self.writer.shape(self.x)

    def axis(self, axis: int) -> int:
        """An axis of the first argument, counted from 0."""
        return axis % self.rank if self.rank else 0

    def place(self, axis: int) -> int:
        """Where an axis of the first argument lies in the network."""
        return self.x.axes.index(self.axis(axis))

    def array(self, name: str) -> np.ndarray | None:
        """A constant argument; None where it is left out."""
        given = self.args[name]
        if isinstance(given, Value):
            self.refuse(f"its {name} must not depend on the inputs")
        return None if given is None else array_of(given)

    def only(self, **expected: Any) -> None:
        """Refuses arguments that are something else."""
        for name, value in expected.items():
            if self.args[name] != value:
                self.refuse(f"its argument {name} is {self.args[name]}, and only {value} is known")
