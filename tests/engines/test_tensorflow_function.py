"""TensorFlow: graphs, unknown sizes, static shapes, SavedModel, XLA, threads, other devices."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from sepconv import reference  # noqa: E402
from sepconv import tensorflow as sep  # noqa: E402
from sepconv.engines.tensorflow import calls as engine  # noqa: E402
from sepconv.engines.tensorflow import composed, convolution  # noqa: E402


def arrays(batch=2, height=7, width=6, dtype="float32"):
    rng = np.random.default_rng(batch)
    shapes = [(batch, height, width, 3), (3, 2, 3, 2), (1, 1, 6, 5), (5,)]
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def operations(function, *args):
    return {op.type for op in function.get_concrete_function(*args).graph.get_operations()}


@pytest.mark.parametrize("padding", ["valid", "same", ((1, 0), (0, 2))])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_sizes_unknown_while_tracing(padding, data_format):
    _, kernel, pointwise, bias = arrays()
    options = {"padding": padding, "strides": (2, 1), "data_format": data_format}
    first = data_format == "channels_first"
    signature = [None, 3, None, None] if first else [None, None, None, 3]

    @tf.function(input_signature=[tf.TensorSpec(signature)])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = sep.separable_conv2d(x, kernel, pointwise, bias, **options)
            assert y.shape.as_list() == ([None, 5, None, None] if first else [None, None, None, 5])
        dx = tape.gradient(y, x)
        assert dx.shape.as_list() == signature
        return y, dx

    for batch, height, width in [(1, 5, 9), (3, 8, 4), (0, 3, 3)]:
        x = arrays(batch, height, width)[0]
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if first else x
        y, dx = step(x)
        expected = reference.separable_conv2d(x, kernel, pointwise, bias, **options)
        grads = reference.separable_conv2d_grad(
            x, kernel, pointwise, np.ones_like(expected), **options
        )
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(dx, grads.x, rtol=1e-4, atol=1e-4)
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ([2, 7, 6, 3], [2, 3, 5, 5]),
        ([None, 7, 6, 3], [None, 3, 5, 5]),
        ([2, None, 6, 3], [2, None, 5, 5]),
        ([2, 7, None, 3], [2, 3, None, 5]),
        ([2, 7, 6, None], [2, 3, 5, 5]),
    ],
)
def test_every_size_that_can_be_known_is_known(shape, expected):
    _, kernel, pointwise, _ = arrays()

    @tf.function(input_signature=[tf.TensorSpec(shape)])
    def function(x):
        return sep.separable_conv2d(x, kernel, pointwise, strides=(2, 1))

    assert function.get_concrete_function().output_shapes.as_list() == expected


def test_a_kernel_of_unknown_size_is_checked_when_it_runs():
    spec = engine.ConvSpec(1, 1, 1, 1, 1, 0, 0, 0, 0, 0)
    x, kernel, *_ = arrays()

    @tf.function(input_signature=[tf.TensorSpec([2, 7, 6, 3]), tf.TensorSpec([None] * 4)])
    def function(x, kernel):
        y = convolution.convolve(x, kernel, None, None, spec, None)
        assert y.shape.as_list() == [
            2,
            7,
            6,
            None,
        ]  # "same": whatever the kernel
        return y

    expected = reference.depthwise_conv2d(x, kernel, padding="same")
    np.testing.assert_allclose(function(x, kernel), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="third axis"):
        function(x, kernel[:, :, :2])


def test_the_operation_itself_infers_rank_and_batch():
    with tf.Graph().as_default():
        x = tf.compat.v1.placeholder(tf.float32, [4, 9, 9, 2])
        unknown = tf.compat.v1.placeholder(tf.float32)
        spec = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
        forward = engine.operations.sepconv_forward
        for value, expected in [(x, [4, None, None, None]), (unknown, [None] * 4)]:
            y = forward(value, [unknown], given=3, spec=spec)
            assert y.shape.as_list() == expected
        with pytest.raises(ValueError, match="rank"):
            forward(tf.zeros([3, 3]), [unknown], given=3, spec=spec)


def test_a_graph_has_our_operations_and_no_python_in_it():
    x, kernel, pointwise, bias = map(tf.constant, arrays())

    @tf.function
    def step(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = sep.separable_conv2d(x, kernel, pointwise, bias, activation="relu")
        return tape.gradient(y, kernel)

    types = operations(step, x, kernel)
    assert {"SepconvForward", "SepconvBackward"} <= types
    assert not types & {"PyFunc", "EagerPyFunc", "PyFuncStateless", "Transpose", "Cast"}


def test_a_training_step_lowers_the_loss():
    x, kernel, pointwise, bias = arrays(dtype="float64")
    variables = [tf.Variable(v) for v in (kernel, pointwise, bias)]
    target = reference.separable_conv2d(x, kernel[::-1], pointwise, bias + 1)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((sep.separable_conv2d(x, *variables) - target) ** 2)
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.01 * gradient)
        return loss

    losses = [float(step()) for _ in range(50)]
    assert losses[-1] < losses[0] / 2


def test_in_a_dataset():
    x, kernel, *_ = arrays(5)
    data = tf.data.Dataset.from_tensor_slices(x).batch(2)
    data = data.map(lambda image: sep.depthwise_conv2d(image, kernel), num_parallel_calls=2)
    y = np.concatenate(list(data.as_numpy_iterator()))
    np.testing.assert_allclose(y, reference.depthwise_conv2d(x, kernel), rtol=1e-4, atol=1e-4)


def test_calls_from_several_threads_do_not_disturb_each_other():
    cases = [arrays(batch, 20, 20) for batch in range(1, 9)]
    expected = [sep.separable_conv2d(*case).numpy() for case in cases]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            results = list(pool.map(lambda case: sep.separable_conv2d(*case).numpy(), cases))
            for result, value in zip(results, expected, strict=True):
                np.testing.assert_array_equal(result, value)


@pytest.mark.parametrize("strides", [1, (1, 2)])
def test_xla_compiles_tensorflows_own_operations_instead(strides):
    x, kernel, pointwise, bias = map(tf.constant, arrays(dtype="float64"))

    def step(x, kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = sep.separable_conv2d(
                x, kernel, pointwise, bias, padding="same", strides=strides, dilation_rate=(2, 1)
            )
        return y, tape.gradient(y, kernel)

    compiled = tf.function(step, jit_compile=True)
    for ours, theirs in zip(step(x, kernel), compiled(x, kernel), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


def test_stock_with_sizes_unknown_while_tracing():
    spec = engine.ConvSpec(2, 3, 1, 1, 1, 0, 0, 0, 0, 0)
    _, kernel, pointwise, bias = arrays()

    @tf.function(input_signature=[tf.TensorSpec([None] * 3 + [3])])
    def function(x):
        return composed.stock(x, kernel, pointwise, bias, spec, "relu6")

    for size in (4, 5, 6, 7):
        x = arrays(1, size, size + 1)[0]
        expected = reference.separable_conv2d(
            x, kernel, pointwise, bias, strides=(2, 3), padding="same", activation="relu6"
        )
        np.testing.assert_allclose(function(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("device", "ours"), [("/CPU:0", True), ("/GPU:0", False), ("/TPU:0", False), (None, True)]
)
def test_what_is_placed_on_another_device_gets_tensorflows_own_operations(device, ours):
    assert all(d.device_type == "CPU" for d in tf.config.get_visible_devices())
    with tf.Graph().as_default() as graph, tf.device(device):
        x = tf.compat.v1.placeholder(tf.float32, [1, 5, 5, 1])
        sep.depthwise_conv2d(x, tf.ones([3, 3, 1, 1]))
    types = {op.type for op in graph.get_operations()}
    assert ("SepconvForward" in types) == ours
    assert ("DepthwiseConv2dNative" in types) != ours


def test_an_unplaced_tensor_follows_the_devices_that_are_visible(monkeypatch):
    devices = [SimpleNamespace(device_type="CPU"), SimpleNamespace(device_type="GPU")]
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda: devices)
    with tf.Graph().as_default():
        assert not engine.runs_on_cpu(tf.compat.v1.placeholder(tf.float32))
    assert engine.runs_on_cpu(tf.ones(1))  # an eager tensor knows where it is


PROGRAM = """
import sys
import numpy as np
import tensorflow as tf
if sys.argv[2] == "with":
    import sepconv.tensorflow
model = tf.saved_model.load(sys.argv[1])
data = np.load(sys.argv[1] + "/data.npz")
np.testing.assert_array_equal(model.predict(data["x"]), data["y"])
np.testing.assert_array_equal(model.gradient(data["x"]), data["dx"])
with tf.GradientTape() as tape:  # the restored function's gradient is built anew
    y = model.predict(data["x"])
np.testing.assert_array_equal(tape.gradient(y, model.kernel), data["dkernel"])
print("equal")
"""


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    class Model(tf.Module):
        def __init__(self):
            _, kernel, pointwise, bias = arrays()
            self.kernel = tf.Variable(kernel)
            self.rest = tf.Variable(pointwise), tf.Variable(bias)

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
        def predict(self, x):
            return sep.separable_conv2d(x, self.kernel, *self.rest, strides=2, activation="relu")

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
        def gradient(self, x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = self.predict(x)
            return tape.gradient(y, x)

    path = str(tmp_path_factory.mktemp("saved") / "model")
    model, x = Model(), arrays()[0]
    tf.saved_model.save(model, path)
    with tf.GradientTape() as tape:
        y = model.predict(x)
    dkernel = tape.gradient(y, model.kernel)
    np.savez(path + "/data.npz", x=x, y=y, dx=model.gradient(x), dkernel=dkernel)
    return path


@pytest.mark.parametrize("how", ["with", "without"])
def test_a_saved_model_loads_in_a_process_that_has_imported_sepconv(saved_model, how):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, saved_model, how],
        capture_output=True,
        text=True,
        env=environment,
        cwd=saved_model,
    )
    if how == "with":
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "equal"
    else:
        assert done.returncode == 1
        assert "Op type not registered 'Sepconv" in done.stderr
