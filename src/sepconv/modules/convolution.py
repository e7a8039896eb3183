"""`torch.nn.Conv1d` and `Conv2d` that compute with our kernels where these serve them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sepconv.modules import joint
from sepconv.modules.batch_norm import BatchNorm2d
from sepconv.modules.convolving import SEQUENCES, Geometry, convolve_image, geometry
from sepconv.modules.pairing import following

__all__ = ["Conv1d", "Conv2d", "geometry_of"]


def geometry_of(conv: nn.Conv1d | nn.Conv2d) -> Geometry | None:
    """A convolution's stride, pads and dilation, of images; None where PyTorch may raise.

    They are made of the attributes each time, as PyTorch's own `forward` does, since these may be
    set after the module was made. A 1-D convolution is one of images of one row.

    Example:
        >>> conv = nn.Conv2d(4, 4, 3, padding=1)
        >>> conv.padding = conv.dilation = (2, 2)
        >>> geometry_of(conv)
        ((1, 1), ((2, 2), (2, 2)), (2, 2))
    """
    return _geometry(conv, conv.weight)


def _geometry(conv: nn.Conv1d | nn.Conv2d, weight: Tensor) -> Geometry | None:
    stride, padding, dilation, kernel = conv.stride, conv.padding, conv.dilation, weight.shape[2:]
    if len(kernel) == 2:
        return geometry(stride, padding, dilation, kernel)
    along = padding if isinstance(padding, str) else _in_a_row(padding, 0)
    return geometry(_in_a_row(stride, 1), along, _in_a_row(dilation, 1), (1, *kernel))


def _in_a_row(value: Any, down: int) -> Any:
    """A number of the one axis of a sequence as two, of an image of one row."""
    (right,) = value if isinstance(value, SEQUENCES) and len(value) == 1 else (value,)
    return down, right


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
            found = _geometry(self, weight)
            if found is not None:
                norm = None
                if self.training and bias is None and joint.may_pay(input, weight, found[0]):
                    norm = following(self)
                    if type(norm) is not BatchNorm2d or not norm.training:
                        norm = None
                y = convolve_image(input, weight, bias, *found, self.groups, norm)
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
            weight, found = self.weight, geometry_of(self)
            y = None
            if found is not None:
                image, kernel = input[:, :, None], weight[:, :, None]
                y = convolve_image(image, kernel, self.bias, *found, self.groups)
            if y is not None:
                return y[:, :, 0]
        return super().forward(input)


def _public(*classes: Any) -> None:
    """Lets files name the classes by the public module, wherever they are defined."""
    for each in classes:
        each.__module__ = "sepconv.modules"


_public(Conv1d, Conv2d)
