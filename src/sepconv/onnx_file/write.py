"""A network as an ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sepconv.onnx_file.call import Call, Written
from sepconv.onnx_file.float_steps import FLOAT_STEPS
from sepconv.onnx_file.graph import Graph
from sepconv.onnx_file.int8_steps import INT8_STEPS
from sepconv.onnx_file.scales import origin_by_ratios
from sepconv.program.dtypes import value_dtypes
from sepconv.program.network import Network, Step
from sepconv.program.shapes import Shape, shapes
from sepconv.quantization.origin import Origin, value_scales

__all__ = ["OPSET", "model_of"]

#: The version of ONNX's operations, and that of its files, which is the one that belongs to it.
OPSET = 17
_IR_VERSION = 8

_STEPS = {**FLOAT_STEPS, **INT8_STEPS}

#: Steps that take an image in the order of their spec.
_WINDOWS = (
    *("convolution", "pool"),
    *("quantized_convolution", "dequantized_convolution", "quantized_average_pool"),
)

#: Steps that compute in the order of axes that they are asked for.
_EITHER = (
    *("unary", "binary", "scale", "concatenate", "pad", "slice"),
    *("quantize", "dequantize", "quantized_binary", "lookup"),
)


def model_of(network: Network, origin: Origin | None = None) -> Any:
    """The `onnx.ModelProto` of a network.

    Args:
        network: of float32, with steps of int8 or without.
        origin: what its bytes stand for; None for what its steps alone say of that.

    Raises:
        ValueError: a step cannot be written; the message names it.
    """
    from onnx import TensorProto, helper

    import sepconv

    if network.dtype != "float32":
        raise ValueError(
            f"An ONNX file is written of float32 and int8 networks. Received: {network.dtype}"
        )
    sizes, dtypes = shapes(network), value_dtypes(network)
    inputs, names = [entry.name for entry in network.inputs], _output_names(network)
    graph = Graph(inputs, names, [len(size) for size in sizes])
    known = origin_by_ratios(network) if origin is None else origin
    scales, wanted = value_scales(network, known), _wanted(network, sizes)
    for i, step in enumerate(network.steps):
        value = len(network.inputs) + i
        graph.prefix = step.name or step.operation
        call = Call(graph, network, step, value, sizes, scales, known[i], wanted[value])
        if step.operation not in _STEPS:
            call.refuse(f"there is no {step.operation} for it")
        if dtypes[value] == "bfloat16":
            call.refuse("its value is of bfloat16")
        _give(graph, call, _STEPS[step.operation](call), dtypes[value])
    for value, output in zip(network.outputs, names, strict=True):
        graph.name_output(value, output)

    def described(names: Sequence[str], found: Sequence[Shape]) -> list[Any]:
        return [
            helper.make_tensor_value_info(each, TensorProto.FLOAT, _dimensions(each, shape))
            for each, shape in zip(names, found, strict=True)
        ]

    made = helper.make_graph(
        graph.nodes,
        "network",
        described(inputs, sizes[: len(inputs)]),
        described(names, [sizes[value] for value in network.outputs]),
        graph.constants,
    )
    return helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="sepconv",
        producer_version=sepconv.__version__,
    )


def _give(graph: Graph, call: Call, written: Written, dtype: str) -> None:
    """Says where a step's value is; rounds it, where it is of bytes and not rounded yet."""
    name, first, scale, whole = written
    if dtype != "uint8":
        graph.give(call.value, name, first)
        return
    if scale is None:
        # Moved bytes are of the scale that they were of.
        scale = call.scales[call.value]
        assert scale is not None
    graph.give_bytes(call.value, name if whole else graph.rounded(name, scale), scale, first)


def _wanted(network: Network, sizes: Sequence[Shape]) -> list[bool]:
    """Whether each value is best with channels first: where a convolution takes it so."""
    wanted = [False] * len(sizes)
    first = len(network.inputs)
    for i in reversed(range(len(network.steps))):
        step = network.steps[i]
        for value in step.inputs:
            if len(sizes[value]) in (3, 4) and _wants(step, wanted[first + i]):
                alike = len(sizes[value]) == len(sizes[first + i])
                wanted[value] = wanted[value] or alike
    return wanted


def _wants(step: Step, result: bool) -> bool:
    if step.operation in _WINDOWS:
        return not step.attributes["spec"][9]
    if step.operation == "resize":
        return not step.attributes["channels_first"]
    return result and step.operation in _EITHER


def _output_names(network: Network) -> list[str]:
    """The names of outputs, of which ONNX wants each once."""
    taken = {entry.name for entry in network.inputs}
    names: list[str] = []
    for name in network.output_names:
        unique, count = name or "output", 1
        while unique in taken:
            count += 1
            unique = f"{name or 'output'}_{count}"
        taken.add(unique)
        names.append(unique)
    return names


def _dimensions(name: str, shape: Shape) -> list[int | str]:
    """Sizes, and names for those that are open: the batch has one for all."""
    return [
        ("batch" if axis == 0 else f"{name}_{axis}") if size is None else size
        for axis, size in enumerate(shape)
    ]
