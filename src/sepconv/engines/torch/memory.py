"""Lets the C library keep the memory that PyTorch frees after a step for the next step."""

from __future__ import annotations

from sepconv.engines.memory import keep_freed_memory

__all__ = ["keep_memory"]


def keep_memory() -> bool:
    """Lets this process keep the memory that it frees, which makes training steps on a CPU faster.

    PyTorch asks for the memory of each tensor and frees the last of a step at its end. The C
    library then gives it back to the system, and the next step pays a page fault for every 4 KiB:
    a tenth to a quarter of the time that networks like MobileNetV2 take to train in stock PyTorch.
    Modules that `sepconv.accelerate` changed pay less, since our results ask for larger pages. Call
    this once, at the start of a program:

        import sepconv.torch

        sepconv.torch.keep_memory()

    It is a setting of the C library, and so the whole process's: what its largest step needed it
    holds until it ends, and threads take turns in asking for memory.

    Returns:
        Whether the C library has such a setting: GNU's has, on Linux.
    """
    return keep_freed_memory()
