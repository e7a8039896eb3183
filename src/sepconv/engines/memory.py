"""Lets the C library keep the memory that an engine frees after a step for the next step."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

# Of GNU's <malloc.h>: what to set, and to what. One pool of memory for all threads, since a
# thread's own gives back 64 MiB whenever they are free; no mapping that is for one block alone;
# and no giving back of what is free at the end.
_SETTINGS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1)}


def keep_freed_memory() -> bool:
    """Sets the C library so; whether it has such a setting."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*setting) for setting in _SETTINGS.values())
