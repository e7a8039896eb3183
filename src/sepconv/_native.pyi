"""The compiled kernels. A buffer is an object with the buffer protocol, an address, or None."""

from typing import Any

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
) -> None:
    """A depthwise convolution where `filters` is 0; a separable one; or an ordinary one."""

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
    dtype: int,
    x: Any,
    gamma: Any,
    mean: Any,
    variance: Any,
    dy: Any,
    dx: Any,
    dgamma: Any,
    dbeta: Any,
) -> None: ...

class Prepared:
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
) -> Prepared: ...
def plan(geometry: Geometry, dtype: int, pass_: str, threads: int) -> dict[str, str | int]:
    """How a depthwise pass would go, without running it: which kernel, and how work is cut.

    `pass_` is "forward", "input_gradient" or "kernel_gradient".
    """

def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def adopt_openmp(library: str) -> bool: ...
def isa_name() -> str: ...
def measure_fma(threads: int, seconds: float) -> float: ...
def measure_bandwidth(bytes: int, threads: int, seconds: float) -> float: ...
