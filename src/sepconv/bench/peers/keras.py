"""Keras' own layers, on each of its engines; KERAS_BACKEND chooses one for the whole process."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from sepconv.bench.cases import Arrays, typed
from sepconv.bench.peers import Build, BuiltCase, Peer
from sepconv.bench.peers.jax import Jax
from sepconv.bench.peers.tensorflow import TensorFlow
from sepconv.bench.peers.torch import Torch, as_numpy
from sepconv.bench.workloads import Case

__all__ = ["KerasJax", "KerasTensorFlow", "KerasTorch"]


def _layer(case: Case, inputs: Arrays, data_format: str = "channels_last") -> Any:
    """The layer with the case's weights, in the order of `_NAMES`."""
    from keras import layers

    w = case.workload
    options = {
        "strides": w.strides,
        "padding": w.padding,
        "dilation_rate": w.dilation,
        "depth_multiplier": w.depth_multiplier,
        "use_bias": case.epilogue,
        "activation": "relu6" if case.epilogue else None,
        "data_format": data_format,
        "dtype": case.dtype,
    }
    if case.operation == "separable":
        layer = layers.SeparableConv2D(w.filters, w.kernel, **options)
    else:
        layer = layers.DepthwiseConv2D(w.kernel, **options)
    n, h, width, c = inputs["x"].shape
    layer.build((n, c, h, width) if data_format == "channels_first" else (n, h, width, c))
    weights = [inputs[name] for name in _names(inputs)]
    layer.set_weights([array.reshape(v.shape) for array, v in zip(weights, layer.variables)])  # noqa: B905
    return layer


def _names(inputs: Arrays) -> list[str]:
    """The case's weights, in the order of the layer's variables."""
    return [n for n in ("depthwise_kernel", "pointwise_kernel", "bias") if n in inputs]


def _outputs(case: Case, inputs: Arrays, y: np.ndarray, grads: list[np.ndarray]) -> Arrays:
    """By name, where gradients are those of x and of the layer's variables."""
    found = {"y": y}
    for name, grad in zip(["x", *_names(inputs)], grads, strict=True) if grads else ():
        found[f"d{name}"] = grad.reshape(inputs[name].shape)
    return found


class _Keras(Peer):
    """The base of the three peers."""

    distribution = "keras"

    @classmethod
    def supports(cls, case: Case) -> bool:
        """Keras has no layer for the 1x1 convolution alone that is worth another row."""
        return case.operation != "pointwise"


class KerasJax(_Keras):
    """Stock Keras on JAX: the layer's stateless call under jit."""

    title = "Keras on JAX"
    modules = ("keras", "jax")
    install = "keras jax"
    environment = Jax.environment | {"KERAS_BACKEND": "jax"}

    def __init__(self, threads: int) -> None:
        Jax(threads)

    def builds(self, case: Case, inputs: Arrays, thorough: bool) -> dict[str, Build]:
        """One way: under jit."""
        return {"jit": lambda: self._prepare(case, inputs)}

    def _prepare(self, case: Case, inputs: Arrays) -> BuiltCase:
        import jax

        jax.config.update("jax_enable_x64", case.dtype == "float64")
        layer = _layer(case, inputs)
        weights = [v.value for v in layer.trainable_variables]
        arrays = typed(case, inputs)
        x = jax.device_put(arrays["x"])
        dy = jax.device_put(arrays["dy"]) if case.training else None

        def compute(x: Any, weights: list[Any]) -> Any:
            return layer.stateless_call(weights, [], x)[0]

        @jax.jit
        def step(x: Any, weights: list[Any], dy: Any) -> Any:
            if dy is None:
                return compute(x, weights), []
            y, pull = jax.vjp(compute, x, weights)
            dx, dweights = pull(dy)
            return y, [dx, *dweights]

        def outputs(result: Any) -> Arrays:
            return _outputs(
                case, inputs, np.asarray(result[0]), [np.asarray(grad) for grad in result[1]]
            )

        return BuiltCase(lambda: jax.block_until_ready(step(x, weights, dy)), outputs)


class KerasTensorFlow(_Keras):
    """Stock Keras on TensorFlow: the layer in a tf.function."""

    title = "Keras on TensorFlow"
    modules = ("keras", "tensorflow")
    install = "keras tensorflow-cpu"
    environment = {"KERAS_BACKEND": "tensorflow"}  # noqa: RUF012 - see Peer

    def __init__(self, threads: int) -> None:
        TensorFlow(threads)

    def builds(self, case: Case, inputs: Arrays, thorough: bool) -> dict[str, Build]:
        """With TensorFlow's own kernels, and with XLA."""
        return {
            "tf.function": lambda: self._prepare(case, inputs, False),
            "tf.function with XLA": lambda: self._prepare(case, inputs, True),
        }

    def _prepare(self, case: Case, inputs: Arrays, xla: bool) -> BuiltCase:
        import tensorflow as tf

        layer = _layer(case, inputs)
        x = tf.constant(inputs["x"], case.dtype)
        dy = tf.constant(inputs["dy"], case.dtype) if case.training else None
        weights = [v.value for v in layer.trainable_variables]

        @tf.function(jit_compile=xla)
        def step(x: Any, dy: Any) -> Any:
            if dy is None:
                return layer(x), []
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x)
            return y, tape.gradient(y, [x, *weights], output_gradients=dy)

        def outputs(result: Any) -> Arrays:
            return _outputs(case, inputs, result[0].numpy(), [grad.numpy() for grad in result[1]])

        return BuiltCase(lambda: step(x, dy), outputs)


class KerasTorch(_Keras):
    """Stock Keras on PyTorch: the layer called as it is, in both data formats."""

    title = "Keras on PyTorch"
    modules = ("keras", "torch")
    install = "keras torch"
    environment = {"KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": ""}  # noqa: RUF012 - see Peer

    def __init__(self, threads: int) -> None:
        Torch(threads)

    def builds(self, case: Case, inputs: Arrays, thorough: bool) -> dict[str, Build]:
        """In both data formats."""
        return {
            data_format: partial(self._prepare, case, inputs, data_format)
            for data_format in ("channels_last", "channels_first")
        }

    def _prepare(self, case: Case, inputs: Arrays, data_format: str) -> BuiltCase:
        import torch

        first = data_format == "channels_first"
        layer = _layer(case, inputs, data_format)

        def tensor(array: np.ndarray) -> Any:
            found = torch.from_numpy(array).to(getattr(torch, case.dtype))
            return found.permute(0, 3, 1, 2).contiguous() if first else found

        def numpy(found: Any) -> np.ndarray:
            array = as_numpy(found)
            return array.transpose(0, 2, 3, 1) if first else array

        x = tensor(inputs["x"])
        dy = tensor(inputs["dy"]) if case.training else None
        wanted = [x.requires_grad_(case.training), *(v.value for v in layer.trainable_variables)]

        def run() -> Any:
            if dy is None:
                with torch.no_grad():
                    return layer(x), []
            y = layer(x)
            return y, torch.autograd.grad(y, wanted, dy)

        def outputs(result: Any) -> Arrays:
            y, grads = result
            images = [numpy(grad) for grad in grads[:1]]
            rest = [as_numpy(grad) for grad in grads[1:]]
            return _outputs(case, inputs, numpy(y), images + rest)

        return BuiltCase(run, outputs)
