"""ONNX Runtime's CPU provider, forward; inputs and outputs stay where they are (IO binding)."""

from __future__ import annotations

from sepconv.arrays import empty
from sepconv.bench.cases import Arrays, typed
from sepconv.bench.peers import Build, BuiltCase, Peer
from sepconv.bench.peers.onnx_model import channels_first, channels_last, model
from sepconv.bench.workloads import Case

__all__ = ["OnnxRuntime"]


class OnnxRuntime(Peer):
    """ONNX Runtime, all graph optimisations on.

    In bfloat16, and in float64, its CPU provider has no convolution. What float16 operations it
    lacks it computes in float32, with casts of its own.
    """

    title = "ONNX Runtime"
    modules = ("onnxruntime", "onnx")
    distribution = "onnxruntime"
    install = "onnxruntime onnx"
    dtypes = ("float32", "float16")

    def __init__(self, threads: int) -> None:
        import onnxruntime

        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 3
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.options.graph_optimization_level = level

    @classmethod
    def supports(cls, case: Case) -> bool:
        """Inference alone."""
        return not case.training

    def builds(self, case: Case, inputs: Arrays, thorough: bool) -> dict[str, Build]:
        """As convolutions; the 1x1 alone also as a matrix product."""
        found = {"NCHW": lambda: self._prepare(case, inputs, False)}
        if case.operation == "pointwise":
            found["matrix product"] = lambda: self._prepare(case, inputs, True)
        return found

    def _prepare(self, case: Case, inputs: Arrays, product: bool) -> BuiltCase:
        import onnxruntime

        inputs = typed(case, inputs)
        session = onnxruntime.InferenceSession(
            model(case, inputs, product), self.options, providers=["CPUExecutionProvider"]
        )
        x = inputs["x"] if product else channels_first(inputs["x"])
        y = empty(session.get_outputs()[0].shape, x.dtype)
        binding = session.io_binding()
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in (x, y)]
        binding.bind_ortvalue_input("x", values[0])
        binding.bind_ortvalue_output("y", values[1])

        def outputs(_: None) -> Arrays:
            result = values[1].numpy()
            return {"y": result if product else channels_last(result)}

        return BuiltCase(lambda: session.run_with_iobinding(binding), outputs)
