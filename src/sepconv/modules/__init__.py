"""PyTorch's modules that compute with sepconv, and functions on networks of them; without Keras.

`Conv1d`, `Conv2d`, `BatchNorm2d` and the activations are `torch.nn`'s in everything but the
computation.
`sepconv.accelerate` puts them into a network, and `sepconv.to_stock` takes them out again.
`ProgramModule` is a whole network as one native call, which `sepconv.optimize` makes of a module.

Example:
    >>> import torch
    >>> from sepconv import modules
    >>> conv = modules.Conv2d(8, 16, 1)
    >>> isinstance(conv, torch.nn.Conv2d)
    True
"""

from __future__ import annotations

from sepconv.modules.activation import Hardswish, ReLU, ReLU6, SiLU
from sepconv.modules.batch_norm import BatchNorm2d
from sepconv.modules.convolution import Conv1d, Conv2d
from sepconv.modules.program_module import ProgramModule
from sepconv.modules.separable import SeparableConv2d

__all__ = [
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "Hardswish",
    "ProgramModule",
    "ReLU",
    "ReLU6",
    "SeparableConv2d",
    "SiLU",
]
