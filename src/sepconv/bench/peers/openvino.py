"""OpenVINO's CPU plugin, forward, for the lowest latency.

In a half type it gets the float32 network and the hint to compute in that type, and arrays in
either. Where the processor cannot, it computes in float32 all the same.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from sepconv.arrays import empty
from sepconv.bench.cases import Arrays, typed
from sepconv.bench.peers import Build, BuiltCase, Peer
from sepconv.bench.peers.onnx_model import channels_first, channels_last, model
from sepconv.bench.workloads import Case

__all__ = ["OpenVino"]


class OpenVino(Peer):
    """OpenVINO, in the case's dtype as all others (by itself it might choose bfloat16)."""

    title = "OpenVINO"
    modules = ("openvino", "onnx")
    distribution = "openvino"
    install = "openvino onnx"
    dtypes = ("float32", "bfloat16", "float16")

    def __init__(self, threads: int) -> None:
        import openvino

        self.core = openvino.Core()
        self.settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}

    @classmethod
    def supports(cls, case: Case) -> bool:
        """Inference alone."""
        return not case.training

    def builds(self, case: Case, inputs: Arrays, thorough: bool) -> dict[str, Build]:
        """In both layouts of the input and output; the 1x1 alone also as a matrix product.

        In the half types each with arrays of that type and of float32.
        """
        ways = ["NHWC", "NCHW"] + ["matrix product"] * (case.operation == "pointwise")
        found: dict[str, Build] = {way: partial(self._prepare, case, inputs, way) for way in ways}
        if case.dtype == "float32":
            return found
        half = typed(case, inputs)
        for way in ways:
            found[f"{way}, {case.dtype} arrays"] = partial(self._prepare, case, half, way)
        return found

    def _network(self, case: Case, inputs: Arrays, way: str) -> Any:
        """The network, whose weights are float32, between arrays of the inputs' type."""
        import openvino
        from openvino.preprocess import PrePostProcessor

        wide = {name: array.astype(np.float32) for name, array in inputs.items()}
        network = self.core.read_model(model(case, wide, way == "matrix product"))
        process = PrePostProcessor(network)
        for end in (process.input(), process.output()):
            end.tensor().set_element_type(_element(inputs["x"]))
            if way == "NHWC":
                end.tensor().set_layout(openvino.Layout("NHWC"))
                end.model().set_layout(openvino.Layout("NCHW"))
        return process.build()

    def _prepare(self, case: Case, inputs: Arrays, way: str) -> BuiltCase:
        hint = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[case.dtype]
        settings = self.settings | {"INFERENCE_PRECISION_HINT": hint}
        compiled = self.core.compile_model(self._network(case, inputs, way), "CPU", settings)
        x = channels_first(inputs["x"]) if way == "NCHW" else inputs["x"]
        y = empty(tuple(compiled.output(0).shape), x.dtype, x)
        request = compiled.create_infer_request()
        tensors = [_shared(array) for array in (x, y)]
        request.set_input_tensor(tensors[0])
        request.set_output_tensor(tensors[1])

        def run(keep: tuple[np.ndarray, ...] = (x, y)) -> None:  # a tensor does not hold its array
            request.start_async()
            request.wait()

        return BuiltCase(run, lambda _: {"y": channels_last(y) if way == "NCHW" else y})


def _element(array: np.ndarray) -> Any:
    """OpenVINO's type of an array's elements."""
    import openvino

    return getattr(
        openvino.Type, {"float32": "f32", "bfloat16": "bf16"}.get(array.dtype.name, "f16")
    )


def _shared(array: np.ndarray) -> Any:
    """A tensor in an array's memory; of bfloat16, which NumPy has not, from its bits."""
    import openvino

    if array.dtype.name != "bfloat16":
        return openvino.Tensor(array, shared_memory=True)
    return openvino.Tensor(array.view(np.uint16), openvino.Shape(array.shape), _element(array))
