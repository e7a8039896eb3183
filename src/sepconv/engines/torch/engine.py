"""PyTorch's functions, as `sepconv.engines.contract` lists them."""

from __future__ import annotations

from sepconv.engines.torch.batch_norm import batch_norm
from sepconv.engines.torch.block import fuse
from sepconv.engines.torch.convolution import as_array, convolve, is_traced
from sepconv.engines.torch.pointwise import pointwise
from sepconv.engines.torch.program import file_bytes, run_program

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

name = "PyTorch"
