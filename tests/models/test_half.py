"""sepconv.optimize in a half type: what computes in it, what does not, and what it predicts."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812

import sepconv
from sepconv import cli, layers

X = np.random.default_rng(0).normal(size=(3, 12, 12, 8)).astype("float32")
EPSILON = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


@keras.saving.register_keras_serializable(package="test_half")
class Own(L.Layer):
    """A layer that is not Keras' own."""

    def call(self, x):
        return x * 0.5


def network(**options):
    """A stem, an inverted residual with squeeze-and-excite, and a head."""
    inputs = keras.Input((12, 12, 8), name="x")
    x = L.Rescaling(0.5, name="scale")(inputs)
    start = L.Conv2D(6, 3, padding="same", name="stem", **options)(x)
    x = L.Conv2D(24, 1, use_bias=False, name="expand", **options)(start)
    x = L.BatchNormalization(name="bn", **options)(x)
    x = L.Activation("relu6", name="relu6", **options)(x)
    x = L.DepthwiseConv2D(3, padding="same", name="depthwise", **options)(x)
    gate = L.GlobalAveragePooling2D(keepdims=True, name="mean", **options)(x)
    gate = L.Conv2D(24, 1, activation="hard_sigmoid", name="gate", **options)(gate)
    x = L.Multiply(name="multiply", **options)([x, gate])
    x = L.Conv2D(6, 1, name="project", **options)(x)
    x = L.Add(name="add", **options)([start, x])
    x = Own(name="own")(x)
    x = L.ReLU(name="relu", **options)(x)
    x = L.GlobalAveragePooling2D(name="pool", **options)(x)
    model = keras.Model(inputs, L.Dense(5, "softmax", name="head")(x))
    rng = np.random.default_rng(1)
    for layer in model.layers:
        signs = [0.1 if "variance" not in w.path else 1.0 for w in layer.weights]
        layer.set_weights(
            [
                np.abs(w + s * rng.normal(size=w.shape))
                if s == 1.0
                else w + s * rng.normal(size=w.shape)
                for w, s in zip(layer.get_weights(), signs, strict=True)
            ]
        )
    return model


@pytest.fixture(scope="module")
def stock():
    return network()


def apart(expected, received):
    return np.abs(expected - received).max() / np.abs(expected).max()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_blocks_compute_in_it_and_outputs_do_not(stock, dtype, tmp_path):
    expected = stock.predict_on_batch(X)
    model, record = sepconv.optimize(stock, dtype=dtype)
    computed = {layer.name: layer.compute_dtype for layer in model.layers}
    halves = {"stem", "relu6", "depthwise", "gate", "multiply", "add"}
    assert {name for name, found in computed.items() if found == dtype} == halves
    assert {found for name, found in computed.items() if name not in halves} == {"float32"}
    for layer in model.layers:
        if isinstance(layer, layers.FusedConv2D):
            assert {keras.backend.standardize_dtype(w.dtype) for w in layer.weights} == {dtype}
    received = model.predict_on_batch(X)
    assert received.dtype == np.float32
    assert 0 < apart(expected, received) <= 20 * EPSILON[dtype]
    notes = {change.layer: change.note for change in record}
    assert notes["bn"] == f"in the FusedConv2D 'relu6', in {dtype}"
    assert notes["multiply"] == f"in {dtype}"
    assert record.verification.startswith("verified")

    model.save(tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(X), received)


def test_the_model_stays_as_it_is(stock):
    before = [w.copy() for w in stock.get_weights()]
    sepconv.optimize(stock, dtype="bfloat16", verify=False)
    assert {layer.compute_dtype for layer in stock.layers} == {"float32"}
    for a, b in zip(before, stock.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_output_by_an_operation_is_of_float32():
    """Operations compute in what they get, so the blocks before them do not change."""
    inputs = keras.Input((12, 12, 8))
    first = L.Conv2D(4, 1, name="first")(inputs)
    second = L.Conv2D(4, 1, name="second")(first)
    model = keras.Model(inputs, keras.ops.sin(second) * 2)
    halved, _ = sepconv.optimize(model, dtype="bfloat16")
    computed = {layer.name: layer.compute_dtype for layer in halved.layers}
    assert (computed["first"], computed["second"]) == ("bfloat16", "float32")
    assert halved.predict_on_batch(X).dtype == np.float32


def test_operations_between_blocks_go_with_them():
    inputs = keras.Input((12, 12, 8))
    first = L.Conv2D(4, 1, name="first")(inputs)
    second = L.Conv2D(4, 1, name="second")(keras.ops.sin(first))
    model = keras.Model(inputs, L.Conv2D(2, 1, name="last")(second))
    halved, _ = sepconv.optimize(model, dtype="bfloat16")
    assert halved.get_layer("second").input.dtype == "bfloat16"
    expected = model.predict_on_batch(X)
    assert apart(expected, halved.predict_on_batch(X)) <= 20 * EPSILON["bfloat16"]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "mixed_float16"])
def test_blocks_of_a_half_policy(policy):
    """Their weights are what they would be cast to in every call."""
    model = network(dtype=policy)
    dtype = policy.removeprefix("mixed_")
    expected = model.predict_on_batch(X)
    optimized, _ = sepconv.optimize(model)
    blocks = [one for one in optimized.layers if isinstance(one, layers.FusedConv2D)]
    assert len(blocks) == 5
    for block in blocks:
        assert block.compute_dtype == block.variable_dtype == dtype
    assert apart(expected, optimized.predict_on_batch(X)) <= 20 * EPSILON[dtype]


def test_layers_of_another_policy_stay(stock):
    inputs = keras.Input((12, 12, 8))
    x = L.Conv2D(4, 1, name="other", dtype="float16")(inputs)
    model = keras.Model(inputs, L.Conv2D(2, 1, name="last")(L.Conv2D(4, 1, name="half")(x)))
    halved, _ = sepconv.optimize(model, dtype="bfloat16")
    computed = {layer.name: layer.compute_dtype for layer in halved.layers}
    assert (computed["other"], computed["half"]) == ("float16", "bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "int8", "mixed_bfloat16", 16])
def test_other_dtypes_are_refused(stock, dtype):
    with pytest.raises(
        ValueError, match=r"dtype must be None, .* 'bfloat16' or 'float16'. Received"
    ):
        sepconv.optimize(stock, dtype=dtype)


def test_the_command(stock, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    stock.save(tmp_path / "in.keras")
    paths = [str(tmp_path / name) for name in ("in.keras", "out.keras")]
    assert cli.main(["optimize", *paths, "--dtype", "bfloat16"]) == 0
    assert "in bfloat16" in capsys.readouterr().out
    loaded = keras.models.load_model(paths[1])
    assert loaded.get_layer("add").compute_dtype == "bfloat16"
