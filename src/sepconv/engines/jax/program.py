"""A program on JAX arrays: one primitive, which calls it from compiled functions.

It runs under `jit`, `vmap`, `scan` and the like, on the host. It has no derivative: where one is
asked for, that is an error while JAX traces. Of other devices, arrays are brought to the host.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from sepconv.engines.jax.compat import call_back, register_lowering, typeof
from sepconv.engines.jax.transforms import fold_batch, is_zero
from sepconv.program.embedded import KEY_BYTES, Embedded, no_gradient, shapes_at

__all__ = ["file_bytes", "run_program"]


def file_bytes(array: Any) -> np.ndarray:
    """See `sepconv.engines.contract`."""
    return np.asarray(array)


def run_program(embedded: Embedded, file: Any | None, inputs: Sequence[Any]) -> list[Any]:
    """See `sepconv.engines.contract`."""
    arrays = [jnp.asarray(x) for x in inputs]
    if file is None:
        return _program.bind(*arrays, embedded=embedded, keyed=False)
    if isinstance(file, jax.core.Tracer):
        # All of it: a compiled function may be called with another file than it was traced with.
        return _program.bind(file, *arrays, embedded=embedded, keyed=True)
    # Outside of traces a layer's own array is looked at once: it cannot change.
    if embedded.seen is not file:
        embedded.program(np.asarray(file)[:KEY_BYTES].tobytes())
        embedded.seen = file
    return _program.bind(*arrays, embedded=embedded, keyed=False)


def _call(*operands: Any, embedded: Embedded, keyed: bool) -> list[np.ndarray]:
    """The results of operands on the host."""
    arrays = [np.asarray(operand) for operand in operands]
    if not keyed:
        return embedded.run(arrays)
    return embedded.run(arrays[1:], arrays[0][:KEY_BYTES].tobytes(), arrays[0])


def _run(*operands: Any, embedded: Embedded, keyed: bool) -> list[Any]:
    return [jnp.asarray(y) for y in _call(*operands, embedded=embedded, keyed=keyed)]


def _avals(*operands: Any, embedded: Embedded, keyed: bool) -> list[Any]:
    sizes = _sizes(embedded, [operand.shape for operand in operands[keyed:]])
    dtypes = [jax.dtypes.canonicalize_dtype(one.dtype) for one in embedded.results()]
    return [jax.core.ShapedArray(s, d) for s, d in zip(sizes, dtypes, strict=True)]


def _sizes(embedded: Embedded, shapes: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """The results' shapes, where the batch may be a symbol of JAX's."""
    if all(isinstance(size, int) for shape in shapes for size in shape):
        return embedded.program().output_shapes(*shapes)
    if any(not isinstance(size, int) for shape in shapes for size in shape[1:]):
        raise ValueError(
            f"{embedded.name} knows its results' sizes only where those of its inputs are numbers, "
            f"but for the batch. Received: {len(shapes)} inputs, of which sizes are symbols"
        )
    return shapes_at(embedded.rule([shape[1:] for shape in shapes]), shapes[0][0])


def _called_back(*operands: Any, embedded: Embedded, keyed: bool) -> list[Any]:
    avals = _avals(*operands, embedded=embedded, keyed=keyed)
    like = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]

    def compute(*arrays: Any) -> list[np.ndarray]:
        found = _call(*arrays, embedded=embedded, keyed=keyed)
        return [y.astype(one.dtype, copy=False) for y, one in zip(found, like, strict=True)]

    return list(jax.pure_callback(compute, like, *operands))


def _lowering(context: Any, *operands: Any, embedded: Embedded, keyed: bool) -> Any:
    """A call back that is given NumPy's views of XLA's memory.

    `jax.pure_callback` makes JAX's arrays of them first, and on a machine with one core waits for
    ever: its thread is the one that would make them. So it serves several devices alone.
    """
    parameters = getattr(context.module_context, "lowering_parameters", None)
    if getattr(parameters, "for_export", False):
        raise ValueError(
            f"{embedded.name} is a program of sepconv's, which is called back on this machine and "
            "cannot be exported. Export the network that it was made from, or save the program "
            "itself, which needs no engine: sepconv.compile(model).save(path)."
        )
    if getattr(context.module_context.axis_context, "num_devices", 0) != 1:
        call = functools.partial(_called_back, embedded=embedded, keyed=keyed)
        return mlir.lower_fun(call, multiple_results=True)(context, *operands)

    def compute(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        found = _call(*arrays, embedded=embedded, keyed=keyed)
        like = context.avals_out
        return tuple(y.astype(one.dtype, copy=False) for y, one in zip(found, like, strict=True))

    return call_back(context, compute, operands)


def _batch(
    operands: Sequence[Any], axes: Sequence[Any], *, embedded: Embedded, keyed: bool
) -> tuple[list[Any], list[int]]:
    """A mapped axis joins the batch where that is open, and else is gone through."""
    count = next(x.shape[a] for x, a in zip(operands, axes, strict=True) if a is not None)
    head = list(operands[:keyed])
    if keyed and axes[0] is not None:
        head = [jnp.take(operands[0], 0, axes[0])]
    arrays = [
        jnp.broadcast_to(x, (count, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands[keyed:], axes[keyed:], strict=True)
    ]
    if _joins(embedded, [x.shape[1:] for x in arrays]):
        images = [fold_batch(x, 0) for x in arrays]
        found = _program.bind(*head, *images, embedded=embedded, keyed=keyed)
        outs = [y.reshape(count, -1, *y.shape[1:]) for y in found]
    else:
        outs = list(
            jax.lax.map(
                lambda each: _program.bind(*head, *each, embedded=embedded, keyed=keyed), arrays
            )
        )
    return outs, [0] * len(outs)


def _joins(embedded: Embedded, shapes: Sequence[Sequence[int]]) -> bool:
    if any(not one.shape or one.shape[0] is not None for one in embedded.inputs()):
        return False
    if len({shape[0] for shape in shapes}) != 1:
        return False
    try:
        return embedded.rule([shape[1:] for shape in shapes]).keeps_batch
    except ValueError:
        return False


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> Any:
    if not all(map(is_zero, tangents)):
        raise no_gradient(params["embedded"].name)
    found = _program.bind(*primals, **params)
    return found, [ad.Zero(typeof(y).to_tangent_aval()) for y in found]


_program = Primitive("sepconv_program")
_program.multiple_results = True
_program.def_impl(_run)
_program.def_abstract_eval(_avals)
register_lowering(_program, _lowering)  # each has a call back of its own
ad.primitive_jvps[_program] = _jvp
batching.primitive_batchers[_program] = _batch
