"""`torch.nn.BatchNorm2d` that trains with our kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sepconv.engines.torch.batch_norm import batch_norm
from sepconv.modules.convolving import channels_first, on_cpu

__all__ = ["BatchNorm2d"]

_COMPUTED_DTYPES = (torch.float32, torch.float64)


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, whose training is computed by our kernels.

    Arguments, parameters, buffers, names and files are those of `torch.nn.BatchNorm2d`. PyTorch
    computes what our kernels do not: inference, other devices than the CPU, inputs of another dtype
    than the parameters, and layers without parameters or with a cumulative average.

    Example:
        >>> norm = BatchNorm2d(3)
        >>> y = norm(torch.rand(4, 3, 5, 5))
        >>> round(float(y.std(correction=0)), 2)
        1.0
    """

    def forward(self, input: Tensor) -> Tensor:
        """The normalized `input`."""
        if not (self.training and isinstance(input, Tensor) and self._is_served(input)):
            return super().forward(input)
        if self.running_mean is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        y, mean, variance = _normalize(input, self.weight, self.bias, self.eps)
        if self.running_mean is not None and self.running_var is not None:
            share = self.momentum
            count = input.numel() // input.shape[1]
            assert share is not None  # or it would not be served
            with torch.no_grad():
                self.running_mean.mul_(1 - share).add_(mean, alpha=share)
                self.running_var.mul_(1 - share).add_(variance * (count / (count - 1)), alpha=share)
        return y

    def _is_served(self, x: Tensor) -> bool:
        tensors = (self.weight, self.bias, self.running_mean, self.running_var)
        return (
            x.dim() == 4
            and x.dtype in _COMPUTED_DTYPES
            and x.shape[1] == self.num_features
            and self.affine
            and self.momentum is not None
            and on_cpu(x, *tensors)
            and all(tensor is None or tensor.dtype == x.dtype for tensor in tensors)
            and x.numel() > x.shape[1]  # else PyTorch raises
        )


def _normalize(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The result in the memory format of x, and the mean and variance of each channel."""
    nhwc = x.permute(0, 2, 3, 1)
    if x.is_contiguous() or not nhwc.is_contiguous():
        return batch_norm(x, gamma, beta, axis=1, epsilon=epsilon)
    y, mean, variance = batch_norm(nhwc, gamma, beta, axis=3, epsilon=epsilon)
    return channels_first(y), mean, variance


BatchNorm2d.__module__ = "sepconv.modules"  # which files name
