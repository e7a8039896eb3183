"""Warnings that name the line of the user's call, however many of our functions lie between."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]


def warn(message: str) -> None:
    """Warns at the nearest caller outside of sepconv.

    Example:
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn("nothing was compared")
        >>> str(caught[0].message)
        'nothing was compared'
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("sepconv."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
