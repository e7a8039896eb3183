"""Simplifies a network: fewer steps that compute the same.

A rule looks at one node and those before it, and says whether it changed something. Most leave
every bit of the results as it was. The others are `factor_into_weights`, `into_branches`,
`join_affine`, `hard_sigmoid`, `hard_silu` and `fold_constants`, which round once where there were
two roundings, and `residual`, whose sum is rounded in another order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sepconv.geometry import ConvSpec
from sepconv.program.building.nodes import Node, Nodes
from sepconv.program.dtypes import value_dtypes
from sepconv.program.network import Network
from sepconv.program.reference import compute

__all__ = ["simplify"]

#: The steps that apply an activation themselves.
_ACTIVE = ("convolution", "dense")


def simplify(network: Network) -> Network:
    """The network with fewer steps, in as many rounds as change something.

    Raises:
        ValueError: some of it is of another dtype than the network's, which is to come later.

    Example:
        >>> from sepconv.program.network import Input, Step
        >>> linear = {"function": "linear", "a": 2.0, "b": 1.0, "c": 0.0}
        >>> steps = [Step("unary", str(i), [i], linear) for i in range(2)]
        >>> network = Network("float32", [Input("x", (None,))], steps, [2], ["1"], [])
        >>> simplify(network).steps[0].attributes
        {'function': 'linear', 'a': 4.0, 'b': 3.0, 'c': 0.0}
    """
    others = set(value_dtypes(network)) - {network.dtype}
    if others:
        raise ValueError(
            f"Networks are simplified before they have values of other dtypes. Received: a network "
            f"of {network.dtype} with values of {', '.join(sorted(others))}"
        )
    nodes = Nodes(network)
    nodes.prune()
    while sum(_simplify_at(nodes, node) for node in list(nodes.nodes)):
        pass
    return nodes.network()


def _simplify_at(nodes: Nodes, node: Node) -> bool:
    """Applies the first rule that applies to a node, if it is still there."""
    if node not in nodes.nodes or not any(rule(nodes, node) for rule in _RULES):
        return False
    nodes.prune()
    return True


def identity(nodes: Nodes, node: Node) -> bool:
    """Removes a step that gives what it is given."""
    given, rank = node.attributes, len(node.shape)
    same = {
        "unary": lambda: (
            (given["function"], given["a"], given["b"])
            in (("linear", 1, 0), ("clip", -math.inf, math.inf))
        ),
        "scale": lambda: not node.weights,
        "concatenate": lambda: len(node.inputs) == 1,
        "pad": lambda: not any([*given["before"], *given["after"]]),
        "slice": lambda: (
            set(zip(given["starts"], given["stops"], given["steps"], strict=True)) <= {(0, None, 1)}
        ),
        "transpose": lambda: list(given["permutation"]) == list(range(rank)),
        "reshape": lambda: _keeps_shape(node),
    }
    if node.operation not in same or not same[node.operation]():
        return False
    nodes.replace(node, node.inputs[0])
    return True


def _keeps_shape(node: Node) -> bool:
    """Whether a reshape certainly gives the shape that its input has."""
    before, wanted = node.inputs[0].shape, node.attributes["shape"]
    if len(before) != len(wanted):
        return False
    open_sizes = [size for size, n in zip(before, wanted, strict=True) if n not in (0, size)]
    # A single -1 stands for the size that is left, which is the one that was there.
    return not open_sizes or (list(wanted).count(-1) == len(open_sizes) == 1)


def join_transposes(nodes: Nodes, node: Node) -> bool:
    """Makes two changes of the axes' order one."""
    before = nodes.only_input(node)
    if node.operation != "transpose" or before is None or before.operation != "transpose":
        return False
    first = before.attributes["permutation"]
    node.attributes["permutation"] = [first[axis] for axis in node.attributes["permutation"]]
    node.inputs = list(before.inputs)
    return True


def slice_of_one(nodes: Nodes, node: Node) -> bool:
    """Takes a slice of several joined values from the one of them that it lies in."""
    before = node.inputs[0] if node.inputs else None
    if node.operation != "slice" or before is None or before.operation != "concatenate":
        return False
    axis, given = before.attributes["axis"], node.attributes
    sizes = [part.shape[axis] for part in before.inputs]
    if None in sizes:
        return False
    bounds = slice(given["starts"][axis], given["stops"][axis], given["steps"][axis])
    taken = range(sum(size for size in sizes if size is not None))[bounds]
    first = 0
    for part, size in zip(before.inputs, sizes, strict=True):
        assert size is not None
        if taken and first <= taken[0] and taken[-1] < first + size:
            starts, stops = list(given["starts"]), list(given["stops"])
            starts[axis] = taken[0] - first
            stops[axis] = None if taken[-1] + 1 == first + size else taken[-1] + 1 - first
            node.attributes.update(starts=starts, stops=stops)
            node.inputs = [part]
            return True
        first += size
    return False


def fold_constants(nodes: Nodes, node: Node) -> bool:
    """Makes a step of constants alone a constant."""
    if not node.inputs or any(other.operation != "constant" for other in node.inputs):
        return False
    arrays = [other.weights["value"].astype(np.float64) for other in node.inputs]
    weights = {part: array.astype(np.float64) for part, array in node.weights.items()}
    value = compute(node.as_step(), weights, arrays)
    node.inputs = []
    node.operation, node.attributes, node.weights = "constant", {}, {"value": value}
    return True


def _is_relu(node: Node, largest: float) -> bool:
    given = node.attributes
    plain = node.is_unary("relu") and given["a"] == 0 and given["c"] == 0
    return plain and given["b"] == largest


def _is_linear(node: Node, scale: float, shift: float) -> bool:
    """Whether it is scale * x + shift, of numbers that may have been rounded to float32."""
    if not node.is_unary("linear"):
        return False
    given = node.attributes
    return bool(np.allclose((given["a"], given["b"]), (scale, shift), rtol=1e-7, atol=0))


def _shifted_relu6(nodes: Nodes, node: Node) -> Node | None:
    """The x of relu6(x + 3), whose parts nothing else uses; None for anything else."""
    shift = nodes.only_input(node)
    if not _is_relu(node, 6) or shift is None or not _is_linear(shift, 1, 3):
        return None
    return shift.inputs[0]


def hard_sigmoid(nodes: Nodes, node: Node) -> bool:
    """Makes relu6(x + 3) / 6 the function `hard_sigmoid`."""
    before = nodes.only_input(node)
    if before is None or not _is_linear(node, 1 / 6, 0):
        return False
    x = _shifted_relu6(nodes, before)
    if x is None:
        return False
    node.inputs = [x]
    nodes.change(node, "unary", function="hard_sigmoid", a=0.0, b=0.0, c=0.0)
    return True


def hard_silu(nodes: Nodes, node: Node) -> bool:
    """Makes x * relu6(x + 3) / 6, which is divided last, the function `hard_silu`."""
    before = nodes.only_input(node)
    if before is None or not before.is_binary("multiply") or not _is_linear(node, 1 / 6, 0):
        return False
    for x, gate in (before.inputs, reversed(before.inputs)):
        if nodes.uses(gate) == 1 and _shifted_relu6(nodes, gate) is x:
            node.inputs = [x]
            nodes.change(node, "unary", function="hard_silu", a=0.0, b=0.0, c=0.0)
            return True
    return False


def gated(nodes: Nodes, node: Node) -> bool:
    """Makes x * sigmoid(x) and x * hard_sigmoid(x) the functions `silu` and `hard_silu`."""
    if not node.is_binary("multiply"):
        return False
    for x, gate in (node.inputs, reversed(node.inputs)):
        for inner, outer in (("sigmoid", "silu"), ("hard_sigmoid", "hard_silu")):
            if gate.is_unary(inner) and gate.inputs[0] is x and nodes.uses(gate) == 1:
                node.inputs = [x]
                nodes.change(node, "unary", function=outer, a=0.0, b=0.0, c=0.0)
                return True
    return False


def _applied(node: Node) -> str | None:
    """The name of an activation that convolutions and products apply themselves; else None."""
    if _is_relu(node, math.inf):
        return "relu"
    if _is_relu(node, 6):
        return "relu6"
    if node.is_unary("silu") or node.is_unary("hard_silu"):
        name: str = node.attributes["function"]
        return name
    return None


def activation(nodes: Nodes, node: Node) -> bool:
    """Lets a convolution or product apply the activation after it."""
    before, known = nodes.only_input(node), _applied(node)
    if before is None or known is None or not _is_plain(before):
        return False
    before.attributes["activation"] = known
    nodes.take_over(node, before)
    return True


def _is_plain(node: Node) -> bool:
    """Whether a step is a convolution or product without an activation."""
    return node.operation in _ACTIVE and node.attributes["activation"] == "none"


def residual(nodes: Nodes, node: Node) -> bool:
    """Lets a convolution that mixes channels, or a product, add what is added to its results."""
    if not node.is_binary("add"):
        return False
    places = {id(other): i for i, other in enumerate(nodes.nodes)}
    # The later of the two, which is more likely to be in the cache still.
    pairs = [node.inputs, node.inputs[::-1]]
    for before, other in sorted(pairs, key=lambda pair: -places.get(id(pair[0]), -1)):
        mixes = before.operation == "dense" or "pointwise_kernel" in before.weights
        if not mixes or before.attributes["activation"] != "none" or len(before.inputs) != 1:
            continue
        if nodes.uses(before) != 1 or not _same_shape(before, other):
            continue
        before.inputs = [*before.inputs, other]
        nodes.take_over(node, before)
        return True
    return False


def _same_shape(a: Node, b: Node) -> bool:
    """Whether two values have one shape, whatever the batch."""
    return a.shape == b.shape and None not in a.shape[1:]


def _affine(node: Node) -> tuple[Any, Any, int | None] | None:
    """(scale, shift, axis) of a step that is x * scale + shift; the axis None for numbers."""
    if node.is_unary("linear"):
        return np.float64(node.attributes["a"]), np.float64(node.attributes["b"]), None
    if node.operation == "scale":
        scale, shift = (node.weights.get(part) for part in ("scale", "shift"))
        return (
            np.float64(1) if scale is None else scale.astype(np.float64),
            np.float64(0) if shift is None else shift.astype(np.float64),
            node.attributes["axis"],
        )
    return None


def _channel_axis(node: Node) -> int:
    first = node.operation == "convolution" and node.attributes["spec"][9]
    return 1 if first else len(node.shape) - 1


def factor_into_weights(nodes: Nodes, node: Node) -> bool:
    """Puts what scales and shifts the results of a convolution or product into its weights."""
    affine, before = _affine(node), nodes.only_input(node)
    if affine is None or before is None or not _takes(before, affine[2]):
        return False
    _factor(before, *affine[:2])
    nodes.take_over(node, before)
    return True


def _takes(node: Node, axis: int | None) -> bool:
    """Whether the weights of a step can take a scale along an axis, or one number."""
    return _is_plain(node) and len(node.inputs) == 1 and axis in (None, _channel_axis(node))


def _factor(node: Node, scale: Any, shift: Any) -> None:
    """Puts scale and shift, each a number or one a channel, into the weights of a step."""
    weights = node.weights
    part = next(p for p in ("pointwise_kernel", "depthwise_kernel", "kernel") if p in weights)
    kernel = weights[part].astype(np.float64)
    outputs = node.shape[_channel_axis(node)]
    assert outputs is not None  # a kernel has that size
    each = np.broadcast_to(scale, outputs)
    if part == "depthwise_kernel":
        each = each.reshape(kernel.shape[2:])
    bias = weights.get("bias", np.zeros(outputs)).astype(np.float64) * scale + shift
    weights[part] = kernel * each
    if "bias" in weights or np.any(shift):
        weights["bias"] = bias


def into_branches(nodes: Nodes, node: Node) -> bool:
    """Lets convolutions and products whose results are joined apply what follows, each its part."""
    before = nodes.only_input(node)
    if before is None or before.operation != "concatenate":
        return False
    branches, joined = before.inputs, before.attributes["axis"]
    if any(nodes.uses(branch) != 1 for branch in branches):
        return False
    known, affine = _applied(node), _affine(node)
    if known is not None:
        if not all(_is_plain(branch) for branch in branches):
            return False
        for branch in branches:
            branch.attributes["activation"] = known
    elif affine is not None:
        scale, shift, axis = affine
        if axis not in (None, joined) or not all(_takes(branch, axis) for branch in branches):
            return False
        parts: Any = [(scale, shift)] * len(branches)
        if axis is not None:
            ends = np.cumsum([branch.shape[axis] for branch in branches])
            whole = (np.broadcast_to(numbers, ends[-1]) for numbers in (scale, shift))
            parts = zip(*(np.split(numbers, ends[:-1]) for numbers in whole), strict=True)
        for branch, part in zip(branches, parts, strict=True):
            _factor(branch, *part)
    else:
        return False
    nodes.take_over(node, before)
    return True


def join_affine(nodes: Nodes, node: Node) -> bool:
    """Makes two steps that scale and shift one."""
    before = nodes.only_input(node)
    outer = _affine(node)
    inner = None if before is None else _affine(before)
    if outer is None or inner is None or before is None:
        return False
    if None not in (outer[2], inner[2]) and outer[2] != inner[2]:
        return False
    scale, shift = inner[0] * outer[0], inner[1] * outer[0] + outer[1]
    axis = inner[2] if outer[2] is None else outer[2]
    node.inputs = list(before.inputs)
    if axis is None:
        given = {"a": float(scale), "b": float(shift), "c": 0.0}
        nodes.change(node, "unary", function="linear", **given)
        return True
    nodes.change(node, "scale", axis=axis)
    size = node.shape[axis]
    assert size is not None  # since one of the two has as many numbers
    node.weights = {"scale": np.broadcast_to(scale, size)}
    if np.any(shift):
        node.weights["shift"] = np.broadcast_to(shift, size)
    return True


def padding(nodes: Nodes, node: Node) -> bool:
    """Makes zeros around the images before a convolution its own padding."""
    before = nodes.only_input(node)
    if node.operation != "convolution" or before is None or before.operation != "pad":
        return False
    spec, around = list(node.attributes["spec"]), before.attributes
    alone = "depthwise_kernel" not in node.weights
    if (
        spec[4]
        or around["value"]
        or (alone and node.weights["pointwise_kernel"].shape[:2] == (1, 1))
    ):
        return False
    pads = list(zip(around["before"], around["after"], strict=True))
    first = 2 if spec[9] else 1
    spatial = pads[first : first + len(pads) - 2]
    if any(any(pair) for axis, pair in enumerate(pads) if not first <= axis < first + len(spatial)):
        return False
    for place, pair in zip((5, 7)[-len(spatial) :], spatial, strict=True):
        spec[place] += pair[0]
        spec[place + 1] += pair[1]
    node.attributes["spec"] = spec
    node.inputs = [before.inputs[0], *node.inputs[1:]]
    return True


def separable(nodes: Nodes, node: Node) -> bool:
    """Puts a 1x1 convolution into the step of the depthwise one before it."""
    before = nodes.only_input(node)
    if before is None or node.operation != "convolution" or before.operation != "convolution":
        return False
    spec = ConvSpec(*node.attributes["spec"])
    plain = ConvSpec(1, 1, 1, 1, 0, 0, 0, 0, 0, spec.channels_first)
    alone = "depthwise_kernel" not in node.weights
    if not alone or node.weights["pointwise_kernel"].shape[:2] != (1, 1) or spec != plain:
        return False
    first = before.attributes
    if "pointwise_kernel" in before.weights or len(before.inputs) != 1:
        return False
    if first["spec"][9] != spec.channels_first or first["depthwise_activation"] != "none":
        return False
    node.weights = {"depthwise_kernel": before.weights["depthwise_kernel"], **node.weights}
    if "bias" in before.weights:
        node.weights["depthwise_bias"] = before.weights["bias"]
    node.attributes["spec"] = list(first["spec"])
    node.attributes["depthwise_activation"] = first["activation"]
    node.inputs = [before.inputs[0], *node.inputs[1:]]
    return True


_RULES = (
    identity,
    join_transposes,
    slice_of_one,
    fold_constants,
    hard_sigmoid,
    hard_silu,
    gated,
    activation,
    residual,
    factor_into_weights,
    into_branches,
    join_affine,
    padding,
    separable,
)
