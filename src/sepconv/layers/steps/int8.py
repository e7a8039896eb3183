"""The steps of int8 networks with simulated rounding, and gradients that pass straight through it.

A byte q is the float ``q - zero_point``, a whole number; weights are whole numbers, too. So sums of
less than 2**24 are exact in float32, and what is rounded is what an int8 network rounds. Rounding
counts as doing nothing, and clamping passes the gradient of what it leaves as it is. (Jacob et al.,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
2018, https://arxiv.org/abs/1712.05877.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from sepconv.geometry import ConvSpec
from sepconv.layers.steps import floats, images
from sepconv.program.network import DEQUANTIZED_PRODUCTS, INT8_PRODUCTS, Network, Step
from sepconv.quantization.forms import function_of
from sepconv.quantization.origin import Origin, Rounding, value_scales
from sepconv.quantization.ranges import Scale
from sepconv.quantization.unrounded import (
    Product,
    products_of,
    tables_of,
)

__all__ = ["Simulation", "looked_up", "rounded_weights", "straight"]


def straight(t: Any, lower: float, upper: float) -> Any:
    """Numbers rounded to whole ones between two; the gradient is that of numbers between these."""
    bounded = ops.stop_gradient(ops.clip(t, lower, upper))
    inside = ops.logical_and(t >= lower, t <= upper)
    free = ops.where(inside, t, bounded)
    return free + ops.stop_gradient(ops.round(bounded) - free)


def looked_up(k: Any, table: np.ndarray, rounding: Rounding) -> Any:
    """Numbers looked up in a table; the gradient is the slope of its function, from entry to entry.

    Args:
        k: whole numbers, less the zero point of `rounding.scale`.
        table: 256 numbers of uint8.
        rounding: whose function the table is of.
    """
    source, target = rounding.scale, rounding.result
    x = source.real(np.arange(256))
    y = x if rounding.function is None else function_of(Step("unary", "", [], rounding.function))(x)
    y = y / target.scale + target.zero_point
    slopes = np.where((y < 0) | (y > 255), 0.0, np.gradient(y))
    results = table.astype("float32") - target.zero_point
    whole = ops.stop_gradient(k)
    index = ops.clip(ops.cast(whole + source.zero_point, "int32"), 0, 255)
    slope = ops.take(ops.convert_to_tensor(slopes.astype("float32")), index, axis=0)
    return ops.take(ops.convert_to_tensor(results), index, axis=0) + slope * (k - whole)


def rounded_weights(
    product: Product, kernel: Any, bias: Any, multiplier: Any
) -> tuple[Any, Any, Any]:
    """The whole numbers of weights, and what sums are multiplied by; as `with_floats` rounds them.

    Args:
        product: which the weights are of.
        kernel: of float.
        bias: of float.
        multiplier: what sums are multiplied by, where no weight asks for a larger scale.
    """
    shape, step = tuple(kernel.shape), product.source.scale
    outputs = shape[-1] * (shape[-2] if product.depthwise else 1)
    matrix = ops.reshape(kernel, (-1, outputs))
    scale = multiplier * float(product.ratio)
    # Products alone, which compilers leave as they are, so that the frozen network has these bits.
    of_weight, of_bias = map(float, product.needs)
    largest = ops.max(ops.absolute(matrix), axis=0)
    needed = ops.maximum(largest * of_weight, ops.absolute(bias) * of_bias)
    growth = ops.maximum(needed / scale, 1.0)
    scale, multiplier = (ops.stop_gradient(each * growth) for each in (scale, multiplier))
    real = matrix / scale
    numbers = real + ops.stop_gradient(ops.clip(ops.round(real), -127.0, 127.0) - real)
    real = bias / (scale * step)
    whole = real + ops.stop_gradient(ops.round(real) - real)
    return ops.reshape(numbers, shape), whole, multiplier


class Simulation:
    """An int8 network in floats, to be trained.

    Args:
        network: the int8 network; its tensors are not looked at, but for their dtypes and shapes.
        origin: of it.

    Attributes:
        tables: its tables, by step and part.
    """

    def __init__(self, network: Network, origin: Origin) -> None:
        self._network, self._origin = network, origin
        self._scales = value_scales(network, origin)
        self._products = products_of(network, origin)
        self.tables = tables_of(network, origin)

    def __call__(self, inputs: Sequence[Any], weights: Mapping[tuple[int, str], Any]) -> list[Any]:
        """The outputs.

        Args:
            inputs: float32 tensors.
            weights: as `sepconv.quantization.unrounded.floats_of` gives them.
        """
        values = list(inputs)
        for i, step in enumerate(self._network.steps):
            given = [values[value] for value in step.inputs]
            own = {part: weights[i, part] for part in step.weights if (i, part) in weights}
            values.append(self._step(i, step, own, given))
        return [values[value] for value in self._network.outputs]

    def _step(self, i: int, step: Step, weights: Mapping[str, Any], inputs: list[Any]) -> Any:
        if step.operation in INT8_PRODUCTS and "kernel" not in step.weights:
            return self._convolution(i, step, weights, *inputs)
        if step.operation in INT8_PRODUCTS:
            (product,) = self._products[i]
            kernel, bias, multiplier = _weights(product, weights)
            sums = ops.matmul(inputs[0], kernel) + bias
            return self._finished(product, step, sums * multiplier)
        if step.operation == "lookup":
            return looked_up(inputs[0], self.tables[i, "table"], self._origin[i][0])
        if step.operation in _STEPS:
            scale = self._origin[i][-1].scale if self._origin[i] else self._source(step)
            return _STEPS[step.operation](step.attributes, scale, *inputs)
        moved = self._scales[len(self._network.inputs) + i]
        if moved is None:
            return floats.compute(step, weights, inputs)
        if step.operation == "pad":
            given = {**step.attributes, "value": step.attributes["value"] - moved.zero_point}
            step = step._replace(attributes=given)
        return floats.compute(step, weights, inputs, -float(moved.zero_point))

    def _source(self, step: Step) -> Scale:
        scale = self._scales[step.inputs[0]]
        assert scale is not None
        return scale

    def _convolution(
        self, i: int, step: Step, weights: Mapping[str, Any], x: Any, residual: Any = None
    ) -> Any:
        spec = ConvSpec(*step.attributes["spec"])
        y = images.as_image(x, spec)
        for product in self._products[i]:
            kernel, bias, multiplier = _weights(product, weights)
            t = (images.convolve(y, kernel, spec, product.depthwise) + bias) * multiplier
            if residual is not None and not product.depthwise:
                added = images.as_image(residual, spec)
                t = t + added * float(np.float32(step.attributes["residual_scale"]))
            y = self._finished(product, step, t)
            spec = ConvSpec(1, 1, 1, 1, 0, 0, 0, 0, 0, spec.channels_first)
        return images.from_image(y, spec, len(x.shape))

    def _finished(self, product: Product, step: Step, t: Any) -> Any:
        if step.operation in DEQUANTIZED_PRODUCTS and not product.depthwise:
            return t
        before = "depthwise_" if product.depthwise else ""
        lower, upper = (step.attributes[f"{before}{end}"] for end in ("lower", "upper"))
        zero = product.rounding.scale.zero_point
        k = straight(t, lower - zero, upper - zero)
        table = self.tables.get((product.step, f"{before}table"))
        return k if table is None else looked_up(k, table, product.rounding)


def _weights(product: Product, weights: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    parts = (weights[part] for part in (product.kernel, product.bias, product.scale))
    return rounded_weights(product, *parts)


def _rounded(t: Any, scale: Scale, lower: int = 0, upper: int = 255) -> Any:
    return straight(t, lower - scale.zero_point, upper - scale.zero_point)


def _quantize(given: Mapping[str, Any], scale: Scale, x: Any) -> Any:
    return _rounded(x * float(np.float32(given["multiplier"])), scale)


def _dequantize(given: Mapping[str, Any], scale: Scale, x: Any) -> Any:
    return x * float(np.float32(given["scale"]))


def _binary(given: Mapping[str, Any], scale: Scale, a: Any, b: Any) -> Any:
    a_scale, b_scale = (float(np.float32(given[f"{each}_scale"])) for each in "ab")
    t = a * b * a_scale if given["function"] == "multiply" else a * a_scale + b * b_scale
    return _rounded(t, scale, given["lower"], given["upper"])


def _mean(given: Mapping[str, Any], scale: Scale, x: Any) -> Any:
    sums = ops.sum(x, axis=tuple(given["axes"]), keepdims=given["keepdims"])
    return _rounded(sums * float(np.float32(given["scale"])), scale)


def _average_pool(given: Mapping[str, Any], scale: Scale, x: Any) -> Any:
    spec = ConvSpec(*given["spec"])
    sums, counts = images.sums(images.as_image(x, spec), given["window"], spec)
    y = _rounded(sums * (float(np.float32(given["scale"])) / counts), scale)
    return images.from_image(y, spec, len(x.shape))


#: Steps of the scale that their results are rounded to, or that they take, and of their inputs.
_STEPS: dict[str, Callable[..., Any]] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "quantized_binary": _binary,
    "quantized_mean": _mean,
    "quantized_average_pool": _average_pool,
}
