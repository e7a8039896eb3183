"""The files of a network that the runtimes read, each written by the converter that suits it.

A PyTorch module's ONNX and LiteRT files are written by torch.onnx (which needs onnxscript) and by
litert-torch. Keras writes its own on TensorFlow, with a batch of fixed size. On PyTorch it would
put a transpose around every convolution, which costs the runtimes two thirds of their time and
more. MNN's files come from both, by its own converter. ncnn's come from ONNX by pnnx, which leaves
out the padding that TensorFlow puts before strided convolutions; so ONNX Runtime's plain
optimizations, which move it into the convolutions, go first. ncnn has no batches: its file is of
one image. Those of int8 are made by `exports_int8.py`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import exports_int8
import numpy as np

from sepconv.models.dispatch import is_torch_module

__all__ = ["FILES", "export"]


class _Writer:
    """Writes a model's files, each once, however many others are made from it."""

    def __init__(
        self, model: Any, x: np.ndarray, folder: Path, calibration: np.ndarray | None
    ) -> None:
        self.model, self.x, self.folder, self.given = model, x, folder, calibration

    @property
    def calibration(self) -> np.ndarray:
        """The pictures that int8 is calibrated with."""
        if self.given is None:
            raise ValueError("int8 needs calibration pictures")
        return self.given

    def path(self, name: str) -> Path:
        """The path of a file, which is written if it is not there."""
        path = self.folder / name
        if not path.exists():
            try:
                FILES[name](self, path)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        return path


def _stock(written_as: str, single: bool = False) -> Callable[[_Writer, Path], None]:
    """Keras' own export or PyTorch's, of the batch or of one image."""

    def write(writer: _Writer, path: Path) -> None:
        shape = (1, *writer.x.shape[1:]) if single else writer.x.shape
        if is_torch_module(writer.model):
            _torch(writer.model, shape, written_as, path)
            return
        import keras

        signature = [keras.InputSpec(shape=shape, dtype="float32")]
        writer.model.export(path, format=written_as, input_signature=signature, verbose=False)
        if written_as == "onnx":
            _drop_unread_inputs(path)

    return write


def _torch(module: Any, shape: tuple[int, ...], written_as: str, path: Path) -> None:
    """A PyTorch module's file."""
    import torch

    example = (torch.zeros(shape),)
    if written_as == "onnx":
        torch.onnx.export(module, example, path, dynamo=True, external_data=False, verbose=False)
        return
    import litert_torch

    litert_torch.convert(module, example).export(str(path))


def _mnn(source: str, framework: str) -> Callable[[_Writer, Path], None]:
    """MNN's converter, on a file of another format."""

    def write(writer: _Writer, path: Path) -> None:
        options = ["-f", framework, "--modelFile", writer.path(source), "--MNNModel", path]
        _run("mnnconvert", *options, "--bizCode", "benchmark")

    return write


def _ncnn(writer: _Writer, path: Path) -> None:
    """Both of ncnn's files: `path` is that of the layers; the weights' lies beside it."""
    import onnxruntime

    shape = (1, *writer.x.shape[1:])
    source = writer.path("model.onnx" if shape == writer.x.shape else "single.onnx")
    with tempfile.TemporaryDirectory(prefix="sepconv-ncnn-") as folder:
        padded = Path(folder) / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(padded)
        onnxruntime.InferenceSession(str(source), options, ["CPUExecutionProvider"])
        sizes = ",".join(map(str, shape))
        said = _run("pnnx", padded, f"inputshape=[{sizes}]f32", "fp16=0", folder=folder)
        left_out = [line for line in said.splitlines() if line.startswith("ignore ")]
        if left_out:
            raise ValueError(f"pnnx leaves out what it does not know: {'; '.join(left_out)[:200]}")
        (Path(folder) / "model.ncnn.bin").rename(path.with_suffix(".bin"))
        (Path(folder) / "model.ncnn.param").rename(path)


def _drop_unread_inputs(path: Path) -> None:
    """Removes inputs that no step reads: tf2onnx leaves some that were constants of the network."""
    import onnx

    model = onnx.load(path)
    read = {name for node in model.graph.node for name in node.input}
    kept = [value for value in model.graph.input if value.name in read]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    onnx.save(model, path)


def _program(tune: bool, dtype: str | None = None) -> Callable[[_Writer, Path], None]:
    """A program of sepconv, in its usual way or in the one that is fastest here.

    Args:
        tune: whether it is to be the fastest.
        dtype: what it computes in; None for the model's own.
    """

    def write(writer: _Writer, path: Path) -> None:
        import sepconv

        if not hasattr(sepconv, "compile"):
            raise ValueError("this sepconv has no compile()")
        example: tuple[Any, ...] = ()
        if is_torch_module(writer.model):
            import torch

            example = (torch.from_numpy(writer.x),)
        sepconv.compile(writer.model, *example, tune=tune, dtype=dtype).save(path)

    return write


def _int8_program(tune: bool) -> Callable[[_Writer, Path], None]:
    """A program of int8 of sepconv."""
    return lambda writer, path: exports_int8.program(writer.model, writer.calibration, path, tune)


def _int8_litert(writer: _Writer, path: Path) -> None:
    exports_int8.litert(writer.model, writer.calibration, path, len(writer.x))


def _int8_of(source: str, quantise: Callable[..., None]) -> Callable[[_Writer, Path], None]:
    """A quantiser of `exports_int8`, on a file of another format."""

    def write(writer: _Writer, path: Path) -> None:
        quantise(writer.path(source), writer.calibration, path, len(writer.x))

    return write


#: Every file, with what writes it.
FILES: dict[str, Callable[[_Writer, Path], None]] = {
    "model.onnx": _stock("onnx"),
    "single.onnx": _stock("onnx", single=True),
    "model.tflite": _stock("litert"),
    "onnx.mnn": _mnn("model.onnx", "ONNX"),
    "tflite.mnn": _mnn("model.tflite", "TFLITE"),
    "model.param": _ncnn,
    "model.sepconv": _program(tune=False),
    "tuned.sepconv": _program(tune=True),
    "bfloat16.sepconv": _program(tune=False, dtype="bfloat16"),
    "tuned-bfloat16.sepconv": _program(tune=True, dtype="bfloat16"),
    "int8.sepconv": _int8_program(tune=False),
    "tuned-int8.sepconv": _int8_program(tune=True),
    "int8.tflite": _int8_litert,
    "qdq.onnx": _int8_of("model.onnx", exports_int8.onnxruntime_qdq),
    "nncf-onnx.xml": _int8_of("model.onnx", exports_int8.openvino_nncf),
    "nncf-tflite.xml": _int8_of("model.tflite", exports_int8.openvino_nncf),
}


def export(
    model: Any,
    x: np.ndarray,
    folder: Path,
    names: Iterable[str],
    calibration: np.ndarray | None = None,
) -> dict[str, str]:
    """Writes a model's files; Keras' backend must be TensorFlow.

    Args:
        model: a Keras model of one input, which has been called; or a PyTorch module.
        x: a batch of it.
        folder: where the files go.
        names: of `FILES`, those to write.
        calibration: pictures, which files of int8 need.

    Returns:
        The reasons for missing files, by their names.
    """
    writer = _Writer(model, x, folder, calibration)
    missing = {}
    for name in names:
        try:
            with _silent():
                writer.path(name)
        except Exception as error:  # a converter that is not installed, or fails
            missing[name] = f"{type(error).__name__}: {error}"
    return missing


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What converters print is of no interest where they succeed."""
    with contextlib.redirect_stdout(None):
        yield


def _run(program: str, *arguments: Any, folder: str | None = None) -> str:
    """Runs a converter of this environment and returns what it said, or raises with that."""
    command = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode:
        raise RuntimeError(f"{program} ended with {done.returncode}: {said[-300:]}")
    return said
