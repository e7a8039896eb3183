"""Whom sepconv is measured against: what a peer is, and the list of them.

A peer's module imports its library inside functions, so that asking whether it is installed costs
nothing; it is run in a process of its own (`sepconv.bench.worker`).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from sepconv.bench.cases import Arrays
from sepconv.bench.workloads import Case

__all__ = ["OURS", "PEERS", "Build", "Peer", "Prepared", "load"]


@dataclass(frozen=True)
class Prepared:
    """A case made ready.

    Attributes:
        run: runs it once; this call, which has nothing else to do, is what is timed.
        outputs: turns what `run` returned into the arrays that `sepconv.bench.cases` names.
    """

    run: Callable[[], Any]
    outputs: Callable[[Any], Arrays]


Build = Callable[[], Prepared]


class Peer(ABC):
    """A library to measure.

    Attributes:
        title: its name for people.
        modules: what must be importable.
        distribution: what the version is asked of.
        install: what to give to pip.
        environment: variables that its process needs.
    """

    title: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]
    distribution: ClassVar[str]
    install: ClassVar[str]
    environment: ClassVar[dict[str, str]] = {}

    @classmethod
    def available(cls) -> bool:
        """Whether it is installed."""
        return all(importlib.util.find_spec(module) is not None for module in cls.modules)

    @classmethod
    def version(cls) -> str:
        """The installed version."""
        return importlib.metadata.version(cls.distribution)

    @classmethod
    def supports(cls, case: Case) -> bool:
        """Whether it can run a case at all."""
        return True

    @abstractmethod
    def __init__(self, threads: int) -> None:
        """Loads the library for that many threads; in the peer's own process."""

    @abstractmethod
    def builds(self, case: Case, inputs: Arrays, thorough: bool) -> dict[str, Build]:
        """The ways to run a case that may be its best; the fastest is measured.

        Args:
            case: what to run.
            inputs: see `sepconv.bench.cases.Arrays`.
            thorough: also those that take long to build and seldom win.
        """


#: sepconv itself, among the peers' processes.
OURS = "sepconv"

#: Name on the command line -> "module:class".
PEERS = {
    "torch": "torch:Torch",
    "tensorflow": "tensorflow:TensorFlow",
    "jax": "jax:Jax",
    "onnxruntime": "onnxruntime:OnnxRuntime",
    "openvino": "openvino:OpenVino",
    "litert": "litert:LiteRt",
    "keras-torch": "keras:KerasTorch",
    "keras-tensorflow": "keras:KerasTensorFlow",
    "keras-jax": "keras:KerasJax",
}


def load(name: str) -> type[Peer]:
    """The class of `OURS` or of one of `PEERS`."""
    module, attribute = ("ours:Ours" if name == OURS else PEERS[name]).split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
