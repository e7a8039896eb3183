"""The inference runtimes that `inference.py` times: the files that they read, and their calls.

`exports.py` writes the files. Every call is of float32: half types, which some runtimes would take
by themselves, are off, unless a runtime's name says that it is to compute in bfloat16 or int8. It
gets pictures of float32 then, too, and its results are float32.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["NARROW", "RUNTIMES", "Run", "dtype_of", "runs", "without_dtype"]

#: The dtypes that participants have beside float32; their names end with "-" and the dtype.
NARROW = ("bfloat16", "int8")

#: The files that each runtime reads, of those in `exports.FILES`.
RUNTIMES = {
    "sepconv-program": ("model.sepconv", "tuned.sepconv"),
    "onnxruntime": ("model.onnx",),
    "openvino": ("model.onnx", "model.tflite"),
    "litert": ("model.tflite",),
    "mnn": ("onnx.mnn", "tflite.mnn"),
    "ncnn": ("model.param",),
    "sepconv-program-bfloat16": ("bfloat16.sepconv", "tuned-bfloat16.sepconv"),
    "openvino-bfloat16": ("model.onnx", "model.tflite"),
    "ncnn-bfloat16": ("model.param",),
    "sepconv-program-int8": ("int8.sepconv", "tuned-int8.sepconv"),
    "onnxruntime-int8": ("qdq.onnx",),
    "openvino-int8": ("nncf-onnx.xml", "nncf-tflite.xml"),
    "litert-int8": ("int8.tflite",),
}

#: What a program must do without.
_ENGINES = ("keras", "jax", "torch", "tensorflow")

Run = Callable[[], Any]


def dtype_of(who: str) -> str:
    """The dtype that a participant computes in.

    Example:
        >>> dtype_of("litert"), dtype_of("litert-int8")
        ('float32', 'int8')
    """
    return next((dtype for dtype in NARROW if who.endswith(f"-{dtype}")), "float32")


def without_dtype(who: str) -> str:
    """The name of a participant in float32.

    Example:
        >>> without_dtype("keras-jax-bfloat16"), without_dtype("keras-jax")
        ('keras-jax', 'keras-jax')
    """
    return who.removesuffix(f"-{dtype_of(who)}")


def runs(who: str, folder: Path, x: np.ndarray, threads: int) -> dict[str, Callable[[], Run]]:
    """Functions that prepare a runtime, by setting.

    Args:
        who: a name of `RUNTIMES`.
        folder: where the files are.
        x: the pictures.
        threads: that the runtime may use.

    Returns:
        Functions that load a file and return the call to time, which gives the network's output.
    """
    makers: dict[str, Callable[[Path, np.ndarray, int], dict[str, Callable[[], Run]]]] = {
        "sepconv-program": _program,
        "onnxruntime": _onnxruntime,
        "openvino": _openvino,
        "litert": _litert,
        "mnn": _mnn,
        "ncnn": _ncnn,
        "openvino-bfloat16": functools.partial(_openvino, precision="bf16"),
        "ncnn-bfloat16": functools.partial(_ncnn, bfloat16=True),
    }
    # Elsewhere the file says the dtype.
    make = makers.get(who) or makers[without_dtype(who)]
    paths = [folder / name for name in RUNTIMES[who] if (folder / name).exists()]
    return {
        f"{way}, {path.name}": run for path in paths for way, run in make(path, x, threads).items()
    }


def _program(path: Path, x: np.ndarray, threads: int) -> dict[str, Callable[[], Run]]:
    """With NumPy alone, as on a server: an engine in the process is an error."""

    def loaded() -> Any:
        import sepconv

        program = sepconv.load(path)
        sepconv.set_num_threads(threads)
        found = [name for name in _ENGINES if name in sys.modules]
        if found:
            raise RuntimeError(f"to run a program, these were imported: {', '.join(found)}")
        return program

    def called() -> Run:
        program = loaded()
        return lambda: program(x)

    def into() -> Run:
        program = loaded()
        y = program(x)
        return lambda: program(x, out=y)

    return {"called": called, "into an array": into}


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

        # The binding is not said to keep the arrays whose memory it was given: the call does.
        def run(_shared: tuple[np.ndarray, np.ndarray] = (x, y)) -> Any:
            made.run_with_iobinding(binding)
            return value.numpy()

        return run

    return {"called": called, "bound": bound}


def _openvino(
    path: Path, x: np.ndarray, threads: int, precision: str = "f32"
) -> dict[str, Callable[[], Run]]:
    """For the lowest latency, in a precision that is given: by itself it might choose bfloat16.

    Operations that the file has in int8 stay so.
    """
    import openvino

    def latency() -> Run:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
        }
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

        # The request does not keep the memory that it shares: the call must.
        def run(_shared: np.ndarray = x) -> Any:
            request.start_async()
            request.wait()
            return request.get_output_tensor(0).data

        return run

    return {"latency": latency}


def _litert(path: Path, x: np.ndarray, threads: int) -> dict[str, Callable[[], Run]]:
    """On XNNPACK, which both of its interfaces take by themselves, for float32 and for int8."""

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


def _mnn(path: Path, x: np.ndarray, threads: int) -> dict[str, Callable[[], Run]]:
    """In the modes of its backend. Winograd's transforms and packed channels are its default."""

    def module(memory: str, power: str) -> Run:
        import MNN.expr
        import MNN.nn

        config = {"backend": "CPU", "precision": "high", "numThread": threads}
        manager = MNN.nn.create_runtime_manager((config | {"memory": memory, "power": power},))
        made = MNN.nn.load_module_from_file(str(path), [], [], runtime_manager=manager)
        # A file from ONNX has its transpose to channels first as a step of its own; what it calls
        # the order of its input must be said all the same.
        order = MNN.expr.data_format.NCHW if "onnx" in path.name else MNN.expr.data_format.NHWC
        images = MNN.expr.const(x, list(x.shape), order, MNN.expr.dtype.float)
        return lambda: made.onForward([images])[0].read()

    modes = itertools.product(("normal", "high", "low"), ("normal", "high"))
    return {
        f"memory {memory}, power {power}": functools.partial(module, memory, power)
        for memory, power in modes
    }


def _ncnn(
    path: Path, x: np.ndarray, threads: int, bfloat16: bool = False
) -> dict[str, Callable[[], Run]]:
    """Image after image, since it has no batches; or an image a thread."""

    def extracting(inside: int, **settings: bool) -> Callable[[np.ndarray], np.ndarray]:
        """A function of one image, which `inside` threads work on."""
        import ncnn

        net = ncnn.Net()
        net.opt.num_threads = inside
        for name in dir(net.opt):
            if any(kind in name for kind in ("fp16", "bf16", "int8")):
                setattr(net.opt, name, bfloat16 and "bf16" in name)
        for name, value in settings.items():
            setattr(net.opt, name, value)
        weights = str(path.with_suffix(".bin"))
        if net.load_param(str(path)) or net.load_model(weights):
            raise ValueError("its file cannot be read")

        def extract(image: np.ndarray) -> np.ndarray:
            extractor = net.create_extractor()
            # A copy: layers that compute in place would overwrite the picture, or memory that is
            # no longer there.
            extractor.input("in0", ncnn.Mat(image).clone())
            failed, y = extractor.extract("out0")
            if failed:
                raise RuntimeError(f"extract() gave {failed}")
            return np.array(y)

        return extract

    def in_turn(**settings: bool) -> Run:
        extract = extracting(threads, **settings)
        return lambda: np.stack([extract(image) for image in x])

    def at_once() -> Run:
        extract = extracting(1)
        pool = ThreadPoolExecutor(threads)
        return lambda: np.stack(list(pool.map(extract, x)))

    ways: dict[str, Callable[[], Run]] = {
        "usual": in_turn,
        "no Winograd": lambda: in_turn(use_winograd_convolution=False),
        "unpacked": lambda: in_turn(use_packing_layout=False),
    }
    return ways | ({"an image a thread": at_once} if len(x) > 1 else {})
