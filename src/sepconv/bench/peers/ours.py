"""sepconv's NumPy functions, as a peer: in the case's dtype, and in float32 beside it.

In int8 there is a program of the one layer in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import sepconv
from sepconv.arrays import empty
from sepconv.bench.cases import Arrays, typed
from sepconv.bench.peers import Build, BuiltCase, Peer
from sepconv.bench.workloads import Case
from sepconv.geometry import conv_spec
from sepconv.program.network import INT8_PRODUCTS, Input, Network, Step
from sepconv.program.program import Program

__all__ = ["Ours", "OursFloat32", "int8_network"]


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
        if case.dtype == "int8":
            return {"program": lambda: self._program(case, inputs)}
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

    def _program(self, case: Case, inputs: Arrays) -> BuiltCase:
        """A layer in int8, between a step that quantises its input and one that undoes that."""
        x = inputs["x"]
        program = Program(int8_network(case, inputs))
        y = empty((*x.shape[:1], *case.workload.output_size, case.output_channels), x.dtype, x)
        return BuiltCase(lambda: program(x, out=y), lambda _: {"y": y})

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


def int8_network(case: Case, inputs: Arrays) -> Network:
    """The layer of a case in int8, calibrated on its own input.

    Raises:
        ValueError: it stays float.
    """
    from sepconv.quantization.quantize import quantize_network

    network: Network = quantize_network(_network(case, inputs), inputs["x"]).network
    if not any(step.operation in INT8_PRODUCTS for step in network.steps):
        raise ValueError("the layer has no int8 form")
    return network


def _network(case: Case, inputs: Arrays) -> Network:
    """The layer of a case as a network of one step, in float32."""
    w = case.workload
    spec = conv_spec(w.strides, w.padding, w.dilation, "channels_last")
    weights: Arrays = {}
    if case.operation == "pointwise":
        spec = conv_spec(1, "valid", 1, "channels_last")
    else:
        weights["depthwise_kernel"] = inputs["depthwise_kernel"]
    if case.operation != "depthwise":
        weights["pointwise_kernel"] = inputs["pointwise_kernel"][None, None]
    if case.epilogue:
        weights["bias"] = inputs["bias"]
    attributes = {
        "spec": list(spec),
        "depthwise_activation": "none",
        "activation": "relu6" if case.epilogue else "none",
    }
    step = Step(
        "convolution", w.name, (0,), attributes, {part: i for i, part in enumerate(weights)}
    )
    entry = Input("x", (None, *inputs["x"].shape[1:]))
    return Network("float32", (entry,), (step,), (1,), ("y",), tuple(weights.values()))


class OursFloat32(Ours):
    """sepconv on the same numbers in float32, to tell what another dtype gains."""

    title = "sepconv in float32"
    dtypes = ("float32",)
