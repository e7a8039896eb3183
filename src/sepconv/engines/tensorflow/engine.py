"""TensorFlow's functions, as `sepconv.engines.contract` lists them."""

from __future__ import annotations

from sepconv.engines.tensorflow.batch_norm import batch_norm
from sepconv.engines.tensorflow.block import fuse
from sepconv.engines.tensorflow.convolution import as_array, convolve
from sepconv.engines.tensorflow.program import file_bytes, run_program

__all__ = [
    "as_array",
    "batch_norm",
    "convolve",
    "file_bytes",
    "fuse",
    "is_traced",
    "name",
    "pointwise",
    "run_program",
]

name = "TensorFlow"
pointwise = None  # its own is as fast


def is_traced() -> bool:
    """False: TensorFlow runs the Python code that it traces."""
    return False
