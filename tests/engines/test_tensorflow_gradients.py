"""TensorFlow: derivatives of the first, second and third order, backward and forward mode."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from sepconv import tensorflow as sep  # noqa: E402
from sepconv.engines.tensorflow.composed import stock  # noqa: E402
from sepconv.engines.tensorflow.convolution import convolve  # noqa: E402
from sepconv.geometry import conv_spec  # noqa: E402

CASES = {
    "valid": {},
    "same": {"padding": "same"},
    "unequal strides": {"padding": "same", "strides": (1, 2)},
    "stride and dilation": {"strides": 2, "dilation_rate": (1, 2)},
    "explicit, first": {"padding": ((2, 0), (1, 3)), "data_format": "channels_first"},
}


def arguments(case, separable, *, biased=True):
    rng = np.random.default_rng(len(case))
    first = CASES[case].get("data_format") == "channels_first"
    shapes = [(2, 2, 4, 5) if first else (2, 4, 5, 2), (2, 3, 2, 2)]
    shapes += [(1, 1, 4, 3)] if separable else []
    shapes += [(3 if separable else 4,)] if biased else []
    return [tf.constant(rng.standard_normal(s)) for s in shapes]


def apply(function, case, separable):
    """`function` (`convolve` or `stock`) of the arrays alone, followed by a nonlinear function."""

    def wrapped(x, kernel, *rest):
        pointwise, bias = rest if separable else (None, *rest)
        y = function(x, kernel, pointwise, bias, conv_spec(**CASES[case]), None)
        return tf.sin(y) + y * y * y / 10

    return wrapped


def gradients(function, weights):
    """The gradients of <function, weights> as a function of the same arguments."""

    def wrapped(*args):
        with tf.GradientTape() as tape:
            tape.watch(args)
            value = function(*args)
            total = tf.add_n([tf.reduce_sum(v * w) for v, w in zip_weights(value, weights)])
        return tape.gradient(total, args)

    return wrapped


def zip_weights(value, seed):
    rng = np.random.default_rng(seed)
    values = value if isinstance(value, tuple | list) else [value]
    return [(v, rng.standard_normal(v.shape)) for v in values]


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_first_order_against_finite_differences(case, separable):
    args = arguments(case, separable)
    theirs, ours = tf.test.compute_gradient(apply(convolve, case, separable), args, 1e-4)
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("case", ["same", "stride and dilation"])
def test_second_order_against_finite_differences(case, separable):
    args = arguments(case, separable)
    first = tf.function(gradients(apply(convolve, case, separable), 1))
    for index in range(len(args)):
        theirs, ours = tf.test.compute_gradient(lambda *a, i=index: first(*a)[i], args, 1e-4)
        for a, b in zip(theirs, ours, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_three_orders_equal_those_of_tensorflows_own_operations(case, separable, graph):
    args = arguments(case, separable)

    def third(function):
        derivative = function
        for seed in (1, 2, 3):
            derivative = gradients(derivative, seed)
        return tf.function(derivative) if graph else derivative

    ours = third(apply(convolve, case, separable))(*args)
    theirs = third(apply(stock, case, separable))(*args)
    for a, b in zip(ours, theirs, strict=True):
        assert np.linalg.norm(a - b) <= 1e-11 * np.linalg.norm(b)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_activation_has_the_second_derivative_of_tensorflows_own(activation):
    args = arguments("same", True)
    own = getattr(tf.nn, activation)
    spec = conv_spec(padding="same")
    ours = gradients(gradients(lambda *a: convolve(*a, spec, activation) ** 2, 1), 2)(*args)
    theirs = gradients(gradients(lambda *a: own(stock(*a, spec, None)) ** 2, 1), 2)(*args)
    for a, b in zip(ours, theirs, strict=True):
        assert np.linalg.norm(a - b) <= 1e-12 * np.linalg.norm(b)


def test_forward_mode():
    x, kernel = arguments("valid", False, biased=False)
    tangent = tf.constant(np.random.default_rng(1).standard_normal(kernel.shape))
    with tf.autodiff.ForwardAccumulator(kernel, tangent) as accumulator:
        y = sep.depthwise_conv2d(x, kernel)
    # The map is linear, so its derivative is the map of the tangent.
    expected = sep.depthwise_conv2d(x, tangent)
    np.testing.assert_allclose(accumulator.jvp(y), expected, rtol=1e-12)


def test_jacobian():
    x, kernel = arguments("valid", False, biased=False)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(kernel)
        y = sep.depthwise_conv2d(x, kernel)
    jacobian = tape.jacobian(y, kernel, experimental_use_pfor=True)
    product = tf.tensordot(jacobian, kernel, 4)
    np.testing.assert_allclose(product, y, rtol=1e-12)


def test_vectorized_map():
    x, kernel = arguments("valid", False, biased=False)
    stacked = tf.stack([x, 2 * x, -x])
    y = tf.vectorized_map(lambda image: sep.depthwise_conv2d(image, kernel), stacked)
    expected = sep.depthwise_conv2d(x, kernel)
    np.testing.assert_allclose(y, tf.stack([expected, 2 * expected, -expected]), rtol=1e-12)


@pytest.mark.parametrize(
    ("watched", "wanted"),
    [
        (["x"], [True, False, False, False]),
        (["kernel"], [False, True, False, False]),
        (["pointwise", "bias"], [False, False, True, True]),
        (["x", "kernel", "pointwise", "bias"], [True] * 4),
    ],
)
def test_only_the_gradients_asked_for_are_computed(watched, wanted):
    names = ("x", "kernel", "pointwise", "bias")
    args = dict(zip(names, arguments("same", True), strict=True))

    @tf.function
    def gradient(x, kernel, pointwise, bias):
        values = dict(zip(names, (x, kernel, pointwise, bias), strict=True))
        sources = [values[name] for name in watched]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            y = sep.separable_conv2d(x, kernel, pointwise, bias, padding="same")
        return tape.gradient(y, sources)

    graph = gradient.get_concrete_function(*args.values()).graph
    (backward,) = [op for op in graph.get_operations() if op.type == "SepconvBackward"]
    assert backward.get_attr("wanted") == wanted


def test_gradient_through_a_function_called_under_a_tape():
    x, kernel, bias = arguments("same", False)
    function = tf.function(lambda *a: sep.depthwise_conv2d(*a, padding="same", activation="relu"))
    results = []
    for f in (function, function.python_function):
        with tf.GradientTape() as tape:
            tape.watch((x, kernel, bias))
            y = f(x, kernel, bias)
        results.append(tape.gradient(y, (x, kernel, bias)))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("graph", [False, True])
def test_a_sparse_gradient_from_what_follows(graph):
    x, kernel = arguments("valid", False, biased=False)

    def gradient(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = tf.gather(sep.depthwise_conv2d(x, kernel), [1])
        return tape.gradient(y, kernel)

    with tf.GradientTape() as tape:
        tape.watch(kernel)
        y = sep.depthwise_conv2d(x[1:], kernel)
    expected = tape.gradient(y, kernel)
    actual = (tf.function(gradient) if graph else gradient)(x, kernel)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
