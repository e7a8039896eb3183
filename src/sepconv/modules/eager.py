"""Convolutions and normalizations as single nodes of eager autograd, without the dispatcher.

A network calls hundreds of them a step, and the dispatcher's boxes for Python kernels cost as much
time as a small convolution. Where `torch.compile`, `torch.func`, tracing or forward mode look on,
the registered operations serve instead (see `convolving`), and so they do for derivatives of
gradients.

What follows from shapes, strides and dtypes is decided once, in a plan, and looked up by them. A
call on small images takes most of its time in Python, so it does nothing else twice.

Images come as [batch, channels, height, width]. Results in channels_last memory are no views: an
activation often changes them in place, and of a view autograd would then copy the gradient thrice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from sepconv import _native
from sepconv.engines.torch import batch_norm, convolution, pointwise
from sepconv.engines.torch.convolution import CODES
from sepconv.geometry import ACTIVATIONS, ConvSpec, check_bias

__all__ = [
    "NO_ACTIVATION",
    "Plan",
    "Three",
    "apply_of",
    "are_alike",
    "channels_last_view",
    "convolve",
    "depthwise_kernel",
    "is_eager",
    "normalize",
    "normalized",
    "once",
]

NO_ACTIVATION = ACTIVATIONS[None]
_PLAIN = (Tensor, nn.Parameter, type(None))

_is_compiling = torch.compiler.is_compiling
_transforms_active = torch._C._are_functorch_transforms_active
_modes = torch._C._len_torch_dispatch_stack
_tracing_state = torch._C._get_tracing_state


def is_eager(a: Tensor | None, b: Tensor | None = None, c: Tensor | None = None) -> bool:
    """Whether nothing but eager autograd, or nothing at all, looks on up to three tensors."""
    return (
        type(a) in _PLAIN
        and type(b) in _PLAIN
        and type(c) in _PLAIN
        and not _is_compiling()
        and forward_ad._current_level < 0
        and not _transforms_active()
        and _modes() == 0
        and _tracing_state() is None
    )


def channels_last_view(x: Tensor) -> Tensor | None:
    """A tensor in channels_last memory as contiguous [batch, height, width, channels]; else None.

    A part of the channels, as `torch.split` gives them, is copied in the format of the whole.
    Images of one pixel are in both formats; in this one they are one product.
    """
    return x.permute(0, 2, 3, 1).contiguous() if x.stride(1) == 1 else None


def depthwise_kernel(weight: Tensor, channels: int) -> Tensor:
    """A kernel [filters, 1, height, width] as [height, width, channels, multiplier], a view."""
    filters, _, height, width = weight.shape
    return weight.reshape(channels, filters // channels, height, width).permute(2, 3, 0, 1)


def apply_of(function: Any) -> Any:
    """A `torch.autograd.Function`'s `apply`, for tensors that `is_eager` lets through.

    That of the class itself looks for torch.func's transforms, of which there are none here.
    """
    return super(torch.autograd.Function, function).apply


def _differentiated(*tensors: Tensor | None) -> bool:
    if not torch.is_grad_enabled():
        return False
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def once(dy: Tensor) -> bool:
    """Whether a gradient is one alone, and will not be differentiated in its turn.

    Batches of gradients (``is_grads_batched=True``) have no memory of their own.
    """
    if torch.is_grad_enabled() or not is_eager(dy):
        return False
    try:
        dy.data_ptr()
    except RuntimeError:
        return False
    return True


# --- plans -----------------------------------------------------------------------------------


class Plan:
    """How a convolution of images of one shape, in one memory format, is computed.

    Args:
        shape: of the images.
        stride: of their memory.
        kernel: the shape of the kernel, [filters, channels / groups, height, width].
        spec: of the convolution, with the channels second.
        groups: how many parts the channels are cut into.
        depthwise: whether it is a depthwise convolution, or a 1x1 one.
        dtype: of both.

    Attributes:
        last: whether channels lie last in the images' memory.
        run: computes it.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
        kernel: tuple[int, ...],
        spec: ConvSpec,
        groups: int,
        depthwise: bool,
        dtype: torch.dtype,
    ) -> None:
        self.last = stride[1] == 1
        self.x, self.kernel, self.dtype = shape, kernel, dtype
        self.groups, self.depthwise = groups, depthwise
        self.spec = spec.for_channels_last() if self.last else spec
        self.order = torch.channels_last if self.last else torch.contiguous_format
        batch, channels, height, width = shape
        filters = kernel[0]
        self.one_each = filters == groups
        if depthwise:
            image = (batch, height, width, channels) if self.last else shape
            self.sizes = (*kernel[2:], groups, filters // groups)
            self.geometry, self.code, _, y = convolution._plan(
                tuple(self.spec), image, self.sizes, None, dtype, dtype, None, None
            )
            self.y = (y[0], y[3], y[1], y[2]) if self.last else y
            self.run = self._depthwise
        else:
            self.code = CODES[dtype]
            self.problem = batch, height * width, filters, channels, not self.last, self.code
            self.y = batch, filters, height, width
            self.run = self._product

    def fits(self, x: Tensor, weight: Tensor) -> bool:
        """Whether these are what the plan was made for, and not what a hook made of them."""
        return (
            x.shape == self.x
            and weight.shape == self.kernel
            and x.dtype is weight.dtype is self.dtype
            and is_eager(x, weight)
            and x.is_cpu
            and weight.is_cpu
        )

    def taps(self, weight: Tensor) -> Tensor:
        """A depthwise kernel in the order in which our kernels read it."""
        if self.one_each:
            return weight.permute(2, 3, 0, 1).contiguous()
        return depthwise_kernel(weight, self.groups).contiguous()

    def kernel_of_taps(self, taps: Tensor | None) -> Tensor | None:
        """What `taps` made of a kernel, as a kernel again."""
        if taps is None:
            return None
        kernel = taps.permute(2, 3, 0, 1)
        return kernel if self.one_each else kernel.reshape(self.kernel)

    def _depthwise(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, kernel = x.contiguous(memory_format=self.order), self.taps(weight)
        if bias is not None:
            check_bias(bias.shape, self.y[1])
            bias = bias.contiguous()
        y = torch.empty(self.y, dtype=self.dtype, memory_format=self.order)
        _native.forward(
            self.geometry,
            self.code,
            x.data_ptr(),
            kernel.data_ptr(),
            None,
            None,
            None if bias is None else bias.data_ptr(),
            None,
            y.data_ptr(),
            0,
            NO_ACTIVATION,
            NO_ACTIVATION,
        )
        return y

    def depthwise_gradients(
        self, x: Tensor, weight: Tensor, dy: Tensor, for_x: bool, for_weight: bool, for_bias: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Those that are wanted of x, weight and bias."""
        dtype, order = self.dtype, self.order
        kernel, dy = self.taps(weight), dy.contiguous(memory_format=order)
        dx = dkernel = dbias = None
        if for_x:
            dx = torch.empty(self.x, dtype=dtype, memory_format=order)
        if for_weight:
            x = x.contiguous(memory_format=order)
            dkernel = torch.empty(self.sizes, dtype=dtype)
        if for_bias:
            dbias = torch.empty(self.kernel[:1], dtype=dtype)
        _native.backward(
            self.geometry,
            self.code,
            x.data_ptr(),  # read for the kernel's gradient alone
            kernel.data_ptr(),
            None,
            dy.data_ptr(),
            None if dx is None else dx.data_ptr(),
            None if dkernel is None else dkernel.data_ptr(),
            None,
            None if dbias is None else dbias.data_ptr(),
            0,
        )
        return dx, self.kernel_of_taps(dkernel), dbias

    # By the registered operations, where gradients are differentiated in their turn or mapped.

    def differentiable(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution, without a bias."""
        if self.last:
            x = x.permute(0, 2, 3, 1).contiguous()
        if self.depthwise:
            kernel = depthwise_kernel(weight, self.groups)
            y = convolution._forward(x, kernel, None, None, list(self.spec), NO_ACTIVATION)
        else:
            y = pointwise._product(x, weight.flatten(1), not self.last, True)
        return y.permute(0, 3, 1, 2) if self.last else y

    def differentiable_gradients(
        self, x: Tensor, weight: Tensor, dy: Tensor, for_x: bool, for_weight: bool, for_bias: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Those that are wanted of x, weight and bias."""
        dx = dweight = dbias = None
        if for_bias:
            dbias = _bias_gradient(dy)
        if self.last:
            x, dy = x.permute(0, 2, 3, 1).contiguous(), dy.permute(0, 2, 3, 1)
        if self.depthwise:
            kernel = depthwise_kernel(weight, self.groups)
            wanted = [for_x, for_weight, False, False]
            dx, taps, *_ = convolution._backward(x, kernel, None, dy, list(self.spec), wanted)
            dx = dx if for_x else None
            dweight = taps.permute(2, 3, 0, 1).reshape(weight.shape) if for_weight else None
        else:
            first = not self.last
            if for_x:
                dx = pointwise._product(dy, weight.flatten(1), first, False)
            if for_weight:
                dweight = pointwise._correlation(dy, x, first).reshape(weight.shape)
        if dx is not None and self.last:
            dx = dx.permute(0, 3, 1, 2)
        return dx, dweight, dbias

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.contiguous(memory_format=self.order)
        weight = weight.contiguous()  # its last two axes are 1, so their strides do not matter
        y = torch.empty(self.y, dtype=self.dtype, memory_format=self.order)
        _native.pointwise_backward(
            *self.problem, None, weight.data_ptr(), x.data_ptr(), y.data_ptr(), None, None
        )
        return y if bias is None else y.add_(bias.view(-1, 1, 1))

    def product_gradients(
        self, x: Tensor, weight: Tensor, dy: Tensor, for_x: bool, for_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Those that are wanted of x and weight."""
        dy = dy.contiguous(memory_format=self.order)
        outputs = dy.data_ptr()
        dx = dweight = None
        if for_x:
            weight = weight.contiguous()
            dx = torch.empty(self.x, dtype=self.dtype, memory_format=self.order)
            matrix, into = weight.data_ptr(), dx.data_ptr()
            _native.pointwise_forward(
                *self.problem, outputs, matrix, None, None, into, NO_ACTIVATION
            )
        if for_weight:
            x = x.contiguous(memory_format=self.order)
            dweight = torch.empty(self.kernel, dtype=self.dtype)
            inputs, into = x.data_ptr(), dweight.data_ptr()
            _native.pointwise_backward(*self.problem, outputs, None, inputs, None, into, None)
        return dx, dweight


def _bias_gradient(dy: Tensor) -> Tensor:
    return dy.sum((0, 2, 3))


def convolve(plan: Plan, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Computes a convolution by its plan, and notes its gradient where autograd asks for it."""
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        apply = _apply_depthwise if plan.depthwise else _apply_product
        return apply(plan, x, weight, bias)
    return plan.run(x, weight, bias)


# --- depthwise convolutions ------------------------------------------------------------------


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.plan = plan
        return plan.run(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        plan = ctx.plan
        _, for_x, for_weight, for_bias = ctx.needs_input_grad
        if once(dy) and plan.fits(x, weight):
            found = plan.depthwise_gradients(x, weight, dy, for_x, for_weight, for_bias)
            return None, *found
        wanted = for_x, for_weight, for_bias
        return None, *plan.differentiable_gradients(x, weight, dy, *wanted)


_apply_depthwise = apply_of(_Depthwise)


# --- 1x1 convolutions ------------------------------------------------------------------------


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.plan = plan
        return plan.run(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        plan = ctx.plan
        _, for_x, for_weight, for_bias = ctx.needs_input_grad
        if once(dy) and plan.fits(x, weight):
            dbias = _bias_gradient(dy) if for_bias else None
            return None, *plan.product_gradients(x, weight, dy, for_x, for_weight), dbias
        wanted = for_x, for_weight, for_bias
        return None, *plan.differentiable_gradients(x, weight, dy, *wanted)


_apply_product = apply_of(_Product)


# --- batch normalization ---------------------------------------------------------------------

Three = tuple[Tensor, Tensor, Tensor]


def normalize(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, activation: int) -> Three:
    """The normalized and activated images, and the mean and the variance of each channel.

    The images have four axes. Gamma and beta have a number a channel, of the images' dtype. The
    activation is its number in C++, that of None for none.
    """
    if _differentiated(x, gamma, beta):
        return _apply_normalize(x, gamma, beta, epsilon, activation)
    return normalized(x, gamma, beta, epsilon, activation)


def _layout(x: Tensor) -> tuple[Tensor, tuple[int, int, int], torch.memory_format]:
    """Images in dense memory, its sizes before, on and after the channels, and its format."""
    batch, channels, height, width = x.shape
    if x.stride(1) == 1:
        order = torch.channels_last
        return x.contiguous(memory_format=order), (batch * height * width, channels, 1), order
    return x.contiguous(), (batch, channels, height * width), torch.contiguous_format


def normalized(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, activation: int) -> Three:
    """As `normalize`, without a node of autograd."""
    shape, dtype, real = x.shape, x.dtype, gamma.dtype
    x, sizes, order = _layout(x)
    y = torch.empty(shape, dtype=dtype, memory_format=order)
    mean, variance = torch.empty(sizes[1], dtype=real), torch.empty(sizes[1], dtype=real)
    gamma, beta = gamma.contiguous(), beta.contiguous()
    _native.batch_norm_forward(
        *sizes,
        epsilon,
        activation,
        CODES[dtype],
        x.data_ptr(),
        gamma.data_ptr(),
        beta.data_ptr(),
        y.data_ptr(),
        mean.data_ptr(),
        variance.data_ptr(),
    )
    return y, mean, variance


def _normalize_gradients(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    dy: Tensor,
    epsilon: float,
    activation: int,
) -> Three:
    shape, dtype, real = x.shape, x.dtype, gamma.dtype
    x, sizes, order = _layout(x)
    dy = dy.contiguous(memory_format=order)
    gamma, mean, variance = gamma.contiguous(), mean.contiguous(), variance.contiguous()
    beta = None if beta is None else beta.contiguous()
    dx = torch.empty(shape, dtype=dtype, memory_format=order)
    dgamma, dbeta = torch.empty(sizes[1], dtype=real), torch.empty(sizes[1], dtype=real)
    _native.batch_norm_backward(
        *sizes,
        epsilon,
        activation,
        CODES[dtype],
        x.data_ptr(),
        gamma.data_ptr(),
        None if beta is None else beta.data_ptr(),
        mean.data_ptr(),
        variance.data_ptr(),
        dy.data_ptr(),
        dx.data_ptr(),
        dgamma.data_ptr(),
        dbeta.data_ptr(),
    )
    return dx, dgamma, dbeta


def are_alike(dy: Tensor, x: Tensor, *numbers: Tensor | None) -> bool:
    """Whether x is like dy, with these numbers of its channels, and not what a hook made of it."""
    channels, dtype = dy.shape[1:2], dy.dtype
    if x.shape != dy.shape or x.dtype is not dtype or not (is_eager(x) and x.is_cpu):
        return False
    for each in numbers:
        if each is not None and (
            each.shape != channels or each.dtype is not dtype or not each.is_cpu
        ):
            return False
    return True


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, activation: int
    ) -> Three:
        y, mean, variance = normalized(x, gamma, beta, epsilon, activation)
        needed = None if activation == NO_ACTIVATION else beta
        ctx.save_for_backward(x, gamma, needed, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        ctx.rest = epsilon, activation
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 5
        # What is differentiated, or mapped by vmap, is made of PyTorch's own operations.
        x, gamma, beta, mean, variance = ctx.saved_tensors
        if once(dy) and are_alike(dy, x, gamma, beta, mean, variance):
            found = _normalize_gradients(x, gamma, beta, mean, variance, dy, *ctx.rest)
        else:
            rest = dy, 1, *ctx.rest
            found = batch_norm.composed_gradients(x, gamma, beta, mean, variance, *rest)
        return *found, None, None


_apply_normalize = apply_of(_Normalize)
