"""Makes inputs for a model, of the kind that its layers expect.

From each input, the graph is followed to the first layers that do more than move its values. An
`Embedding` expects integers below its size, a lookup words of its vocabulary, a `Rescaling` values
that it maps to the range from 0 to 1, and so on. For layers without such a hint, values are
standard normal numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from sepconv.models.domains import Default, Domain, domain_of, domain_within, moves_numbers

__all__ = ["InputsError", "generate", "random_inputs"]

#: Sizes that are tried for unknown axes, in this order: of pictures, and of other inputs.
_PICTURE_SIZES = (64, 32, 128, 224, 96, 16)
_SEQUENCE_SIZES = (16, 8, 64, 32, 128, 5, 1)
#: The most numbers in an example for which a batch has two examples, and not one.
_SMALL = 20_000


class InputsError(ValueError):
    """Inputs for a model cannot be made; the message says why."""


class _Spec:
    """The shape, dtype and domain of one input.

    Args:
        tensor: something with shape and dtype; it may be sparse, or ragged.
        domain: the values to draw.
    """

    def __init__(self, tensor: Any, domain: Domain) -> None:
        self.shape = tuple(tensor.shape)
        self.dtype = keras.backend.standardize_dtype(tensor.dtype)
        self.sparse = bool(getattr(tensor, "sparse", False))
        self.ragged = bool(getattr(tensor, "ragged", False))
        self.domain = domain


def random_inputs(
    model: Any, batch: int = 2, size: tuple[int, ...] | None = None, seed: int = 0
) -> Any:
    """Inputs for a model, of the kind that it takes.

    Args:
        model: a Keras model whose input shapes are known, except for batch and sizes.
        batch: the number of examples, where the model does not fix it.
        size: the sizes of unknown axes, in order, the last of them for all that follow; None is 64
            in pictures and 16 elsewhere.
        seed: the same seed gives the same inputs.

    Returns:
        An array, or the model's structure of arrays.

    Raises:
        InputsError: the model does not know the shape of its inputs, or they cannot be made. It is
            a ValueError.

    Example:
        >>> model = keras.Sequential([keras.Input((None, 8, 3)), keras.layers.Conv2D(2, 3)])
        >>> random_inputs(model, size=(10,)).shape
        (2, 10, 8, 3)
    """
    structure = _specs(model)

    def draw(spec: _Spec) -> Any:
        open_sizes = size or (_open_sizes(spec)[0],)
        return _draw(spec, _sizes(spec.shape, batch, open_sizes), rng)

    rng = np.random.default_rng(seed)
    return tree.map_structure(draw, structure)


def generate(model: Any, seed: int = 0) -> Iterator[Any]:
    """Inputs for a model, with other sizes each time where the model leaves sizes open.

    Args:
        model: a Keras model that knows the shape of its inputs, except for batch and sizes.
        seed: the same seed gives the same inputs.

    Raises:
        InputsError: the model does not know the shape of its inputs, or they cannot be made.

    Example:
        >>> model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 40)])
        >>> [x.shape for x in generate(model)][:3]
        [(2, 64, 64, 3), (2, 32, 32, 3), (1, 128, 128, 3)]
    """
    structure = _specs(model)
    specs = tree.flatten(structure)
    is_open = any(None in spec.shape[1:] for spec in specs)
    rounds = max(len(_open_sizes(spec)) for spec in specs) if is_open else 1
    for i in range(rounds):
        sizes = [(_open_sizes(spec)[min(i, len(_open_sizes(spec)) - 1)],) for spec in specs]
        shapes = [_sizes(s.shape, 1, size) for s, size in zip(specs, sizes, strict=True)]
        batch = 2 if sum(math.prod(shape[1:]) for shape in shapes) <= _SMALL else 1
        rng = np.random.default_rng(seed)
        arrays = [
            _draw(spec, _sizes(spec.shape, batch, size), rng)
            for spec, size in zip(specs, sizes, strict=True)
        ]
        yield tree.pack_sequence_as(structure, arrays)


def _open_sizes(spec: _Spec) -> Sequence[int]:
    return _PICTURE_SIZES if len(spec.shape) > 3 else _SEQUENCE_SIZES


def _sizes(shape: tuple[int | None, ...], batch: int, open_sizes: Sequence[int]) -> tuple[int, ...]:
    """A shape with sizes for the unknown axes."""
    if not shape:
        return ()
    first, *rest = shape
    stand_ins = list(open_sizes)
    sizes = []
    for axis in rest:
        if axis is None:
            axis = stand_ins.pop(0) if len(stand_ins) > 1 else stand_ins[0]
        sizes.append(axis)
    return (batch if first is None else first, *sizes)


def _draw(spec: _Spec, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    array = spec.domain.draw(shape, spec.dtype, rng)
    backend = keras.backend.backend()
    if spec.ragged:
        if backend != "tensorflow":
            raise InputsError(f"{backend} has no ragged inputs")
        import tensorflow as tf

        # Every other row is shorter by one.
        lengths = [shape[1] - (i % 2 if shape[1] > 1 else 0) for i in range(shape[0])]
        return tf.RaggedTensor.from_tensor(array, lengths=lengths)
    if not spec.sparse:
        return array
    array = array * (rng.random(shape) < 0.5).astype(array.dtype)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.sparse.from_dense(array)
    if backend == "jax":
        from jax.experimental import sparse

        return sparse.BCOO.fromdense(array, n_batch=0)
    raise InputsError(f"{backend} has no sparse inputs")


# --- The inputs of a model ------------------------------------------------------------------------


def _specs(model: Any) -> Any:
    """A `_Spec` for each input, in the model's structure."""
    functional = _graph(model)
    if functional is not None:
        # A Sequential model has a list of its one input, where callers pass the input itself.
        inputs = functional.inputs[0] if isinstance(model, keras.Sequential) else model.input
        specs = tree.map_structure(lambda t: _Spec(t, _domain(functional, t)), inputs)
    else:
        specs = _remembered(model)
    if not tree.flatten(specs):
        raise InputsError(f"the model {model.name!r} has no inputs")
    return specs


def _graph(model: Any) -> Any:
    """The functional model that `model` is or contains; None where there is none."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if getattr(model, "inputs", None) and hasattr(model, "_nodes_by_depth") else None


class _Remembered:
    """The shape that a model was built with, in the form of a tensor."""

    def __init__(self, shape: tuple[int | None, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype


def _remembered(model: Any) -> Any:
    """For a model that has no graph: the shapes that it was built with."""
    config = model.get_build_config() or {}
    shapes = config.get("input_shape", config.get("shapes_dict"))
    if shapes is None:
        raise InputsError(f"the model {model.name!r} does not know the shape of its inputs")
    if "input_shape" not in config and len(shapes) > 1:
        raise InputsError(f"the model {model.name!r} is called with more than one argument")
    domain = domain_within(model)
    dtype = "string" if domain.is_text else "float32"

    def make(shape: Any) -> Any:
        if isinstance(shape, dict):
            return {key: make(value) for key, value in shape.items()}
        if all(n is None or isinstance(n, int) for n in shape):
            # The batch size of the build is not required.
            return _Spec(_Remembered((None, *shape[1:]), dtype), domain)
        return type(shape)(make(value) for value in shape)

    return make(shapes)


def _domain(functional: Any, tensor: Any) -> Domain:
    """The domain of an input, from the first layers that do more than move its values."""
    found: list[Domain] = []
    _follow(functional, tensor, found, set())
    return min(found, key=lambda domain: domain.rank, default=Default())


def _follow(functional: Any, tensor: Any, found: list[Domain], seen: set[tuple[int, int]]) -> None:
    if (id(functional), id(tensor)) in seen:
        return
    seen.add((id(functional), id(tensor)))
    for nodes in functional._nodes_by_depth.values():
        for node in nodes:
            given = node.input_tensors
            if node.is_input or all(t is not tensor for t in given):
                continue
            inner = _graph(node.operation) if isinstance(node.operation, keras.Model) else None
            if inner is not None:
                for outer, own in zip(given, inner.inputs, strict=False):
                    if outer is tensor:
                        _follow(inner, own, found, seen)
            domain = None if inner is not None else domain_of(node.operation, node, tensor)
            if domain is not None:
                found.append(domain)
            elif inner is None and moves_numbers(node.operation):
                for output in node.outputs:
                    _follow(functional, output, found, seen)
