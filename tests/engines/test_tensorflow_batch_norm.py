"""TensorFlow's batch normalization: values, derivatives, functions, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from sepconv.engines.tensorflow.batch_norm import batch_norm  # noqa: E402
from sepconv.engines.tensorflow.calls import operations  # noqa: E402

SHAPES = [((4, 3, 5, 6), 3), ((4, 6, 3, 5), 1), ((40, 70), 1), ((3, 2, 70), 1), ((7,), 0)]


def operands(shape, axis, dtype="float64"):
    rng = np.random.default_rng(0)
    vector = (shape[axis],)
    return [
        tf.constant(rng.standard_normal(s) + offset, dtype)
        for s, offset in ((shape, 3), (vector, 2), (vector, 0))
    ]


def composed(x, gamma, beta, axis, epsilon=1e-3):
    others = [i for i in range(len(x.shape)) if i != axis]
    # Not tf.nn.moments, whose second derivative is wrong.
    mean = tf.reduce_mean(x, others, keepdims=True)
    variance = tf.reduce_mean((x - mean) ** 2, others, keepdims=True)
    vector = [-1 if i == axis else 1 for i in range(len(x.shape))]
    normal = (x - mean) / tf.sqrt(variance + tf.constant(epsilon, x.dtype))
    return normal * tf.reshape(gamma, vector) + tf.reshape(beta, vector)


def gradients(function, given, dy):
    with tf.GradientTape() as tape:
        tape.watch(given)
        y = function(*given)
    return y, tape.gradient(y, given, dy)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("graph", [False, True])
def test_values_and_gradients(shape, axis, dtype, graph):
    given = operands(shape, axis, dtype)
    dy = tf.constant(np.cos(np.arange(np.prod(shape))).reshape(shape), dtype)
    ours = lambda *a: gradients(  # noqa: E731
        lambda *b: batch_norm(*b, axis=axis, epsilon=1e-3)[0], a, dy
    )
    y, found = tf.function(ours)(*given) if graph else ours(*given)
    wide = [tf.cast(a, "float64") for a in given]
    expected, other = gradients(lambda *a: composed(*a, axis), wide, tf.cast(dy, "float64"))
    near = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-11}
    np.testing.assert_allclose(y, expected, **near)
    for a, b in zip(found, other, strict=True):
        np.testing.assert_allclose(a, b, **near)
    _, mean, variance = batch_norm(*given, axis=axis, epsilon=1e-3)
    others = tuple(i for i in range(len(shape)) if i != axis)
    np.testing.assert_allclose(mean, wide[0].numpy().mean(others), **near)
    np.testing.assert_allclose(variance, wide[0].numpy().var(others), **near)


@pytest.mark.parametrize(("shape", "axis"), SHAPES[:4])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("graph", [False, True])
def test_a_half_type_is_computed_in_float32(shape, axis, dtype, graph):
    x, *vectors = operands(shape, axis, "float32")
    x = tf.cast(x, dtype)
    dy = tf.cast(tf.constant(np.cos(np.arange(np.prod(shape))).reshape(shape)), dtype)
    normalized = lambda *a: batch_norm(*a, axis=axis, epsilon=1e-3)[0]  # noqa: E731
    ours = lambda *a: gradients(normalized, a, dy)  # noqa: E731
    y, found = tf.function(ours)(x, *vectors) if graph else ours(x, *vectors)
    wide = tf.cast(x, "float32")
    exact, others = gradients(normalized, (wide, *vectors), tf.cast(dy, "float32"))
    assert y.dtype == found[0].dtype == x.dtype
    assert found[1].dtype == found[2].dtype == tf.float32
    unit = 2**-7 if dtype == "bfloat16" else 2**-10
    for a, b in ((y, exact), (found[0], others[0])):
        np.testing.assert_allclose(tf.cast(a, "float32"), b, rtol=unit, atol=1e-6)
    for a, b in zip(found[1:], others[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    given = x, *vectors
    for a, b in zip(
        batch_norm(*given, axis=axis, epsilon=1e-3)[1:],
        batch_norm(wide, *vectors, axis=axis, epsilon=1e-3)[1:],
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_second_derivatives_of_a_half_type():
    x, *vectors = operands((4, 3, 5), 1, "float32")
    given = tf.cast(x, "bfloat16"), *vectors

    def second(*a):
        slope = lambda *b: tf.reduce_sum(  # noqa: E731
            tf.sin(
                tf.cast(
                    gradients(lambda *c: tf.sin(batch_norm(*c, axis=1, epsilon=1e-3)[0]), b, None)[
                        1
                    ][0],
                    "float64",
                )
            )
        )
        return gradients(slope, a, None)[1]

    wide = [tf.cast(a, "float64") for a in given]
    for a, b, like in zip(second(*given), second(*wide), given, strict=True):
        assert a.dtype == like.dtype
        np.testing.assert_allclose(tf.cast(a, "float64"), b, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 4), 2), ((3, 2, 4), 1)])
def test_second_derivatives(shape, axis):
    given = operands(shape, axis)

    def slope(function):
        return lambda *a: tf.add_n(
            [
                tf.reduce_sum(tf.sin(g))
                for g in gradients(lambda *b: tf.sin(function(*b)), a, None)[1]
            ]
        )

    ours = slope(lambda *a: batch_norm(*a, axis=axis, epsilon=1e-3)[0])
    theirs = slope(lambda *a: composed(*a, axis))
    for a, b in zip(
        gradients(ours, given, None)[1], gradients(theirs, given, None)[1], strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_the_statistics_carry_no_gradient():
    x, gamma, beta = operands((4, 3), 1)
    with tf.GradientTape() as tape:
        tape.watch(x)
        _, mean, variance = batch_norm(x, gamma, beta, axis=1, epsilon=1e-3)
        total = tf.reduce_sum(mean) + tf.reduce_sum(variance)
    found = tape.gradient(total, x)
    assert found is None or not np.any(found)


def test_a_function_knows_shapes_and_takes_batches_of_any_size():
    given = operands((4, 3, 6), 2, "float32")
    signature = [tf.TensorSpec((None, None, 6)), tf.TensorSpec((6,)), tf.TensorSpec((6,))]
    shapes = []

    @tf.function(input_signature=signature)
    def normalized(x, gamma, beta):
        y, mean, variance = batch_norm(x, gamma, beta, axis=2, epsilon=1e-3)
        shapes.extend(a.shape.as_list() for a in (y, mean, variance))
        return y

    for x in (given[0], given[0][1:, 1:]):
        np.testing.assert_allclose(
            normalized(x, *given[1:]), composed(x, *given[1:], 2), rtol=1e-4, atol=1e-4
        )
    assert shapes[:3] == [[None, None, 6], [6], [6]]


def test_xla_gets_tensorflows_operations():
    given = operands((4, 3, 6), 2, "float32")
    compiled = tf.function(
        lambda *a: batch_norm(*a, axis=2, epsilon=1e-3)[0], jit_compile=True, autograph=False
    )
    np.testing.assert_allclose(compiled(*given), composed(*given, 2), rtol=1e-4, atol=1e-4)
    half = tf.cast(given[0], "bfloat16"), *given[1:]
    y = compiled(*half)
    assert y.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(y, "float32"), composed(*given, 2), rtol=2e-2, atol=2e-2)


def test_what_does_not_fit_is_refused():
    x, gamma, beta = operands((4, 3, 5, 6), 3)
    epsilon = tf.constant(1e-3, tf.float64)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"gamma must have the shape \(3\)"):
        operations.sepconv_batch_norm(x, gamma, beta, epsilon, axis=1)
    for axis in (4, -1):
        with pytest.raises(tf.errors.InvalidArgumentError, match="axis must be one of x's"):
            operations.sepconv_batch_norm(x, gamma, beta, epsilon, axis=axis)
    with pytest.raises(tf.errors.InvalidArgumentError, match="epsilon must be a scalar"):
        operations.sepconv_batch_norm(x, gamma, beta, [epsilon], axis=3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="dy must have the shape of x"):
        operations.sepconv_batch_norm_gradient(x, gamma, beta, beta, x[1:], epsilon, axis=3)
