"""`sepconv.export_onnx`: a model or a program as an ONNX file."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from sepconv.models.dispatch import is_torch_module
from sepconv.models.files import replacing
from sepconv.program import file
from sepconv.program.program import Program
from sepconv.quantization.origin import NOTE, origin_of

__all__ = ["contents_of", "export_onnx", "require_onnx"]

#: Files are messages of Protocol Buffers, which have less than 2 GiB.
_MOST_BYTES = 2**31 - 2**20


def export_onnx(model: Any, path: str | os.PathLike[str], example_inputs: Any = None) -> None:
    """Writes a network for inference as an ONNX file, for other runtimes.

    Of an int8 network, as `sepconv.quantize` makes one, every int8 step is between a
    DequantizeLinear and a QuantizeLinear of its scales and zero points. Weights are int8 with a
    scale an output channel, biases int32 of the scale of the sums. What the network does not say of
    its scales and functions is in a note beside it; without one, as of another tool's network, it
    is found out as far as steps tell. Of a float32 network, the file has what `sepconv.compile`
    makes of it: batch normalization folded, and no training.

    The file takes and gives float32 arrays in the model's own order of axes; its version of ONNX's
    operations is 17. A file that is there is replaced once the new one is whole.

    Args:
        model: a built Sequential or Functional model of Keras'; a `torch.nn.Module`; a
            `sepconv.program.program.Program` that knows its network; or the path of a
            ``.sepconv`` file.
        path: of the file, by custom ``.onnx``.
        example_inputs: for a module: a tensor, or a tuple of what it is called with.

    Raises:
        ImportError: the package ``onnx`` is not installed.
        TypeError: the model is none of these.
        ValueError: the model does not compile, see `sepconv.compile`; it computes in another dtype
            than float32 and int8; the note beside it is not of this network; or a step cannot be
            written. The message names it.
        OSError: the file cannot be written.

    Example:
        >>> import keras, numpy as np, sepconv, tempfile, os
        >>> layers = [keras.layers.SeparableConv2D(8, 3, activation="relu"),
        ...           keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        >>> pictures = np.random.default_rng(0).standard_normal((64, 8, 8, 3))
        >>> small = sepconv.quantize(model, pictures).model
        >>> import onnx
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sepconv.export_onnx(small, f"{folder}/small.onnx")
        ...     nodes = onnx.load(f"{folder}/small.onnx").graph.node
        >>> sum(node.op_type == "QuantizeLinear" for node in nodes)
        4

    Source:
        The format of pairs: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    require_onnx()
    import onnx

    from sepconv.onnx_file.write import model_of

    network, notes = contents_of(model, example_inputs)
    size = sum(tensor.nbytes for tensor in network.tensors)
    if size > _MOST_BYTES:
        raise ValueError(
            f"An ONNX file has less than 2 GiB. Received: a network with {size} bytes of weights"
        )
    origin = origin_of(network, notes, "The model to export") if NOTE in notes else None
    made = model_of(network, origin)
    onnx.checker.check_model(made, full_check=True)
    with replacing(Path(path), force=True) as draft:
        onnx.save(made, draft)


def require_onnx() -> None:
    """Raises unless the package that writes ONNX files is there.

    Raises:
        ImportError: it is not.
    """
    if importlib.util.find_spec("onnx") is None:
        raise ImportError(
            "ONNX files are written with the package onnx, which is not installed: pip install "
            "onnx, or 'sepconv[export]'"
        )


def contents_of(model: Any, example_inputs: Any = None) -> file.Contents:
    """The network of a model, as `export_onnx` takes it, and the notes beside it.

    Raises:
        TypeError: see there.
        ValueError: see there.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> [step.operation for step in contents_of(model).network.steps]
        ['dense']
    """
    if is_torch_module(model):
        return _of_module(model, example_inputs)
    if example_inputs is not None:
        raise TypeError(
            "example_inputs are for PyTorch modules; other models say themselves what they take. "
            f"Received: model of the class {type(model).__name__}"
        )
    if isinstance(model, Program):
        return file.Contents(model.network, model.notes)
    if isinstance(model, str | os.PathLike):
        return file.read(model)
    from sepconv.models.lowering import lowered

    return lowered(model)


def _of_module(module: Any, example_inputs: Any) -> file.Contents:
    from sepconv.modules.lowering import lowered
    from sepconv.modules.lowering.programs import whole_program
    from sepconv.modules.verify import as_arguments

    whole = whole_program(module, None)
    if whole is not None:
        return whole
    if example_inputs is None:
        raise TypeError(
            "export_onnx needs example_inputs for a PyTorch module: a tensor, or a tuple of what "
            "it is called with, such as torch.zeros(1, 3, 224, 224). Received: None"
        )
    return lowered(module, as_arguments(example_inputs))
