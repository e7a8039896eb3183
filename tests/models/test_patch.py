"""Keras' own layers and functions compute with our kernels while the patch is on, and only then."""

from __future__ import annotations

import contextlib
import threading

import keras
import numpy as np
import pytest
from helpers.keras_versions import convolves_channels_first
from keras import ops
from keras.layers import Conv2D, DepthwiseConv1D, DepthwiseConv2D, SeparableConv1D, SeparableConv2D
from keras.ops import depthwise_conv as imported_before
from keras.src.backend import nn

import sepconv
from sepconv.engines import adapter
from sepconv.layers import ordinary
from sepconv.models import patched

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def unpatched():
    yield
    sepconv.unpatch_keras()


@pytest.fixture
def calls(monkeypatch):
    """A list that the names of our functions are added to as Keras calls them."""
    made = []

    def noting(original, name):
        def function(*args, **kwargs):
            made.append(name(*args))
            return original(*args, **kwargs)

        return function

    def convolution(rank):
        def name(engine, x, depthwise_kernel, pointwise_kernel, *_):
            kind = "depthwise" if pointwise_kernel is None else "separable"
            return f"{kind}_conv{rank}d"

        return name

    # Of the functions that a patch calls, for one dimension and for two; the former calls the
    # latter by its name in another module, which is left as it is.
    for module, rank in ((patched, 1), (patched, 2), (ordinary, 2)):
        name = f"convolve_{rank}d"
        noted = noting(getattr(module, name), convolution(rank))
        monkeypatch.setattr(module, name, noted)
    engine = adapter(keras.backend.backend())
    if engine.pointwise is not None:
        pointwise = noting(engine.pointwise, lambda *_: "pointwise")
        monkeypatch.setattr(engine, "pointwise", pointwise)
    return made


def numbers(*shape, dtype="float32"):
    return RANDOM.standard_normal(shape).astype(dtype)


def assert_near(actual, expected, tolerance=1e-5):
    actual, expected = (ops.convert_to_numpy(a).astype("float64") for a in (actual, expected))
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) <= tolerance * np.linalg.norm(expected)


def network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            SeparableConv2D(4, 3, padding="same", activation="relu"),
            DepthwiseConv2D(3, strides=2),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


LAYERS = [
    (lambda: DepthwiseConv2D(3, padding="same", depth_multiplier=2), (2, 7, 6, 3)),
    (lambda: DepthwiseConv2D((3, 1), dilation_rate=2), (2, 7, 6, 3)),
    (lambda: SeparableConv2D(5, 3, strides=2, padding="same", activation="relu"), (2, 7, 6, 3)),
    (lambda: DepthwiseConv1D(3, strides=2, activation="tanh"), (2, 9, 3)),
    (lambda: SeparableConv1D(5, 4, padding="same", dilation_rate=2), (2, 9, 3)),
    (lambda: DepthwiseConv2D(3, data_format="channels_first"), (2, 3, 7, 6)),
    (lambda: SeparableConv1D(5, 3, data_format="channels_first", use_bias=False), (2, 3, 9)),
    (lambda: SeparableConv2D(5, 3, dtype="float64"), (2, 7, 6, 3)),
    (lambda: DepthwiseConv2D(3, dtype="mixed_bfloat16"), (2, 7, 6, 3)),
]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_1x1_convolution_in_half_types(policy, calls):
    layer, x = keras.layers.Conv2D(16, 1, dtype=policy), numbers(2, 7, 6, 8)
    expected = layer(x)
    with sepconv.patch_keras():
        received = layer(x)
    assert calls == ["pointwise"] * (keras.backend.backend() in ("jax", "torch"))
    assert keras.backend.standardize_dtype(received.dtype) == layer.compute_dtype
    assert_near(received, expected, 1e-2)


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_a_layer_built_before_computes_the_same_with_our_kernels(make, shape, calls):
    layer, x = make(), numbers(*shape)
    if layer.compute_dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 only where it was started so")
    if layer.data_format == "channels_first" and not convolves_channels_first():
        pytest.skip("Keras' own convolution does not take channels_first here")
    expected = layer(x)
    assert not calls
    with sepconv.patch_keras():
        received = layer(x)
    kind = type(layer).__name__.removesuffix(f"Conv{len(shape) - 2}D").lower()
    assert calls == [f"{kind}_conv{len(shape) - 2}d"]
    assert keras.backend.standardize_dtype(received.dtype) == layer.compute_dtype
    assert_near(received, expected, 1e-5 if layer.compute_dtype != "bfloat16" else 1e-2)
    layer(x)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("make", "shape", "engines"),
    [
        (lambda: Conv2D(8, (1, 5), padding="same"), (2, 7, 6, 1), ()),
        (lambda: Conv2D(6, 3, groups=3, activation="relu"), (2, 7, 6, 3), ()),
        (lambda: Conv2D(9, 1, strides=2), (2, 7, 6, 8), ("jax", "torch")),
        (lambda: Conv2D(6, 3), (2, 7, 6, 3), None),
        (lambda: Conv2D(8, 3, groups=2), (2, 7, 6, 4), None),
        (lambda: keras.layers.Conv1D(8, 1), (2, 7, 8), None),
    ],
    ids=["one channel", "groups", "1x1", "dense", "two groups", "1-D"],
)
def test_an_ordinary_convolution_that_is_another_one(make, shape, engines, calls, engine):
    layer, x = make(), numbers(*shape)
    expected = layer(x)
    assert not calls
    with sepconv.patch_keras():
        assert_near(layer(x), expected)
    assert len(calls) == (engines is not None and (not engines or engine in engines))


def test_a_function_of_an_ordinary_convolution(calls):
    x, kernel = numbers(1, 5, 5, 2), numbers(3, 3, 1, 4)
    for options in ({"padding": "SAME"}, {"strides": (1, 2)}, {"dilation_rate": 2}):
        expected = ops.conv(x, kernel, **options)
        with sepconv.patch_keras():
            assert_near(ops.conv(x, kernel, **options), expected)
    assert len(calls) == 3
    with sepconv.patch_keras(), contextlib.suppress(Exception):
        ops.conv(x[:, :2, :2], kernel)  # leaves no output: Keras may complain, or its engine
    assert len(calls) == 3


def test_functions_imported_before_are_served(calls):
    x, kernel, pointwise = numbers(1, 5, 5, 2), numbers(3, 3, 2, 2), numbers(1, 1, 4, 3)
    plain = imported_before(x, kernel), ops.separable_conv(x, kernel, pointwise, padding="SAME")
    with sepconv.patch_keras():
        y = imported_before(x, kernel)
        z = ops.separable_conv(x, kernel, pointwise, padding="SAME")
        named = ops.depthwise_conv(inputs=x, kernel=kernel, strides=(1, 1), dilation_rate=1)
        keras.src.ops.nn.depthwise_conv(x, kernel, data_format="channels_last")
    assert calls == ["depthwise_conv2d", "separable_conv2d", *["depthwise_conv2d"] * 2]
    for received, expected in zip((y, z, named), (*plain, plain[0]), strict=True):
        assert_near(received, expected)


def test_a_model_that_has_predicted_already_is_patched_and_unpatched(calls):
    model, x = network(), numbers(4, 8, 8, 3)
    expected = model.predict(x, verbose=0)
    with sepconv.patch_keras():
        assert_near(model.predict(x, verbose=0), expected)
        assert set(calls) == {"separable_conv2d", "depthwise_conv2d"}
    calls.clear()
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
    assert not calls


def test_training_goes_on_through_a_patch():
    """The same losses, though the steps were compiled before, and the optimizer has state."""
    x, y = numbers(8, 8, 8, 3), np.arange(8) % 3
    losses = []
    for is_patched in (False, True):
        keras.utils.set_random_seed(1)
        model = network()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss)
        curve = [float(model.train_on_batch(x, y))]
        if is_patched:
            sepconv.patch_keras()
        curve += [float(model.train_on_batch(x, y)) for _ in range(4)]
        curve.append(float(model.evaluate(x, y, verbose=0)))
        losses.append(curve)
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


@pytest.mark.parametrize("jit_compile", ["auto", True])
def test_models_compile_with_and_without_xla(jit_compile, engine):
    if engine == "torch" and jit_compile is True:
        pytest.skip("torch.compile has its own test")
    model, x = network(), numbers(4, 8, 8, 3)
    expected = ops.convert_to_numpy(model(x))
    sepconv.patch_keras()
    model.compile("sgd", "mse", jit_compile=jit_compile)
    assert_near(model.predict(x, verbose=0), expected)
    assert np.isfinite(model.train_on_batch(x, numbers(4, 3)))


def test_torch_compile_notices(engine, calls):
    if engine != "torch":
        pytest.skip("PyTorch alone")
    import torch

    layer, x = DepthwiseConv2D(3), torch.ones(1, 5, 5, 2)
    layer.build(x.shape)
    function = torch.compile(lambda x: layer(x) * 1, backend="eager")
    expected = function(x)
    with sepconv.patch_keras():
        assert_near(function(x), expected)
        assert calls


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        (np.ones((1, 5, 5, 2), "int32"), np.ones((3, 3, 2, 1), "int32"), {}),
        (numbers(1, 5, 5, 2), numbers(3, 3, 2, 1), {"padding": "causal"}),
        (numbers(1, 5, 5, 2), numbers(3, 3, 3, 1), {}),
        (numbers(1, 2, 2, 2), numbers(3, 3, 2, 1), {}),
        (numbers(1, 5, 5, 5, 2), numbers(3, 3, 3, 2, 1), {}),
        (numbers(1, 5, 5, 2), numbers(3, 3, 2, 1, dtype="float16"), {}),
        (numbers(1, 5, 5, 2), numbers(3, 3, 2, 1), {"strides": 0}),
        (numbers(1, 5, 5, 2), numbers(3, 3, 2, 1), {"strides": (1, 1, 1)}),
    ],
    ids=["integers", "padding", "channels", "empty", "3-D", "dtypes", "stride 0", "strides"],
)
def test_what_we_do_not_serve_gets_keras_own_answer(x, kernel, options, calls):
    def outcome():
        try:
            return ops.convert_to_numpy(ops.depthwise_conv(x, kernel, **options))
        except Exception as error:
            return type(error)

    if keras.backend.backend() == "tensorflow" and (options.get("strides") == 0 or x.shape[1] < 3):
        pytest.skip("TensorFlow ends the process, or returns memory as it finds it")
    expected = outcome()
    with sepconv.patch_keras():
        received = outcome()
    assert not calls
    np.testing.assert_array_equal(received, expected)


def test_on_another_device_keras_computes(engine, calls):
    if engine != "torch":
        pytest.skip("PyTorch has a device that is everywhere: meta")
    import torch

    with sepconv.patch_keras(), keras.device("meta"):
        y = nn.depthwise_conv(torch.ones(1, 5, 5, 2), torch.ones(3, 3, 2, 1))
    assert y.device.type == "meta"
    assert not calls


# ---- on and off


def is_on():
    return "sepconv" in nn.depthwise_conv.__code__.co_filename


def test_it_is_idempotent_and_reversible():
    before = nn.conv, nn.depthwise_conv, nn.separable_conv, keras.Model.export
    sepconv.unpatch_keras()
    for _ in range(2):
        sepconv.patch_keras()
        sepconv.patch_keras()
        assert is_on()
        sepconv.unpatch_keras()
        assert (nn.conv, nn.depthwise_conv, nn.separable_conv, keras.Model.export) == before


def test_nested_contexts_undo_what_they_did():
    with sepconv.patch_keras():
        with sepconv.patch_keras():
            assert is_on()
        assert is_on()
    assert not is_on()
    sepconv.patch_keras()
    with sepconv.patch_keras():
        pass
    assert is_on()
    sepconv.unpatch_keras()
    assert not is_on()


def test_unpatching_inside_a_context_ends_it():
    with sepconv.patch_keras():
        sepconv.unpatch_keras()
        assert not is_on()
        sepconv.patch_keras()
    assert is_on()  # by the second call, which nobody has undone


def test_a_context_may_be_entered_again():
    patch = sepconv.patch_keras()
    for _ in range(2):
        with patch, patch:
            assert is_on()
        assert not is_on()


def test_an_error_inside_leaves_keras_as_it_was():
    with pytest.raises(ZeroDivisionError), sepconv.patch_keras():
        raise ZeroDivisionError
    assert not is_on()


def test_overlapping_contexts_of_threads():
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    seen = []

    def first():
        with sepconv.patch_keras():
            first_is_in.set()
            second_is_in.wait(10)
        first_is_out.set()

    def second():
        first_is_in.wait(10)
        with sepconv.patch_keras():
            second_is_in.set()
            first_is_out.wait(10)
            seen.append(is_on())

    threads = [threading.Thread(target=f) for f in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True]
    assert not is_on()


def test_a_thread_predicts_while_another_patches():
    model, x = network(), numbers(2, 8, 8, 3)
    expected = model.predict_on_batch(x)
    stop, results = threading.Event(), []

    def predict():
        try:
            while not stop.is_set():
                results.append(np.abs(model.predict_on_batch(x) - expected).max())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=predict)
    thread.start()
    for _ in range(5):
        with sepconv.patch_keras():
            pass
    stop.set()
    thread.join()
    assert results
    wrong = [r for r in results if not (isinstance(r, np.floating) and r < 1e-4)]
    assert not wrong, wrong[:3]


def test_an_export_has_keras_own_operations(monkeypatch):
    """Until it ends, even where it fails."""
    seen = []

    def export(model, filepath):
        seen.append(is_on())
        raise OSError(filepath)

    monkeypatch.setattr(keras.Model, "export", export)
    model = network()
    with sepconv.patch_keras():
        with pytest.raises(OSError, match="somewhere"):
            model.export("somewhere")
        assert is_on()
    assert seen == [False]
    assert keras.Model.export is export
