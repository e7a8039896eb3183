"""TensorFlow: a tf.function, with XLA and without."""

from __future__ import annotations

from typing import Any

from sepconv.bench.cases import Arrays
from sepconv.bench.peers import Build, BuiltCase, Peer
from sepconv.bench.workloads import Case

__all__ = ["TensorFlow", "convolution"]


def convolution(case: Case) -> Any:
    """A function of a dict of tensors (`sepconv.bench.cases.Arrays`) that computes y."""
    import tensorflow as tf

    w = case.workload

    def compute(arrays: dict[str, Any]) -> Any:
        y = arrays["x"]
        if "depthwise_kernel" in arrays:
            y = tf.nn.depthwise_conv2d(
                y,
                arrays["depthwise_kernel"],
                strides=(1, *w.strides, 1),
                padding=w.padding.upper(),
                dilations=w.dilation,
            )
        if "pointwise_kernel" in arrays:
            y = tf.nn.conv2d(y, arrays["pointwise_kernel"][None, None], 1, "VALID")
        if "bias" in arrays:
            y = tf.nn.relu6(tf.nn.bias_add(y, arrays["bias"]))
        return y

    return compute


class TensorFlow(Peer):
    """TensorFlow on its own kernels and oneDNN's, or on XLA's."""

    title = "TensorFlow"
    modules = ("tensorflow",)
    distribution = "tensorflow-cpu"
    install = "tensorflow-cpu"

    def __init__(self, threads: int) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)

    @classmethod
    def version(cls) -> str:
        """The version of the installed distribution."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("tensorflow-cpu")
        except PackageNotFoundError:
            return version("tensorflow")

    def builds(self, case: Case, inputs: Arrays, thorough: bool) -> dict[str, Build]:
        """With TensorFlow's own kernels, and with XLA."""
        return {
            "tf.function": lambda: self._prepare(case, inputs, False),
            "tf.function with XLA": lambda: self._prepare(case, inputs, True),
        }

    def _prepare(self, case: Case, inputs: Arrays, xla: bool) -> BuiltCase:
        import tensorflow as tf

        compute = convolution(case)
        tensors = {name: tf.constant(array, case.dtype) for name, array in inputs.items()}
        dy = tensors.pop("dy", None)

        @tf.function(jit_compile=xla)
        def step(arrays: dict[str, Any], dy: Any) -> Any:
            if dy is None:
                return {"y": compute(arrays)}
            with tf.GradientTape() as tape:
                tape.watch(arrays)
                y = compute(arrays)
            grads = tape.gradient(y, arrays, output_gradients=dy)
            return {"y": y} | {f"d{name}": grad for name, grad in grads.items()}

        return BuiltCase(
            lambda: step(tensors, dy),
            lambda result: {name: tensor.numpy() for name, tensor in result.items()},
        )
