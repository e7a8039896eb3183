"""Whether Keras computes on a CPU, where our kernels run."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["runs_on_cpu", "supports_jit"]


def runs_on_cpu(*arrays: Any) -> bool:
    """Whether tensors of Keras' current backend are on a CPU, as far as that is known.

    Example:
        >>> import keras
        >>> runs_on_cpu(keras.ops.ones((2, 3)))
        True
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        # The platform is not known while JAX traces; on one without our kernels, our primitives are
        # lowered to JAX's own operations.
        return all(
            isinstance(array, jax.core.Tracer) or all(d.platform == "cpu" for d in array.devices())
            for array in arrays
        )
    if backend == "torch":
        return all(array.device.type == "cpu" for array in arrays)
    if backend == "tensorflow":
        from sepconv.engines.tensorflow import calls, convolution

        # Keras does not convert variables to tensors.
        return calls.runs_on_cpu(convolution.as_array(arrays[0]))
    return True


def supports_jit() -> bool:
    """Whether XLA may compile functions that call our kernels.

    XLA cannot compile an operation that TensorFlow loaded from a library.
    """
    return keras.backend.backend() != "tensorflow"
