"""The engines for `hostile`, each made by a function that imports it."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from helpers.configurations import configurations
from helpers.hostile import Engine

#: That arrays are of but compute in float32.
HALF = ("float16", "bfloat16") if importlib.util.find_spec("ml_dtypes") else ("float16",)
if "bfloat16" in HALF:
    importlib.import_module("ml_dtypes")  # so that NumPy knows the name


def numpy_engine() -> Engine:
    """Sepconv's own functions."""
    import sepconv

    def gradients(kind: str, arrays: Any, dy: Any, options: Any) -> Any:
        kernels = [a for name, a in arrays.items() if name != "bias"]
        return getattr(sepconv, f"{kind}_conv2d_grad")(*kernels, dy, **options)

    def forward(kind: str, arrays: Any, options: Any) -> Any:
        return getattr(sepconv, f"{kind}_conv2d")(*arrays.values(), **options)

    # MemoryError: the result of a padding of 2**40 fits no machine.
    errors = (ValueError, TypeError, MemoryError)
    return Engine(forward, gradients, ("float32", "float64", *HALF), errors)


def jax_engine() -> Engine:
    """sepconv.jax, by jax.vjp."""
    import jax

    import sepconv.jax

    def native(array: np.ndarray) -> np.ndarray:
        # JAX itself takes no byte-swapped arrays.
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

    def convolve(kind: str, options: Any) -> Any:
        function = getattr(sepconv.jax, f"{kind}_conv2d")
        return lambda *arrays: function(*arrays, **options)

    def forward(kind: str, arrays: Any, options: Any) -> Any:
        return np.asarray(convolve(kind, options)(*map(native, arrays.values())))

    def gradients(kind: str, arrays: Any, dy: Any, options: Any) -> Any:
        values = [jax.numpy.asarray(native(a)) for a in arrays.values()]
        _, pull = jax.vjp(convolve(kind, options), *values)
        return [np.asarray(g) for g in pull(jax.numpy.asarray(dy.astype(values[0].dtype)))]

    errors = (ValueError, TypeError, jax.errors.JaxRuntimeError)  # where memory runs out
    return Engine(forward, gradients, ("float32", *HALF), errors)


def torch_engine() -> Engine:
    """sepconv.torch, by autograd."""
    import torch

    import sepconv.torch
    from helpers.torch_arrays import array_of, tensor_of

    def tensor(array: np.ndarray) -> Any:
        # PyTorch itself takes neither byte-swapped arrays nor negative strides.
        if not array.dtype.isnative or any(s < 0 for s in array.strides):
            array = array.astype(array.dtype.newbyteorder("="), order="C")
        return tensor_of(array)

    def forward(kind: str, arrays: Any, options: Any) -> Any:
        numeric = (a.dtype.kind in "fibc" or a.dtype.name == "bfloat16" for a in arrays.values())
        tensors = [tensor(a) if ok else a for a, ok in zip(arrays.values(), numeric, strict=True)]
        return array_of(getattr(sepconv.torch, f"{kind}_conv2d")(*tensors, **options))

    def gradients(kind: str, arrays: Any, dy: Any, options: Any) -> Any:
        tensors = [tensor(a).requires_grad_() for a in arrays.values()]
        y = getattr(sepconv.torch, f"{kind}_conv2d")(*tensors, **options)
        grads = torch.autograd.grad(y, tensors, tensor(dy), allow_unused=True)
        return [array_of(g) for g in grads if g is not None]

    # RuntimeError: PyTorch's own, for overlapping memory or dtypes without gradients.
    errors = (ValueError, TypeError, RuntimeError)
    return Engine(forward, gradients, ("float32", "float64", *HALF), errors)


def tensorflow_engine() -> Engine:
    """sepconv.tensorflow, by GradientTape."""
    import tensorflow as tf

    import sepconv.tensorflow

    def forward(kind: str, arrays: Any, options: Any) -> Any:
        tensors = [tf.convert_to_tensor(a) for a in arrays.values()]
        return getattr(sepconv.tensorflow, f"{kind}_conv2d")(*tensors, **options).numpy()

    def gradients(kind: str, arrays: Any, dy: Any, options: Any) -> Any:
        tensors = [tf.convert_to_tensor(a) for a in arrays.values()]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = getattr(sepconv.tensorflow, f"{kind}_conv2d")(*tensors, **options)
        grads = tape.gradient(y, tensors, output_gradients=tf.convert_to_tensor(dy))
        return [g.numpy() for g in grads if g is not None]

    refused = tf.errors.InvalidArgumentError, tf.errors.UnimplementedError
    errors = (ValueError, TypeError, *refused, tf.errors.ResourceExhaustedError)
    return Engine(forward, gradients, ("float32", "float64", *HALF), errors)


MAKERS = {
    "numpy": numpy_engine,
    "jax": jax_engine,
    "torch": torch_engine,
    "tensorflow": tensorflow_engine,
}


def check_same_bits(engine: Engine) -> None:
    """Values and gradients of an engine are NumPy's to the bit, at 1, 2, 3 and 8 threads."""
    import sepconv

    own = numpy_engine()
    before = sepconv.num_threads()
    try:
        for c in configurations(12, seed=77, dtypes=("float32",), largest=20):
            kind = "depthwise" if c.filters is None else "separable"
            arrays = c.arrays()
            sepconv.set_num_threads(1)
            expected = own.forward(kind, arrays, c.options)
            dy = c.gradient(expected.shape)
            others = own.gradients(kind, arrays, dy, c.options)
            for threads in (1, 2, 3, 8):
                sepconv.set_num_threads(threads)
                assert engine.forward(kind, arrays, c.options).tobytes() == expected.tobytes(), c
                grads = engine.gradients(kind, arrays, dy, c.options)
                for name, grad, other in zip(arrays, grads, others, strict=False):
                    assert grad.tobytes() == other.tobytes(), (name, threads, c)
    finally:
        sepconv.set_num_threads(before)
