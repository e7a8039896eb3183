"""Lets the C library keep the memory that JAX frees after a step for the next step."""

from __future__ import annotations

from sepconv.engines.memory import keep_freed_memory

__all__ = ["keep_memory"]


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
    return keep_freed_memory()
