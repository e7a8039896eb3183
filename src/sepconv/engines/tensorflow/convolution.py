"""TensorFlow's engine: two custom operations on the CPU, their gradients, and stock elsewhere.

``SepconvForward`` computes ``y = activation(F(x, depthwise, pointwise) + bias)`` and
``SepconvBackward`` the gradients of ``sum(F(...) * dy)``. F is linear in each of its arguments, so
derivatives of any order need no third operation: see `_gradient_of_backward`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import tensorflow as tf

from sepconv.geometry import ConvSpec, activation_code, resolve

try:  # Only to notice that XLA will compile what is being traced; there is no public way.
    from tensorflow.python.ops import control_flow_util
except ImportError:
    control_flow_util = None

__all__ = [
    "as_array",
    "convolve",
    "operations",
    "runs_on_cpu",
    "static_output",
    "stock",
]


def _load() -> Any:
    path = Path(__file__).parents[2] / "libsepconv_tensorflow.so"
    try:
        loaded = tf.load_op_library(str(path))
    except (tf.errors.OpError, RuntimeError) as error:
        raise ImportError(
            f"sepconv's TensorFlow operations ({path.name}) do not load into TensorFlow "
            f"{tf.__version__}: {error}"
        ) from error
    if not hasattr(loaded, "sepconv_backward"):
        raise ImportError(
            f"TensorFlow {tf.__version__} did not accept sepconv's operations, or has others of "
            "the same names loaded."
        )
    return loaded


#: TensorFlow's Python functions for the operations.
operations = _load()

Array: TypeAlias = tf.Tensor
Maybe: TypeAlias = list[tf.Tensor]  # none or one, as the operations take an optional input


# ---- the operations, with the static shapes that their C++ shape functions cannot see


def static_output(x: Array, kernel: Array, channels: int | None, spec: list[int]) -> list[Any]:
    """The shape of y as far as it is known while a graph is traced."""
    kernel_shape = kernel.shape.as_list()
    sizes = x.shape.as_list()
    if None in kernel_shape:
        return [sizes[0], None, None, None]
    conv = ConvSpec(*spec)
    rows, columns, last = (2, 3, 1) if conv.channels_first else (1, 2, 3)
    fits = {
        0: 1,
        rows: (kernel_shape[0] - 1) * conv.dilation_h + 1,
        columns: (kernel_shape[1] - 1) * conv.dilation_w + 1,
        last: kernel_shape[2],
    }
    unknown = [axis for axis in (0, rows, columns) if sizes[axis] is None]
    known = tuple(fits[axis] if size is None else size for axis, size in enumerate(sizes))
    geometry = resolve(conv, known, tuple(kernel_shape))
    shape: list[int | None] = list(geometry.output_shape(1))
    shape[last] = channels
    for axis in unknown:
        shape[axis] = None
    return shape


def _channels(kernel: Array, pointwise: Maybe) -> int | None:
    if pointwise:
        return pointwise[0].shape[3]
    channels, multiplier = kernel.shape[2:]
    return None if channels is None or multiplier is None else channels * multiplier


def _forward(
    x: Array, kernel: Array, pointwise: Maybe, bias: Maybe, spec: list[int], activation: int
) -> Array:
    y = operations.sepconv_forward(x, kernel, pointwise, bias, spec=spec, activation=activation)
    if not tf.executing_eagerly():
        y.set_shape(static_output(x, kernel, _channels(kernel, pointwise), spec))
    return y


def _backward(
    x: Array, kernel: Array, pointwise: Maybe, dy: Array, spec: list[int], wanted: list[bool]
) -> list[Array | None]:
    """The gradients for x, the two kernels and the bias; None for what is not wanted."""
    if not any(wanted):
        return [None] * 4
    grads = operations.sepconv_backward(x, kernel, pointwise, dy, spec=spec, wanted=wanted)
    if not tf.executing_eagerly():
        pointwise_shape = pointwise[0].shape if pointwise else None
        bias_shape = [_channels(kernel, pointwise)]
        shapes = (x.shape, kernel.shape, pointwise_shape, bias_shape)
        for grad, shape, is_wanted in zip(grads, shapes, wanted, strict=True):
            if is_wanted:
                grad.set_shape(shape)
    return [grad if is_wanted else None for grad, is_wanted in zip(grads, wanted, strict=True)]


def _skipped(operation: Any) -> tuple[int, ...]:
    """The inputs whose gradient a tape has no use for; tf.gradients does not tell."""
    return getattr(operation, "skip_input_indices", None) or ()


@tf.RegisterGradient("SepconvForward")
def _gradient_of_forward(operation: Any, dy: Array) -> list[Array | None]:
    x, kernel, *rest = operation.inputs
    separable = operation.get_attr("num_pointwise")
    biased = operation.get_attr("num_bias")
    activation = operation.get_attr("activation")
    # Either works from the activation's result as well as from its argument.
    if activation == 1:
        dy = tf.raw_ops.ReluGrad(gradients=dy, features=operation.outputs[0])
    elif activation == 2:
        dy = tf.raw_ops.Relu6Grad(gradients=dy, features=operation.outputs[0])
    positions = [0, 1, *([2] if separable else []), *([3] if biased else [])]
    skipped = _skipped(operation)
    wanted = [False] * 4
    for index, position in enumerate(positions):
        wanted[position] = index not in skipped
    grads = _backward(x, kernel, rest[:separable], dy, operation.get_attr("spec"), wanted)
    return [grads[position] for position in positions]


@tf.RegisterGradient("SepconvBackward")
def _gradient_of_backward(operation: Any, *cotangents: Array) -> list[Array | None]:
    """The gradient of the gradients.

    With L(x, depthwise, pointwise, dy) = sum(F(x, depthwise, pointwise) * dy), the operation's
    outputs are the derivatives of L in its first three arguments (and sum(dy) for the bias). L is
    linear in each, so the derivative of L in x, in the direction g, is L with g in the place of x,
    and so for the others. What is to be differentiated here is then

        L(gx, depthwise, pointwise, dy) + L(x, g_depthwise, pointwise, dy)
            + L(x, depthwise, g_pointwise, dy) + sum(g_bias * dy)

    whose gradients are again a forward (for dy) and a backward operation a term.
    """
    *factors, dy = operation.inputs  # x, depthwise and maybe pointwise
    spec, wanted = operation.get_attr("spec"), operation.get_attr("wanted")
    skipped = _skipped(operation)
    totals: list[Array | None] = [None] * (len(factors) + 1)

    def add(index: int, term: Array | None) -> None:
        if term is not None:
            totals[index] = term if totals[index] is None else totals[index] + term

    for place in range(len(factors)):
        if not wanted[place] or cotangents[place] is None:
            continue
        x, kernel, *pointwise = [
            cotangents[place] if i == place else factor for i, factor in enumerate(factors)
        ]
        others = [i < len(factors) and i != place and i not in skipped for i in range(3)]
        grads = _backward(x, kernel, pointwise, dy, spec, [*others, False])
        for index, grad in enumerate(grads[:3]):
            add(index, grad)
        if len(factors) not in skipped:
            add(len(factors), _forward(x, kernel, pointwise, [], spec, 0))
    if wanted[3] and cotangents[3] is not None and len(factors) not in skipped:
        first = ConvSpec(*spec).channels_first
        column = tf.reshape(cotangents[3], [1, -1, 1, 1] if first else [1, 1, 1, -1])
        add(len(factors), tf.broadcast_to(column, tf.shape(dy)))
    return totals


# ---- elsewhere than on a CPU


def stock(
    x: Array,
    depthwise_kernel: Array,
    pointwise_kernel: Array | None,
    bias: Array | None,
    spec: ConvSpec,
    activation: str | None,
) -> Array:
    """`convolve` in TensorFlow's own operations, for other devices and for XLA.

    TensorFlow's depthwise convolution has neither unequal strides nor strides with dilation; where
    such are asked for, the result at stride 1 is computed and every so many of it kept.
    """
    if spec.channels_first:
        x = tf.transpose(x, [0, 2, 3, 1])
    strides, dilations = spec[0:2], spec[2:4]
    pads = [spec[5:7], spec[7:9]]
    if spec.same:
        pads = [
            _same_padding(_size(x, i + 1), _size(depthwise_kernel, i), strides[i], dilations[i])
            for i in range(2)
        ]
    # Some of TensorFlow's operations give a batch of none the wrong shape: lend it an image.
    empty = x.shape[0] == 0
    x = tf.pad(x, [(0, int(empty)), *pads, (0, 0)])
    direct = strides[0] == strides[1] and dilations == (1, 1)
    step = strides[0] if direct else 1
    y = tf.nn.depthwise_conv2d(
        x, depthwise_kernel, [1, step, step, 1], "VALID", dilations=list(dilations)
    )
    if not direct:
        y = y[:, :: strides[0], :: strides[1]]
    if pointwise_kernel is not None:
        y = tf.nn.conv2d(y, pointwise_kernel, 1, "VALID")
    if empty:
        y = y[:0]
    if bias is not None:
        y = tf.nn.bias_add(y, bias)
    code = activation_code(activation)
    if code:
        y = tf.nn.relu(y) if code == 1 else tf.nn.relu6(y)
    return tf.transpose(y, [0, 3, 1, 2]) if spec.channels_first else y


def _size(array: Array, axis: int) -> Any:
    """A size as an integer where it is known while tracing, else as a tensor."""
    size = array.shape[axis]
    return tf.shape(array)[axis] if size is None else size


def _same_padding(size: Any, kernel: Any, stride: int, dilation: int) -> tuple[Any, Any]:
    """What ``native/geometry.cc`` computes, for sizes that may be known only at run time."""
    total = (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size
    total = tf.maximum(total, 0) if tf.is_tensor(total) else max(total, 0)
    return total // 2, total - total // 2


def runs_on_cpu(x: Array) -> bool:
    """Whether what consumes `x` will run on a CPU, without XLA."""
    if not tf.executing_eagerly() and control_flow_util is not None:
        graph = tf.compat.v1.get_default_graph()
        if control_flow_util.GraphOrParentsInXlaContext(graph):
            return False
    if x.device:
        return "CPU" in x.device.upper()
    # A graph's tensor that nobody has placed goes where TensorFlow thinks best.
    return all(device.device_type == "CPU" for device in tf.config.get_visible_devices())


# ---- what front.py asks of an engine


def convolve(
    x: Array,
    depthwise_kernel: Array,
    pointwise_kernel: Array | None,
    bias: Array | None,
    spec: ConvSpec,
    activation: str | None,
) -> Array:
    """See `sepconv.engines.front`."""
    if not runs_on_cpu(x):
        return stock(x, depthwise_kernel, pointwise_kernel, bias, spec, activation)
    return _forward(
        x,
        depthwise_kernel,
        [] if pointwise_kernel is None else [pointwise_kernel],
        [] if bias is None else [bias],
        list(spec),
        activation_code(activation),
    )


def as_array(value: Any) -> Array:
    """`value` as a tensor whose rank is known.

    Raises:
        ValueError: the rank is unknown while a graph is traced.
    """
    tensor = tf.convert_to_tensor(value)
    if tensor.shape.rank is None:
        raise ValueError(
            "sepconv needs to know an array's rank while a graph is traced; set it with "
            f"tf.ensure_shape. Received: {tensor}"
        )
    return tensor
