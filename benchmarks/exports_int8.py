"""The int8 files of a network that the runtimes read, each by its own quantiser.

All get the same calibration pictures and quantise after training, with a scale an output channel
of weights and float32 at the network's ends: sepconv by `sepconv.quantize`, LiteRT by TensorFlow's
converter, ONNX Runtime by its static quantiser in the QDQ format, OpenVINO by NNCF. What a
quantiser chooses beyond that is its default, but for weights of 7 bits where 8 are not safe.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["WITHOUT", "litert", "onnxruntime_qdq", "openvino_nncf", "program"]

#: Runtimes that have int8, but not here.
WITHOUT = {
    "ncnn": "its wheel has no quantiser",
    "mnn": "its quantiser takes its calibration data from folders of files",
}


def _batches(pictures: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """Pictures in batches of one size, which files have fixed; few pictures repeat."""
    count = max(1, len(pictures) // batch)
    yield from np.resize(pictures, (count, batch, *pictures.shape[1:]))


def program(model: Any, pictures: np.ndarray, path: Path, tune: bool) -> None:
    """A program of sepconv, in its usual way or in the one that is fastest here."""
    import sepconv

    quantized = sepconv.quantize(model, pictures).model
    sepconv.compile(quantized, tune=tune, verify=False).save(path)


def litert(model: Any, pictures: np.ndarray, path: Path, batch: int) -> None:
    """By TensorFlow's converter: int8 operations alone, so what has none is an error."""
    import keras
    import tensorflow as tf

    signature = [keras.InputSpec(shape=(batch, *pictures.shape[1:]), dtype="float32")]
    model.export(
        path,
        format="litert",
        input_signature=signature,
        verbose=False,
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ([x] for x in _batches(pictures, batch)),
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
        # Otherwise weights are variables, which calibration does not find.
        experimental_enable_resource_variables=False,
    )


def onnxruntime_qdq(source: Path, pictures: np.ndarray, path: Path, batch: int) -> None:
    """Of an ONNX file, after ONNX Runtime's own preparation for it."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        """Hands out the batches."""

        def __init__(self, name: str) -> None:
            self.left = ({name: x} for x in _batches(pictures, batch))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory(prefix="sepconv-qdq-") as folder:
        prepared = Path(folder) / "prepared.onnx"
        # All shapes are known, so there are no symbols to find.
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(path),
            Reader(_input_name(prepared)),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=_saturates(),
        )


def _saturates() -> bool:
    """Whether ONNX Runtime adds products of bytes in 16 bits, which weights of 8 bits can leave.

    So it does on x86 without VNNI; weights of 7 bits are its advice there.
    """
    flags = Path("/proc/cpuinfo")
    known = flags.read_text() if flags.exists() else ""
    return platform.machine() in ("x86_64", "AMD64") and "_vnni" not in known


def _input_name(path: Path) -> str:
    import onnx

    return onnx.load(path).graph.input[0].name


def openvino_nncf(source: Path, pictures: np.ndarray, path: Path, batch: int) -> None:
    """Of an ONNX or LiteRT file; `path` is that of the operations, the weights' lies beside it."""
    import nncf
    import openvino

    batches = list(_batches(pictures, batch))
    found = nncf.quantize(
        openvino.Core().read_model(source), nncf.Dataset(batches), subset_size=len(batches)
    )
    openvino.save_model(found, path, compress_to_fp16=False)
