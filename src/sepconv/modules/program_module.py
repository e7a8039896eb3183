"""`sepconv.modules.ProgramModule`: a network as one native call, as a module of PyTorch's."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sepconv.engines.torch.program import file_bytes, run_program
from sepconv.modules.convolving import SEQUENCES
from sepconv.program.embedded import Embedded, bytes_of
from sepconv.program.named import listed
from sepconv.program.network import Input
from sepconv.program.program import Program

__all__ = ["ProgramModule", "argument_names"]


class ProgramModule(nn.Module):
    """A network that computes as one native call, for inference.

    It computes what its program computes: `sepconv.optimize` of a module gives one, and so does
    this class of what `sepconv.compile` gives. Its state is one buffer, ``file``, the program's
    file as bytes; so ``state_dict``, `torch.save`, `copy.deepcopy`, `pickle` and `torch.export`
    hold the network, and its weights are packed anew where that is loaded.

    It stays in evaluation mode, computes on the CPU, and has no gradient: an input that requires
    one is an error where gradients are on.

    Args:
        program: a `sepconv.program.program.Program` that knows its network, as `sepconv.compile`
            gives it; or the path of its file.
        outputs: how results are put together, as `torch.utils._pytree.tree_structure` says it; None
            for a tensor, or a tuple of several.
        example_inputs: the tuple of what the module is called with where there are dictionaries in
            it, which then count by their keys; None where it is called with the program's inputs.
        names: of the arguments of a call, where they may be given by name; none for the names of
            the program's inputs.

    Raises:
        ValueError: the program was loaded from a file, and holds packed weights alone; or there is
            no program in the file.
        TypeError: `program` is neither.

    Example:
        >>> import sepconv, torch
        >>> from torch import nn
        >>> stock = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Flatten())
        >>> module = ProgramModule(sepconv.compile(stock, torch.zeros(1, 3, 8, 8)))
        >>> module(torch.ones(2, 3, 8, 8)).shape
        torch.Size([2, 288])
        >>> list(module.state_dict())
        ['file']
    """

    file: Tensor

    def __init__(
        self,
        program: Program | str | os.PathLike[str],
        *,
        outputs: pytree.TreeSpec | None = None,
        example_inputs: tuple[Any, ...] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.register_buffer("file", torch.from_numpy(bytes_of(program, "ProgramModule")))
        self._structure = None if outputs is None else pytree.treespec_dumps(outputs)
        self._order = None if example_inputs is None else _order_of(example_inputs)
        self._names = list(names)
        self._attach()
        self.training = False

    def _attach(self) -> None:
        """Makes the program anew, of the bytes that the buffer holds."""
        self._embedded = Embedded(lambda: file_bytes(self.file), type(self).__name__)
        self._embedded.program()
        structure = self._structure
        self._spec = None if structure is None else pytree.treespec_loads(structure)

    @property
    def program(self) -> Program:
        """The program: its `inputs`, `outputs`, `profile` and `memory`."""
        return self._embedded.program()

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What it takes: names, and shapes with None for sizes that may be any."""
        return self.program.inputs

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The network's outputs for its inputs, in the order in which it takes them.

        They may be given by name, and in the structure of the examples of `sepconv.optimize`; else
        one mapping by their names will do.
        """
        if named:
            inputs = _placed(inputs, named, self._names or [one.name for one in self.inputs])
        tensors = inputs
        if not all(isinstance(x, Tensor) for x in inputs):
            if self._order is None:
                given: Any = listed(inputs, self.inputs, type(self).__name__)
            else:
                given = _reordered(inputs, self._order)
            tensors = tuple(x for x in pytree.tree_leaves(given) if x is not None)
        found = run_program(self._embedded, self.file, tensors)
        if self._spec is not None:
            return pytree.tree_unflatten(found, self._spec)
        return found[0] if len(found) == 1 else tuple(found)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the program's file, which `sepconv.load` opens, with NumPy alone.

        Args:
            path: of the file, by custom ``.sepconv``. A file that is there is replaced once the new
                one is whole.
        """
        from sepconv.program import file

        contents = file.decode(file_bytes(self.file), type(self).__name__)
        file.write(path, contents.network, contents.notes)

    def train(self, mode: bool = True) -> ProgramModule:
        """Returns the module itself, which stays in evaluation mode."""
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        given = state_dict.get(f"{prefix}file")
        if isinstance(given, Tensor) and given.dtype == torch.uint8 and given.dim() == 1:
            # Networks have files of different sizes.
            self.file = torch.empty_like(given, device="cpu")
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if given is not None:
            self._attach()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_embedded", "_spec"):
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._attach()

    def extra_repr(self) -> str:
        """What it takes and gives."""
        inputs = ", ".join(f"{one.name}: {one.shape}" for one in self.inputs)
        outputs = ", ".join(f"{one.name}: {one.shape}" for one in self.program.outputs)
        return f"({inputs}) -> ({outputs})"


def argument_names(module: nn.Module) -> dict[str, bool]:
    """The names of what a module can be called with by place, and whether it must be given."""
    parameters = inspect.signature(module.forward).parameters.values()
    placed = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {each.name: each.default is each.empty for each in parameters if each.kind in placed}


def _placed(
    inputs: tuple[Any, ...], named: Mapping[str, Any], names: Sequence[str]
) -> tuple[Any, ...]:
    """The arguments of a call in their order, those after the first of which were given by name."""
    rest = names[len(inputs) :]
    if set(rest) != set(named):
        raise TypeError(
            f"ProgramModule takes the arguments {list(names)}. Received: {len(inputs)} by their "
            f"places, and by their names {sorted(named)}"
        )
    return (*inputs, *(named[name] for name in rest))


def _order_of(structure: Any) -> Any:
    """The keys of the mappings in a structure, in their order, and None in the place of leaves."""
    if isinstance(structure, Mapping):
        return {key: _order_of(value) for key, value in structure.items()}
    if isinstance(structure, SEQUENCES):
        return [_order_of(value) for value in structure]
    return None


def _reordered(structure: Any, order: Any) -> Any:
    """A structure with the mappings in it in another order, since their leaves follow it."""
    if isinstance(structure, Mapping) and isinstance(order, dict):
        if set(structure) != set(order):
            raise ValueError(
                f"ProgramModule takes a mapping with the keys {list(order)}. Received: "
                f"{list(structure)}"
            )
        return {key: _reordered(structure[key], order[key]) for key in order}
    both = isinstance(structure, SEQUENCES) and isinstance(order, list)
    if both and len(structure) == len(order):
        return [_reordered(*pair) for pair in zip(structure, order, strict=True)]
    return structure


ProgramModule.__module__ = "sepconv.modules"  # which files name
