"""`torch.nn.Conv1d` and `Conv2d` that compute with our kernels where these serve them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sepconv.modules.convolving import Pads, convolve_image

__all__ = ["Conv1d", "Conv2d", "pads_of"]


def pads_of(conv: nn.Conv1d | nn.Conv2d) -> Pads:
    """The zeros around an image, for which a 1-D convolution has one row.

    Example:
        >>> pads_of(nn.Conv2d(4, 4, (3, 4), padding="same"))
        ((1, 1), (1, 2))
    """
    # PyTorch keeps them from the last axis to the first.
    left, right, *rows = conv._reversed_padding_repeated_twice
    return (tuple(rows) if rows else (0, 0), (left, right))  # type: ignore[return-value]


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, whose depthwise and 1x1 convolutions are computed by our kernels.

    Arguments, parameters, names and files are those of `torch.nn.Conv2d`. PyTorch computes what our
    kernels do not: other convolutions, other devices than the CPU, `padding_mode` other than
    ``"zeros"``, inputs of three axes, and 1x1 convolutions in half types.

    Example:
        >>> import torch
        >>> conv = Conv2d(8, 8, 3, padding=1, groups=8)
        >>> conv(torch.ones(1, 8, 5, 5)).shape
        torch.Size([1, 8, 5, 5])
    """

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of `input`."""
        if isinstance(input, Tensor) and self.padding_mode == "zeros":
            # From the dictionary, since an attribute of a module takes as long as an operation.
            own: dict[str, Any] = self._parameters
            weight, bias = own.get("weight"), own.get("bias")
            if weight is None or "bias" not in own:  # computed from others, as by weight norm
                weight, bias = self.weight, self.bias
            y = convolve_image(
                input,
                weight,
                bias,
                self.stride,  # type: ignore[arg-type]
                pads_of(self),
                self.dilation,  # type: ignore[arg-type]
                self.groups,
            )
            if y is not None:
                return y
        return super().forward(input)


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d`, whose depthwise and 1x1 convolutions are computed by our kernels.

    Else as `Conv2d`.

    Example:
        >>> import torch
        >>> conv = Conv1d(8, 8, 3, padding=1, groups=8)
        >>> conv(torch.ones(1, 8, 5)).shape
        torch.Size([1, 8, 5])
    """

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of `input`."""
        if isinstance(input, Tensor) and input.dim() == 3 and self.padding_mode == "zeros":
            y = convolve_image(
                input[:, :, None],
                self.weight[:, :, None],
                self.bias,
                (1, *self.stride),  # type: ignore[arg-type]
                pads_of(self),
                (1, *self.dilation),  # type: ignore[arg-type]
                self.groups,
            )
            if y is not None:
                return y[:, :, 0]
        return super().forward(input)


def _public(*classes: Any) -> None:
    """Lets files name the classes by the public module, wherever they are defined."""
    for each in classes:
        each.__module__ = "sepconv.modules"


_public(Conv1d, Conv2d)
