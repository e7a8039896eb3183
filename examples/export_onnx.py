"""Exports a model with sepconv's layers to ONNX and LiteRT, and runs it there.

    pip install '.[tensorflow,export]'
    python examples/export_onnx.py

The model is MobileNet with random weights. Keras exports to ONNX from TensorFlow by tf2onnx, so
that is the engine here. Of ONNX Runtime and LiteRT, those that are installed are compared with it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import sepconv


def run_onnx(model: keras.Model, folder: Path, x: np.ndarray) -> np.ndarray:
    """The model's output for `x`, by ONNX Runtime."""
    import onnxruntime

    path = str(folder / "model.onnx")
    sepconv.to_stock(model).export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def run_litert(model: keras.Model, folder: Path, x: np.ndarray) -> np.ndarray:
    """The model's output for `x`, by LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    path = str(folder / "model.tflite")
    sepconv.to_stock(model).export(path, format="litert", verbose=False)
    interpreter = Interpreter(path)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


RUNTIMES: dict[str, Callable[[keras.Model, Path, np.ndarray], np.ndarray]] = {
    "ONNX Runtime": run_onnx,
    "LiteRT": run_litert,
}


def main() -> None:
    """Runs the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", type=int, default=224, help="height and width of the input")
    size = parser.parse_args().size
    keras.utils.set_random_seed(0)
    stock = keras.applications.MobileNet(
        weights=None, input_shape=(size, size, 3), classifier_activation=None
    )
    for variable in stock.weights:
        if len(variable.shape) == 4:  # with Keras' initial depthwise kernels, signals vanish
            summed = np.prod(variable.shape[: 2 if "dw" in variable.path else 3])
            variable.assign(keras.random.normal(variable.shape, stddev=(2 / summed) ** 0.5))
    model, record = sepconv.accelerate(stock)
    print(f"MobileNet at {size}: {record.changed} layers are sepconv's")
    x = np.random.default_rng(0).random((1, size, size, 3), "float32") * 2 - 1
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    with tempfile.TemporaryDirectory() as folder:
        for runtime, run in RUNTIMES.items():
            try:
                received = run(model, Path(folder), x)
            except ImportError as error:
                print(f"{runtime}: not compared, {error}")
                continue
            difference = np.linalg.norm(received - expected) / np.linalg.norm(expected)
            print(f"{runtime}: relative difference {difference:.1e}")


if __name__ == "__main__":
    main()
