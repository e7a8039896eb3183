"""The inference runtimes that `inference.py` times: the files that they read, and their calls.

Keras writes the files on TensorFlow, with a batch of one. On PyTorch it would put a transpose
around every convolution, which costs the runtimes two thirds of their time and more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FILES", "RUNTIMES", "Run", "export", "runs"]

#: The files that each runtime reads.
RUNTIMES = {
    "onnxruntime": ("model.onnx",),
    "openvino": ("model.onnx", "model.tflite"),
    "litert": ("model.tflite",),
}

Run = Callable[[], Any]
#: The files that `export` writes, with Keras' names of the formats.
FILES = {"model.onnx": "onnx", "model.tflite": "litert"}


def export(model: Any, x: np.ndarray, folder: Path) -> dict[str, str]:
    """Writes a model's files; Keras' backend must be TensorFlow.

    Args:
        model: a Keras model of one input.
        x: a batch of it.
        folder: where the files go.

    Returns:
        The reasons for missing files, by their names.
    """
    import keras

    signature = [keras.InputSpec(shape=x.shape, dtype="float32")]
    missing = {}
    for name, written_as in FILES.items():
        path = folder / name
        try:
            model.export(path, format=written_as, input_signature=signature, verbose=False)
        except Exception as error:  # a converter that is not installed, or fails
            missing[name] = f"{type(error).__name__}: {error}"
            path.unlink(missing_ok=True)
    return missing


def runs(who: str, folder: Path, x: np.ndarray, threads: int) -> dict[str, Callable[[], Run]]:
    """Functions that prepare a runtime, by setting.

    Args:
        who: a name of `RUNTIMES`.
        folder: where `export` wrote.
        x: the picture.
        threads: that the runtime may use.

    Returns:
        Functions that load a file and return the call to time, which gives the network's output.
    """
    make = {"onnxruntime": _onnxruntime, "openvino": _openvino, "litert": _litert}[who]
    paths = [folder / name for name in RUNTIMES[who] if (folder / name).exists()]
    return {
        f"{way}, {path.suffix[1:]}": run
        for path in paths
        for way, run in make(path, x, threads).items()
    }


def _onnxruntime(path: Path, x: np.ndarray, threads: int) -> dict[str, Callable[[], Run]]:
    """With all graph optimizations, which are its default."""
    import onnxruntime

    def session() -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def called() -> Run:
        made = session()
        name = made.get_inputs()[0].name
        return lambda: made.run(None, {name: x})[0]

    def bound() -> Run:
        made = session()
        binding = made.io_binding()
        binding.bind_cpu_input(made.get_inputs()[0].name, x)
        y = np.empty(made.get_outputs()[0].shape, np.float32)
        value = onnxruntime.OrtValue.ortvalue_from_numpy(y)
        binding.bind_ortvalue_output(made.get_outputs()[0].name, value)

        def run() -> Any:
            made.run_with_iobinding(binding)
            return value.numpy()

        return run

    return {"called": called, "bound": bound}


def _openvino(path: Path, x: np.ndarray, threads: int) -> dict[str, Callable[[], Run]]:
    """For the lowest latency, in float32: by itself it might choose bfloat16."""
    import openvino

    def latency() -> Run:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

        def run() -> Any:
            request.start_async()
            request.wait()
            return request.get_output_tensor(0).data

        return run

    return {"latency": latency}


def _litert(path: Path, x: np.ndarray, threads: int) -> dict[str, Callable[[], Run]]:
    """On XNNPACK, which both of its interfaces take by themselves for float32."""

    def interpreter() -> Run:
        from ai_edge_litert.interpreter import Interpreter

        made = Interpreter(str(path), num_threads=threads)
        made.allocate_tensors()
        made.set_tensor(made.get_input_details()[0]["index"], x)
        output = made.get_output_details()[0]["index"]

        def run() -> Any:
            made.invoke()
            return made.get_tensor(output)

        return run

    def compiled() -> Run:
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.cpu_options import CpuOptions
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator
        from ai_edge_litert.options import Options

        options = Options(
            hardware_accelerators=HardwareAccelerator.CPU,
            cpu_options=CpuOptions(num_threads=threads),
        )
        made = CompiledModel.from_file(str(path), options=options)
        inputs, outputs = made.create_input_buffers(0), made.create_output_buffers(0)
        inputs[0].write(x)
        details = made.get_output_tensor_details(next(iter(made.get_signature_list())))
        shape = next(iter(details.values()))["shape"]

        def run() -> Any:
            made.run_by_index(0, inputs, outputs)
            return outputs[0].read(int(np.prod(shape)), np.float32).reshape(shape)

        return run

    return {"interpreter": interpreter, "compiled model": compiled}
