"""`torch.nn.BatchNorm2d` that trains with our kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sepconv.engines.torch.batch_norm import batch_norm
from sepconv.modules import eager
from sepconv.modules.convolving import on_cpu

__all__ = ["BatchNorm2d"]

_COMPUTED_DTYPES = (torch.float32, torch.float64)


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, whose training is computed by our kernels.

    Arguments, parameters, buffers, names and files are those of `torch.nn.BatchNorm2d`. PyTorch
    computes what our kernels do not: inference, other devices than the CPU, inputs of another dtype
    than the parameters, and layers without parameters or with a cumulative average.

    Example:
        >>> import torch
        >>> import torch
        >>> norm = BatchNorm2d(3)
        >>> y = norm(torch.rand(4, 3, 5, 5))
        >>> round(float(y.std(correction=0)), 2)
        1.0
    """

    def forward(self, input: Tensor) -> Tensor:
        """The normalized `input`."""
        if not (self.training and isinstance(input, Tensor)):
            return super().forward(input)
        weight, bias, momentum = self.weight, self.bias, self.momentum
        running_mean, running_var = self.running_mean, self.running_var
        if momentum is None or not _is_served(input, weight, bias, running_mean, running_var):
            return super().forward(input)
        y, mean, variance = _normalize(input, weight, bias, self.eps)
        if running_mean is not None and running_var is not None:
            count = input.numel() // weight.shape[0]
            with torch.no_grad():
                running_mean.lerp_(mean, momentum)
                # PyTorch keeps the variance of a sample.
                unbiased = momentum * count / (count - 1)
                running_var.mul_(1 - momentum).add_(variance, alpha=unbiased)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        return y


def _is_served(x: Tensor, weight: Tensor | None, bias: Tensor | None, *running: Any) -> bool:
    """Whether our kernels train a layer: with parameters, and all tensors alike."""
    if weight is None or bias is None or not on_cpu(x, weight, bias, *running):
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


def _normalize(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The result in the memory format of x, and the mean and variance of each channel.

    Example:
        >>> x = torch.arange(8.0).view(2, 1, 2, 2)
        >>> _, mean, variance = _normalize(x, torch.ones(1), torch.zeros(1), 1e-5)
        >>> float(mean), float(variance)
        (3.5, 5.25)
    """
    if eager.is_eager(x, gamma, beta):
        return eager.normalize(x, gamma, beta, epsilon)
    return batch_norm(x, gamma, beta, axis=1, epsilon=epsilon)


BatchNorm2d.__module__ = "sepconv.modules"  # which files name
