"""`torch.nn.BatchNorm2d` that trains with our kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sepconv.engines import thresholds
from sepconv.engines.torch.batch_norm import batch_norm
from sepconv.fused import BLOCK_ACTIVATIONS
from sepconv.modules import eager, joint
from sepconv.modules.activation import code_of, mark
from sepconv.modules.convolving import on_cpu
from sepconv.modules.pairing import following

__all__ = ["BatchNorm2d"]

_COMPUTED_DTYPES = (torch.float32, torch.float64)
_NONE = BLOCK_ACTIVATIONS[None]


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, whose training is computed by our kernels.

    Arguments, parameters, buffers, names and files are those of `torch.nn.BatchNorm2d`. PyTorch
    computes what our kernels do not: inference, other devices than the CPU, inputs of another dtype
    than the parameters, and layers without parameters or with a cumulative average. It also trains
    on the sizes that it computes faster: small images, and many channels that lie last in memory.

    Where an activation of ours surely follows, as after `sepconv.accelerate`, both are one pass
    over memory, and so are their gradients.

    Example:
        >>> import torch
        >>> norm = BatchNorm2d(3)
        >>> y = norm(torch.rand(4, 3, 128, 128))
        >>> round(float(y.std(correction=0)), 2)
        1.0
    """

    def forward(self, input: Tensor) -> Tensor:
        """The normalized `input`."""
        if not (self.training and isinstance(input, Tensor)):
            return super().forward(input)
        # From the dictionaries, since an attribute of a module takes as long as an operation.
        weight, bias = self._parameters.get("weight"), self._parameters.get("bias")
        buffers, momentum = self._buffers, self.momentum
        running_mean = running_var = None
        if self.track_running_stats:  # which may be set after the module was made
            running_mean, running_var = buffers.get("running_mean"), buffers.get("running_var")
        if weight is None or bias is None or momentum is None:
            return super().forward(input)
        if not _is_served(input, weight, bias, running_mean, running_var):
            return super().forward(input)
        eagerly = eager.is_eager(input, weight, bias)
        offered = joint.take(input, self) if eagerly else None
        after = following(self) if eagerly and _may_pay(input) else None
        activation = code_of(after)
        if not _pays(input, activation):
            return super().forward(input)
        if eagerly:
            code = _NONE if activation is None else activation
            rest = weight, bias, self.eps, code
            if offered is None:
                y, mean, variance = eager.normalize(input, *rest)
            else:
                y, mean, variance = joint.normalize(offered, input, *rest)
            if after is not None and activation is not None:
                mark(y, after)
        else:
            y, mean, variance = batch_norm(input, weight, bias, axis=1, epsilon=self.eps)
        if running_mean is not None and running_var is not None:
            count = input.numel() // weight.shape[0]
            # Neither the mean nor the variance has a gradient.
            running_mean.lerp_(mean, momentum)
            # PyTorch keeps the variance of a sample.
            unbiased = momentum * count / (count - 1)
            running_var.mul_(1 - momentum).add_(variance, alpha=unbiased)
        if self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return y


def _is_served(x: Tensor, weight: Tensor, bias: Tensor, *running: Tensor | None) -> bool:
    """Whether our kernels can train a layer: of four axes, and all tensors alike."""
    if not on_cpu(x, weight, bias, *running):
        return False
    shape, dtype = x.shape, x.dtype
    return (
        len(shape) == 4
        and shape[1] == weight.shape[0]
        and dtype in _COMPUTED_DTYPES
        and weight.dtype == bias.dtype == dtype
        and all(tensor is None or tensor.dtype == dtype for tensor in running)
        and x.numel() > shape[1]  # else PyTorch raises
    )


def _may_pay(x: Tensor) -> bool:
    """Whether our kernels are faster than PyTorch's if an activation follows."""
    return x.numel() >= thresholds.LEAST_ACTIVATED


def _pays(x: Tensor, activation: int | None) -> bool:
    """Whether our kernels are faster than PyTorch's on images, with the activation after them."""
    if activation is not None:
        return True
    if x.numel() < thresholds.LEAST_NORMALIZED:
        return False
    return x.stride(1) != 1 or x.shape[1] <= thresholds.MOST_NORMALIZED


BatchNorm2d.__module__ = "sepconv.modules"  # which files name
