"""A case as an ONNX model, for the engines that read those."""

from __future__ import annotations

from typing import Any

import numpy as np

from sepconv.bench.cases import Arrays
from sepconv.bench.workloads import Case

__all__ = ["channels_first", "channels_last", "model"]


def channels_first(array: np.ndarray) -> np.ndarray:
    """(N, H, W, C) to (N, C, H, W), in memory too."""
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def channels_last(array: np.ndarray) -> np.ndarray:
    """(N, C, H, W) to (N, H, W, C)."""
    return array.transpose(0, 2, 3, 1)


def model(case: Case, inputs: Arrays, product: bool = False) -> bytes:
    """From "x" to "y", with the weights inside, of the dtype that the inputs are of.

    Args:
        case: what it computes.
        inputs: where the weights come from.
        product: for "pointwise" alone: as a matrix product over (N, H, W, C), instead of a
            convolution of (N, C, H, W).
    """
    from onnx import helper, numpy_helper

    w = case.workload
    nodes: list[Any] = []
    weights: list[Any] = []

    def constant(name: str, array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(operation: str, names: list[str], **attributes: Any) -> str:
        output = f"{operation.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(operation, names, [output], **attributes))
        return output

    bias = [constant("bias", inputs["bias"])] if "bias" in inputs else []
    last = "x"
    if "depthwise_kernel" in inputs:
        flat = inputs["depthwise_kernel"].reshape(*w.kernel, 1, w.middle).transpose(3, 2, 0, 1)
        (top, bottom), (left, right) = w.pads
        last = add(
            "Conv",
            [last, constant("depthwise", flat), *([] if "pointwise_kernel" in inputs else bias)],
            group=w.channels,
            kernel_shape=w.kernel,
            strides=w.strides,
            dilations=w.dilation,
            pads=(top, left, bottom, right),
        )
    if product:
        last = add("MatMul", [last, constant("pointwise", inputs["pointwise_kernel"])])
    elif "pointwise_kernel" in inputs:
        kernel = inputs["pointwise_kernel"].T[:, :, None, None]
        last = add("Conv", [last, constant("pointwise", kernel), *bias], kernel_shape=(1, 1))
    if case.epilogue:
        six = [
            constant(name, np.array(value, inputs["x"].dtype))
            for name, value in (("low", 0), ("high", 6))
        ]
        last = add("Clip", [last, *six])
    nodes[-1].output[0] = "y"

    n, h, width, c = inputs["x"].shape
    ho, wo = w.output_size
    shapes = [(n, h, width, c), (n, ho, wo, case.output_channels)]
    if not product:
        shapes = [(n, c, h, w) for n, h, w, c in shapes]
    element = helper.np_dtype_to_tensor_dtype(inputs["x"].dtype)
    x, y = (
        helper.make_tensor_value_info(name, element, shape)
        for name, shape in zip("xy", shapes, strict=True)
    )
    graph = helper.make_graph(nodes, "case", [x], [y], weights)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
