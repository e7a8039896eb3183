"""The docstrings of an engine's public functions, which are the same but for the arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["document_block", "document_convolution", "document_program"]


class _Engine(NamedTuple):
    """What examples need of an engine.

    Attributes:
        module: our module of its functions.
        arrays: its own module, which makes arrays.
        short: the name by which that is usually imported.
    """

    module: str
    arrays: str
    short: str


_ENGINES = {
    "NumPy": _Engine("sepconv.engines.numpy", "numpy", "np"),
    "JAX": _Engine("sepconv.jax", "jax.numpy", "jnp"),
    "PyTorch": _Engine("sepconv.torch", "torch", "torch"),
    "TensorFlow": _Engine("sepconv.tensorflow", "tensorflow", "tf"),
}

_CONVOLUTION = """{summary}

Args:
    x: {engine} array, {x_shape}, or with the channels second where `data_format` is
        ``"channels_first"``; float32, float64, bfloat16 or float16 (computed in float32).
    depthwise_kernel: {kernel_shape}, of the dtype of `x`.
{pointwise}    bias: None, or one value an output channel.
    strides: {sizes}.
    padding: ``"valid"``, ``"same"``{causal} or ``{explicit}``.
    dilation_rate: {sizes}; may be combined with strides.
    data_format: ``"channels_last"`` or ``"channels_first"``.
    activation: None, ``"relu"`` or ``"relu6"``.

Returns:
    {y_shape}, of the dtype of `x`. Differentiable for every array.

Raises:
    ValueError: an argument is out of range, or shapes do not fit.
    TypeError: a dtype is not a floating one, or dtypes differ.

Example:
    {setup}
    >>> x, {names} = {arrays}
    >>> y = {module}.{function}(x, {names}, padding="same")
    >>> tuple(y.shape)
    {result}
"""

_BLOCK = """A block of an inference network in one operation; for {engine}.

With both kernels it computes
``activation(pointwise(depthwise_activation(depthwise(x) + depthwise_bias)) + bias + residual)``
and with one of them ``activation(convolution(x) + bias + residual)``: a depthwise convolution, or
without `depthwise_kernel` an ordinary one.

Args:
    x: {engine} array, (batch, height, width, C), or with the channels second where `data_format`
        is ``"channels_first"``; float32, float64, bfloat16 or float16 (computed in float32).
    depthwise_kernel: (kernel_height, kernel_width, C, M), of the dtype of `x`, or None.
    pointwise_kernel: (1, 1, C * M, F), or None; at least one of the two is needed. Without a
        `depthwise_kernel` it is that of an ordinary convolution,
        (kernel_height, kernel_width, C, F).
    depthwise_bias: None, or (C * M,); where both kernels are given.
    depthwise_activation: as `activation`; where both kernels are given.
    bias: None, or one value an output channel.
    activation: None, ``"relu"``, ``"relu6"``, ``"hard_silu"`` (or ``"hard_swish"``) or ``"silu"``
        (or ``"swish"``).
    residual: None, or an array of the output's shape that is added before `activation`; where
        there is a pointwise_kernel.
    strides: a positive integer, or two, of the first convolution.
    padding: ``"valid"``, ``"same"`` or ``((top, bottom), (left, right))``, around what the first
        convolution sees; none is possible around a 1x1 convolution alone.
    dilation_rate: a positive integer, or two.
    data_format: ``"channels_last"`` or ``"channels_first"``.

Returns:
    (batch, height, width, F or C * M), of the dtype of `x`. Differentiable for every array, at the
    speed of what it is composed of.

Raises:
    ValueError: an argument is out of range, or shapes do not fit.
    TypeError: a dtype is not a floating one, or dtypes differ.

Example:
    {setup}
    >>> x, kernel = {ones}((1, 4, 4, 2)), {ones}((1, 1, 2, 8))
    >>> y = {module}.fused_conv2d(x, pointwise_kernel=kernel, activation="relu6")
    >>> float(y[0, 0, 0, 0])
    2.0
"""

_PROGRAM = """A program's outputs for {engine} arrays: one native call, on the CPU.

It works also where {engine} compiles the code around it, which then calls the program back. It has
no gradient: an error says so where one is asked for.

Args:
    program: a `sepconv.program.program.Program`, of `sepconv.compile` or `sepconv.load`.
    *inputs: what it takes, in its order, or one mapping by the names in `Program.inputs`; of other
        dtypes they are converted to the program's.

Returns:
    An array, or a tuple of them where the program has several outputs.

Raises:
    ValueError: there are too many or too few inputs, a shape does not fit, or a gradient is asked
        for.
    TypeError: `program` is no program.

Example:
    {setup}
    >>> from sepconv.program.network import Input, Network, Step
    >>> from sepconv.program.program import Program
    >>> step = Step("reduce", "sum", [0], {{"function": "sum", "axes": [1], "keepdims": False}})
    >>> program = Program(Network("float32", [Input("x", (None, 3))], [step], [1], ["y"], []))
    >>> float({module}.run_program(program, {ones}((1, 3)))[0])
    3.0
"""


def _names(engine: str) -> dict[str, str]:
    """The names by which examples call an engine's things."""
    module, arrays, short = _ENGINES[engine]
    called = "" if arrays == short else f" as {short}"
    setup = f">>> import {arrays}{called}\n    >>> import {module}"
    return {"engine": engine, "module": module, "setup": setup, "ones": f"{short}.ones"}


def _publish(function: Callable[..., Any], engine: str, text: str) -> None:
    """Gives a function its docstring, and the module in which users find it."""
    function.__doc__ = text
    function.__module__, function.__qualname__ = _ENGINES[engine].module, function.__name__


def document_convolution(
    function: Callable[..., Any], engine: str, rank: int, separable: bool
) -> None:
    """Documents a convolution of `rank` spatial axes, depthwise alone or separable."""
    space = "height, width" if rank == 2 else "length"
    kernel = "kernel_height, kernel_width" if rank == 2 else "kernel_size"
    ones = "1, 1" if rank == 2 else "1"
    verb = (
        "A depthwise convolution, then a 1x1 convolution that mixes channels"
        if separable
        else "Convolves each channel by itself"
    )
    names = _names(engine)
    made = names["ones"]
    shapes = [((1, *[4] * rank, 2)), (*[3] * rank, 2, 1)]
    if separable:
        shapes.append((*[1] * rank, 2, 5))
    text = _CONVOLUTION.format(
        summary=f"{verb}; for {engine}, on the CPU by sepconv's kernels.",
        x_shape=f"(batch, {space}, C)",
        kernel_shape=f"({kernel}, C, M)",
        pointwise=f"    pointwise_kernel: ({ones}, C * M, F).\n" if separable else "",
        sizes="a positive integer, or two" if rank == 2 else "a positive integer",
        causal="" if rank == 2 else ', ``"causal"``',
        explicit="((top, bottom), (left, right))" if rank == 2 else "(left, right)",
        y_shape=f"(batch, {space}, {'F' if separable else 'C * M'})",
        function=function.__name__,
        names="depthwise, pointwise" if separable else "kernel",
        arrays=", ".join(f"{made}({shape})" for shape in shapes),
        result=(1, *[4] * rank, 5 if separable else 2),
        **names,
    )
    _publish(function, engine, text)


def document_block(function: Callable[..., Any], engine: str) -> None:
    """Documents an engine's `fused_conv2d`."""
    _publish(function, engine, _BLOCK.format(**_names(engine)))


def document_program(function: Callable[..., Any], engine: str) -> None:
    """Documents an engine's `run_program`."""
    _publish(function, engine, _PROGRAM.format(**_names(engine)))
