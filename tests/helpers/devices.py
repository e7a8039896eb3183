"""Where `tests/gpu` computes: an engine's first GPU, or its CPU to try the tests themselves.

``SEPCONV_GPU_TESTS=cpu`` asks for the CPU. float32 is float32 here: what GPUs do faster and less
exactly by themselves (TF32) is off.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["ENGINES", "Device"]

ON_CPU = os.environ.get("SEPCONV_GPU_TESTS", "") == "cpu"
Arrays = list[Any]


class Device:
    """An engine's device.

    Attributes:
        engine: as Keras names it.
        missing: why there is nothing to test on, or None.
        keras: the name for ``keras.device``.
    """

    engine: str
    missing: str | None = None
    keras = "cpu" if ON_CPU else "gpu"

    def put(self, array: np.ndarray, cpu: bool = False) -> Any:
        """An array of the engine's on this device, or on the CPU beside it."""
        raise NotImplementedError

    def holds(self, array: Any) -> bool:
        """Whether it is on this device."""
        raise NotImplementedError

    def numpy(self, array: Any) -> np.ndarray:
        """A copy as NumPy's, on the CPU."""
        raise NotImplementedError

    def gradients(self, function: Callable[..., Any], arrays: Arrays, dy: Any) -> Arrays:
        """Those of sum(function(*arrays) * dy)."""
        raise NotImplementedError


class Torch(Device):
    """PyTorch, on CUDA's or ROCm's device."""

    engine = "torch"

    def __init__(self) -> None:
        import torch

        self.device = torch.device("cpu" if ON_CPU else "cuda")
        if not ON_CPU and not torch.cuda.is_available():
            self.missing = f"PyTorch {torch.__version__} sees no GPU"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def put(self, array: np.ndarray, cpu: bool = False) -> Any:
        import torch

        return torch.tensor(array, device="cpu" if cpu else self.device)

    def holds(self, array: Any) -> bool:
        return array.device.type == self.device.type

    def numpy(self, array: Any) -> np.ndarray:
        return array.detach().cpu().numpy()

    def gradients(self, function: Callable[..., Any], arrays: Arrays, dy: Any) -> Arrays:
        import torch

        leaves = [a.detach().requires_grad_() for a in arrays]
        return list(torch.autograd.grad(function(*leaves), leaves, dy))


class Jax(Device):
    """JAX, under `jit`."""

    engine = "jax"

    def __init__(self) -> None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        import jax

        self.cpu = jax.devices("cpu")[0]
        try:
            self.device = jax.devices("cpu" if ON_CPU else "gpu")[0]
        except RuntimeError:
            self.missing = f"JAX {jax.__version__} sees no GPU"
        jax.config.update("jax_default_matmul_precision", "highest")

    def put(self, array: np.ndarray, cpu: bool = False) -> Any:
        import jax

        return jax.device_put(array, self.cpu if cpu else self.device)

    def holds(self, array: Any) -> bool:
        return array.devices() == {self.device}

    def numpy(self, array: Any) -> np.ndarray:
        return np.asarray(array)

    def gradients(self, function: Callable[..., Any], arrays: Arrays, dy: Any) -> Arrays:
        import jax

        return list(jax.jit(lambda arrays, dy: jax.vjp(function, *arrays)[1](dy))(arrays, dy))


class TensorFlow(Device):
    """TensorFlow, whose builds for the CPU alone see no GPU."""

    engine = "tensorflow"

    def __init__(self) -> None:
        import tensorflow as tf

        self.device = "CPU" if ON_CPU else "GPU"
        if not tf.config.list_physical_devices(self.device):
            self.missing = f"TensorFlow {tf.__version__} sees no GPU"
        tf.config.experimental.enable_tensor_float_32_execution(False)

    def put(self, array: np.ndarray, cpu: bool = False) -> Any:
        import tensorflow as tf

        with tf.device("/CPU:0" if cpu else f"/{self.device}:0"):
            return tf.identity(tf.constant(array))

    def holds(self, array: Any) -> bool:
        return f"device:{self.device}:" in array.device

    def numpy(self, array: Any) -> np.ndarray:
        return array.numpy()

    def gradients(self, function: Callable[..., Any], arrays: Arrays, dy: Any) -> Arrays:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(arrays)
            y = function(*arrays)
        return tape.gradient(y, arrays, dy)


ENGINES: dict[str, type[Device]] = {d.engine: d for d in (Jax, Torch, TensorFlow)}


def float64(engine: str) -> contextlib.AbstractContextManager[Any]:
    """In which float64 is what it says, which JAX must be asked for."""
    if engine != "jax":
        return contextlib.nullcontext()
    from helpers.jax_versions import x64

    return x64()
