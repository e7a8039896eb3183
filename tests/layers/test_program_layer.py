"""A program as a layer of Keras': what it computes, its files, its errors."""

from __future__ import annotations

import copy
import json

import keras
import numpy as np
import pytest

import sepconv
from sepconv.layers import ProgramLayer
from sepconv.program.network import Input, Network, Step
from sepconv.program.program import Program, Tuning

BACKEND = keras.backend.backend()


def array(value):
    return keras.ops.convert_to_numpy(value)


def image(batch=3, size=8):
    return np.random.default_rng(0).standard_normal((batch, size, size, 3)).astype("float32")


def network(size=8, filters=4, seed=0):
    keras.utils.set_random_seed(seed)
    x = keras.Input((size, size, 3), name="picture")
    y = keras.layers.SeparableConv2D(filters, 3, activation="relu", name="mix")(x)
    return keras.Model(x, [y, keras.layers.GlobalAveragePooling2D(name="mean")(y)])


def served(program, size=8, **kwargs):
    x = keras.Input((size, size, 3))
    return keras.Model(x, ProgramLayer(program, name="net", **kwargs)(x))


@pytest.fixture(scope="module")
def program():
    return sepconv.compile(network())


@pytest.fixture(scope="module")
def model(program):
    return served(program)


def same(found, expected):
    found = found if isinstance(found, (list, tuple)) else [found]
    expected = expected if isinstance(expected, (list, tuple)) else [expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array(one), other)


def test_it_gives_the_program_s_bits_for_any_batch(model, program):
    assert model.output_shape == [(None, 6, 6, 4), (None, 4)]
    for batch in (1, 3):
        x = image(batch)
        same(model(x), program(x))
        same(model.predict(x, verbose=0), program(x))


def test_inputs_of_other_dtypes_are_converted(model, program):
    pixels = (image() * 50).astype("uint8")
    same(model(pixels), program(pixels))
    half = keras.ops.cast(image(), "bfloat16")
    same(model(half), program(array(keras.ops.cast(half, "float32"))))


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_a_file_holds_it(model, program, tmp_path, name):
    model.save(tmp_path / name)
    again = keras.models.load_model(tmp_path / name)
    same(again(image()), program(image()))
    same(again.predict(image(1), verbose=0), program(image(1)))


def test_weights_alone_replace_the_network_also_in_traced_functions(tmp_path):
    one, other = (served(sepconv.compile(network(seed=seed))) for seed in (1, 2))
    x = image()
    expected = [array(y) for y in other(x)]
    assert not np.array_equal(array(one.predict(x, verbose=0)[1]), expected[1])
    other.save_weights(tmp_path / "w.weights.h5")
    one.load_weights(tmp_path / "w.weights.h5")
    same(one.predict(x, verbose=0), expected)
    third = served(sepconv.compile(network(seed=3)))
    third.predict(x, verbose=0)
    third.set_weights(other.get_weights())
    same(third.predict(x, verbose=0), expected)
    same(third(x), expected)


def test_a_copy_from_the_config_waits_for_its_weights(model, program):
    clone = keras.models.clone_model(model)
    with pytest.raises(ValueError, match=r"'net' has no network yet.*load its weights"):
        clone(image())
    clone.set_weights(model.get_weights())
    same(clone(image()), program(image()))
    config = json.loads(json.dumps(keras.layers.serialize(model.get_layer("net"))))
    assert keras.layers.deserialize(config).get_config() == model.get_layer("net").get_config()


def test_a_program_s_file_is_taken(program, tmp_path):
    program.save(tmp_path / "net.sepconv")
    layer = ProgramLayer(tmp_path / "net.sepconv")
    same(layer(image()), program(image()))
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(ValueError, match="other: it is not a program"):
        ProgramLayer(tmp_path / "other")


def test_copies_share_nothing(model, program):
    same(copy.deepcopy(model)(image()), program(image()))
    copied, record = sepconv.accelerate(model)
    assert record.changed == 0
    same(copied(image()), program(image()))


def test_a_damaged_file_is_refused_when_it_is_loaded(model):
    weights = [w.copy() for w in model.get_weights()]
    weights[0][-1] ^= 1
    clone = keras.models.clone_model(model)
    clone.set_weights(weights)
    with pytest.raises(ValueError, match="'net': it is damaged"):
        clone(image())
    clone.set_weights(model.get_weights())
    clone(image())


def test_several_inputs_and_open_sizes():
    a, b = keras.Input((None, None, 2), name="a"), keras.Input((None, None, 2), name="b")
    both = keras.layers.Add()([keras.layers.Conv2D(2, 1)(a), b])
    program = sepconv.compile(keras.Model([a, b], both))
    layer = ProgramLayer(program)
    model = keras.Model([a, b], layer([a, b]))
    for shape in ((2, 5, 4, 2), (1, 3, 3, 2)):
        x, y = np.random.default_rng(1).standard_normal((2, *shape)).astype("float32")
        same(layer([x, y]), program(x, y))
        same(model.predict([x, y], verbose=0), program(x, y))
    with pytest.raises(ValueError, match=r"takes 2 inputs: .*Received: 1"):
        layer(a)


def test_float64(float64):
    with float64():
        program = sepconv.compile(network(), dtype="float64")
        layer = ProgramLayer(program)
        found = layer(image())
        assert keras.backend.standardize_dtype(found[0].dtype) == "float64"
        same(found, program(image()))


def test_the_policy_of_other_layers_does_not_matter(program):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        same(served(program)(image()), program(image()))
    finally:
        keras.config.set_dtype_policy(before)


def test_compile_gives_the_program_back(model, program):
    again = sepconv.compile(model)
    assert [step.name for step in again.network.steps] == [
        step.name for step in program.network.steps
    ]
    same(again(image()), program(image()))
    assert again.outputs == program.outputs


def test_compile_keeps_what_was_written_beside_it(program):
    tuning = Tuning(-1, 1 << 14, 2)
    noted = served(Program(program.network, tuning=tuning, notes={"by": "hand"}))
    again = sepconv.compile(noted)
    assert again.tuning == tuning
    assert again.notes["by"] == "hand"
    tuned = sepconv.compile(noted, tune=True, verify=False)
    assert tuned.notes == {"by": "hand"}


def test_compile_takes_its_steps_into_a_larger_network(program):
    x = keras.Input((8, 8, 3))
    y, mean = ProgramLayer(program, name="net")(keras.layers.ReLU()(x))
    model = keras.Model(x, [keras.layers.Dense(2, name="head")(mean), y])
    whole = sepconv.compile(model)
    names = [step.name for step in whole.network.steps]
    assert {"net/mix", "head"} <= set(names)
    expected = model.predict(image(), verbose=0)
    for one, other in zip(whole(image()), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_training_through_it_is_refused(trains, program):
    x = keras.Input((8, 8, 3))
    before = keras.layers.Conv2D(3, 1, name="before")(x)
    mean = ProgramLayer(program, name="net")(before)[1]
    model = keras.Model(x, keras.layers.Dense(1)(mean))
    model.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(ValueError, match="'net' is for inference: it has no gradient"):
        model.fit(image(), np.zeros((3, 1)), verbose=0)


def test_what_comes_after_it_is_trained(trains, program):
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, keras.layers.Dense(1, name="head")(served(program)(x)[1]))
    model.compile("sgd", "mse")
    before = model.get_layer("head").get_weights()[0]
    model.fit(image(), np.ones((3, 1)), verbose=0, epochs=2)
    assert not np.array_equal(model.get_layer("head").get_weights()[0], before)
    assert [w.name for w in model.trainable_weights] == ["kernel", "bias"]


def test_an_export_is_refused(trains, model, tmp_path):
    if BACKEND == "torch":
        pytest.skip("PyTorch's files hold the program: see tests/engines")
    pytest.importorskip("tensorflow")  # Keras writes its format whatever the engine
    # An older TensorFlow logs our reason, and raises that it could not trace.
    said = r"Export the (network|model) that|Error when tracing gradients for SavedModel"
    with pytest.raises(ValueError, match=said):
        model.export(tmp_path / "net", verbose=False)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        archive = keras.export.ExportArchive()
        signature = [tf.TensorSpec((None, 8, 8, 3))]
        archive.add_endpoint("serve", lambda x: model(x), input_signature=signature)
        with pytest.raises(ValueError, match="SepconvProgram"):
            archive.write_out(tmp_path / "other", verbose=False)


def test_errors():
    with pytest.raises(TypeError, match="Received: neither"):
        ProgramLayer()
    with pytest.raises(TypeError, match="Received: Dense"):
        ProgramLayer(keras.layers.Dense(2))
    step = Step("unary", "relu", (0,), {"function": "relu", "a": 0.0, "b": np.inf, "c": 0.0})
    made = Network("float32", [Input("x", (None, 3))], [step], [1], ["y"], [])
    with pytest.raises(ValueError, match="loaded from a file"):
        ProgramLayer(Program(made, keep=False))
    layer = ProgramLayer(Program(made))
    with pytest.raises(ValueError, match=r"'x' .*must have the shape \(None, 3\).*\(2, 4\)"):
        layer(np.zeros((2, 4), "float32"))
    same(layer(np.array([[-1.0, 0.0, 2.0]])), np.array([[0, 0, 2]], "float32"))
