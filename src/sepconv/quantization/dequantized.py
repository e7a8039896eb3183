"""The float network of an int8 one: its rounded weights as floats, and nothing else rounded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sepconv.program.building.builder import Builder
from sepconv.program.network import INT8_PRODUCTS, Network, Step
from sepconv.quantization.origin import Origin, Rounding, value_scales
from sepconv.quantization.ranges import Scale
from sepconv.quantization.unrounded import Product, floats_of, products_of

__all__ = ["dequantized"]

#: What clamps are as activations of a convolution.
_ACTIVATIONS = {(0.0, math.inf): "relu", (0.0, 6.0): "relu6"}


def dequantized(network: Network, origin: Origin) -> Network:
    """A float32 network with the weights of an int8 one, each exactly ``number * scale``.

    It computes what the int8 network does, but for the rounding of values, and for their clamping
    at the ends of ranges.

    Args:
        network: the int8 network.
        origin: of it.

    Example:
        >>> import numpy as np
        >>> from sepconv.program.network import Input
        >>> from sepconv.quantization.quantize import quantize_network
        >>> step = Step("dense", "d", [0], {"activation": "none"}, {"kernel": 0})
        >>> tensors = [np.float32([[0.5], [-1.0]])]
        >>> network = Network("float32", [Input("x", (None, 2))], [step], [1], ["y"], tensors)
        >>> found = quantize_network(network, np.eye(2))
        >>> [step.operation for step in found.network.steps]
        ['quantize', 'dequantized_dense']
        >>> [step.operation for step in dequantized(found.network, found.origin).steps]
        ['dense']
    """
    return _Writer(network, origin).written()


class _Writer:
    def __init__(self, network: Network, origin: Origin) -> None:
        self._old, self._origin = network, origin
        self._scales = value_scales(network, origin)
        self._products = products_of(network, origin)
        self._arrays = floats_of(network, origin)
        self._builder = Builder(network.dtype, network.inputs)

    def written(self) -> Network:
        """The result."""
        old, builder = self._old, self._builder
        numbers = list(range(len(old.inputs)))
        for i, step in enumerate(old.steps):
            builder.name = step.name
            numbers.append(self._write(i, step, [numbers[value] for value in step.inputs]))
        outputs = [numbers[value] for value in old.outputs]
        return Network(
            old.dtype, old.inputs, builder.steps, outputs, old.output_names, builder.tensors
        )

    def _write(self, i: int, step: Step, inputs: list[int]) -> int:
        """Writes the float steps of an int8 one, and gives the number of their value."""
        given, roundings = step.attributes, self._origin[i]
        if step.operation in ("quantize", "dequantize"):
            return inputs[0]
        if step.operation in INT8_PRODUCTS and "kernel" not in step.weights:
            return self._convolution(i, step, inputs)
        if step.operation in INT8_PRODUCTS:
            (product,) = self._products[i]
            activation, rest = _activation(product.rounding)
            y = self._emit("dense", inputs, {"activation": activation}, product)
            return self._function(y, rest)
        if step.operation == "lookup":
            return self._function(inputs[0], roundings[0].function)
        if step.operation == "quantized_binary":
            function = "subtract" if given["b_scale"] < 0 else given["function"]
            y = self._builder.binary(function, *inputs)
            return self._function(y, _clamp(roundings[0].clamp))
        if step.operation == "quantized_mean":
            return self._builder.reduce(inputs[0], "mean", given["axes"], given["keepdims"])
        if step.operation == "quantized_average_pool":
            attributes = {"function": "average", "window": given["window"], "spec": given["spec"]}
            return self._builder.emit("pool", inputs, attributes)
        scale = self._scales[len(self._old.inputs) + i]
        if step.operation == "pad" and scale is not None:
            given = {**given, "value": _real(scale, given["value"])}
        weights = {part: self._arrays[i, part] for part in step.weights}
        return self._builder.emit(step.operation, inputs, given, weights)

    def _convolution(self, i: int, step: Step, inputs: list[int]) -> int:
        spec, products = tuple(step.attributes["spec"]), self._products[i]
        for product in products:
            activation, rest = _activation(product.rounding)
            attributes = {
                "spec": spec,
                "depthwise_activation": "none",
                "activation": activation,
            }
            y = self._emit("convolution", inputs, attributes, product)
            inputs = [self._function(y, rest), *inputs[1:]]
            spec = (1, 1, 1, 1, 0, 0, 0, 0, 0, spec[9])
        return inputs[0]

    def _emit(
        self, operation: str, inputs: list[int], attributes: Mapping[str, Any], product: Product
    ) -> int:
        """A step with the weights of a product; a residual is the last one's."""
        weights = {
            product.kernel: self._arrays[product.step, product.kernel],
            "bias": self._arrays[product.step, product.bias],
        }
        taken = inputs[:1] if product.depthwise else inputs
        return self._builder.emit(operation, taken, attributes, weights)

    def _function(self, x: int, function: Mapping[str, Any] | None) -> int:
        return x if function is None else self._builder.emit("unary", [x], function)


def _activation(rounding: Rounding) -> tuple[str, Mapping[str, Any] | None]:
    """The activation of a step, and the function that follows where it is none that steps have."""
    if rounding.clamp in _ACTIVATIONS:
        return _ACTIVATIONS[rounding.clamp], None
    return "none", _clamp(rounding.clamp) or rounding.function


def _clamp(clamp: tuple[float, float] | None) -> Mapping[str, Any] | None:
    if clamp is None:
        return None
    if clamp[0] == 0:
        return {"function": "relu", "a": 0.0, "b": clamp[1], "c": 0.0}
    return {"function": "clip", "a": clamp[0], "b": clamp[1], "c": 0.0}


def _real(scale: Scale, number: float) -> float:
    return (number - scale.zero_point) * scale.scale
