"""Depthwise and depthwise-separable convolution that is fast on CPUs.

The functions here take NumPy arrays (or anything with DLPack on the CPU). ``sepconv.jax``,
``sepconv.torch`` and ``sepconv.tensorflow`` have the same functions for their engine's arrays;
``sepconv.layers`` has the Keras layers, and ``sepconv.modules`` PyTorch's. Each is imported at its
first use, so that ``import sepconv`` imports no engine. Keras knows the layers once both are
imported, in either order.
"""

from __future__ import annotations

import importlib
from typing import Any

from sepconv import _registration, reference
from sepconv._native import isa_name, num_threads, set_num_threads
from sepconv._types import DepthwiseGrads, PointwiseGrads, SeparableGrads
from sepconv.functional import (
    depthwise_conv1d,
    depthwise_conv1d_grad,
    depthwise_conv2d,
    depthwise_conv2d_grad,
    separable_conv1d,
    separable_conv1d_grad,
    separable_conv2d,
    separable_conv2d_grad,
)
from sepconv.fused import fused_conv2d
from sepconv.pointwise import pointwise_conv2d, pointwise_conv2d_grad
from sepconv.prepared import PreparedConv2D, prepare_conv2d
from sepconv.quantized import PreparedQuantizedConv2D, Quantization

__version__ = "0.1.0"

__all__ = [
    "DepthwiseGrads",
    "PointwiseGrads",
    "PreparedConv2D",
    "PreparedQuantizedConv2D",
    "Quantization",
    "SeparableGrads",
    "__version__",
    "depthwise_conv1d",
    "depthwise_conv1d_grad",
    "depthwise_conv2d",
    "depthwise_conv2d_grad",
    "fused_conv2d",
    "isa_name",
    "num_threads",
    "pointwise_conv2d",
    "pointwise_conv2d_grad",
    "prepare_conv2d",
    "reference",
    "separable_conv1d",
    "separable_conv1d_grad",
    "separable_conv2d",
    "separable_conv2d_grad",
    "set_num_threads",
]

_LAZY = ("jax", "torch", "tensorflow", "layers", "modules")

#: Functions on whole models and programs, with their modules.
_MODELS: dict[str, str] = {
    "accelerate": "sepconv.models.dispatch",
    "compile": "sepconv.models.dispatch",
    "export_onnx": "sepconv.models.export_onnx",
    "factorize": "sepconv.models.dispatch",
    "load": "sepconv.program.load",
    "optimize": "sepconv.models.dispatch",
    "patch_keras": "sepconv.models.patch",
    "patch_torch": "sepconv.modules.patch",
    "quantize": "sepconv.quantization.quantize",
    "to_stock": "sepconv.models.dispatch",
    "unpatch_keras": "sepconv.models.patch",
    "unpatch_torch": "sepconv.modules.patch",
}

#: Functions that need one engine, with their modules.
_OF_ENGINES: dict[str, str] = {
    "patch_jax": "sepconv.engines.jax.patch",
    "unpatch_jax": "sepconv.engines.jax.patch",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"sepconv.{name}")
    module = _MODELS.get(name) or _OF_ENGINES.get(name)
    if module is not None:
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'sepconv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_LAZY, *_MODELS, *_OF_ENGINES])


_registration.register()
