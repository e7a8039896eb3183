"""What ``torch.vmap`` makes of the operations of `sepconv.engines.torch`.

A mapped axis of the input alone joins the batch. Where kernels are mapped too it joins the
channels, which a depthwise convolution keeps apart: C channels for each of B become B * C, and one
call serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sepconv.geometry import ACTIVATIONS

__all__ = ["leading", "register"]


def leading(tensor: Tensor, axis: int | None, count: int) -> Tensor:
    """With the mapped axis first, repeated if there was none."""
    if axis is None:
        return tensor.expand(count, *tensor.shape)
    return tensor.movedim(axis, 0)


def _join(tensor: Tensor, axis: int) -> Tensor:
    """Merges the leading axis into what is, without it, `axis`."""
    return tensor.movedim(0, axis).flatten(axis, axis + 1)


def _part(tensor: Tensor, axis: int, count: int) -> Tensor:
    """Undoes `_join`."""
    return tensor.unflatten(axis, (count, tensor.shape[axis] // count)).movedim(axis, 0)


def register(library: torch.library.Library, forward: Any, backward: Any) -> None:
    """Registers the rules for ``sepconv::forward`` and ``sepconv::backward``."""

    def depthwise(x: Tensor, kernel: Tensor, spec: Sequence[int], count: int) -> Tensor:
        channels = 1 if spec[9] else 3
        y = forward(_join(x, channels), _join(kernel, 2), None, None, spec, 0)
        return _part(y, channels, count)

    def map_forward(
        info: Any,
        in_dims: Sequence[int | None],
        x: Tensor,
        depthwise_kernel: Tensor,
        pointwise_kernel: Tensor | None,
        bias: Tensor | None,
        spec: Sequence[int],
        activation: int,
    ) -> tuple[Tensor, int]:
        count = info.batch_size
        if all(axis is None for axis in in_dims[1:4]):
            images = _join(leading(x, in_dims[0], count), 0)
            y = forward(images, depthwise_kernel, pointwise_kernel, bias, spec, activation)
            return _part(y, 0, count), 0
        k = leading(depthwise_kernel, in_dims[1], count)
        y = depthwise(leading(x, in_dims[0], count), k, spec, count)
        channels = 2 if spec[9] else 4
        y = y.movedim(channels, -1)
        if pointwise_kernel is not None:
            y = y @ leading(pointwise_kernel, in_dims[2], count)
        if bias is not None:
            y = y + leading(bias, in_dims[3], count)[:, None, None, None]
        if activation == ACTIVATIONS["relu"]:
            y = functional.relu(y)
        elif activation == ACTIVATIONS["relu6"]:
            y = functional.relu6(y)
        return y.movedim(-1, channels), 0

    def map_backward(
        info: Any,
        in_dims: Sequence[int | None],
        x: Tensor,
        depthwise_kernel: Tensor,
        pointwise_kernel: Tensor | None,
        dy: Tensor,
        spec: Sequence[int],
        wanted: Sequence[bool],
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        count = info.batch_size
        x, dy = leading(x, in_dims[0], count), leading(dy, in_dims[3], count)
        kernels_mapped = in_dims[1] is not None or in_dims[2] is not None
        if not kernels_mapped and not any(wanted[1:]):
            grads = backward(
                _join(x, 0), depthwise_kernel, pointwise_kernel, _join(dy, 0), spec, wanted
            )
            return (_part(grads[0], 0, count), *_none(grads, count)[1:]), (0, 0, 0, 0)
        k = leading(depthwise_kernel, in_dims[1], count)
        channels = 1 if spec[9] else 3
        last = dy.movedim(channels + 1, -1)
        dpointwise = dbias = dy.new_empty((count, 0))
        if wanted[3]:
            dbias = last.sum((1, 2, 3))
        if pointwise_kernel is not None:
            p = leading(pointwise_kernel, in_dims[2], count)
            if wanted[2]:
                middle = depthwise(x, k, spec, count).movedim(channels + 1, -1)
                dpointwise = middle.flatten(1, 3).mT @ last.flatten(1, 3)
                dpointwise = dpointwise[:, None, None]
            dy = (last @ p.mT).movedim(-1, channels + 1)
        dx = dkernel = dy.new_empty((count, 0))
        if wanted[0] or wanted[1]:
            only = [*wanted[:2], False, False]
            grads = backward(_join(x, channels), _join(k, 2), None, _join(dy, channels), spec, only)
            dx = _part(grads[0], channels, count) if wanted[0] else dx
            dkernel = _part(grads[1], 2, count) if wanted[1] else dkernel
        return (dx, dkernel, dpointwise, dbias), (0, 0, 0, 0)

    torch.library.register_vmap("sepconv::forward", map_forward, lib=library)
    torch.library.register_vmap("sepconv::backward", map_backward, lib=library)


def _none(grads: tuple[Tensor, ...], count: int) -> tuple[Tensor, ...]:
    return tuple(g.new_empty((count, 0)) for g in grads)
