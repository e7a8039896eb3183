"""Which versions of Keras and of the engines sepconv is tested with: the one place that says so."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["TESTED", "Versions", "check"]


class Versions(NamedTuple):
    """The versions of something that sepconv is tested with.

    Attributes:
        name: what its users call it.
        oldest: the oldest version that is supported; `make test-lowest` tests it.
        newest: the newest version that `make test` has run with. Newer ones are not refused.
    """

    name: str
    oldest: str
    newest: str

    def __str__(self) -> str:
        """As in a sentence.

        Example:
            >>> str(Versions("Keras", "3.10", "3.15"))
            '3.10 to 3.15'
        """
        return f"{self.oldest} to {self.newest}"

    def place(self, version: str) -> int:
        """-1 for a version that is older than those tested, 1 for a newer one, 0 for others.

        What a version has beyond the numbers given here does not count: 3.15.1 is of 3.15.

        Example:
            >>> [Versions("Keras", "3.10", "3.15").place(v) for v in ("3.9.2", "3.15.1", "4.0")]
            [-1, 0, 1]
        """
        if self.is_older(version):
            return -1
        return int(_numbers(version, self.newest) > _all(self.newest))

    def is_older(self, version: str) -> bool:
        """Whether a version is older than the oldest one.

        Example:
            >>> Versions("JAX", "0.5", "0.10").is_older("0.4.38")
            True
        """
        return _numbers(version, self.oldest) < _all(self.oldest)


#: By the names by which the engines, and Keras, are imported.
TESTED = {
    "keras": Versions("Keras", "3.10", "3.15"),
    "jax": Versions("JAX", "0.5", "0.10"),
    "torch": Versions("PyTorch", "2.6", "2.13"),
    "tensorflow": Versions("TensorFlow", "2.18", "2.21"),
}


def check(module: str, version: str) -> None:
    """Refuses a version that is older than the oldest one tested.

    Args:
        module: as in `TESTED`.
        version: the one that is installed.

    Raises:
        ImportError: it is older.

    Example:
        >>> check("keras", "3.15.1")
        >>> check("keras", "2.15.0")
        Traceback (most recent call last):
            ...
        ImportError: sepconv needs Keras 3.10 or newer. Received: Keras 2.15.0. Upgrade it: pip \
install --upgrade 'keras>=3.10'
    """
    tested = TESTED[module]
    if tested.is_older(version):
        raise ImportError(
            f"sepconv needs {tested.name} {tested.oldest} or newer. Received: {tested.name} "
            f"{version}. Upgrade it: pip install --upgrade '{module}>={tested.oldest}'"
        )


def _all(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _numbers(version: str, like: str) -> tuple[int, ...]:
    """As many of a version's numbers as another one has; of "2.13.0+cpu" these are 2, 13 and 0."""
    public = re.match(r"[\d.]*", version)
    assert public is not None  # it matches nothing, too
    return _all(public.group())[: len(_all(like))]
