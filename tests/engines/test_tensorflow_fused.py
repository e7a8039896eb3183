"""sepconv.tensorflow.fused_conv2d: values, derivatives, graphs and errors."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from helpers.blocks import random_block, selecting_kernel
from helpers.configurations import assert_near

import sepconv.tensorflow
from sepconv import reference
from sepconv.engines.tensorflow import calls as engine


def _tensors(arrays):
    return {name: tf.constant(a) for name, a in arrays.items()}


@pytest.mark.parametrize("seed", range(80))
def test_values(seed):
    arrays, options = random_block(seed)
    y = sepconv.tensorflow.fused_conv2d(**_tensors(arrays), **options)
    assert_near(y, reference.fused_conv2d(**arrays, **options), str(arrays["x"].dtype), options)


def _composed(x, depthwise_kernel, pointwise_kernel, depthwise_bias, bias, residual, options):
    """The block in older, differentiable functions."""
    functions = {
        None: lambda y: y,
        "relu": tf.nn.relu,
        "relu6": tf.nn.relu6,
        "hard_silu": lambda y: y * tf.nn.relu6(y + 3) / 6,
        "silu": tf.nn.silu,
    }
    geometry = {k: v for k, v in options.items() if not k.endswith("activation")}
    first = options["data_format"] == "channels_first"
    if depthwise_kernel is None:  # an ordinary convolution, as a depthwise one that selects
        *size, channels, filters = pointwise_kernel.shape
        depthwise_kernel = tf.constant(selecting_kernel(*size, channels, x.dtype.name))
        by_channel = tf.transpose(pointwise_kernel, [2, 0, 1, 3])
        pointwise_kernel = tf.reshape(by_channel, (1, 1, -1, filters))
    middle = bias if pointwise_kernel is None else depthwise_bias
    y = sepconv.tensorflow.depthwise_conv2d(x, depthwise_kernel, middle, **geometry)
    if pointwise_kernel is not None:
        y = functions[options.get("depthwise_activation")](y)
        y = tf.transpose(y, [0, 2, 3, 1]) if first else y
        y = tf.einsum("nhwc,cf->nhwf", y, pointwise_kernel[0, 0])
        y = y if bias is None else y + bias
        y = tf.transpose(y, [0, 3, 1, 2]) if first else y
        y = y if residual is None else y + residual
    return functions[options["activation"]](y)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("seed", [*range(12), 19, 23, 31, 51])
def test_gradients(seed, graph):
    arrays, options = random_block(seed, "float64")
    names = ("x", "depthwise_kernel", "pointwise_kernel", "depthwise_bias", "bias", "residual")

    def gradients(run):
        def apply(tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                y = run(tensors)
                steps = tf.cast(tf.range(tf.size(y)), tf.float64)
                loss = tf.reduce_sum(y * tf.reshape(tf.cos(steps), tf.shape(y)))
            return [y, *tape.gradient(loss, list(tensors.values()))]

        return tf.function(apply) if graph else apply

    tensors = _tensors(arrays)
    ours = gradients(lambda t: sepconv.tensorflow.fused_conv2d(**t, **options))(tensors)
    theirs = gradients(lambda t: _composed(*(t.get(n) for n in names), options))(tensors)
    for name, a, b in zip(("y", *arrays), ours, theirs, strict=True):
        assert_near(a, b, "float64", name)


def test_a_second_derivative():
    x = tf.constant([[[[0.5, -1.0]]]], tf.float64)
    kernel = tf.constant([[[[1.0], [2.0]]]], tf.float64)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = sepconv.tensorflow.fused_conv2d(x, None, kernel, activation="silu")
        first = inner.gradient(y, x)
    second = outer.gradient(first, x)
    z = -1.5
    s = 1 / (1 + np.exp(-z))
    curvature = s * (1 - s) * (2 + z * (1 - 2 * s))
    np.testing.assert_allclose(second[0, 0, 0], [curvature * 3, 2 * curvature * 3], rtol=1e-9)


def test_a_graph_with_unknown_sizes():
    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, None, None, 5))]
    )
    def run(x, residual):
        y = sepconv.tensorflow.fused_conv2d(
            x, tf.ones((3, 3, 3, 1)), tf.ones((1, 1, 3, 5)), padding="same", residual=residual
        )
        assert y.shape.as_list() == [None, None, None, 5]
        return y

    x, residual = np.ones((2, 4, 6, 3), "float32"), np.ones((2, 4, 6, 5), "float32")
    expected = reference.fused_conv2d(
        x, np.ones((3, 3, 3, 1)), np.ones((1, 1, 3, 5)), padding="same", residual=residual
    )
    assert_near(run(x, residual), expected, "float32")
    operations = {op.type for op in run.get_concrete_function().graph.get_operations()}
    assert "SepconvForward" in operations
    assert not operations & {"MatMul", "PyFunc"}
    with pytest.raises(tf.errors.InvalidArgumentError, match="residual must have the shape"):
        run(x, residual[:, :3])


def test_xla_and_other_devices_compose_it():
    arrays, options = random_block(0, "float32")
    y = tf.function(lambda t: sepconv.tensorflow.fused_conv2d(**t, **options), jit_compile=True)(
        _tensors(arrays)
    )
    assert_near(y, reference.fused_conv2d(**arrays, **options), "float32")


def test_the_operation_checks_what_it_is_given():
    spec = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    x = tf.ones((1, 2, 2, 3))
    fused = engine.operations.sepconv_forward
    one, two = tf.ones((1, 1, 3, 2)), tf.ones((1, 1, 3, 1))
    vector, image = tf.ones(3), tf.ones((1, 2, 2, 3))
    for arrays, given, options, message in (
        ([vector], 1 + 4, {}, "There is no kernel"),
        ([tf.ones((1, 1, 4, 2))], 1 + 8, {}, "pointwise_kernel must have"),
        ([one, vector], 1 + 8 + 16, {}, "bias must have"),
        ([one, image], 1 + 8 + 32, {}, "residual must have"),
        ([one], 1 + 8, {"activation": 5}, "activation must be"),
        ([tf.ones((3, 3, 3, 2))], 1 + 8, {}, "The output would be empty"),
        ([tf.ones((0, 1, 3, 2))], 1 + 8, {}, "pointwise_kernel must have"),
        ([vector, one], 1 + 4 + 8, {}, "comes with depthwise_kernel"),
        ([two, tf.ones((2, 2, 3, 2))], 1 + 2 + 8, {}, "pointwise_kernel must have"),
        ([one], 8, {}, "given must have a bit for x and for each of the operands"),
        ([one], 1 + 2 + 8, {}, "given must have a bit for x and for each of the operands"),
        ([one, vector], 1 + 8, {}, "given must have a bit for x and for each of the operands"),
        ([one], 64 + 1, {}, "given must be 0 to 63"),
        ([one], -1, {}, "given must be 0 to 63"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            fused(x, arrays, given=given, **({"spec": spec} | options))
    y = fused(x, [one], given=1 + 8, spec=[2, 2, *spec[2:]])
    np.testing.assert_array_equal(y, np.full((1, 1, 1, 2), 3))


@pytest.mark.parametrize("strides", [1, 2])
def test_a_kernel_whose_size_is_not_known_before(strides):
    """A 1x1 convolution has derivatives then too; any other says that it has none."""

    @tf.function(input_signature=[tf.TensorSpec((2, 5, 6, 3)), tf.TensorSpec((None, None, 3, 4))])
    def value(x, kernel):
        return sepconv.tensorflow.fused_conv2d(x, None, kernel, padding="same", strides=strides)

    @tf.function(input_signature=[tf.TensorSpec((2, 5, 6, 3)), tf.TensorSpec((None, None, 3, 4))])
    def gradient(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = sepconv.tensorflow.fused_conv2d(x, None, kernel, padding="same", strides=strides)
        return tape.gradient(y, x)

    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 6, 3)).astype("float32")
    for size in ((1, 1), (3, 2)):
        kernel = rng.standard_normal((*size, 3, 4)).astype("float32")
        options = {"padding": "same", "strides": strides}
        assert_near(value(x, kernel), reference.fused_conv2d(x, None, kernel, **options), "float32")
    kernel = kernel[:1, :1]
    expected = np.zeros_like(x)
    expected[:, ::strides, ::strides] = kernel[0, 0].sum(1)
    assert_near(gradient(x, kernel), expected, "float32")
    with pytest.raises(tf.errors.InvalidArgumentError, match="size is not known"):
        gradient(x, np.ones((3, 2, 3, 4), "float32"))


def test_a_block_that_is_a_convolution_has_its_backward_pass():
    """One operation each way, as `separable_conv2d` has, and the same gradients."""
    rng = np.random.default_rng(0)
    x, kernel, pointwise, bias = (
        tf.constant(rng.standard_normal(shape))
        for shape in ((2, 6, 5, 3), (3, 3, 3, 2), (1, 1, 6, 4), (4,))
    )

    def gradients(function):
        @tf.function
        def run(arrays):
            with tf.GradientTape() as tape:
                tape.watch(arrays)
                y = function(*arrays)
            return tape.gradient(y, arrays, y)

        arrays = [x, kernel, pointwise, bias]
        types = {op.type for op in run.get_concrete_function(arrays).graph.get_operations()}
        assert {"SepconvForward", "SepconvBackward"} <= types
        assert not types & {"MatMul", "DepthwiseConv2dNative"}
        return run(arrays)

    options = {"padding": "same", "activation": "relu"}
    ours = gradients(lambda x, k, p, b: sepconv.tensorflow.fused_conv2d(x, k, p, bias=b, **options))
    theirs = gradients(lambda *arrays: sepconv.tensorflow.separable_conv2d(*arrays, **options))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["SepconvForward", "SepconvFused"])
def test_graphs_of_the_older_operations_are_refused(name):
    """There were several, one of them of the name and other inputs."""
    graph = tf.compat.v1.GraphDef()
    for node in ("x", "kernel"):
        graph.node.add(name=node, op="Placeholder").attr["dtype"].type = tf.float32.as_datatype_enum
    older = graph.node.add(name="y", op=name, input=["x", "kernel"])
    older.attr["T"].type = tf.float32.as_datatype_enum
    older.attr["spec"].list.i.extend([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    for attribute in ("num_pointwise", "num_bias", "activation"):
        older.attr[attribute].i = 0
    with pytest.raises((ValueError, tf.errors.OpError), match=r"num_operands|given|not registered"):
        tf.graph_util.import_graph_def(graph)
