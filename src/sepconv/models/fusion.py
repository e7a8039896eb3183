"""The rules by which steps of a graph become parts of convolutions.

A rule looks at one step and those before it. It changes the graph and returns None, or changes
nothing and returns the reason, or an empty string where it does not apply to such a step.
"""

from __future__ import annotations

from typing import Any

import keras

from sepconv.fused import BLOCK_ACTIVATIONS
from sepconv.layers.activations import kernel_activation
from sepconv.layers.batch_normalization import BatchNormalization
from sepconv.models.folding import Convolution, FusedConvolution, Stock, affine_of
from sepconv.models.graph import Graph, Step, Value

__all__ = ["NOOPS", "RULES", "drop"]

#: Layers that do nothing at inference.
NOOPS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
    keras.layers.Identity,
)

_NORMALISATIONS = (keras.layers.BatchNormalization, BatchNormalization)

#: Keras' operations, as a graph has them where a function was called instead of a layer.
_OPERATIONS = {"Relu": "relu", "Relu6": "relu6", "Silu": "silu", "HardSilu": "hard_silu"}


def _activation_of(operation: Any) -> Any:
    """The activation that a layer or operation applies, or None."""
    kind = type(operation)
    if kind is keras.layers.Activation:
        return operation.activation
    ours = kind.__module__.startswith("keras.")
    if kind is keras.layers.ReLU or (ours and kind.__name__ == "ReLU"):
        plain = not operation.negative_slope and not operation.threshold
        if plain and operation.max_value in (None, 6):
            return (
                keras.activations.relu if operation.max_value is None else keras.activations.relu6
            )
        return None
    if ours and kind.__name__ in _OPERATIONS:
        return getattr(keras.activations, _OPERATIONS[kind.__name__])
    return None


def _is_noop(operation: Any) -> bool:
    """Whether it does nothing at inference."""
    if type(operation) is keras.layers.Activation:
        return operation.activation is keras.activations.linear
    return type(operation) in NOOPS


def _keras_operation(step: Step, name: str) -> bool:
    kind = type(step.operation)
    return kind.__name__ == name and kind.__module__.startswith("keras.")


def _alike(first: Any, second: Any) -> bool:
    """Whether two layers compute in one dtype; operations take what they are given."""
    policies = [
        layer.dtype_policy.name for layer in (first, second) if hasattr(layer, "dtype_policy")
    ]
    return len(set(policies)) <= 1


def _convolution_before(graph: Graph, step: Step, value: Value) -> tuple[Step | None, str]:
    """The convolution that computes `value` for `step` alone and can take more in, or why none."""
    producer = graph.producer(value)
    if producer is None:
        return None, "what it is applied to is an input"
    before = producer.operation
    if not isinstance(before, Convolution):
        return None, f"it follows {producer.name!r}, which is no convolution"
    if graph.consumers(value) != 1:
        return None, f"other layers use the result of {producer.name!r} too"
    if not before.open:
        return None, f"{producer.name!r} ends in an activation or a residual"
    if not _alike(before.layer, step.operation):
        return None, f"{producer.name!r} computes in another dtype"
    return producer, ""


def drop(graph: Graph, step: Step) -> str | None:
    """Removes a step that does nothing at inference."""
    if not _is_noop(step.operation):
        return ""
    if not step.takes_one():
        return "it is called with arguments that may make it do something"
    if step.output in graph.outputs:
        return "it gives an output its name"
    graph.bypass(step)
    return None


def normalisation_after(graph: Graph, step: Step) -> str | None:
    """BatchNormalization goes into the convolution before it."""
    layer = step.operation
    if type(layer) not in _NORMALISATIONS:
        return ""
    if not step.takes_one():
        return "it is called with arguments of its own"
    producer, why = _convolution_before(graph, step, step.inputs[0])
    if producer is None:
        return why
    if not _same_channels(layer, producer.operation, len(step.inputs[0].shape)):
        return f"its axis is not that of the channels of {producer.name!r}"
    producer.operation.fold_after(affine_of(layer))
    _take_in(graph, producer, step)
    return None


def _same_channels(layer: Any, convolution: Convolution, rank: int) -> bool:
    first = convolution.data_format == "channels_first"
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
    return axis % rank == (1 if first else rank - 1)


def _take_in(graph: Graph, producer: Step, step: Step) -> None:
    producer.operation.parts.append(step.label)
    graph.merge(producer, step)


def normalisation_before(graph: Graph, step: Step) -> str | None:
    """A BatchNormalization that is still there goes into the convolution after it."""
    convolution = step.operation
    if not isinstance(convolution, (FusedConvolution, Stock)):
        return ""
    producer = graph.only_before(step, step.inputs[0])
    if producer is None or type(producer.operation) not in _NORMALISATIONS:
        return ""
    layer = producer.operation
    if id(layer) in graph.kept or not producer.takes_one() or not convolution.unpadded:
        return ""
    if not _alike(layer, convolution.layer):
        return ""
    if not _same_channels(layer, convolution, len(step.inputs[0].shape)):
        return ""
    convolution.fold_before(affine_of(layer))
    convolution.parts.insert(0, producer.label)
    graph.absorb(producer, step)
    return None


def activation_after(graph: Graph, step: Step) -> str | None:
    """An activation goes to the end of the convolution before it."""
    activation = _activation_of(step.operation)
    if activation is None:
        return ""
    if not step.takes_one():
        return "it is called with arguments of its own"
    producer = graph.producer(step.inputs[0])
    ours = producer is not None and isinstance(producer.operation, FusedConvolution)
    if ours and kernel_activation(activation, BLOCK_ACTIVATIONS) is None:
        return "the kernels do not know this activation"
    # A residual is added before the activation, so that it may still come.
    if ours and producer is not None and producer.operation.residual:
        if producer.operation.activation is not None or graph.consumers(step.inputs[0]) != 1:
            return f"other layers use the result of {producer.name!r} too"
        if not _alike(producer.operation.layer, step.operation):
            return f"{producer.name!r} computes in another dtype"
    else:
        producer, why = _convolution_before(graph, step, step.inputs[0])
        if producer is None:
            return why
    producer.operation.activation = activation
    _take_in(graph, producer, step)
    return None


def constant_after(graph: Graph, step: Step) -> str | None:
    """A number that is added to a convolution's result goes into its bias."""
    args, kwargs = step.arguments
    if not _keras_operation(step, "Add") or len(step.inputs) != 1 or len(args) != 2 or kwargs:
        return ""
    number = next((a for a in args if isinstance(a, (int, float))), None)
    producer, _ = _convolution_before(graph, step, step.inputs[0])
    if number is None or producer is None:
        return ""
    producer.operation.add_to_bias(float(number))
    _take_in(graph, producer, step)
    return None


def padding_before(graph: Graph, step: Step) -> str | None:
    """ZeroPadding2D becomes the padding of the convolution after it."""
    convolution = step.operation
    if not isinstance(convolution, (FusedConvolution, Stock)):
        return ""
    producer = graph.only_before(step, step.inputs[0])
    if producer is None or type(producer.operation) is not keras.layers.ZeroPadding2D:
        return ""
    layer = producer.operation
    if id(layer) in graph.kept or layer.data_format != convolution.data_format:
        return ""
    pads = layer.padding
    if isinstance(convolution, Stock):
        if not _is_same_padding(convolution, pads, producer.inputs[0].shape):
            return ""
        convolution.config["padding"] = "same"
    else:
        if convolution.is_pointwise or convolution.padding == "same":
            return ""
        inner = ((0, 0), (0, 0)) if convolution.padding == "valid" else convolution.padding
        convolution.padding = tuple(
            (a + c, b + d) for (a, b), (c, d) in zip(pads, inner, strict=True)
        )
    convolution.parts.insert(0, producer.label)
    graph.absorb(producer, step)
    return None


def _is_same_padding(convolution: Stock, pads: Any, shape: tuple[int | None, ...]) -> bool:
    """Whether these pads are those of Keras' 'same' for an input of this shape."""
    layer = convolution.layer
    if not isinstance(layer, keras.layers.Conv2D) or layer.padding != "valid":
        return False
    sizes = shape[2:] if layer.data_format == "channels_first" else shape[1:3]
    for size, k, stride, dilation, pair in zip(
        sizes, layer.kernel_size, layer.strides, layer.dilation_rate, pads, strict=True
    ):
        if size is None:
            return False
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        if tuple(pair) != (total // 2, total - total // 2):
            return False
    return True


def pointwise_after(graph: Graph, step: Step) -> str | None:
    """A 1x1 convolution follows a depthwise one in the same layer."""
    second = step.operation
    if not isinstance(second, FusedConvolution) or not second.is_pointwise:
        return ""
    producer = graph.only_before(step, step.inputs[0])
    if producer is None or not isinstance(producer.operation, FusedConvolution):
        return ""
    first = producer.operation
    if first.pointwise is not None or second.strides != (1, 1):
        return ""
    if (
        first.activation is not None
        and kernel_activation(first.activation, BLOCK_ACTIVATIONS) is None
    ):
        return ""
    if first.data_format != second.data_format or not _alike(first.layer, second.layer):
        return ""
    first.append(second)
    graph.merge(producer, step)
    return None


def residual_after(graph: Graph, step: Step) -> str | None:
    """Moves the addition to a convolution's result into the convolution's layer."""
    if not _keras_operation(step, "Add") or len(step.inputs) != 2:
        return ""
    reasons = []
    # The later of the two, so that the other is there when it is added.
    for value in sorted(step.inputs, key=lambda v: _position(graph, v), reverse=True):
        (other,) = [v for v in step.inputs if v is not value] or [value]
        producer, why = _convolution_before(graph, step, value)
        if producer is None:
            reasons.append(why)
        elif (
            not isinstance(producer.operation, FusedConvolution)
            or producer.operation.pointwise is None
        ):
            reasons.append(f"{producer.name!r} has no 1x1 convolution")
        elif not _equal_shapes(graph, value, other):
            reasons.append("its inputs are of different shapes")
        else:
            producer.operation.residual = True
            (x,) = producer.inputs
            producer.set_arguments((x, other), {})
            _take_in(graph, producer, step)
            return None
    return "; ".join(dict.fromkeys(reasons))


def _position(graph: Graph, value: Value) -> int:
    producer = graph.producer(value)
    return -1 if producer is None else graph.steps.index(producer)


def _equal_shapes(graph: Graph, a: Value, b: Value) -> bool:
    """Whether two tensors certainly have one shape."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if all(size is not None for size in a.shape[1:]):
        return True
    return not _same_sized(graph, a).isdisjoint(_same_sized(graph, b))


def _same_sized(graph: Graph, value: Value) -> set[Value]:
    """The value and those before it that have its height and width, whatever these are."""
    found = {value}
    producer = graph.producer(value)
    while producer is not None and producer.inputs:
        operation = producer.operation
        if isinstance(operation, FusedConvolution):
            keeps = operation.strides == (1, 1) and (
                operation.padding == "same" or operation.is_pointwise
            )
        else:
            keeps = _activation_of(operation) is not None or isinstance(
                operation, keras.layers.BatchNormalization
            )
        if not keeps:
            break
        value = producer.inputs[0]
        found.add(value)
        producer = graph.producer(value)
    return found


RULES = (
    drop,
    normalisation_after,
    activation_after,
    constant_after,
    residual_after,
    padding_before,
    normalisation_before,
    pointwise_after,
)
