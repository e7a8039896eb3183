"""A program on TensorFlow's tensors, eagerly and from graphs.

A graph calls it back in this process, so it is kept out of files: see `sepconv.layers.exporting`,
which knows it by the name of the operation. It has no derivative; where one is asked for, that is
an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from sepconv.program.embedded import KEY_BYTES, Embedded, no_gradient

__all__ = ["NODE", "file_bytes", "run_program"]

#: What the operation is called in a graph.
NODE = "SepconvProgram"


def file_bytes(array: Any) -> np.ndarray:
    """See `sepconv.engines.contract`."""
    with tf.init_scope():  # also where a function is being traced
        return np.asarray(tf.convert_to_tensor(array))


def run_program(embedded: Embedded, file: Any | None, inputs: Sequence[Any]) -> list[Any]:
    """See `sepconv.engines.contract`."""
    tensors = [tf.convert_to_tensor(x) for x in inputs]
    key = [] if file is None else [tf.convert_to_tensor(file)[:KEY_BYTES]]

    @tf.custom_gradient
    def compute(*tensors: Any) -> Any:
        def derivative(*_: Any) -> Any:
            raise no_gradient(embedded.name)

        return _computed(embedded, key, tensors), derivative

    return list(compute(*tensors))


def _computed(embedded: Embedded, key: list[Any], tensors: Sequence[Any]) -> list[Any]:
    """The results, at once or by a graph."""

    def call(*arrays: Any) -> list[np.ndarray]:
        given = [np.asarray(x) for x in arrays]
        return embedded.run(given[len(key) :], given[0].tobytes() if key else None)

    if tf.executing_eagerly():
        return [tf.convert_to_tensor(y) for y in call(*key, *tensors)]
    results = embedded.results()
    dtypes = [one.dtype for one in results]
    found = tf.numpy_function(call, [*key, *tensors], dtypes, stateful=False, name=NODE)
    shapes = _shapes(embedded, tensors)
    for y, shape in zip(found, shapes, strict=True):
        y.set_shape(shape)
    return list(found)


def _shapes(embedded: Embedded, tensors: Sequence[Any]) -> Sequence[Sequence[int | None]]:
    """The results' shapes, as far as they follow from what is known of the inputs."""
    open_shapes = [one.shape for one in embedded.results()]
    given = [x.shape.as_list() if x.shape.rank is not None else None for x in tensors]
    if any(shape is None or None in shape[1:] for shape in given):
        return open_shapes
    known = [list(shape) for shape in given if shape is not None]
    if all(shape[0] is not None for shape in known):
        return embedded.program().output_shapes(*known)
    return open_shapes
