"""The float weights that an int8 network's numbers stand for, and the numbers of float weights.

To train an int8 network, its numbers become floats, ``number * scale``; trained, they are rounded
again. Scales of values stay. The scale of a layer's weights only grows, where a weight comes to
exceed its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sepconv.program.building.tensors import Tensors
from sepconv.program.network import DEQUANTIZED_PRODUCTS, INT8_PRODUCTS, Network, Step
from sepconv.quantization.forms import function_of, table_of
from sepconv.quantization.origin import Origin, Rounding, value_scales
from sepconv.quantization.ranges import Scale

__all__ = [
    "Arrays",
    "Product",
    "floats_of",
    "products_of",
    "tables_of",
    "with_floats",
]

#: Weights beyond this many scales make the scale larger; what is within is rounded to 127 at most.
_LARGEST_WEIGHT = 127.5

#: And biases beyond this many of theirs, a little above what `sepconv.quantization.weights` gives.
_LARGEST_BIAS = 1.01 * 2.0**29

#: What stands for the rounding of sums that are not rounded.
_SUMS = Rounding(Scale(1.0, 0), Scale(1.0, 0))

#: Arrays by the number of their step and their part in it.
Arrays = Mapping[tuple[int, str], np.ndarray]


class Product(NamedTuple):
    """Weights of an int8 step: one kernel, and what goes with it.

    Attributes:
        step: its number.
        kernel: the name of the kernel in it.
        bias: that of the bias.
        scale: that of the numbers that sums are multiplied by.
        depthwise: whether the kernel is a depthwise one.
        source: the scale of what it takes.
        rounding: of its results; of those that are not rounded, one of the scale 1.
        shift: how far the zero point that it centers its input by is above that of `source`.
    """

    step: int
    kernel: str
    bias: str
    scale: str
    depthwise: bool
    source: Scale
    rounding: Rounding
    shift: int

    @property
    def ratio(self) -> np.float32:
        """The scale of the kernel's numbers, over what sums are multiplied by."""
        return np.float32(self.rounding.scale.scale / self.source.scale)

    @property
    def needs(self) -> tuple[np.float32, np.float32]:
        """The least scale of a kernel's numbers, over the largest weight and the largest bias."""
        of_bias = 1 / (_LARGEST_BIAS * self.source.scale)
        return np.float32(1 / _LARGEST_WEIGHT), np.float32(of_bias)

    @property
    def zero(self) -> int:
        """The number that is zero in its results, before they are looked up."""
        return self.rounding.scale.zero_point


def products_of(network: Network, origin: Origin) -> dict[int, list[Product]]:
    """The products of all int8 steps with weights, by the numbers of these."""
    scales = value_scales(network, origin)
    found: dict[int, list[Product]] = {}
    for i, (step, roundings) in enumerate(zip(network.steps, origin, strict=True)):
        if step.operation not in INT8_PRODUCTS:
            continue
        source = scales[step.inputs[0]]
        assert source is not None
        parts = found[i] = []
        if "depthwise_kernel" in step.weights:
            names = "depthwise_kernel", "depthwise_bias", "depthwise_scale"
            parts.append(Product(i, *names, True, source, roundings[0], 0))
        kernel = "kernel" if "kernel" in step.weights else "pointwise_kernel"
        if kernel in step.weights:
            shift = 0
            if parts:  # it takes what the first one gives, centered by that one's rounding
                source = roundings[0].result
                shift = parts[0].zero - source.zero_point
            names = kernel, "bias", "scale"
            rounding = _SUMS if step.operation in DEQUANTIZED_PRODUCTS else roundings[-1]
            parts.append(Product(i, *names, False, source, rounding, shift))
    return found


def floats_of(network: Network, origin: Origin) -> dict[tuple[int, str], np.ndarray]:
    """All weights of an int8 network in float32, by the number of the step and the part.

    Of an int8 step these are a kernel, a bias, and the numbers that sums are multiplied by. Tables
    are none.

    Example:
        >>> from sepconv.program.network import Input
        >>> from sepconv.quantization.quantize import quantize_network
        >>> step = Step("dense", "d", [0], {"activation": "none"}, {"kernel": 0})
        >>> tensors = [np.float32([[0.5], [-1.0]])]
        >>> network = Network("float32", [Input("x", (None, 2))], [step], [1], ["y"], tensors)
        >>> found = quantize_network(network, np.eye(2))
        >>> floats = floats_of(found.network, found.origin)
        >>> floats[1, "kernel"].shape, bool(abs(floats[1, "kernel"] - tensors[0]).max() < 0.01)
        ((2, 1), True)
    """
    products = products_of(network, origin)
    arrays: dict[tuple[int, str], np.ndarray] = {}
    for i, step in enumerate(network.steps):
        tensors = {part: network.tensors[n] for part, n in step.weights.items()}
        if i in products:
            for product in products[i]:
                arrays |= _unrounded(product, tensors)
        elif step.operation != "lookup":
            arrays |= {(i, part): array for part, array in tensors.items()}
    return arrays


def _unrounded(
    product: Product, tensors: Mapping[str, np.ndarray]
) -> dict[tuple[int, str], np.ndarray]:
    numbers = _matrix(product, tensors[product.kernel])
    multiplier = tensors[product.scale]
    scale = multiplier * product.ratio
    bias = tensors.get(product.bias, np.zeros(len(scale), np.int32)).astype(np.int64)
    bias = bias - product.shift * numbers.astype(np.int64).sum(0)
    kernel = (numbers * scale).reshape(tensors[product.kernel].shape)
    wide = bias * (scale.astype(np.float64) * product.source.scale)
    found = {product.kernel: kernel, product.bias: wide, product.scale: multiplier}
    return {(product.step, part): array.astype(np.float32) for part, array in found.items()}


def _matrix(product: Product, kernel: np.ndarray) -> np.ndarray:
    """A kernel as a matrix of its taps by its outputs."""
    outputs = kernel.shape[-1] * (kernel.shape[-2] if product.depthwise else 1)
    return kernel.reshape(-1, outputs)


def with_floats(network: Network, origin: Origin, arrays: Arrays) -> Network:
    """An int8 network with other weights, which are rounded.

    Args:
        network: the int8 network; of its tensors, the dtypes and shapes alone count.
        origin: of it.
        arrays: as `floats_of` gives them.

    Raises:
        ValueError: weights are not finite, or so large that sums could leave int32.
    """
    products, tables, tensors = products_of(network, origin), tables_of(network, origin), Tensors()
    steps: list[Step] = []
    for i, step in enumerate(network.steps):
        weights: dict[str, Any] = {part: network.tensors[n] for part, n in step.weights.items()}
        for known in (arrays, tables):
            weights |= {part: known[i, part] for part in weights if (i, part) in known}
        for part, array in weights.items():
            if array.dtype == np.float32 and not np.isfinite(array).all():
                raise ValueError(
                    f"The weights of the block {step.name!r} must be finite numbers to be rounded. "
                    f"Received: {part} with {int((~np.isfinite(array)).sum())} that are not"
                )
        for product in products.get(i, ()):
            weights |= _rounded(product, step.name, arrays)
        numbers = {part: tensors.add(array) for part, array in weights.items()}
        steps.append(step._replace(weights=numbers))
    return network._replace(steps=steps, tensors=tensors.arrays)


def _rounded(product: Product, name: str, arrays: Arrays) -> dict[str, np.ndarray]:
    """The int8 weights of one product; in float32, as the simulation computes them."""
    kernel, bias, multiplier = (
        np.asarray(arrays[product.step, part], np.float32)
        for part in (product.kernel, product.bias, product.scale)
    )
    matrix = _matrix(product, kernel)
    scale, step = multiplier * product.ratio, np.float32(product.source.scale)
    of_weight, of_bias = product.needs
    needed = np.maximum(np.abs(matrix).max(0, initial=0.0) * of_weight, np.abs(bias) * of_bias)
    growth = np.maximum(needed / scale, np.float32(1))
    scale, multiplier = scale * growth, multiplier * growth
    numbers = np.clip(np.rint(matrix / scale), -127, 127).astype(np.int64)
    whole = np.rint((bias / (scale * step)).astype(np.float64)).astype(np.int64)
    whole += product.shift * numbers.sum(0)
    if (np.abs(whole) + 255 * np.abs(numbers).sum(0) >= 2**31).any():
        raise ValueError(
            f"The sums of the block {name!r} could leave int32 with these weights. Train it with "
            f"a smaller learning rate, or keep it float: quantize(..., keep=[{name!r}])"
        )
    return {
        product.kernel: numbers.astype(np.int8).reshape(kernel.shape),
        product.bias: whole.astype(np.int32),
        product.scale: multiplier,
    }


def tables_of(network: Network, origin: Origin) -> dict[tuple[int, str], np.ndarray]:
    """The tables of an int8 network, by the number of the step and the part."""
    found = {}
    for i, (step, roundings) in enumerate(zip(network.steps, origin, strict=True)):
        parts = [part for part in step.weights if part.endswith("table")]
        for part in parts:
            rounding = roundings[0 if part == "depthwise_table" else -1]
            function = None
            if rounding.function is not None:
                function = function_of(Step("unary", step.name, [], rounding.function))
            table = table_of(rounding.scale, rounding.result, function)
            if table is None:
                raise ValueError(f"The function of the block {step.name!r} is not finite")
            found[i, part] = table
    return found
