"""The peers: libraries that sepconv is measured against.

A peer's module imports its library inside functions, so that testing whether it is installed is
cheap. Each peer runs in its own process (`sepconv.bench.worker`).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from sepconv.arrays import DTYPES
from sepconv.bench.cases import Arrays
from sepconv.bench.workloads import Case

__all__ = ["OURS", "OURS_FLOAT32", "PEERS", "Build", "BuiltCase", "Peer", "load"]


@dataclass(frozen=True)
class BuiltCase:
    """A case, built and ready to run.

    Attributes:
        run: runs it once; this call is timed, so it does nothing else.
        outputs: turns the result of `run` into arrays named as in `sepconv.bench.cases`.
    """

    run: Callable[[], Any]
    outputs: Callable[[Any], Arrays]


Build = Callable[[], BuiltCase]


class Peer(ABC):
    """A library to measure.

    Attributes:
        title: its name in tables.
        modules: the modules that must be importable.
        distribution: the distribution whose version is reported.
        install: the argument of `pip install`.
        environment: environment variables for its process.
        dtypes: what its arrays may be of, of `sepconv.arrays.DTYPES`.
    """

    title: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]
    distribution: ClassVar[str]
    install: ClassVar[str]
    environment: ClassVar[dict[str, str]] = {}
    dtypes: ClassVar[tuple[str, ...]] = tuple(DTYPES)

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
        """Whether it can run a case at all, if it has its dtype."""
        return True

    @abstractmethod
    def __init__(self, threads: int) -> None:
        """Loads the library for that many threads; in the peer's own process."""

    @abstractmethod
    def builds(self, case: Case, inputs: Arrays, thorough: bool) -> dict[str, Build]:
        """Builds of a case, by setting; the fastest is measured.

        Args:
            case: what to run.
            inputs: see `sepconv.bench.cases.Arrays`; float32, as `sepconv.bench.cases` says, for a
                library to convert before anything is timed.
            thorough: whether to include settings that take long to build and are seldom the
                fastest.
        """


#: sepconv itself, among the peers' processes; and sepconv in float32 beside another dtype.
OURS = "sepconv"
OURS_FLOAT32 = "sepconv-float32"

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
    """The class of `OURS`, of `OURS_FLOAT32` or of one of `PEERS`."""
    ours = {OURS: "ours:Ours", OURS_FLOAT32: "ours:OursFloat32"}
    module, attribute = (ours | PEERS)[name].split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
