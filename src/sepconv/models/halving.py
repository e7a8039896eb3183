"""Which steps of an inference network compute in a half type, and which stay as they are."""

from __future__ import annotations

from typing import Any

import keras

from sepconv.models.folding import Convolution, FusedConvolution
from sepconv.models.graph import Graph, Value

__all__ = ["HALF_TYPES", "check_dtype", "half_policies"]

HALF_TYPES = ("bfloat16", "float16")

#: Layers of Keras' own that round each result once at most, so that a half type loses no more in
#: them than in what they get. Sums over many elements, normalization and softmax stay in float32.
_ELEMENTWISE = (
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.AveragePooling2D,
    keras.layers.Concatenate,
    keras.layers.Cropping2D,
    keras.layers.ELU,
    keras.layers.Flatten,
    keras.layers.LeakyReLU,
    keras.layers.MaxPooling2D,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.Permute,
    keras.layers.ReLU,
    keras.layers.Reshape,
    keras.layers.Subtract,
    keras.layers.UpSampling2D,
    keras.layers.ZeroPadding2D,
)


def check_dtype(dtype: str | None) -> str | None:
    """The half type that is asked for, or None for none.

    Raises:
        ValueError: it is another dtype.

    Example:
        >>> check_dtype("bfloat16"), check_dtype(None)
        ('bfloat16', None)
    """
    if dtype is None or dtype in HALF_TYPES:
        return dtype
    raise ValueError(
        "dtype must be None, for that of the model's layers, 'bfloat16' or 'float16'. "
        f"Received: dtype={dtype!r}"
    )


def half_policies(graph: Graph, dtype: str | None) -> dict[int, str]:
    """The dtype policies of layers that are not to compute as the model's do, by operations' ids.

    Blocks compute in `dtype` and have their weights in it, as do those that a mixed policy has
    computed in a half type. What follows them on their images, an element at a time, does so too.
    Layers that give the model's outputs stay as they are, and so does whatever a user wrote.

    Args:
        graph: of the model, its blocks merged.
        dtype: a half type, or None for that of the model's policies.
    """
    policies = _mixed_blocks(graph)
    if dtype is None:
        return policies
    kept = _kept(graph)
    halved: set[Value] = set()
    for step in graph.steps:
        operation = step.operation
        if not isinstance(operation, (Convolution, keras.layers.Layer)):
            if halved.issuperset(v for v in step.inputs if _is_float(v)) and step.inputs:
                halved.update(step.outputs)
            continue
        if isinstance(operation, Convolution) and not isinstance(operation, FusedConvolution):
            continue
        if _may_change(operation) and kept.isdisjoint(step.outputs):
            if isinstance(operation, FusedConvolution):
                policies[id(operation)] = dtype
                halved.update(step.outputs)
            elif not halved.isdisjoint(step.inputs):
                policies[id(operation)] = f"mixed_{dtype}"
                halved.update(step.outputs)
    return policies


def _mixed_blocks(graph: Graph) -> dict[int, str]:
    """Blocks under a mixed policy: at inference, weights are as good in what they are cast to."""
    blocks = [s.operation for s in graph.steps if isinstance(s.operation, FusedConvolution)]
    policies = {id(block): block.layer.dtype_policy for block in blocks}
    return {
        key: policy.compute_dtype
        for key, policy in policies.items()
        if policy.compute_dtype in HALF_TYPES and policy.variable_dtype != policy.compute_dtype
    }


def _kept(graph: Graph) -> set[Value]:
    """Values that must be of the model's own dtype: its outputs, and what operations make them of.

    Operations, unlike layers, compute in the dtype that they are given.
    """
    kept = set(graph.outputs)
    for step in reversed(graph.steps):
        casts = isinstance(step.operation, (Convolution, keras.layers.Layer))
        if not casts and not kept.isdisjoint(step.outputs):
            kept.update(step.inputs)
    return kept


def _may_change(operation: Any) -> bool:
    layer = operation.layer if isinstance(operation, FusedConvolution) else operation
    if layer.dtype_policy.name != "float32":
        return False
    if isinstance(operation, FusedConvolution):
        return True
    softmax = getattr(operation, "activation", None) in _FUNCTIONS_OF_ROWS
    return type(operation) in _ELEMENTWISE and not softmax


_FUNCTIONS_OF_ROWS = (
    keras.activations.softmax,
    keras.activations.log_softmax,
    keras.activations.sparsemax,
)


def _is_float(value: Value) -> bool:
    return value.dtype is not None and keras.backend.is_float_dtype(value.dtype)
