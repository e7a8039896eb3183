"""Makes JAX primitives of the XLA FFI handlers, with partitioning over the batch axis.

A primitive lowers to one custom call on the CPU and to a function of JAX operations elsewhere.
Where a program is spread over several CPU devices, arrays with a batch axis may stay sharded along
it: each device then convolves its own part, and gradients that sum over the batch are added up
with a `psum`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import NamedSharding, PartitionSpec
from jaxlib.version import __version__ as jaxlib_version

from sepconv.engines.jax.compat import (
    aval_like,
    ffi_version,
    no_mesh,
    sharding_rule,
    sharding_rule_result,
    typeof,
    vary,
    varying_axes,
)
from sepconv.fused import Operands
from sepconv.geometry import ACTIVATIONS, ConvSpec

__all__ = [
    "align",
    "backward_call",
    "batch_norm_sums_call",
    "export_portably",
    "forward_call",
    "make_primitive",
    "moments_call",
    "output_aval",
    "pointwise_backward_call",
]

try:
    import sepconv._xla as _xla
except ModuleNotFoundError as error:
    raise ImportError(
        "sepconv was built without its operations for JAX, since jaxlib was not installed then. "
        "Install jaxlib and build sepconv again: "
        "pip install --force-reinstall --no-deps --no-build-isolation sepconv"
    ) from error


def _refused() -> ImportError:
    return ImportError(
        f"XLA in jaxlib {jaxlib_version} does not take sepconv's operations, which were "
        f"built for version {'.'.join(map(str, _xla.api_version))} of its FFI. Upgrade jaxlib, "
        "or build sepconv against the installed one: "
        "pip install --force-reinstall --no-deps --no-build-isolation sepconv"
    )


# JAX may register handlers later than it is told to, and then an older XLA does not start at all.
_installed = ffi_version()
if _installed is not None and tuple(_xla.api_version) > _installed:
    raise _refused()
for _name, _handler in _xla.registrations().items():
    try:
        jax.ffi.register_ffi_target(_name, _handler, platform="cpu")
    except Exception as error:
        raise _refused() from error


def _integers(values: Sequence[int]) -> np.ndarray:
    return np.array(values, np.int64)


def forward_call(
    operands: Operands,
    y: Any,
    spec: ConvSpec,
    depthwise_activation: int = ACTIVATIONS[None],
    activation: int = ACTIVATIONS[None],
) -> Any:
    """Calls the forward handler.

    `y` has the result's shape and dtype. Without a depthwise kernel it is the 1x1 product alone.
    """
    return jax.ffi.ffi_call("sepconv_forward", y)(
        *(a for a in operands if a is not None),
        spec=_integers(spec),
        operands=np.int64(operands.bits()),
        depthwise_activation=np.int64(depthwise_activation),
        activation=np.int64(activation),
    )


def backward_call(
    x: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    dy: Any,
    results: Sequence[Any],
    spec: ConvSpec,
    size: Sequence[int],
    kernel_shape: Sequence[int],
    separable: bool,
    wanted: Sequence[bool],
) -> Sequence[Any]:
    """Calls the backward handler for the gradients that `wanted` names.

    Operands that no wanted gradient needs may be None. `size` is the height and width of x;
    `results` has the shapes and dtypes of the wanted gradients, in the order x, depthwise_kernel,
    pointwise_kernel, bias.
    """
    operands = Operands(x, depthwise_kernel, pointwise_kernel=pointwise_kernel)
    names = ("x", "depthwise_kernel", "pointwise_kernel", "bias")
    results_of = Operands(**{n: want or None for n, want in zip(names, wanted, strict=True)})
    return jax.ffi.ffi_call("sepconv_backward", list(results))(
        dy,
        *(a for a in operands if a is not None),
        spec=_integers(spec),
        size=_integers(size),
        kernel_shape=_integers(kernel_shape),
        separable=np.int64(separable),
        operands=np.int64(operands.bits()),
        wanted=np.int64(results_of.bits()),
    )


def pointwise_backward_call(
    x: Any, kernel: Any, dy: Any, results: Sequence[Any], channels: int, spec: ConvSpec
) -> Sequence[Any]:
    """Calls the backward handler of the 1x1 product.

    Its results are the gradient of x, where `kernel` is given, and that of the kernel, where `x`
    is; at least one of the two is. `results` has their shapes and dtypes; `channels` is the number
    of those of x.
    """
    operands = Operands(x, pointwise_kernel=kernel)
    return jax.ffi.ffi_call("sepconv_pointwise_backward", list(results))(
        dy,
        *(a for a in operands if a is not None),
        channels=np.int64(channels),
        channels_first=np.int64(spec.channels_first),
        operands=np.int64(operands.bits()),
        wanted=np.int64(Operands(kernel, pointwise_kernel=x).bits()),
    )


def moments_call(x: Any, results: Sequence[Any], axis: int) -> Sequence[Any]:
    """Calls the handler for the mean and the variance of each channel, like `results`."""
    return jax.ffi.ffi_call("sepconv_moments", list(results))(x, axis=np.int64(axis))


def batch_norm_sums_call(
    operands: Sequence[Any], results: Sequence[Any], axis: int, epsilon: float
) -> Sequence[Any]:
    """Calls the handler for batch normalization's gradients of gamma and beta, like `results`.

    `operands` are x, mean, variance and dy.
    """
    return jax.ffi.ffi_call("sepconv_batch_norm_sums", list(results))(
        *operands, axis=np.int64(axis), epsilon=np.float64(epsilon)
    )


def align(*arrays: Any) -> list[Any]:
    """The arrays, made to vary over the same manual mesh axes, as `jax.shard_map` asks for."""
    # Only what is traced can vary; an array's type takes JAX 3 us to tell.
    if not any(isinstance(array, jax.core.Tracer) for array in arrays):
        return list(arrays)
    axes = [varying_axes(typeof(a)) if a is not None else frozenset() for a in arrays]
    every = frozenset().union(*axes)
    aligned = []
    for array, own in zip(arrays, axes, strict=True):
        if array is not None and every - own:
            array = vary(array, tuple(sorted(every - own)))
        aligned.append(array)
    return aligned


def output_aval(like: Any, shape: Sequence[int], batch: bool = True) -> Any:
    """The abstract value of a result with the dtype and mesh axes of `like`.

    Where `batch` holds, the first axis is the batch, as it is in `like`, and sharded as that is.
    """
    return aval_like(like, shape, batch)


Call = Callable[..., Any]
BatchFlags = Callable[..., tuple[Sequence[bool], Sequence[bool]]]


def make_primitive(
    name: str,
    *,
    abstract: Call,
    elsewhere: Call,
    on_cpu: Call | None = None,
    batch_flags: BatchFlags | None = None,
    multiple_results: bool = False,
) -> Primitive:
    """Makes a primitive without rules for differentiation and batching.

    Args:
        name: what it is called in a printed program.
        abstract: its shape rule.
        elsewhere: operands and parameters to results, by JAX operations.
        on_cpu: the same by one FFI call; None where the operations serve the CPU too.
        batch_flags: parameters to (for each operand, for each result): is its first axis the batch?
            Where no device can compute its own part of the batch alone, None: programs that are
            spread over several devices then get the operations.
        multiple_results: whether it returns a list.
    """
    primitive = Primitive(f"sepconv_{name}")
    primitive.multiple_results = multiple_results

    @functools.lru_cache(maxsize=1024)
    def compiled(**params: Any) -> Call:
        return jax.jit(functools.partial(primitive.bind, **params))

    def run(*operands: Any, **params: Any) -> Any:
        with jax.disable_jit(False):
            return compiled(**params)(*operands)

    primitive.def_impl(run)
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(elsewhere, multiple_results))
    if on_cpu is not None:
        rule = _lowering_on_cpu(on_cpu, elsewhere, batch_flags, multiple_results)
        mlir.register_lowering(primitive, rule, platform="cpu")
        _announce(primitive)
    return primitive


#: Whether what `jax.export` writes has JAX's operations in the place of our calls.
_portable = False


def export_portably(portable: bool) -> None:
    """Sets whether `jax.export` writes JAX's own operations, which every process knows."""
    global _portable
    _portable = portable


def _is_for_others(module_context: Any) -> bool:
    parameters = getattr(module_context, "lowering_parameters", None)
    return _portable and getattr(parameters, "for_export", False)


def _lowering_on_cpu(
    on_cpu: Call, elsewhere: Call, batch_flags: BatchFlags | None, multiple_results: bool
) -> Call:
    def rule(context: Any, *operands: Any, **params: Any) -> Any:
        call: Call = functools.partial(on_cpu, **params)
        if _is_for_others(context.module_context):
            call = functools.partial(elsewhere, **params)
        elif _spread_over_devices(context.module_context.axis_context):
            if batch_flags is None:
                call = functools.partial(elsewhere, **params)
            else:
                call = _partitioned(call, *batch_flags(**params), multiple_results=multiple_results)
        return mlir.lower_fun(call, multiple_results)(context, *operands)

    return rule


def _announce(primitive: Primitive) -> None:
    """Has JAX say which devices a program is for when it lowers the primitive.

    `custom_partitioning` asks for that, and JAX looks for it in the program before our lowering has
    put it there. The switch is private to JAX; should it move, sharded arrays are gathered before
    a convolution, which is slower and no less right.
    """
    try:
        from jax._src.dispatch import prim_requires_devices_during_lowering
    except ImportError:
        return
    prim_requires_devices_during_lowering.add(primitive)


def _spread_over_devices(axis_context: Any) -> bool:
    """Whether XLA's partitioner will cut the program being lowered into one a device."""
    devices = getattr(axis_context, "device_assignment", None)
    mesh = getattr(axis_context, "abstract_mesh", None)
    return devices is not None and len(devices) > 1 and mesh is not None


def _partitioned(
    call: Call, operands: Sequence[bool], results: Sequence[bool], *, multiple_results: bool
) -> Call:
    """`call` with rules that keep the batch axis sharded; see `make_primitive` for the flags."""

    def wrapped(*arrays: Any) -> tuple[Any, ...]:
        out = call(*arrays)
        return tuple(out) if multiple_results else (out,)

    def batch_axes(mesh: Any, *sides: tuple[Sequence[bool], Sequence[Any]]) -> Any:
        """The mesh axes along which to cut the batch: those of the first array that is cut."""
        for flags, arrays in sides:
            for flag, array in zip(flags, arrays, strict=True):
                spec = getattr(array.sharding, "spec", None)
                if flag and spec and spec[0]:
                    axes = spec[0] if isinstance(spec[0], tuple) else (spec[0],)
                    # Parts of unequal size are padded with what no gradient may be summed over.
                    if array.shape[0] % math.prod(mesh.shape[axis] for axis in axes) == 0:
                        return axes
        return ()

    def shardings(mesh: Any, axes: Sequence[str], flags: Sequence[bool]) -> tuple[Any, ...]:
        cut = PartitionSpec(tuple(axes) or None)
        return tuple(NamedSharding(mesh, cut if flag else PartitionSpec()) for flag in flags)

    def partition(mesh: Any, arguments: Any, outputs: Any) -> Any:
        axes = batch_axes(mesh, (operands, arguments), (results, outputs))

        def local(*arrays: Any) -> tuple[Any, ...]:
            # One device's program knows no mesh, whichever one the user has set.
            with no_mesh():
                return tuple(
                    out if flag or not axes else jax.lax.psum(out, axes)
                    for out, flag in zip(wrapped(*arrays), results, strict=True)
                )

        return mesh, local, shardings(mesh, axes, results), shardings(mesh, axes, operands)

    def infer(mesh: Any, arguments: Any, outputs: Any) -> tuple[Any, ...]:
        return shardings(mesh, batch_axes(mesh, (operands, arguments)), results)

    def rule(mesh: Any, operand_types: Any, result_types: Any) -> Any:
        """Shardy's view of it: the batch is one factor, every other axis one that is not cut."""
        whole: list[str] = []

        def name_axes(flag: bool, rank: int) -> str:
            names = ["n"] if flag else []
            for _ in range(rank - len(names)):
                whole.append(f"w{len(whole)}")
                names.append(whole[-1])
            return " ".join(names)

        def side(flags: Sequence[bool], types: Sequence[Any]) -> str:
            return ", ".join(
                name_axes(flag, len(t.shape)) for flag, t in zip(flags, types, strict=True)
            )

        text = f"{side(operands, operand_types)} -> {side(results, result_types)}"
        extra: dict[str, Any] = {"need_replication_factors": tuple(whole)}
        if not any(results):
            extra["reduction_factors"] = ("n",)
        return sharding_rule_result(text, extra)

    function = custom_partitioning(wrapped)
    function.def_partition(
        partition=partition, infer_sharding_from_operands=infer, sharding_rule=sharding_rule(rule)
    )
    if multiple_results:
        return function
    return lambda *arrays: function(*arrays)[0]
