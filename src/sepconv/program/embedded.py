"""A program within an engine: made of the bytes of its file, and made anew when these change.

An engine's layers and modules keep a network as one array of bytes, the file that `Program.save`
writes, so that whatever copies, saves and loads arrays does so with the network. The program of
packed weights that computes is made when it is first called.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sepconv.arrays import DTYPES
from sepconv.program import file
from sepconv.program.network import Input
from sepconv.program.program import Program, as_list
from sepconv.program.tune import of_notes, to_notes

__all__ = [
    "KEY_BYTES",
    "Embedded",
    "Result",
    "Rule",
    "bytes_of",
    "no_gradient",
    "open_program",
    "results_of",
    "shapes_at",
]

#: How many bytes at the beginning of a file tell whether it is the same.
KEY_BYTES = 32


class Result(NamedTuple):
    """What a program gives: its name, its shape with None for open sizes, and its dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype


class Rule(NamedTuple):
    """The shapes of results as they follow from the batch: ``per_image * batch + constant``."""

    per_image: tuple[tuple[int, ...], ...]
    constant: tuple[tuple[int, ...], ...]

    @property
    def keeps_batch(self) -> bool:
        """Whether the batch is the first axis of every result, and changes no other."""
        return all(
            bool(slope) and slope[0] == 1 and constant[0] == 0 and not any(slope[1:])
            for slope, constant in zip(*self, strict=True)
        )


def bytes_of(program: Program | str | os.PathLike[str], taker: str = "This") -> np.ndarray:
    """The file of a program, as an array of bytes of its own.

    Args:
        program: one that knows its network; or the path of its file, which is checked.
        taker: what takes the program, for errors.

    Raises:
        ValueError: the program was loaded from a file, and holds packed weights alone; or the file
            is none of a program.
        TypeError: it is neither.
    """
    if isinstance(program, Program):
        whole = file.encode(program.network, program.notes | to_notes(program.tuning))
    elif isinstance(program, (str, os.PathLike)):
        whole = file.encode(*file.read(program))
    else:
        raise TypeError(
            f"{taker} takes a program, as sepconv.compile makes it, or the path of its file. "
            f"Received: {type(program).__name__}"
        )
    return np.frombuffer(whole, np.uint8).copy()


def open_program(data: np.ndarray, name: str) -> Program:
    """The program of a file's bytes.

    Raises:
        ValueError: they are not those of a program; the message begins with `name`.
    """
    network, notes = file.decode(data, name)
    return Program(network, tuning=of_notes(notes), notes=notes, keep=False)


def results_of(program: Program) -> tuple[Result, ...]:
    """What a program gives, in its order."""
    return tuple(Result(one.name, one.shape, program.dtype) for one in program.outputs)


def no_gradient(what: str) -> ValueError:
    """The error where someone asks for a derivative."""
    return ValueError(
        f"{what} is for inference: it has no gradient, and what comes before it cannot be trained "
        "through it. Train the network that it was made from, and compile that again; or keep "
        "gradients away, as stop_gradient and detach do."
    )


class Embedded:
    """A program that an engine's layer, module or function has.

    Args:
        source: the program itself, or a function that gives the bytes of a file as they are now.
        name: what errors call it.
    """

    def __init__(self, source: Program | Callable[[], np.ndarray], name: str = "program") -> None:
        self.name = name
        self._read = None if isinstance(source, Program) else source
        self._program = source if isinstance(source, Program) else None
        self._key = b""
        self._lock = threading.Lock()
        self._rules: dict[tuple[tuple[int, ...], ...], Rule] = {}
        #: The rule for the sizes that the network itself names; None where more than the batch is
        #: open, or the network was not looked at yet. Compilers read it, so it is no method.
        self.usual: Rule | None = None
        #: The dtypes of the results, by their numbers in `sepconv.arrays.DTYPES`; none where the
        #: network was not looked at yet.
        self.codes: list[int] = []
        #: The array that was last looked at, where an engine's arrays do not change.
        self.seen: Any = None
        if self._program is not None:
            self._look()

    def program(self, key: bytes | None = None, data: np.ndarray | None = None) -> Program:
        """The program.

        Args:
            key: the first bytes of the file that is asked for; None for whatever there is.
            data: the whole file, where the caller has it.

        Raises:
            ValueError: there is no network yet, or none with that key.
        """
        program = self._program
        if program is not None and (key is None or key == self._key or self._read is None):
            return program
        with self._lock:
            if self._program is None or (key is not None and key != self._key):
                self._open(key, data)
            assert self._program is not None
            return self._program

    def _open(self, key: bytes | None, data: np.ndarray | None) -> None:
        assert self._read is not None
        data = self._read() if data is None else data
        found = file.identity(data)
        if not any(found):
            raise ValueError(
                f"{self.name} has no network yet. Give it a program, or load its weights."
            )
        if key is not None and key != found:
            raise ValueError(
                f"{self.name} was called with a network that is not the one that it holds. Set its "
                "weights, rather than call it with others."
            )
        self._program, self._key = open_program(data, self.name), found
        self._look()

    def _look(self) -> None:
        """Notes what a compiler asks for."""
        assert self._program is not None
        self._rules.clear()
        self.codes = [DTYPES[one.dtype.name] for one in results_of(self._program)]
        shapes = [one.shape[1:] for one in self._program.inputs]
        self.usual = None
        if all(size is not None for shape in shapes for size in shape):
            self.usual = self._rule(self._program, shapes)  # type: ignore[arg-type]

    def results(self) -> tuple[Result, ...]:
        """What the program gives."""
        return results_of(self.program())

    def inputs(self) -> tuple[Input, ...]:
        """What the program takes."""
        return self.program().inputs

    def run(
        self,
        arrays: Sequence[np.ndarray],
        key: bytes | None = None,
        data: np.ndarray | None = None,
    ) -> list[np.ndarray]:
        """Computes the results; `key` and `data` as for `program`."""
        return as_list(self.program(key, data)(*arrays))

    def rule(self, shapes: Sequence[Sequence[int]]) -> Rule:
        """How results' shapes follow from the batch, for inputs of these shapes without theirs.

        Raises:
            ValueError: the shapes do not fit the program.
        """
        key = tuple(tuple(shape) for shape in shapes)
        if key not in self._rules:
            self._rules[key] = self._rule(self.program(), key)
        return self._rules[key]

    @staticmethod
    def _rule(program: Program, shapes: Sequence[Sequence[int]]) -> Rule:
        """The rule of a program: results have whole multiples of the batch, and constant sizes."""

        def at(batch: int) -> list[tuple[int, ...]]:
            firsts = (one.shape[0] for one in program.inputs)
            return program.output_shapes(
                *(
                    (batch if first is None else first, *shape)
                    for first, shape in zip(firsts, shapes, strict=True)
                )
            )

        one, two = at(1), at(2)
        pairs = [list(zip(*pair, strict=True)) for pair in zip(one, two, strict=True)]
        return Rule(
            tuple(tuple(b - a for a, b in sizes) for sizes in pairs),
            tuple(tuple(2 * a - b for a, b in sizes) for sizes in pairs),
        )

    def __deepcopy__(self, memo: object) -> Embedded:
        raise TypeError("An embedded program belongs to one layer or module.")


def shapes_at(rule: Rule, batch: Any) -> list[tuple[Any, ...]]:
    """The results' shapes for a batch, a number or a compiler's symbol.

    Example:
        >>> shapes_at(Rule(((1, 0),), ((0, 10),)), 4)
        [(4, 10)]
    """
    return [
        tuple(slope * batch + start if slope else start for slope, start in zip(*pair, strict=True))
        for pair in zip(*rule, strict=True)
    ]
