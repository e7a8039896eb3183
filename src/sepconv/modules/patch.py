"""Replaces PyTorch's functions of convolution by ours while a patch is on."""

from __future__ import annotations

import functools
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sepconv._hold import Hold
from sepconv.modules.convolving import convolve_image, geometry

__all__ = ["TorchPatch", "patch_torch", "unpatch_torch"]

_PLAIN = (Tensor, nn.Parameter)
_ORIGINAL: Any = functional.conv2d
#: PyTorch 2.6 does not tell a graph that is exported from one that is compiled.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
_lock = threading.Lock()
_open: set[TorchPatch] = set()


def patch_torch() -> TorchPatch:
    """Makes ``torch.nn.functional.conv2d`` compute with our kernels where they serve the call.

    From then on, in the whole process, what looks the function up there is served, hence
    `torch.nn.Conv2d`, classes derived from it and code that calls ``F.conv2d``: depthwise
    convolutions and 1x1 ones, as `sepconv.modules.Conv2d` computes them. Not served are
    ``torch.conv2d``, names imported before the patch, and graphs that were traced or exported. In
    traces (`torch.export`, `torch.jit.trace`, `torch.fx`) PyTorch's own operations stay, with
    PyTorch 2.6 under `torch.compile`, too; ``torch.jit.script`` needs `unpatch_torch` first. A call
    that PyTorch computes takes about half a microsecond more.

    Returns:
        A context manager that undoes this call at its end. It need not be entered.

    Example:
        >>> import sepconv
        >>> conv = nn.Conv2d(8, 8, 3, groups=8)
        >>> with sepconv.patch_torch():
        ...     conv(torch.ones(1, 8, 5, 5)).grad_fn.name()
        '_DepthwiseBackward'
    """
    return TorchPatch()


def unpatch_torch() -> None:
    """Undoes all calls of `patch_torch`.

    Example:
        >>> import sepconv
        >>> _ = sepconv.patch_torch()
        >>> sepconv.unpatch_torch()
    """
    with _lock:
        _open.clear()
        functional.conv2d = _ORIGINAL


class TorchPatch(Hold):
    """What `patch_torch` returns: a context manager that undoes the call at its end."""

    def _acquire(self) -> int:
        with _lock:
            _open.add(self)
            functional.conv2d = _conv2d
        return 0

    def _release(self, era: int) -> None:
        with _lock:
            _open.discard(self)
            if not _open:
                functional.conv2d = _ORIGINAL


@functools.wraps(_ORIGINAL)
def _conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
) -> Any:
    # Tests in the order in which they are quick.
    if type(input) in _PLAIN and type(weight) in _PLAIN:
        shape = weight.shape
        if len(shape) == 4 and (shape[1] == 1 or (groups == 1 and shape[2] == shape[3] == 1)):
            y = _served(input, weight, bias, (stride, padding, dilation), groups)
            if y is not None:
                return y
    return _ORIGINAL(input, weight, bias, stride, padding, dilation, groups)


def _served(
    x: Tensor, weight: Tensor, bias: Any, options: tuple[Any, Any, Any], groups: Any
) -> Tensor | None:
    if _is_exporting() or torch._C._get_tracing_state() is not None:
        return None
    found = geometry(*options, weight.shape[2:])
    if found is None or type(groups) is not int or groups < 1:
        return None
    return convolve_image(x, weight, bias, *found, groups)
