"""TensorFlow: bad arguments raise, and whatever reaches the operations does not crash them."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from sepconv import tensorflow as sep  # noqa: E402
from sepconv.engines.tensorflow import calls as engine  # noqa: E402

X, KERNEL, POINTWISE, BIAS = (
    np.ones(s, "float32") for s in [(2, 5, 6, 3), (3, 3, 3, 2), (1, 1, 6, 4), (4,)]
)
SPEC = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
HUGE = 2**62


def changed(**replaced):
    arguments = {
        "x": X,
        "depthwise_kernel": KERNEL,
        "pointwise_kernel": POINTWISE,
        "bias": BIAS,
    }
    return arguments | replaced


BAD = [
    ({"x": X[0]}, ValueError, "x must have 4 axes"),
    ({"depthwise_kernel": KERNEL[0]}, ValueError, "depthwise_kernel must have 4 axes"),
    ({"x": X[..., :2]}, ValueError, "third axis"),
    ({"pointwise_kernel": POINTWISE[:, :, :5]}, ValueError, "pointwise_kernel must have the shape"),
    ({"bias": BIAS[:3]}, ValueError, "bias must have the shape"),
    ({"strides": 0}, ValueError, "strides must be positive"),
    ({"dilation_rate": 9}, ValueError, "output would be empty"),
    ({"padding": "full"}, ValueError, "padding must be"),
    ({"data_format": "NHWC"}, ValueError, "data_format must be"),
    ({"activation": "gelu"}, ValueError, "activation must be"),
    ({"x": X.astype("int32")}, TypeError, "x must be of one of the dtypes"),
    ({"bias": BIAS.astype("float64")}, TypeError, "bias must have the dtype of x"),
]


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("replaced", "error", "message"), BAD)
def test_bad_arguments_raise_before_anything_runs(replaced, error, message, traced):
    arguments = changed(**replaced)
    options = {k: v for k, v in arguments.items() if not isinstance(v, np.ndarray)}
    arrays = {k: v for k, v in arguments.items() if isinstance(v, np.ndarray)}

    def call(arrays):
        return sep.separable_conv2d(**arrays, **options)

    if traced:
        call = tf.function(call, autograph=False).get_concrete_function
        arrays = {k: tf.TensorSpec(v.shape, v.dtype) for k, v in arrays.items()}
    with pytest.raises(error, match=message):
        call(arrays)


def test_an_unknown_rank_raises_while_tracing():
    @tf.function(input_signature=[tf.TensorSpec(None)], autograph=False)
    def function(x):
        return sep.depthwise_conv2d(x, KERNEL)

    with pytest.raises(ValueError, match="rank"):
        function.get_concrete_function()


def test_sizes_unknown_while_tracing_are_checked_when_running():
    @tf.function(input_signature=[tf.TensorSpec([None] * 4)])
    def function(x):
        return sep.depthwise_conv2d(x, KERNEL)

    assert function(X).shape == (2, 3, 4, 6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="output would be empty"):
        function(X[:, :2])
    with pytest.raises(tf.errors.InvalidArgumentError, match="third axis"):
        function(X[..., :2])


def forward(x=X, kernel=KERNEL, pointwise=(POINTWISE,), bias=(BIAS,), spec=SPEC, activation=0):
    operands = [kernel, *pointwise, *bias]
    given = 1 + 2 + 8 * len(pointwise) + 16 * len(bias)
    return engine.operations.sepconv_forward(
        x, operands, given=given, spec=spec, activation=activation
    )


def backward(x=X, kernel=KERNEL, pointwise=(POINTWISE,), dy=None, spec=SPEC, wanted=(True,) * 4):
    if dy is None:
        dy = np.ones((2, 3, 4, 4 if pointwise else 6), "float32")
    return engine.operations.sepconv_backward(
        x, kernel, list(pointwise), dy, spec=spec, wanted=list(wanted)
    )


def with_spec(**values):
    spec = engine.ConvSpec(*SPEC)
    return list(spec._replace(**values))


HOSTILE_SPECS = [
    [],
    SPEC[:9],
    [*SPEC, 0],
    [0] * 10,
    [-1] * 10,
    [2**63 - 1] * 10,
    [-(2**63)] * 10,
    with_spec(stride_h=0),
    with_spec(stride_w=-1),
    with_spec(dilation_h=HUGE),
    with_spec(dilation_w=0),
    with_spec(pad_top=-1),
    with_spec(pad_left=2**63 - 1),
    with_spec(pad_top=2**40, pad_left=2**40),
    with_spec(channels_first=1),
    with_spec(channels_first=1, same=1, dilation_h=HUGE),
]

HOSTILE_ARRAYS = [
    {"x": np.float32(1)},
    {"x": X[0]},
    {"x": X[None]},
    {"x": X[:, :0]},
    {"x": X[..., :0]},
    {"x": X[:, :1]},
    {"x": X[..., :1]},
    {"kernel": np.float32(1)},
    {"kernel": KERNEL[0]},
    {"kernel": KERNEL[:0]},
    {"kernel": KERNEL[..., :0]},
    {"kernel": np.ones((1, 1, 4, 1), "float32")},
    {"kernel": np.ones((6, 1, 3, 2), "float32")},
    {"pointwise": [POINTWISE, POINTWISE]},
    {"pointwise": [POINTWISE[0]]},
    {"pointwise": [POINTWISE[..., :0]]},
    {"pointwise": [POINTWISE[:, :, :0]]},
    {"pointwise": [POINTWISE[:0]]},
    {"pointwise": [np.ones((1, 1, 7, 4), "float32")]},
    {"pointwise": [np.ones((1, 2, 6, 4), "float32")]},
]

FAILS = tf.errors.InvalidArgumentError


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("operation", [forward, backward])
@pytest.mark.parametrize("spec", HOSTILE_SPECS)
def test_a_hostile_spec_is_an_error(operation, spec, graph):
    run = tf.function(operation) if graph else operation
    with pytest.raises(FAILS):
        run(spec=spec)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("operation", [forward, backward])
@pytest.mark.parametrize("arrays", HOSTILE_ARRAYS)
def test_hostile_arrays_are_an_error(operation, arrays, graph):
    run = tf.function(operation) if graph else operation
    with pytest.raises((FAILS, ValueError)):  # TensorFlow itself raises either for a wrong rank
        run(**arrays)


@pytest.mark.parametrize(
    "arguments",
    [
        {"bias": [BIAS[:3]]},
        {"bias": [BIAS[None]]},
        {"bias": [np.float32(1)]},
        {"bias": [BIAS, BIAS]},
        {"bias": [BIAS], "pointwise": []},
        {"activation": 5},
        {"activation": -1},
        {"activation": 2**40},
    ],
)
def test_hostile_arguments_of_forward(arguments):
    with pytest.raises(FAILS):
        forward(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"dy": np.float32(1)},
        {"dy": np.ones((2, 3, 4, 5), "float32")},
        {"dy": np.ones((1, 3, 4, 4), "float32")},
        {"dy": np.ones((0, 3, 4, 4), "float32")},
        {"dy": np.ones((2, 4, 3, 4), "float32")},
        {"wanted": []},
        {"wanted": [True] * 3},
        {"wanted": [True] * 5},
        {"pointwise": []},  # and its gradient wanted
    ],
)
def test_hostile_arguments_of_backward(arguments):
    with pytest.raises(FAILS):
        backward(**arguments)


def test_an_output_of_more_filters_than_can_be_addressed():
    # 2**57 pixels of one channel still can be; 2**65 elements cannot.
    spec = with_spec(pad_bottom=2**28, pad_right=2**28)
    pointwise = np.ones((1, 1, 1, 2**8), "float32")
    with pytest.raises(FAILS, match="memory can address"):
        forward(X[..., :1], KERNEL[..., :1, :1], [pointwise], [], spec)


def test_an_output_that_memory_cannot_hold():
    spec = with_spec(pad_bottom=2**22, pad_right=2**22)  # 2**47 pixels
    with pytest.raises(tf.errors.ResourceExhaustedError):
        forward(spec=spec)


@pytest.mark.parametrize("wanted", [[False] * 4, [True, False, False, True]])
def test_what_is_not_wanted_comes_back_empty(wanted):
    shapes = [X.shape, KERNEL.shape, POINTWISE.shape, BIAS.shape]
    for output, shape, is_wanted in zip(backward(wanted=wanted), shapes, wanted, strict=True):
        assert output.shape == (shape if is_wanted else (0,))


def test_integers_are_no_type_of_the_operations():
    with pytest.raises((FAILS, TypeError, tf.errors.NotFoundError)):
        forward(X.astype("int32"), KERNEL.astype("int32"), [], [])


def test_a_library_that_is_not_there_is_an_import_error(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "__file__", str(tmp_path / "sepconv" / "engines" / "x.py"))
    with pytest.raises(ImportError, match=r"libsepconv_tensorflow\.so"):
        engine._load()
