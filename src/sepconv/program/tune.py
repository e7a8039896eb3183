"""Times several ways of running a program, all with the same bits, and picks the fastest."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sepconv.program.network import Network
from sepconv.program.program import Program, Tuning, as_list

__all__ = ["as_noted", "of_notes", "to_notes", "tuned"]

#: The name of the note, in a file, that holds a tuning.
_NOTE = "tuning"

#: The ways that are tried beside the usual one; the first computes every step by itself.
_CANDIDATES = (
    Tuning(-1, 0, 1),
    *(
        Tuning(far << 10, strips << 10, links)
        for far in (256, 768, 2048)
        for strips in (256, 1024)
        for links in (2, 4)
    ),
)


class _Candidate(NamedTuple):
    program: Program
    tuning: Tuning | None
    seconds: list[float]


def as_noted(network: Network, *, notes: Mapping[str, str] | None = None) -> Program:
    """The program of a network and of the notes beside it, a tuning among them.

    Example:
        >>> from sepconv.program.network import Input, Step
        >>> step = Step("unary", "twice", [0], {"function": "linear", "a": 2, "b": 0, "c": 0})
        >>> network = Network("float32", [Input("x", (None, 2))], [step], [1], ["y"], [])
        >>> as_noted(network, notes=to_notes(Tuning(-1, 0, 1))).tuning
        Tuning(chain_from_bytes=-1, strip_bytes=0, most_links=1)
    """
    return Program(network, tuning=of_notes(notes or {}), notes=notes)


def tuned(network: Network, rounds: int = 15, *, notes: Mapping[str, str] | None = None) -> Program:
    """The fastest program of a network on this machine, for one image of its own size.

    Args:
        network: what it computes.
        rounds: how often each way is timed, in turns.
        notes: as of `Program`; a tuning among them gives way to the one that is found.
    """
    others = {name: text for name, text in (notes or {}).items() if name != _NOTE}
    shapes = [
        tuple(
            1 if axis == 0 else 224 if size is None else size for axis, size in enumerate(one.shape)
        )
        for one in network.inputs
    ]
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape).astype(network.dtype) for shape in shapes]
    ways = [
        _Candidate(Program(network, tuning=t, notes=others), t, []) for t in (None, *_CANDIDATES)
    ]
    first = ways[0].program(*inputs)
    for way in ways:
        if not _same(way.program(*inputs), first):
            raise AssertionError("Two ways of running a program differ in their bits.")
    for _ in range(rounds):
        for way in ways:
            start = time.perf_counter()
            way.program(*inputs)
            way.seconds.append(time.perf_counter() - start)
    return min(ways, key=lambda way: statistics.median(way.seconds)).program


def _same(a: Any, b: Any) -> bool:
    pairs = zip(as_list(a), as_list(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def to_notes(tuning: Tuning | None) -> dict[str, str]:
    """A tuning as notes of a file."""
    return {} if tuning is None else {_NOTE: json.dumps(tuning._asdict())}


def of_notes(notes: Mapping[str, str]) -> Tuning | None:
    """The tuning in the notes of a file, or None.

    One that makes no sense is left out, since it changes nothing but the time.
    """
    try:
        values = json.loads(notes[_NOTE])
        tuning = Tuning(**values)
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    plain = all(type(v) is int and -1 <= v <= 1 << 40 for v in tuning)
    return tuning if plain else None
