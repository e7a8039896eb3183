"""The compiled kernels. A buffer is an object with the buffer protocol, an address, or None."""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import numpy as np

class Geometry:
    """A ConvSpec applied to shapes; see `sepconv.geometry.resolve`."""

    def __init__(
        self, spec: tuple[int, ...], x_shape: tuple[int, ...], kernel_shape: tuple[int, ...]
    ) -> None: ...
    @property
    def x_shape(self) -> tuple[int, int, int, int]: ...
    @property
    def kernel_shape(self) -> tuple[int, int, int, int]: ...
    @property
    def depthwise_channels(self) -> int: ...
    @property
    def pads(self) -> tuple[tuple[int, int], tuple[int, int]]: ...
    def output_shape(self, channels: int) -> tuple[int, int, int, int]: ...

def forward(
    geometry: Geometry,
    dtype: int,
    x: Any,
    depthwise_kernel: Any,
    depthwise_bias: Any,
    pointwise_kernel: Any,
    bias: Any,
    residual: Any,
    y: Any,
    filters: int,
    depthwise_activation: int,
    activation: int,
    overrule: tuple[str, str] | None = None,
) -> None:
    """A depthwise convolution where `filters` is 0; a separable one; or an ordinary one.

    `overrule` is for benchmarks, as in `plan`.
    """

def backward(
    geometry: Geometry,
    dtype: int,
    x: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    dy: Any,
    dx: Any,
    ddepthwise: Any,
    dpointwise: Any,
    dbias: Any,
    filters: int,
) -> None:
    """The gradients of the outputs that are not None; `filters` as in `forward`."""

def pointwise_forward(
    images: int,
    pixels: int,
    channels: int,
    filters: int,
    channels_first: bool,
    dtype: int,
    x: Any,
    pointwise_kernel: Any,
    bias: Any,
    residual: Any,
    y: Any,
    activation: int,
) -> None: ...
def pointwise_backward(
    images: int,
    pixels: int,
    channels: int,
    filters: int,
    channels_first: bool,
    dtype: int,
    x: Any,
    pointwise_kernel: Any,
    dy: Any,
    dx: Any,
    dpointwise: Any,
    dbias: Any,
) -> None: ...
def batch_norm_forward(
    outer: int,
    channels: int,
    inner: int,
    epsilon: float,
    activation: int,
    dtype: int,
    x: Any,
    gamma: Any,
    beta: Any,
    y: Any,
    mean: Any,
    variance: Any,
) -> None: ...
def batch_norm_backward(
    outer: int,
    channels: int,
    inner: int,
    epsilon: float,
    activation: int,
    dtype: int,
    x: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    variance: Any,
    dy: Any,
    dx: Any,
    dgamma: Any,
    dbeta: Any,
) -> None: ...
def normalized_depthwise_backward(
    geometry: Geometry,
    epsilon: float,
    activation: int,
    dtype: int,
    x: Any,
    kernel: Any,
    v: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    variance: Any,
    dy: Any,
    dx: Any,
    dkernel: Any,
    dgamma: Any,
    dbeta: Any,
) -> None: ...
def normalized_pointwise_backward(
    pixels: int,
    channels: int,
    filters: int,
    epsilon: float,
    activation: int,
    dtype: int,
    x: Any,
    kernel: Any,
    v: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    variance: Any,
    dy: Any,
    dx: Any,
    dkernel: Any,
    dgamma: Any,
    dbeta: Any,
) -> None: ...

class PreparedConvolution:
    """Copies of a convolution's weights, in the order in which kernels read them."""

    def forward(self, geometry: Geometry, x: Any, residual: Any, y: Any) -> None: ...

def prepare(
    dtype: int,
    channels_first: bool,
    taps: int,
    channels: int,
    depth_multiplier: int,
    filters: int,
    depthwise_kernel: Any,
    depthwise_bias: Any,
    pointwise_kernel: Any,
    bias: Any,
    depthwise_activation: int,
    activation: int,
) -> PreparedConvolution: ...

class PreparedQuantized:
    """Copies of the weights of a convolution of int8, in the order in which kernels read them."""

    def forward(self, geometry: Geometry, x: Any, residual: Any, y: Any) -> None: ...

def prepare_quantized(
    sizes: tuple[int, int, int, int, int],
    steps: tuple[int, int, int, int],
    depthwise_kernel: Any,
    depthwise_bias: Any,
    depthwise_scale: Any,
    depthwise_table: Any,
    depthwise_rounding: tuple[int, int, int],
    pointwise_kernel: Any,
    bias: Any,
    scale: Any,
    table: Any,
    rounding: tuple[int, int, int],
    input_zero_point: int,
    residual_zero_point: int,
    residual_scale: float,
) -> PreparedQuantized:
    """A depthwise kernel alone, one that mixes channels alone, or both.

    `sizes` has the height, width, channels and depth multiplier of the kernel, and filters or 0;
    `steps` strides and dilations; a rounding is a zero point and two bounds.
    """

class PlanStep(TypedDict):
    """What runs over tasks at once; numbers as in native/plan.h."""

    kind: str  # "depthwise", "pointwise", "fused_tiles", "fused_parts" or "patches"
    kernel: str  # "flat", "planar", "small", "stride2", "channelwise" or "none"
    bands: int
    band_rows: int
    row_pieces: int
    channel_parts: int
    filter_parts: int
    groups: int
    tasks: int
    scratch_bytes: int
    kept_bytes: int

class Plan(TypedDict):
    """The steps of an operation, and how many images go through them at a time."""

    images: int
    steps: list[PlanStep]

def plan(
    geometry: Geometry,
    dtype: int,
    pass_: str,
    threads: int,
    filters: int = 0,
    packed: bool = False,
    overrule: tuple[str, str] | None = None,
) -> Plan:
    """How a pass would go, without running it.

    `pass_` is "forward", "input_gradient", "kernel_gradient" (the depthwise kernel's) or, where
    there are `filters`, "pointwise_kernel_gradient" or "ordinary_forward"; `packed` says that the
    weights are prepared. `overrule` is (kernel, schedule), taken in a forward pass instead of what
    would be chosen: the kernel of a depthwise step alone ("flat", "planar", "small", "channelwise"
    or "none"), and the schedule of a separable convolution ("steps", "tiles", "parts" or "chosen").
    What cannot serve the geometry is not taken.
    """

def plan_pointwise(
    images: int,
    pixels: int,
    channels: int,
    filters: int,
    channels_first: bool,
    dtype: int,
    pass_: str,
    threads: int,
    packed: bool = False,
) -> Plan:
    """The same of a 1x1 convolution alone.

    `pass_` is "forward", "input_gradient" or "pointwise_kernel_gradient".
    """

#: A step of a program: its operation and name, numbers of values, attributes as integers and floats
#: (see ``native/program/step.h``), and numbers of tensors or None.
ProgramStep = tuple[str, str, list[int], list[int], list[float], list[int | None]]

class Program:
    """A network whose weights are packed; see ``native/program/program.h``.

    Sizes of inputs that may be any are -1. `tuning` is the three numbers of its ``Tuning``.
    """

    def __init__(
        self,
        dtype: int,
        inputs: list[list[int]],
        steps: list[ProgramStep],
        outputs: list[int],
        tensors: list[np.ndarray],
        tuning: tuple[int, int, int] | None = None,
    ) -> None: ...
    def output_shapes(self, inputs: Sequence[Sequence[int]]) -> list[tuple[int, ...]]: ...
    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None: ...
    def profile(
        self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]
    ) -> list[tuple[str, str, tuple[int, ...], int, int, float, str]]:
        """Of each step operation, name, shape, multiply-adds, weight bytes, seconds and plan."""

    def memory(self, inputs: Sequence[Sequence[int]]) -> tuple[int, int, int]:
        """Bytes of weights, of a call's arena, and of the same without sharing."""

def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def adopt_openmp(library: str) -> bool: ...
def isa_name() -> str: ...
def measure_fma(threads: int, seconds: float, dtype: int | Literal["int8"] = 0) -> float: ...
def measure_bandwidth(bytes: int, threads: int, seconds: float) -> float: ...
