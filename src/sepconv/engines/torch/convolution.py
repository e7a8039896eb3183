"""PyTorch's side: the operations ``sepconv::forward`` and ``sepconv::backward``.

Each has a kernel for the CPU (ours), one for every other device (PyTorch's own operations, see
`composed`), a fake one that only knows shapes (for torch.compile and torch.export), derivatives and
rules for vmap (see `transforms`).

The operations take and give contiguous tensors alone. Memory formats and autocast are dealt with
before they are called, so that fake and real kernels cannot disagree about strides.

They are registered by the low-level forms of ``torch.library`` rather than by ``custom_op``, whose
wrappers cost more time than a small convolution.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sepconv import _native
from sepconv.arrays import DTYPES
from sepconv.engines.front import check_arguments
from sepconv.engines.torch import composed, transforms
from sepconv.geometry import (
    ACTIVATIONS,
    ConvSpec,
    Geometry,
    check_bias,
    plan,
)

__all__ = ["CODES", "as_array", "convolve", "fake_result", "is_traced"]

is_traced = torch.compiler.is_compiling

#: The dtypes that kernels know, with the numbers they know them by.
CODES = {getattr(torch, name): code for name, code in DTYPES.items()}
_ACTIVATIONS = tuple(sorted(set(ACTIVATIONS.values())))

_library = torch.library.Library("sepconv", "DEF")
_TAGS = (torch.Tag.pt2_compliant_tag,)
_library.define(
    "forward(Tensor x, Tensor depthwise_kernel, Tensor? pointwise_kernel, Tensor? bias, "
    "int[] spec, int activation) -> Tensor",
    tags=_TAGS,
)
# The gradients of sum(forward(...) * dy) without activation, for x, depthwise_kernel,
# pointwise_kernel and bias; one that is not wanted is an empty tensor.
_library.define(
    "backward(Tensor x, Tensor depthwise_kernel, Tensor? pointwise_kernel, Tensor dy, "
    "int[] spec, bool[] wanted) -> (Tensor, Tensor, Tensor, Tensor)",
    tags=_TAGS,
)
_forward = torch.ops.sepconv.forward.default
_backward = torch.ops.sepconv.backward.default


# --- on the CPU ------------------------------------------------------------------------------


def _share_threads() -> None:
    """Lets our kernels run on the OpenMP threads that PyTorch computes on.

    These spin for some milliseconds after each operation of PyTorch's, and threads of our own would
    have to wait for their cores. Where PyTorch brings no GNU OpenMP along, ours are used.
    """
    package = Path(torch.__file__).parent
    for folder in (package / "lib", package.parent / "torch.libs"):
        for library in sorted(folder.glob("libgomp*.so*")):
            if _native.adopt_openmp(str(library)):
                return


_share_threads()


@lru_cache(maxsize=4096)
def _plan(
    spec: tuple[int, ...],
    x: tuple[int, ...],
    depthwise: tuple[int, ...],
    pointwise: tuple[int, ...] | None,
    *dtypes: torch.dtype | None,
) -> tuple[Geometry, int, int, tuple[int, ...]]:
    """The geometry, the dtype's number, the output's channels and its shape.

    The operations can be called with anything, from a graph as well as by
    ``torch.ops.sepconv.forward``, and a kernel must not read beyond a tensor: so everything is
    checked here again, once a combination of shapes.
    """
    if dtypes[0] not in CODES or any(d not in (None, dtypes[0]) for d in dtypes):
        raise TypeError(
            "Tensors of one dtype, float32, float64, bfloat16 or float16, were expected. "
            f"Received: {dtypes}"
        )
    geometry, channels, shape = plan(ConvSpec(*spec), x, depthwise, pointwise)
    return geometry, CODES[dtypes[0]], channels, shape


def _planned(
    spec: list[int],
    x: Tensor,
    depthwise_kernel: Tensor,
    pointwise_kernel: Tensor | None,
    fourth: Tensor | None,
) -> tuple[Geometry, int, int, tuple[int, ...]]:
    """`_plan` for an operation's tensors, the fourth of which is bias or dy."""
    return _plan(
        tuple(spec),
        x.shape,
        depthwise_kernel.shape,
        None if pointwise_kernel is None else pointwise_kernel.shape,
        x.dtype,
        depthwise_kernel.dtype,
        None if pointwise_kernel is None else pointwise_kernel.dtype,
        None if fourth is None else fourth.dtype,
    )


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _forward_cpu(
    x: Tensor,
    depthwise_kernel: Tensor,
    pointwise_kernel: Tensor | None,
    bias: Tensor | None,
    spec: list[int],
    activation: int,
) -> Tensor:
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {_ACTIVATIONS}. Received: {activation}")
    geometry, code, channels, shape = _planned(spec, x, depthwise_kernel, pointwise_kernel, bias)
    if bias is not None:
        check_bias(bias.shape, channels)
        bias = bias.contiguous()
    if pointwise_kernel is not None:
        pointwise_kernel = pointwise_kernel.contiguous()
    x, depthwise_kernel = x.contiguous(), depthwise_kernel.contiguous()
    y = torch.empty(shape, dtype=x.dtype)
    _native.forward(
        geometry,
        code,
        x.data_ptr(),
        depthwise_kernel.data_ptr(),
        None,
        _address(pointwise_kernel),
        _address(bias),
        None,
        y.data_ptr(),
        0 if pointwise_kernel is None else channels,
        ACTIVATIONS[None],
        activation,
    )
    return y


def _gradients(
    x: Tensor,
    depthwise_kernel: Tensor,
    pointwise_kernel: Tensor | None,
    dy: Tensor,
    wanted: list[bool],
    channels: Any,
) -> tuple[Tensor, ...]:
    """Uninitialised tensors for the gradients, empty ones for those not wanted."""
    like = pointwise_kernel if pointwise_kernel is not None else depthwise_kernel
    shapes = (x.shape, depthwise_kernel.shape, like.shape, (channels,))
    return tuple(
        dy.new_empty(shape if want else (0,)) for shape, want in zip(shapes, wanted, strict=True)
    )


def _backward_cpu(
    x: Tensor,
    depthwise_kernel: Tensor,
    pointwise_kernel: Tensor | None,
    dy: Tensor,
    spec: list[int],
    wanted: list[bool],
) -> tuple[Tensor, ...]:
    separable = pointwise_kernel is not None
    geometry, code, channels, shape = _planned(spec, x, depthwise_kernel, pointwise_kernel, dy)
    if dy.shape != shape:
        raise ValueError(f"dy must have the shape {shape}. Received: dy.shape={tuple(dy.shape)}")
    if wanted[2] and not separable:
        raise ValueError("There is no pointwise_kernel to compute a gradient for.")
    grads = _gradients(x, depthwise_kernel, pointwise_kernel, dy, wanted, channels)
    if pointwise_kernel is not None:
        pointwise_kernel = pointwise_kernel.contiguous()
    # For its own gradient alone x is not read, and may then stay as it is.
    if wanted[1] or wanted[2]:
        x = x.contiguous()
    depthwise_kernel, dy = depthwise_kernel.contiguous(), dy.contiguous()
    outputs = [g.data_ptr() if want else None for g, want in zip(grads, wanted, strict=True)]
    dx, ddepthwise, dpointwise, dbias = outputs
    _native.backward(
        geometry,
        code,
        x.data_ptr(),
        depthwise_kernel.data_ptr(),
        _address(pointwise_kernel),
        dy.data_ptr(),
        dx,
        ddepthwise,
        dpointwise,
        dbias,
        channels if separable else 0,
    )
    return grads


_library.impl("forward", _forward_cpu, "CPU")
_library.impl("backward", _backward_cpu, "CPU")


# --- on other devices ------------------------------------------------------------------------

_library.impl("forward", composed.forward, "CompositeExplicitAutograd")
_library.impl("backward", composed.backward, "CompositeExplicitAutograd")


# --- shapes alone ----------------------------------------------------------------------------


def fake_result(x: Tensor, shape: tuple[Any, ...], spec: ConvSpec) -> Tensor:
    """A result of a shape that may hold symbols, for which no check has seen whether it is empty.

    C++ and a cache's key would force a symbol to become one number, and so a graph for that size
    alone; `output_shape` does not.
    """
    height, width = shape[2:] if spec.channels_first else shape[1:3]
    torch._check_value(
        height > 0 and width > 0,
        lambda: f"The output would be empty. Received: x.shape={tuple(x.shape)}",
    )
    return x.new_empty(shape)


def _forward_fake(
    x: Tensor,
    depthwise_kernel: Tensor,
    pointwise_kernel: Tensor | None,
    bias: Tensor | None,
    spec: list[int],
    activation: int,
) -> Tensor:
    conv = ConvSpec(*spec)
    shape = check_arguments(x, depthwise_kernel, pointwise_kernel, bias, conv)
    return fake_result(x, shape, conv)


def _backward_fake(
    x: Tensor,
    depthwise_kernel: Tensor,
    pointwise_kernel: Tensor | None,
    dy: Tensor,
    spec: list[int],
    wanted: list[bool],
) -> tuple[Tensor, ...]:
    channels = dy.shape[ConvSpec(*spec).channel_axis]
    return _gradients(x, depthwise_kernel, pointwise_kernel, dy, wanted, channels)


torch.library.register_fake("sepconv::forward", _forward_fake, lib=_library)
torch.library.register_fake("sepconv::backward", _backward_fake, lib=_library)

transforms.register_autograd(_library, _forward, _backward)
transforms.register_vmap(_library, _forward, _backward)


# --- what the front calls --------------------------------------------------------------------


def as_array(value: Any) -> Tensor:
    """`value` as a tensor, in autocast's dtype where that is on, as PyTorch's convolutions do."""
    if not isinstance(value, Tensor):
        try:
            value = torch.as_tensor(value)
        except (RuntimeError, TypeError, ValueError) as error:
            raise TypeError(f"A tensor was expected. Received: {value!r}") from error
    device = value.device.type
    if (
        (device == "cpu" or torch.amp.is_autocast_available(device))
        and torch.is_autocast_enabled(device)
        and value.is_floating_point()
        and value.dtype != torch.float64
    ):
        return value.to(torch.get_autocast_dtype(device))
    return value


def convolve(
    x: Tensor,
    depthwise_kernel: Tensor,
    pointwise_kernel: Tensor | None,
    bias: Tensor | None,
    spec: ConvSpec,
    activation: str | None,
) -> Tensor:
    """See `sepconv.engines.front`."""
    # A channels_first tensor in channels_last memory is, permuted, a contiguous NHWC tensor.
    permuted = False
    if not x.is_contiguous():
        nhwc = x.permute(0, 2, 3, 1)
        permuted = bool(spec.channels_first) and nhwc.is_contiguous()
        if permuted:
            x, spec = nhwc, spec.for_channels_last()
        else:
            x = x.contiguous()
    y = _forward(x, depthwise_kernel, pointwise_kernel, bias, spec, ACTIVATIONS[activation])
    return y.permute(0, 3, 1, 2) if permuted else y
