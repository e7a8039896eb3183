"""LiteRT on XNNPACK, forward; TensorFlow's converter makes its models."""

from __future__ import annotations

from typing import Any

from sepconv.bench.cases import Arrays
from sepconv.bench.peers import Build, BuiltCase, Peer
from sepconv.bench.workloads import Case

__all__ = ["LiteRt"]


class LiteRt(Peer):
    """LiteRT with its XNNPACK delegate, which it takes by itself for float32."""

    title = "LiteRT/XNNPACK"
    modules = ("ai_edge_litert", "tensorflow")
    distribution = "ai-edge-litert"
    install = "ai-edge-litert tensorflow-cpu"
    dtypes = ("float32",)

    def __init__(self, threads: int) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        self.threads = threads

    @classmethod
    def supports(cls, case: Case) -> bool:
        """Inference alone."""
        return not case.training

    def builds(self, case: Case, inputs: Arrays, thorough: bool) -> dict[str, Build]:
        """One way: NHWC, as TensorFlow has it."""
        return {"NHWC": lambda: self._prepare(case, inputs)}

    def _prepare(self, case: Case, inputs: Arrays) -> BuiltCase:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=_model(case, inputs), num_threads=self.threads)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], inputs["x"])
        output = interpreter.get_output_details()[0]["index"]
        return BuiltCase(interpreter.invoke, lambda _: {"y": interpreter.get_tensor(output)})


def _model(case: Case, inputs: Arrays) -> bytes:
    import tensorflow as tf

    from sepconv.bench.peers.tensorflow import convolution

    compute = convolution(case)
    weights = {name: tf.constant(array) for name, array in inputs.items() if name != "x"}

    @tf.function(input_signature=[tf.TensorSpec(inputs["x"].shape, tf.float32)])
    def forward(x: Any) -> Any:
        return compute(weights | {"x": x})

    converter = tf.lite.TFLiteConverter.from_concrete_functions([forward.get_concrete_function()])
    return converter.convert()
