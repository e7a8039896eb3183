"""sepconv's NumPy functions, as a peer: in the case's dtype, and in float32 beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import sepconv
from sepconv.arrays import empty
from sepconv.bench.cases import Arrays, typed
from sepconv.bench.peers import Build, BuiltCase, Peer
from sepconv.bench.workloads import Case

__all__ = ["Ours", "OursFloat32"]


class Ours(Peer):
    """sepconv itself; outputs of the forward pass are written to the same array every time."""

    title = "sepconv"
    modules = ()
    distribution = "sepconv"
    install = "sepconv"

    def __init__(self, threads: int) -> None:
        sepconv.set_num_threads(threads)

    def builds(self, case: Case, inputs: Arrays, thorough: bool) -> dict[str, Build]:
        """The functions as they are, and for inference with weights prepared, as engines do."""
        inputs = typed(case, inputs)
        build = self._pointwise if case.operation == "pointwise" else self._convolution
        found = {"NumPy functions": lambda: build(case, inputs)}
        if not case.training:
            found["prepared weights"] = lambda: self._prepared(case, inputs)
        return found

    def _prepared(self, case: Case, inputs: Arrays) -> BuiltCase:
        w = case.workload
        arguments: dict[str, Any] = {"bias": inputs.get("bias")}
        if case.operation != "pointwise":
            arguments |= {
                "depthwise_kernel": inputs["depthwise_kernel"],
                "strides": w.strides,
                "padding": w.padding,
                "dilation_rate": w.dilation,
            }
        if case.operation != "depthwise":
            arguments["pointwise_kernel"] = inputs["pointwise_kernel"][None, None]
        activation = "relu6" if case.epilogue else None
        convolve = sepconv.prepare_conv2d(activation=activation, **arguments)
        x = inputs["x"]
        y = empty((*x.shape[:1], *w.output_size, case.output_channels), x.dtype, x)
        return BuiltCase(lambda: convolve(x, out=y), lambda _: {"y": y})

    def _pointwise(self, case: Case, inputs: Arrays) -> BuiltCase:
        x, kernel = inputs["x"], inputs["pointwise_kernel"][None, None]
        y = empty((*x.shape[:3], kernel.shape[3]), x.dtype, x)

        def run() -> Arrays:
            outputs = {"y": sepconv.pointwise_conv2d(x, kernel, out=y)}
            if case.training:
                grads = sepconv.pointwise_conv2d_grad(x, kernel, inputs["dy"])
                outputs |= {"dx": grads.x, "dpointwise_kernel": grads.pointwise_kernel[0, 0]}
            return outputs

        return BuiltCase(run, lambda outputs: outputs)

    def _convolution(self, case: Case, inputs: Arrays) -> BuiltCase:
        w = case.workload
        bias, dy, x = inputs.get("bias"), inputs.get("dy"), inputs["x"]
        arguments: dict[str, Any] = {
            "depthwise_kernel": inputs["depthwise_kernel"],
            "strides": w.strides,
            "padding": w.padding,
            "dilation_rate": w.dilation,
        }
        forward: Callable[..., np.ndarray]
        backward: Callable[..., Any]
        if case.operation == "separable":
            arguments["pointwise_kernel"] = inputs["pointwise_kernel"][None, None]
            forward, backward = sepconv.separable_conv2d, sepconv.separable_conv2d_grad
        else:
            forward, backward = sepconv.depthwise_conv2d, sepconv.depthwise_conv2d_grad
        activation = "relu6" if case.epilogue else None
        y = empty((case.batch, *w.output_size, case.output_channels), x.dtype, x)

        def run() -> Any:
            forward(x, bias=bias, activation=activation, out=y, **arguments)
            if dy is None:  # inference
                return None
            gradient = dy
            if case.epilogue:
                gradient = np.where((y > 0) & (y < 6), dy, dy.dtype.type(0))
            return backward(x, dy=gradient, **arguments)

        def outputs(grads: Any) -> Arrays:
            found = {"y": y}
            if case.training:
                found |= {"dx": grads.x, "ddepthwise_kernel": grads.depthwise_kernel}
                if case.operation == "separable":
                    found["dpointwise_kernel"] = grads.pointwise_kernel[0, 0]
                if case.epilogue:
                    found["dbias"] = grads.bias
            return found

        return BuiltCase(run, outputs)


class OursFloat32(Ours):
    """sepconv on the same numbers in float32, to tell what another dtype gains."""

    title = "sepconv in float32"
    dtypes = ("float32",)
