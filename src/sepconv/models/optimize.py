"""Optimizes a Keras model for inference: folds batch normalization, fuses blocks of layers."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from sepconv.layers.fused_conv2d import FusedConv2D
from sepconv.models.copying import LayerCopier
from sepconv.models.folding import Convolution, FusedConvolution, Stock, lower, obstacle
from sepconv.models.fusion import RULES, drop
from sepconv.models.graph import Graph, Step
from sepconv.models.halving import check_dtype, half_policies
from sepconv.models.record import Record
from sepconv.models.verify import check_copy

__all__ = ["Optimized", "fused_graph", "optimize"]

#: The arguments of Keras' layers that say what a convolution computes.
_ARGUMENTS = (
    "units",
    "filters",
    "kernel_size",
    "strides",
    "padding",
    "data_format",
    "dilation_rate",
    "depth_multiplier",
    "groups",
)


class Optimized(NamedTuple):
    """A model for inference, and the record of its changes.

    Attributes:
        model: a functional Keras model.
        record: a line for each layer of the original; prints as a table.
    """

    model: Any
    record: Record


def optimize(model: Any, *, dtype: str | None = None, verify: Any = True) -> Optimized:
    """Makes a model that computes the same predictions faster, for inference only.

    - BatchNormalization is folded into the convolution or Dense layer before it, or, where that
      cannot be, into one after it.
    - An ordinary convolution with a kernel of at most 1024 weights an output becomes a
      `sepconv.layers.FusedConv2D` too (channels_last).
    - A depthwise convolution, a 1x1 convolution, both with what stands between them, their
      activations (relu, relu6, hard_silu, silu), zero padding before them and a residual that is
      added become one layer, `sepconv.layers.FusedConv2D`, that passes over memory once.
    - Dropout and other layers that do nothing at inference are removed.

    Layers are merged only where no other layer uses the values between them. Layers that are called
    more than once stay as they are. A merged layer has the name of its last layer, whose output it
    gives.

    With `dtype`, these layers compute in a half type, and have their weights in it. So do
    activations, additions and the like between them. What comes before the first of them, sums over
    whole images, normalization that could not be folded, Dense layers, softmax, layers of a user's
    own and those that give the model's outputs stay in float32. Under a policy such as
    ``"mixed_bfloat16"`` blocks compute as the layers that they are made of, and have their weights
    in that dtype.

    Args:
        model: a built Sequential or Functional model; models in it are dissolved into their layers.
            It stays as it is, and shares no weight with the result.
        dtype: ``"bfloat16"`` or ``"float16"`` for blocks that compute in it where the model's
            layers compute in float32; None for blocks that compute as the layers do.
        verify: whether to compare the result's predictions with the model's before it is returned.
            True makes inputs for the model; or inputs, as arrays that it takes.

    Returns:
        A named tuple ``(model, record)``: an ordinary functional Keras model, not compiled, with
        the inputs and outputs of the original, that saves and loads on every engine (where
        `sepconv` is imported); and what became of each layer.

    Raises:
        TypeError: the model is no Sequential or Functional one.
        ValueError: it is not built, a layer that stays as it is cannot be copied, or the result
            predicts something else; the message names the layer. `dtype` is another one.

    Example:
        >>> import keras
        >>> stock = keras.Sequential([
        ...     keras.Input((8, 8, 4)),
        ...     keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False),
        ...     keras.layers.BatchNormalization(name="bn"),
        ...     keras.layers.ReLU(name="relu"),
        ...     keras.layers.Conv2D(8, 1, name="mix"),
        ... ])
        >>> model, record = optimize(stock)
        >>> [type(layer).__name__ for layer in model.layers]
        ['InputLayer', 'FusedConv2D']
        >>> record[-1].note
        "in the FusedConv2D 'mix'"

        A block of bfloat16, and an output of float32:

        >>> layers = [keras.layers.Conv2D(8, 1), keras.layers.GlobalAveragePooling2D()]
        >>> stock = keras.Sequential([keras.Input((8, 8, 4)), *layers])
        >>> model, record = optimize(stock, dtype="bfloat16")
        >>> [layer.compute_dtype for layer in model.layers[1:]]
        ['bfloat16', 'float32']

    Source: Jacob et al., Quantization and Training of Neural Networks, 2018 (section 3.2, folding),
    https://arxiv.org/abs/1712.05877; Sandler et al., MobileNetV2, 2018 (section 5, one pass a
    block), https://arxiv.org/abs/1801.04381
    """
    half = check_dtype(dtype)
    graph = Graph(model)
    report = _Report(graph, LayerCopier(model))
    _fuse(graph, report)
    report.policies = half_policies(graph, half)
    optimized = graph.build(report.make, _fill)
    record = report.record()
    counterparts = report.counterparts
    record.verification = check_copy(
        model, optimized, verify, title="optimize", paired=counterparts.get, dtype=half
    )
    return Optimized(optimized, record)


def fused_graph(model: Any) -> Graph:
    """The graph of the model that `optimize` makes, with `Convolution`s in the place of layers.

    Raises:
        TypeError: as `optimize` does.
        ValueError: see there.

    Example:
        >>> import keras
        >>> layers = [keras.layers.Conv2D(3, 1, name="mix"), keras.layers.ReLU(name="relu")]
        >>> graph = fused_graph(keras.Sequential([keras.Input((8, 8, 4)), *layers]))
        >>> [type(step.operation).__name__ for step in graph.steps]
        ['FusedConvolution']
    """
    graph = Graph(model)
    _fuse(graph, _Report(graph, LayerCopier(model)))
    return graph


def _fuse(graph: Graph, report: _Report) -> None:
    """Turns convolutions into arrays, and applies the rules as long as one applies."""
    for step in graph.steps:
        if id(step.operation) in graph.kept:
            report.leave(step.label, graph.kept[id(step.operation)])
        elif step.takes_one():
            _lower(step, report)
    while _apply_rules(graph, report):
        pass


def _lower(step: Step, report: _Report) -> None:
    """Turns a step's convolution into arrays, where rules may change it."""
    lowered = lower(step.operation, len(step.inputs[0].shape))
    if lowered is None:
        why = obstacle(step.operation)
        if why is not None:
            report.leave(step.label, why)
    elif isinstance(lowered, FusedConvolution) and step.inputs[0].masked:
        report.leave(step.label, "a mask goes through it")
    else:
        lowered.parts.append(step.label)
        step.operation = lowered


def _apply_rules(graph: Graph, report: _Report) -> bool:
    """Applies every rule to every step once; returns whether one applied."""
    changed = False
    for step in list(graph.steps):
        if step not in graph.steps or id(step.operation) in graph.kept:
            continue
        for rule in RULES:
            why = rule(graph, step)
            if why is None:
                changed = True
                if rule is drop:
                    report.change(step.label, "dropped: it does nothing at inference")
                break
            if why:
                report.leave(step.label, why)
    return changed


class _Report:
    """The changes to the layers, and the new layers."""

    def __init__(self, graph: Graph, copier: LayerCopier) -> None:
        self._kinds = {step.label: type(step.operation).__name__ for step in graph.steps}
        self._notes: dict[str, tuple[bool, str]] = {}
        self._copier = copier
        #: The name of the original layer whose output a new layer gives, by the new layer's name.
        self.counterparts: dict[str, str] = {}
        #: The dtype policies of layers that have another one than they had, by operations' ids.
        self.policies: dict[int, str] = {}

    def change(self, label: str, note: str) -> None:
        """Records that a layer was changed."""
        self._notes[label] = True, note

    def leave(self, label: str, why: str) -> None:
        """Records that a layer stays as it is, unless it is changed later."""
        self._notes[label] = False, why

    def record(self) -> Record:
        """A line a layer."""
        record = Record("optimize")
        for label, kind in self._kinds.items():
            record.add(label, kind, *self._notes.get(label, (False, "")))
        return record

    def make(self, step: Step, name: str) -> Any:
        """A new layer for a step."""
        convolution = step.operation
        parts = convolution.parts if isinstance(convolution, Convolution) else [step.label]
        self.counterparts[name] = parts[-1]
        policy = self.policies.get(id(convolution))
        if not isinstance(convolution, Convolution):
            copy = self._copier.copy(convolution)
            copy.name = name
            if policy is not None:
                copy.dtype_policy = policy
                self.change(step.label, f"in {copy.compute_dtype}")
            return copy
        # A user's own function may refer to a layer.
        activation = self._copier.copy(convolution.activation)
        if isinstance(convolution, FusedConvolution):
            between = self._copier.copy(convolution.depthwise_activation)
            layer = _fused_layer(convolution, name, between, activation, policy)
        else:
            assert isinstance(convolution, Stock)
            layer = _stock_layer(convolution, name, activation)
            if len(convolution.parts) == 1:
                self.leave(step.label, "the kernels are not made for such a convolution")
                return layer
        for label in convolution.parts:
            note = f"in the {type(layer).__name__} {name!r}"
            self.change(label, note if policy is None else f"{note}, in {layer.compute_dtype}")
        return layer


def _fused_layer(
    block: FusedConvolution, name: str, between: Any, activation: Any, policy: str | None
) -> FusedConv2D:
    depthwise = block.depthwise
    multiplier = 1 if block.is_pointwise else None
    return FusedConv2D(
        filters=None if block.pointwise is None else block.outputs,
        kernel_size=None if block.is_pointwise else block.kernel_size,
        strides=block.strides,
        padding=block.padding,
        dilation_rate=block.dilation_rate,
        depth_multiplier=multiplier if depthwise is None else depthwise.shape[3],
        data_format=block.data_format,
        depthwise_use_bias=block.depthwise_bias is not None,
        depthwise_activation=between,
        use_bias=block.bias is not None,
        activation=activation,
        depthwise_initializer="zeros",  # the weights are set later, and making random ones is slow
        pointwise_initializer="zeros",
        name=name,
        dtype=block.layer.dtype_policy if policy is None else policy,
    )


def _stock_layer(convolution: Stock, name: str, activation: Any) -> Any:
    """A layer of the same class; config for training does not matter here."""
    layer = convolution.layer
    names = inspect.signature(type(layer).__init__).parameters
    arguments = {n: getattr(layer, n) for n in names if n in _ARGUMENTS}
    arguments |= {n: "zeros" for n in names if n.endswith("_initializer")}
    return type(layer)(
        **{**arguments, **convolution.config},
        name=name,
        use_bias=convolution.bias is not None,
        activation=activation,
        dtype=layer.dtype_policy,
    )


def _fill(step: Step, layer: Any) -> None:
    """Gives a new layer its weights."""
    source = step.operation
    if isinstance(source, FusedConvolution):
        arrays = [source.depthwise, source.depthwise_bias, source.pointwise, source.bias]
        layer.set_weights([a for a in arrays if a is not None])
    elif isinstance(source, Stock):
        layer.set_weights([*source.kernels, *([] if source.bias is None else [source.bias])])
