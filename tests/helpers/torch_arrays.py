"""NumPy's arrays as PyTorch's tensors and back; neither takes the other's bfloat16."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = ["array_of", "tensor_of"]


def tensor_of(array: np.ndarray) -> Any:
    """An array as a tensor of the same memory."""
    if array.dtype.name == "bfloat16":
        return torch.as_tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.as_tensor(array)


def array_of(tensor: Any) -> np.ndarray:
    """A tensor's values, without its gradient."""
    if tensor.dtype == torch.bfloat16:
        return tensor.detach().view(torch.int16).numpy().view("bfloat16")
    return tensor.detach().numpy()
