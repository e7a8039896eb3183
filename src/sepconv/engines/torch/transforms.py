"""What PyTorch's transforms make of the operations: derivatives of any order in both modes, `vmap`.

``backward`` computes the gradients of ``forward``, and whatever a derivative of ``backward``
consists of is again a depthwise convolution, a gradient of one, or a matrix product: so these two
operations are enough.

``torch.library.register_autograd`` would do the same for reverse mode, at 15 microseconds more a
call, and does not work under ``torch.func.grad``; so the kernels for the dispatch key Autograd are
written here, as PyTorch writes those of its own operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.nn import functional

from sepconv.geometry import ACTIVATIONS

__all__ = [
    "add",
    "autograd_kernel",
    "call_below",
    "leading",
    "register_autograd",
    "register_vmap",
]

_NONE, _RELU, _RELU6 = (ACTIVATIONS[name] for name in (None, "relu", "relu6"))

# What torch.library's own Autograd kernels use to reach the kernels below autograd.
_below_autograd = torch._C._AutoDispatchBelowAutograd


def call_below(operation: Any, *arguments: Any) -> Any:
    """Calls an operation below autograd from within a Function, which has turned gradients off.

    Below one level of torch.func's transforms may be another, which needs them on.
    """
    if not torch._C._are_functorch_transforms_active():
        with _below_autograd():
            return operation(*arguments)
    with _below_autograd(), torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
        return operation(*arguments)


def add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of two tensors, where None is zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def autograd_kernel(operation: Any, function: Any, tensors: int) -> Callable[..., Any]:
    """The kernel for the dispatch key Autograd of an operation whose derivatives a Function has.

    Args:
        operation: what is called where nothing is differentiated.
        function: the `torch.autograd.Function`.
        tensors: how many of the first arguments are tensors, or None.
    """
    # The dispatcher calls this once a level of torch.func's transforms, where Function.apply is
    # made to see all levels at once: the one beneath it is for one, and quicker.
    apply = super(torch.autograd.Function, function).apply

    def run(*arguments: Any) -> Any:
        differentiated = forward_ad._current_level >= 0
        if not differentiated and torch.is_grad_enabled():
            for tensor in arguments[:tensors]:
                if tensor is not None and tensor.requires_grad:
                    differentiated = True
                    break
        if not differentiated:
            with _below_autograd():
                return operation(*arguments)
        if not torch._C._are_functorch_transforms_active():
            return apply(*arguments)
        with enable_single_level_autograd_function():
            return apply(*arguments)

    return run


def _masked(dy: Tensor, y: Tensor, activation: int) -> Tensor:
    """`dy` where the activation that gave `y` let its argument pass, else 0."""
    if activation == _RELU:
        return torch.ops.aten.threshold_backward.default(dy, y, 0)
    if activation == _RELU6:
        return torch.ops.aten.hardtanh_backward.default(dy, y, 0, 6)
    return dy


class _Parts:
    """What derivatives are made of: the depthwise convolution D(x, k) and 1x1 products."""

    def __init__(self, forward: Any, backward: Any, spec: Sequence[int]) -> None:
        self.forward, self.backward, self.spec = forward, backward, spec
        self.axis = -3 if spec[9] else -1  # the channels'

    def convolved(self, x: Tensor | None, kernel: Tensor | None) -> Tensor | None:
        """D(x, kernel)."""
        if x is None or kernel is None:
            return None
        return self.forward(x, kernel, None, None, self.spec, _NONE)

    def input_gradient(self, x: Tensor, kernel: Tensor | None, dm: Tensor | None) -> Tensor | None:
        """The gradient of <D(x, kernel), dm> for x, whose shape alone matters."""
        if kernel is None or dm is None:
            return None
        wanted = (True, False, False, False)
        return self.backward(x, kernel, None, dm, self.spec, wanted)[0]

    def kernel_gradient(self, x: Tensor | None, kernel: Tensor, dm: Tensor | None) -> Tensor | None:
        """The gradient of <D(x, kernel), dm> for the kernel, whose shape alone matters."""
        if x is None or dm is None:
            return None
        wanted = (False, True, False, False)
        return self.backward(x, kernel, None, dm, self.spec, wanted)[1]

    def last(self, a: Tensor) -> Tensor:
        """With the channels last."""
        return a.movedim(self.axis, -1)

    def product(self, a: Tensor | None, pointwise: Tensor | None) -> Tensor | None:
        """The 1x1 convolution of a."""
        if a is None or pointwise is None:
            return None
        return (self.last(a) @ pointwise[0, 0]).movedim(-1, self.axis)

    def product_transposed(self, a: Tensor | None, pointwise: Tensor | None) -> Tensor | None:
        """The gradient of <product(m, pointwise), a> for m."""
        if a is None or pointwise is None:
            return None
        return (self.last(a) @ pointwise[0, 0].mT).movedim(-1, self.axis)

    def correlation(self, m: Tensor | None, dy: Tensor | None) -> Tensor | None:
        """The gradient of <product(m, pointwise), dy> for the pointwise kernel."""
        if m is None or dy is None:
            return None
        return (self.last(m).flatten(0, 2).mT @ self.last(dy).flatten(0, 2))[None, None]

    def filled(self, bias: Tensor | None, like: Tensor) -> Tensor | None:
        """The bias at every pixel."""
        if bias is None:
            return None
        return bias.expand(self.last(like).shape).movedim(-1, self.axis)

    def convolved_change(
        self, x: Tensor, kernel: Tensor, tx: Tensor | None, tk: Tensor | None
    ) -> Tensor | None:
        """The change of D(x, kernel) along (tx, tk)."""
        return add(self.convolved(tx, kernel), self.convolved(x, tk))

    def gradient_changes(
        self,
        point: tuple[Tensor, Tensor, Tensor | None],
        tangents: tuple[Tensor | None, Tensor | None, Tensor | None],
        wanted: Sequence[bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """The changes of the gradients of <D(x, kernel), dm> for x and for the kernel.

        `point` and `tangents` are of (x, kernel, dm).
        """
        (x, kernel, dm), (tx, tk, tdm) = point, tangents
        dx = dk = None
        if wanted[0]:
            dx = add(self.input_gradient(x, kernel, tdm), self.input_gradient(x, tk, dm))
        if wanted[1]:
            dk = add(self.kernel_gradient(x, kernel, tdm), self.kernel_gradient(tx, kernel, dm))
        return dx, dk

    def change(self, tangents: Any, x: Tensor, kernel: Tensor, pointwise: Any, like: Tensor) -> Any:
        """The directional derivative of ``forward`` without activation."""
        tx, tk, tp, tb = tangents
        t = self.convolved_change(x, kernel, tx, tk)
        if pointwise is not None:
            t = self.product(t, pointwise)
            if tp is not None:
                t = add(t, self.product(self.convolved(x, kernel), tp))
        return add(t, self.filled(tb, like))


def register_autograd(library: torch.library.Library, forward: Any, backward: Any) -> None:
    """Registers the Autograd kernels of ``sepconv::forward`` and ``sepconv::backward``."""

    class Forward(torch.autograd.Function):
        """The derivative of ``forward`` is ``backward``, after that of the activation."""

        @staticmethod
        def forward(
            ctx: Any,
            x: Tensor,
            depthwise_kernel: Tensor,
            pointwise_kernel: Tensor | None,
            bias: Tensor | None,
            spec: Sequence[int],
            activation: int,
        ) -> Tensor:
            y = call_below(forward, x, depthwise_kernel, pointwise_kernel, bias, spec, activation)
            saved = x, depthwise_kernel, pointwise_kernel, y if activation else None
            ctx.save_for_backward(*saved)
            if forward_ad._current_level >= 0:
                ctx.save_for_forward(x, depthwise_kernel, pointwise_kernel, y)
            ctx.spec, ctx.activation = spec, activation
            return y

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
            x, kernel, pointwise, y = ctx.saved_tensors
            dy = _masked(dy, y, ctx.activation)
            wanted = ctx.needs_input_grad[:4]
            grads = backward(x, kernel, pointwise, dy, ctx.spec, wanted)
            return *(g if want else None for g, want in zip(grads, wanted, strict=True)), None, None

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Tensor:
            x, kernel, pointwise, y = ctx.saved_tensors
            parts = _Parts(forward, backward, ctx.spec)
            change = parts.change(tangents[:4], x, kernel, pointwise, y)
            return _masked(change.contiguous(), y, ctx.activation)

    class Backward(torch.autograd.Function):
        """The derivatives of ``backward``, from the differentiable operations themselves.

        Call m = D(x, k) and p the pointwise kernel. ``backward`` gives dx and dk, the gradients of
        <D(x, k), dm> with dm = dy p', and dp = m' dy and db = 1' dy. Their products with
        cotangents (gx, gk, gp, gb) sum to <t p + m gp + 1 gb, dy> with t = D(gx, k) + D(x, gk):
        the change of ``forward`` in the direction of the cotangents, times dy.
        """

        @staticmethod
        def forward(
            ctx: Any,
            x: Tensor,
            depthwise_kernel: Tensor,
            pointwise_kernel: Tensor | None,
            dy: Tensor,
            spec: Sequence[int],
            wanted: Sequence[bool],
        ) -> tuple[Tensor, ...]:
            grads = call_below(backward, x, depthwise_kernel, pointwise_kernel, dy, spec, wanted)
            ctx.save_for_backward(x, depthwise_kernel, pointwise_kernel, dy)
            if forward_ad._current_level >= 0:
                ctx.save_for_forward(x, depthwise_kernel, pointwise_kernel, dy)
            ctx.spec, ctx.wanted, ctx.shapes = spec, wanted, [g.shape for g in grads]
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(*(g for g, w in zip(grads, wanted, strict=True) if not w))
            return grads

        @staticmethod
        def backward(
            ctx: Any, gx: Tensor | None, gk: Tensor | None, gp: Tensor | None, gb: Tensor | None
        ) -> tuple[Tensor | None, ...]:
            x, k, p, dy = ctx.saved_tensors
            needed = ctx.needs_input_grad
            parts = _Parts(forward, backward, ctx.spec)
            dm = dy if p is None else parts.product_transposed(dy, p)
            gdm = parts.product_transposed(dy, gp)
            dx, dk = parts.gradient_changes((x, k, dm), (gx, gk, gdm), needed)
            dp = ddy = None
            if needed[2]:
                dp = parts.correlation(parts.convolved_change(x, k, gx, gk), dy)
            if needed[3]:
                ddy = parts.change((gx, gk, gp, gb), x, k, p, dy)
            return dx, dk, dp, ddy, None, None

        @staticmethod
        def jvp(
            ctx: Any,
            tx: Tensor | None,
            tk: Tensor | None,
            tp: Tensor | None,
            tdy: Tensor | None,
            *_: None,
        ) -> tuple[Tensor | None, ...]:
            x, k, p, dy = ctx.saved_tensors
            parts = _Parts(forward, backward, ctx.spec)
            dm = dy if p is None else parts.product_transposed(dy, p)
            tdm = tdy
            if p is not None:
                tdm = add(parts.product_transposed(tdy, p), parts.product_transposed(dy, tp))
            dx, dk = parts.gradient_changes((x, k, dm), (tx, tk, tdm), ctx.wanted)
            dp = db = None
            if ctx.wanted[2]:
                dp = parts.correlation(parts.convolved_change(x, k, tx, tk), dy)
                if tdy is not None:
                    dp = add(dp, parts.correlation(parts.convolved(x, k), tdy))
            if ctx.wanted[3] and tdy is not None:
                db = parts.last(tdy).sum((0, 1, 2))
            return tuple(
                dy.new_zeros(shape) if t is None and want else t
                for t, shape, want in zip((dx, dk, dp, db), ctx.shapes, ctx.wanted, strict=True)
            )

    library.impl("forward", autograd_kernel(forward, Forward, 4), "Autograd")
    library.impl("backward", autograd_kernel(backward, Backward, 4), "Autograd")


# --- vmap ------------------------------------------------------------------------------------
# A mapped axis of the input alone joins the batch. Where kernels are mapped too it joins the
# channels, which a depthwise convolution keeps apart: C channels for each of B become B * C, and
# one call serves all of them.


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


def register_vmap(library: torch.library.Library, forward: Any, backward: Any) -> None:
    """Registers the rules of `vmap` for ``sepconv::forward`` and ``sepconv::backward``."""

    def depthwise(x: Tensor, kernel: Tensor, spec: Sequence[int], count: int) -> Tensor:
        channels = 1 if spec[9] else 3
        y = forward(_join(x, channels), _join(kernel, 2), None, None, spec, _NONE)
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
        if activation == _RELU:
            y = functional.relu(y)
        elif activation == _RELU6:
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
