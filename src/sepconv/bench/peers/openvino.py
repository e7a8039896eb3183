"""OpenVINO's CPU plugin, forward, for the lowest latency."""

from __future__ import annotations

import numpy as np

from sepconv.arrays import empty
from sepconv.bench.cases import Arrays
from sepconv.bench.peers import Build, BuiltCase, Peer
from sepconv.bench.peers.onnx_model import channels_first, channels_last, model
from sepconv.bench.workloads import Case

__all__ = ["OpenVino"]


class OpenVino(Peer):
    """OpenVINO, in float32 as all others (by itself it might choose bfloat16)."""

    title = "OpenVINO"
    modules = ("openvino", "onnx")
    distribution = "openvino"
    install = "openvino onnx"

    def __init__(self, threads: int) -> None:
        import openvino

        self.core = openvino.Core()
        self.settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }

    @classmethod
    def supports(cls, case: Case) -> bool:
        """Inference alone."""
        return not case.training

    def builds(self, case: Case, inputs: Arrays, thorough: bool) -> dict[str, Build]:
        """In both layouts of the input and output; the 1x1 alone also as a matrix product."""
        found = {
            "NHWC": lambda: self._prepare(case, inputs, "NHWC"),
            "NCHW": lambda: self._prepare(case, inputs, "NCHW"),
        }
        if case.operation == "pointwise":
            found["matrix product"] = lambda: self._prepare(case, inputs, "product")
        return found

    def _prepare(self, case: Case, inputs: Arrays, way: str) -> BuiltCase:
        import openvino
        from openvino.preprocess import PrePostProcessor

        network = self.core.read_model(model(case, inputs, way == "product"))
        if way == "NHWC":
            process = PrePostProcessor(network)
            process.input().tensor().set_layout(openvino.Layout("NHWC"))
            process.input().model().set_layout(openvino.Layout("NCHW"))
            process.output().tensor().set_layout(openvino.Layout("NHWC"))
            process.output().model().set_layout(openvino.Layout("NCHW"))
            network = process.build()
        compiled = self.core.compile_model(network, "CPU", self.settings)
        x = channels_first(inputs["x"]) if way == "NCHW" else inputs["x"]
        y = empty(tuple(compiled.output(0).shape), np.float32, x)
        request = compiled.create_infer_request()
        tensors = [openvino.Tensor(array, shared_memory=True) for array in (x, y)]
        request.set_input_tensor(tensors[0])
        request.set_output_tensor(tensors[1])

        def run(keep: tuple[np.ndarray, ...] = (x, y)) -> None:  # a tensor does not hold its array
            request.start_async()
            request.wait()

        return BuiltCase(run, lambda _: {"y": channels_last(y) if way == "NCHW" else y})
