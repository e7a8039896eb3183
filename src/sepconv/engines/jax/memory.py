"""Lets the C library keep the memory that JAX frees after a step for the next step."""

from __future__ import annotations

import ctypes

__all__ = ["keep_memory"]

# Of GNU's <malloc.h>: what to set, and to what. One pool of memory for all threads, since a
# thread's own gives back 64 MiB whenever they are free; no mapping that is for one block alone;
# and no giving back of what is free at the end.
_SETTINGS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1)}


def keep_memory() -> bool:
    """Lets this process keep the memory that it frees, which makes JAX's steps on a CPU faster.

    XLA asks for all the memory of a step at its beginning and frees it at its end. The C library
    then gives it back to the system, and the next step pays a page fault for every 4 KiB: a tenth
    to a fifth of the time that networks such as MobileNet take to train. Call this once, at the
    start of a program, before JAX computes anything:

        import sepconv.jax

        sepconv.jax.keep_memory()

    It is a setting of the C library, and so the whole process's: what its largest step needed it
    holds until it ends, and threads take turns in asking for large blocks.

    Returns:
        Whether the C library has such a setting: GNU's has, on Linux.

    Raises:
        RuntimeError: JAX has computed already, and its threads have memory of their own.
    """
    try:
        from jax._src.xla_bridge import backends_are_initialized
    except ImportError:  # it is JAX's own; then nobody knows, and the setting does no harm
        pass
    else:
        if backends_are_initialized():
            raise RuntimeError(
                "keep_memory() must be called before JAX computes anything: put it at the start "
                "of the program, right after the imports."
            )
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*setting) for setting in _SETTINGS.values())
