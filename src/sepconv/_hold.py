"""What calls of `patch_keras`, `patch_jax` and `patch_torch` return: a hold of a patch."""

from __future__ import annotations

from types import TracebackType
from typing import Self

__all__ = ["Hold"]


class Hold:
    """A hold of a patch, to be used in a ``with`` statement, also again, or left alone."""

    def __init__(self) -> None:
        self._entered = 0
        self._era: int | None = self._acquire()

    def _acquire(self) -> int:
        """Has the patch on for this hold; the number of times that all holds were ended at once."""
        raise NotImplementedError

    def _release(self, era: int) -> None:
        """Ends this hold, which was acquired in that era."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        if self._era is None:  # entered again
            self._era = self._acquire()
        self._entered += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entered -= 1
        if self._entered == 0 and self._era is not None:
            self._release(self._era)
            self._era = None
