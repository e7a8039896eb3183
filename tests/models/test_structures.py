"""Models whose inputs or outputs have names: data finds its input by these, never by its place."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import sepconv
from sepconv.layers import ProgramLayer

pytestmark = pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")

RNG = np.random.default_rng(0)
#: Inputs of one shape, so that an exchange is no error of shapes.
LEFT, RIGHT = (RNG.standard_normal((32, 6, 6, 3)).astype("float32") for _ in range(2))


def model_of(inputs=lambda a, b: [a, b], outputs=lambda y, z: [y, z], unknown=False):
    """A model of two inputs that are treated differently; in the order of names b is the first."""
    keras.utils.set_random_seed(0)
    a, b = keras.Input((6, 6, 3), name="z_layer"), keras.Input((6, 6, 3), name="a_layer")
    x = layers.Concatenate()([layers.SeparableConv2D(4, 3)(a), layers.Conv2D(4, 3)(b)])
    y = layers.Dense(3, name="dense")(layers.GlobalAveragePooling2D(name="mean")(x))
    z = layers.GRU(2, name="gru")(layers.Reshape((16, 8))(x)) if unknown else layers.ReLU()(y)
    return keras.Model(inputs(a, b), outputs(y, z), name="two")


def in_a_list():
    return model_of(), {"z_layer": LEFT, "a_layer": RIGHT}, ["z_layer", "a_layer"]


def in_a_dict():
    model = model_of(lambda a, b: {"right": b, "left": a}, lambda y, z: {"y": y, "also": z})
    return model, {"left": LEFT, "right": RIGHT}, ["left", "right"]


def with_exchanged_names():
    """Keys that are the names of the other input count."""
    model = model_of(lambda a, b: {"z_layer": b, "a_layer": a})
    return model, {"a_layer": LEFT, "z_layer": RIGHT}, ["a_layer", "z_layer"]


EVERY = pytest.mark.parametrize("made", [in_a_list, in_a_dict, with_exchanged_names])


def same(found, expected, atol=1e-5):
    """Holds results against others, which must have the same structure."""
    keras.tree.assert_same_structure(found, expected)
    pairs = zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, atol=atol)


@EVERY
def test_a_program_takes_what_the_model_takes(made):
    model, given, names = made()
    expected = keras.tree.flatten(model.predict(given, verbose=0))
    program = sepconv.compile(model, verify=given)
    assert [one.name for one in program.inputs] == names
    listed = [given[name] for name in names]
    for arguments in (
        (given,),
        (dict(reversed(given.items())),),
        ({**given, "another": LEFT},),
        (listed,),
        listed,
    ):
        same(list(program(*arguments)), expected)
        assert program.profile(*arguments)
    with pytest.raises(ValueError, match="an array for each of the inputs"):
        program({names[0]: LEFT})


@EVERY
def test_a_partial_program_takes_the_same(made):
    _, given, names = made()
    model = model_of(unknown=True)
    if names != ["z_layer", "a_layer"]:
        keys = {id(LEFT): model.inputs[0], id(RIGHT): model.inputs[1]}
        model = keras.Model({k: keys[id(v)] for k, v in given.items()}, model.outputs)
    partial = sepconv.compile(model, partial=True, verify=given)
    assert [one.name for one in partial.inputs] == names
    expected = keras.tree.flatten(model.predict(given, verbose=0))
    for arguments in ((given,), ([given[name] for name in names],)):
        same(list(partial(*arguments)), expected)
    with pytest.raises(ValueError, match=r"A call of the model .* for each of the inputs"):
        partial({names[0]: LEFT})


class Batches(keras.utils.PyDataset):
    """Dictionaries of inputs, and targets."""

    def __init__(self, given):
        super().__init__()
        self.given = given

    def __len__(self):
        return 4

    def __getitem__(self, i):
        part = slice(8 * i, 8 * i + 8)
        return {name: array[part] for name, array in self.given.items()}, np.zeros(8)


def tensors(given):
    """A `tf.data.Dataset` of dictionaries."""
    tf = pytest.importorskip("tensorflow")
    whole = tf.data.Dataset.from_tensor_slices((given, np.zeros(32)))
    return whole.batch(8, drop_remainder=True)


@EVERY
@pytest.mark.parametrize("batches", [dict, Batches, tensors])
def test_quantize_takes_what_the_model_takes(made, batches):
    model, given, names = made()
    if batches is tensors and keras.backend.backend() != "tensorflow":
        pytest.skip("a dataset of TensorFlow's")
    small, record = sepconv.quantize(model, batches(given))
    by_order, expected = sepconv.quantize(model, [given[name] for name in names])
    assert record.error == expected.error
    same(small.predict(given, verbose=0), by_order.predict(given, verbose=0), 0)
    same(small.predict(given, verbose=0), model.predict(given, verbose=0), 0.1)
    assert [one.name for one in sepconv.compile(small).inputs] == names


@EVERY
def test_what_is_made_of_a_model_has_its_structures(made, tmp_path):
    model, given, _ = made()
    expected = model.predict(given, verbose=0)
    simulated, _ = sepconv.quantize(model, given, trainable=True)
    same(simulated.predict(given, verbose=0), expected, 0.1)
    small, _ = sepconv.quantize(simulated)
    same(small.predict(given, verbose=0), simulated.predict(given, verbose=0), 0.02)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    same(again.predict(given, verbose=0), small.predict(given, verbose=0), 0)
    for int8 in (small, simulated, again):
        stock = sepconv.to_stock(int8)
        assert all(type(layer).__module__.startswith("keras.") for layer in stock.layers)
        same(stock.predict(given, verbose=0), expected, 0.1)
    same(sepconv.optimize(model).model.predict(given, verbose=0), expected)


@EVERY
def test_a_layer_of_a_program_takes_names(made):
    model, given, names = made()
    program = sepconv.compile(model)
    expected = program(given)
    layer = ProgramLayer(program)
    same(list(map(keras.ops.convert_to_numpy, layer(given))), list(expected), 0)
    # Two keys, in the other order of the alphabet.
    first, second = (keras.Input((6, 6, 3), name=f"other_{i}") for i in range(2))
    outer = keras.Model([first, second], layer({names[1]: second, names[0]: first}))
    listed = [given[name] for name in names]
    same(outer.predict(listed, verbose=0), list(expected), 0)
    same(list(sepconv.compile(outer)(*listed)), list(expected))
    with pytest.raises(ValueError, match=r"The layer .* for each of the inputs"):
        layer({"neither": LEFT, "nor": RIGHT})


@EVERY
def test_a_model_within_a_model_takes_names(made):
    inner, given, names = made()
    first, second = (keras.Input((6, 6, 3), name=f"other_{i}") for i in range(2))
    called = inner({names[0]: first, names[1]: layers.ReLU()(second)})
    outer = keras.Model([first, second], keras.tree.flatten(called))
    listed = [given[name] for name in names]
    expected = outer.predict(listed, verbose=0)
    for verify in (True, False):
        same(list(sepconv.compile(outer, verify=verify)(*listed)), expected)
        optimized, _ = sepconv.optimize(outer, verify=verify)
        same(optimized.predict(listed, verbose=0), expected)


def test_nested_structures_have_the_inputs_own_names():
    model = model_of(lambda a, b: {"pair": [a, b]})
    program = sepconv.compile(model)
    assert [one.name for one in program.inputs] == ["z_layer", "a_layer"]
    expected = model.predict({"pair": [LEFT, RIGHT]}, verbose=0)
    same(list(program({"a_layer": RIGHT, "z_layer": LEFT})), expected)
    small, _ = sepconv.quantize(model, {"a_layer": RIGHT, "z_layer": LEFT})
    same(small.predict({"pair": [LEFT, RIGHT]}, verbose=0), expected, 0.1)


def test_an_engine_s_function_takes_names():
    backend = keras.backend.backend()
    run = getattr(__import__(f"sepconv.{backend}", fromlist=[backend]), "run_program")  # noqa: B009
    model, given, names = in_a_list()
    program = sepconv.compile(model)
    tensors = {name: keras.ops.convert_to_tensor(array) for name, array in given.items()}
    found = run(program, dict(sorted(tensors.items())))
    same([keras.ops.convert_to_numpy(y) for y in found], list(program(*given.values())), 0)
    with pytest.raises(ValueError, match="A program's call must have an array for each"):
        run(program, {names[0]: tensors[names[0]]})
