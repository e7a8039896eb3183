"""Makes an engine's public functions from its adapter, and the functions that layers call.

What is the same for every engine (arguments, checks of shapes and dtypes, one dimension as a case
of two) is here, so that the same mistake gets the same error everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sepconv.arguments import Padding, Sizes
from sepconv.arrays import DTYPES
from sepconv.engines.contract import Engine
from sepconv.engines.documents import document_block, document_convolution, document_program
from sepconv.fused import BlockSpec, Operands, block_spec, check_block, is_ordinary, strided
from sepconv.geometry import (
    ConvSpec,
    activation_code,
    build_spec,
    check_bias,
    check_rank,
    checked_shape,
    conv_spec,
    conv_spec_1d,
    require_pointwise_kernel,
)
from sepconv.program.embedded import Embedded
from sepconv.program.named import listed
from sepconv.program.program import Program

__all__ = [
    "Functions",
    "check_arguments",
    "convolve_1d",
    "convolve_2d",
    "functions",
    "fuse",
    "fused_function",
    "program_function",
    "spec_builder",
]


class Functions(NamedTuple):
    """An engine's public functions."""

    depthwise_conv2d: Callable[..., Any]
    separable_conv2d: Callable[..., Any]
    depthwise_conv1d: Callable[..., Any]
    separable_conv1d: Callable[..., Any]


def _dtype_name(array: Any) -> str:
    """``"float32"`` for NumPy's, JAX's, PyTorch's and TensorFlow's float32."""
    dtype = array.dtype
    return getattr(dtype, "name", None) or str(dtype).removeprefix("torch.")


def _check_dtypes(arrays: dict[str, Any]) -> None:
    expected = _dtype_name(arrays["x"])
    if expected not in DTYPES:
        raise TypeError(
            f"x must be of one of the dtypes {tuple(DTYPES)}. Received: x.dtype={expected}"
        )
    dtype = arrays["x"].dtype
    for name, array in arrays.items():
        # Names are compared only where an engine's own comparison, which is quicker, says no.
        if array is not None and array.dtype != dtype and _dtype_name(array) != expected:
            raise TypeError(
                f"{name} must have the dtype of x, {expected}. "
                f"Received: {name}.dtype={_dtype_name(array)}"
            )


def check_arguments(
    x: Any, depthwise_kernel: Any, pointwise_kernel: Any, bias: Any, spec: ConvSpec
) -> tuple[Any, ...]:
    """The output's shape; raises where 4-D arguments do not fit each other, as far as is known.

    While an engine traces it may not know a size (TensorFlow: None) or know it by a symbol
    (PyTorch, JAX); such a size is checked when the operation runs.
    """
    _check_dtypes(
        {
            "x": x,
            "depthwise_kernel": depthwise_kernel,
            "pointwise_kernel": pointwise_kernel,
            "bias": bias,
        }
    )
    pointwise = None if pointwise_kernel is None else pointwise_kernel.shape
    shape = checked_shape(spec, x.shape, (depthwise_kernel.shape, pointwise))
    if bias is not None:
        check_bias(bias.shape, shape[spec.channel_axis])
    return shape


def spec_builder(engine: Engine) -> Callable[[Sizes, Padding, Sizes, str], ConvSpec]:
    """`conv_spec`, or `build_spec` where a compiler reads the calling code."""
    return build_spec if engine.is_traced() else conv_spec


def convolve_2d(
    engine: Engine,
    x: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    bias: Any,
    spec: ConvSpec,
    activation: str | None = None,
) -> Any:
    """An engine's convolution of 4-D arrays; raises where they do not fit each other.

    `pointwise_kernel` and `bias` may be None.
    """
    activation_code(activation)
    as_array = engine.as_array
    x, depthwise_kernel = as_array(x), as_array(depthwise_kernel)
    if pointwise_kernel is not None:
        pointwise_kernel = as_array(pointwise_kernel)
    if bias is not None:
        bias = as_array(bias)
    if not engine.is_traced():
        check_arguments(x, depthwise_kernel, pointwise_kernel, bias, spec)
    return engine.convolve(x, depthwise_kernel, pointwise_kernel, bias, spec, activation)


def convolve_1d(
    engine: Engine,
    x: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    bias: Any,
    spec: ConvSpec,
    activation: str | None = None,
) -> Any:
    """The same of 3-D arrays, as of images one pixel high; see `conv_spec_1d` for the spec."""
    if pointwise_kernel is not None:
        pointwise_kernel = pointwise_kernel[None]
    first = bool(spec.channels_first)
    image = x[:, :, None] if first else x[:, None]
    kernels = depthwise_kernel[None], pointwise_kernel
    y = convolve_2d(engine, image, *kernels, bias, spec, activation)
    return y[:, :, 0] if first else y[:, 0]


def functions(engine: Engine) -> Functions:
    """Makes an engine's public functions."""
    as_array = engine.as_array

    def convolve_3d_arrays(
        x: Any,
        kernels: tuple[Any, Any],
        bias: Any,
        activation: str | None,
        strides: Sizes,
        padding: Padding,
        dilation_rate: Sizes,
        data_format: str,
    ) -> Any:
        depthwise_kernel, pointwise_kernel = kernels
        x, depthwise_kernel = as_array(x), as_array(depthwise_kernel)
        check_rank("x", x.shape, 3, "(batch, length, channels) in the order of data_format")
        meaning = "(kernel_size, channels, outputs)"
        check_rank("depthwise_kernel", depthwise_kernel.shape, 3, meaning)
        if pointwise_kernel is not None:
            pointwise_kernel = as_array(pointwise_kernel)
            check_rank("pointwise_kernel", pointwise_kernel.shape, 3, meaning)
        arguments = strides, padding, dilation_rate, data_format
        spec = conv_spec_1d(depthwise_kernel.shape[0], *arguments, spec_builder(engine))
        return convolve_1d(engine, x, depthwise_kernel, pointwise_kernel, bias, spec, activation)

    def depthwise_conv2d(
        x: Any,
        depthwise_kernel: Any,
        bias: Any = None,
        *,
        strides: Sizes = 1,
        padding: Padding = "valid",
        dilation_rate: Sizes = 1,
        data_format: str = "channels_last",
        activation: str | None = None,
    ) -> Any:
        spec = spec_builder(engine)(strides, padding, dilation_rate, data_format)
        return convolve_2d(engine, x, depthwise_kernel, None, bias, spec, activation)

    def separable_conv2d(
        x: Any,
        depthwise_kernel: Any,
        pointwise_kernel: Any,
        bias: Any = None,
        *,
        strides: Sizes = 1,
        padding: Padding = "valid",
        dilation_rate: Sizes = 1,
        data_format: str = "channels_last",
        activation: str | None = None,
    ) -> Any:
        require_pointwise_kernel(pointwise_kernel)
        spec = spec_builder(engine)(strides, padding, dilation_rate, data_format)
        kernels = depthwise_kernel, pointwise_kernel
        return convolve_2d(engine, x, *kernels, bias, spec, activation)

    def depthwise_conv1d(
        x: Any,
        depthwise_kernel: Any,
        bias: Any = None,
        *,
        strides: Sizes = 1,
        padding: Padding = "valid",
        dilation_rate: Sizes = 1,
        data_format: str = "channels_last",
        activation: str | None = None,
    ) -> Any:
        arguments = (strides, padding, dilation_rate, data_format)
        return convolve_3d_arrays(x, (depthwise_kernel, None), bias, activation, *arguments)

    def separable_conv1d(
        x: Any,
        depthwise_kernel: Any,
        pointwise_kernel: Any,
        bias: Any = None,
        *,
        strides: Sizes = 1,
        padding: Padding = "valid",
        dilation_rate: Sizes = 1,
        data_format: str = "channels_last",
        activation: str | None = None,
    ) -> Any:
        require_pointwise_kernel(pointwise_kernel)
        arguments = (strides, padding, dilation_rate, data_format)
        kernels = depthwise_kernel, pointwise_kernel
        return convolve_3d_arrays(x, kernels, bias, activation, *arguments)

    made = Functions(depthwise_conv2d, separable_conv2d, depthwise_conv1d, separable_conv1d)
    for function, (rank, separable) in zip(
        made, ((2, False), (2, True), (1, False), (1, True)), strict=True
    ):
        document_convolution(function, engine.name, rank, separable)
    return made


def fuse(engine: Engine, operands: Operands, block: BlockSpec, steps: tuple[int, int]) -> Any:
    """An engine's block, of arrays that are checked; `steps` as `block_spec` returns them."""
    operands = operands.map(engine.as_array)
    if steps != (1, 1):
        rank = "(batch, height, width, channels) in the order of data_format"
        check_rank("x", operands.x.shape, 4, rank)
        operands = operands.with_images(strided(operands.x, steps, block.spec), operands.residual)
    if not engine.is_traced():
        _check_dtypes(operands._asdict())
        check_block(operands.shapes(), block.spec)
    return engine.fuse(operands, block)


def fused_function(engine: Engine) -> Callable[..., Any]:
    """Makes an engine's `fused_conv2d`."""

    def fused_conv2d(
        x: Any,
        depthwise_kernel: Any = None,
        pointwise_kernel: Any = None,
        *,
        depthwise_bias: Any = None,
        depthwise_activation: str | None = None,
        bias: Any = None,
        activation: str | None = None,
        residual: Any = None,
        strides: Sizes = 1,
        padding: Padding = "valid",
        dilation_rate: Sizes = 1,
        data_format: str = "channels_last",
    ) -> Any:
        spec = spec_builder(engine)(strides, padding, dilation_rate, data_format)
        operands = Operands(x, depthwise_kernel, depthwise_bias, pointwise_kernel, bias, residual)
        ordinary = is_ordinary(operands)
        block, steps = block_spec(
            operands, spec, depthwise_activation, activation, ordinary=ordinary
        )
        return fuse(engine, operands, block, steps)

    document_block(fused_conv2d, engine.name)
    return fused_conv2d


def program_function(engine: Engine) -> Callable[..., Any]:
    """Makes an engine's `run_program`."""

    def run_program(program: Program, *inputs: Any) -> Any:
        if not isinstance(program, Program):
            raise TypeError(
                "run_program takes a program, as sepconv.compile and sepconv.load give it. "
                f"Received: {type(program).__name__}"
            )
        # With the program, so that compiled code finds the same one in every call.
        embedded = vars(program).get("_embedded")
        if embedded is None:
            embedded = vars(program).setdefault("_embedded", Embedded(program, "A program"))
        given = listed(inputs, program.inputs, "A program's call")
        found = engine.run_program(embedded, None, given)
        return found[0] if len(found) == 1 else tuple(found)

    document_program(run_program, engine.name)
    return run_program
