"""Whether what Keras is about to compute will run on a CPU, where our kernels do."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["runs_on_cpu", "supports_jit"]


def runs_on_cpu(*arrays: Any) -> bool:
    """Whether tensors of Keras' backend of the moment are for a CPU, as far as one can tell.

    Example:
        >>> import keras
        >>> runs_on_cpu(keras.ops.ones((2, 3)))
        True
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        # While JAX traces, nobody knows; our primitives become JAX's own on another platform.
        return all(
            isinstance(array, jax.core.Tracer) or all(d.platform == "cpu" for d in array.devices())
            for array in arrays
        )
    if backend == "torch":
        return all(array.device.type == "cpu" for array in arrays)
    if backend == "tensorflow":
        from sepconv.engines.tensorflow import calls, convolution

        # Keras leaves variables as they are.
        return calls.runs_on_cpu(convolution.as_array(arrays[0]))
    return True


def supports_jit() -> bool:
    """Whether Keras may compile what calls our kernels.

    XLA cannot compile an operation that TensorFlow loaded from a library.
    """
    return keras.backend.backend() != "tensorflow"
