"""A program on TensorFlow's tensors: eagerly, in graphs, no gradient."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import programs

tf = pytest.importorskip("tensorflow")

import sepconv.tensorflow  # noqa: E402
from sepconv.program.program import Program  # noqa: E402

run = sepconv.tensorflow.run_program


@pytest.fixture(scope="module")
def program():
    every = programs.every_operation()
    return Program(every._replace(outputs=every.outputs[:1], output_names=every.output_names[:1]))


def image(batch=2):
    return np.random.default_rng(0).normal(size=(batch, 8, 8, 3)).astype("float32")


def test_at_once_and_in_graphs(program):
    signature = [tf.TensorSpec((None, 8, 8, 3))]
    graph = tf.function(lambda x: run(program, x), input_signature=signature)
    for batch in (1, 3):
        x = image(batch)
        for found in (run(program, x), graph(x)):
            np.testing.assert_array_equal(found, program(x))
    shape = graph.get_concrete_function().output_shapes
    assert shape.as_list() == list(program.outputs[0].shape)
    known = tf.function(lambda x: run(program, x)).get_concrete_function(
        tf.TensorSpec((3, 8, 8, 3))
    )
    assert known.output_shapes.as_list() == list(program(image(3)).shape)
    unknown = tf.function(lambda x: run(program, x)).get_concrete_function(tf.TensorSpec(None))
    np.testing.assert_array_equal(unknown(tf.constant(image())), program(image()))


def test_no_gradient(program):
    x = tf.constant(image())

    def gradient(call):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = call(program, x)
        return tape.gradient(y, x)

    for call in (run, tf.function(run)):
        with pytest.raises(ValueError, match="it has no gradient"):
            gradient(call)


def test_a_saved_model_is_refused_where_keras_is_asked(program):
    from sepconv.layers.exporting import our_operations

    graph = tf.function(lambda x: run(program, x)).get_concrete_function(
        tf.TensorSpec((2, 8, 8, 3))
    )
    assert our_operations(graph.graph.as_graph_def()) == ["SepconvProgram"]


def test_errors(program):
    with pytest.raises(TypeError, match="Received: NoneType"):
        run(None, image())
    with pytest.raises(ValueError, match="shape"):
        run(program, image()[..., :2])
