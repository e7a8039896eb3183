"""Compiling in part: what programs do not know is left to Keras, and predictions stay the same."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers.lowering import randomized
from keras import layers, ops

import sepconv
from sepconv.models.graph import Graph
from sepconv.models.partial import PartialProgram
from sepconv.models.partition import Partition
from sepconv.program.program import Program

ENGINE = keras.backend.backend()


@keras.saving.register_keras_serializable("tests")
class Dream(layers.Layer):
    """A layer of a user's own, which programs do not know."""

    def __init__(self, **options):
        super().__init__(**options)
        self.supports_masking = True

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return ops.tanh(x * self.gain) + ops.flip(x, axis=1)


@keras.saving.register_keras_serializable("tests")
class Places(layers.Layer):
    """The places of the largest elements, which are integers."""

    def call(self, x):
        return ops.argmax(x, axis=-1)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape[:-1], "int32")


class Squash(layers.Layer):
    """Another layer of a user's own."""

    def call(self, x):
        return ops.arctan(x)


class Beside(layers.Layer):
    """The sum of two tensors, with the mask of the first."""

    def call(self, xs):
        return xs[0] + xs[1]

    def compute_mask(self, xs, mask):
        return mask[0]


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def compiled(model, *inputs, batches=(1, 3, 8), **options):
    """Compiles a model in part, and holds its predictions against the model's.

    Args:
        model: gets other weights.
        inputs: of 8 examples.
        batches: to compare.
        options: of `sepconv.compile`.
    """
    randomized(model)
    before = [w.copy() for w in model.get_weights()]
    program = sepconv.compile(model, partial=True, **options)
    for batch in batches:
        given = [x[:batch] for x in inputs]
        wanted = model.predict_on_batch(given if len(given) > 1 else given[0])
        wanted = keras.tree.flatten(wanted)
        found = program(*given)
        found = found if isinstance(found, tuple) else (found,)
        for a, want, described in zip(found, wanted, program.outputs, strict=True):
            assert a.shape == want.shape
            assert a.dtype == want.dtype
            assert a.flags.writeable
            assert len(described.shape) == a.ndim
            if want.dtype.kind == "f":
                np.testing.assert_allclose(a, want, rtol=1e-4, atol=2e-5 * np.abs(want).max())
            else:
                np.testing.assert_array_equal(a, want)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert isinstance(program, PartialProgram)
    return program


def kinds(program):
    return [(part.kind, part.layers) for part in program.parts]


def separable(name, activation="relu"):
    return layers.SeparableConv2D(8, 3, padding="same", activation=activation, name=name)


def test_a_custom_layer_in_the_middle():
    model = keras.Sequential(
        [
            keras.Input((8, 6, 3), name="image"),
            separable("first", None),
            layers.BatchNormalization(name="norm"),
            Dream(name="dream"),
            layers.Dropout(0.5, name="drop"),
            separable("second"),
            layers.GlobalAveragePooling2D(name="mean"),
        ]
    )
    program = compiled(model, numbers(8, 8, 6, 3))
    assert kinds(program) == [
        ("program", ("first", "norm")),
        ("keras", ("dream",)),
        ("program", ("drop", "second", "mean")),
    ]
    assert program.parts[1].why == ("it is not known",)
    assert program.parts[0].why == ("", "")
    assert isinstance(program.parts[0].runs, Program)
    assert isinstance(program.parts[1].runs, keras.Model)
    # Batch normalization is folded in a part as in a whole model.
    assert [s.operation for s in program.parts[0].runs.network.steps] == ["convolution"]
    assert [one.name for one in program.inputs] == ["image"]
    assert program.outputs[0].shape == (None, 8)
    assert str(program.parts).splitlines() == [
        "compile: 5 of 6 layers in 2 programs, the others left to Keras",
        "  1  program  first   SeparableConv2D",
        "  1  program  norm    BatchNormalization",
        "  2  keras    dream   Dream                   it is not known",
        "  3  program  drop    Dropout",
        "  3  program  second  SeparableConv2D",
        "  3  program  mean    GlobalAveragePooling2D",
    ]
    assert "Part(kind='program', layers=('first', 'norm')" in repr(program.parts)
    assert program.parts[1:] == tuple(program.parts)[1:]


def test_it_shares_nothing_with_the_model():
    model = keras.Sequential([keras.Input((4, 3)), layers.Dense(5), Dream(name="dream")])
    x = numbers(8, 4, 3)
    program = compiled(model, x)
    expected = program(x)
    model.set_weights([w + 1 for w in model.get_weights()])
    np.testing.assert_array_equal(program(x), expected)
    assert len(model.get_layer("dream")._inbound_nodes) == 1


def test_unknown_layers_in_different_places_of_branches():
    image = keras.Input((8, 6, 3), name="image")
    a = separable("a_1")(image)
    a = Dream(name="a_dream")(a)
    a = separable("a_2")(a)
    b = Dream(name="b_dream")(image)
    b = separable("b_1")(b)
    b = layers.BatchNormalization(name="b_2")(b)
    both = layers.Add(name="add")([a, b])
    model = keras.Model(image, layers.GlobalMaxPooling2D(name="max")(both))
    program = compiled(model, numbers(8, 8, 6, 3))
    # Each path has its layers in turns; what stands at the same turn is one part.
    assert [(kind, set(names)) for kind, names in kinds(program)] == [
        ("keras", {"b_dream"}),
        ("program", {"a_1", "b_1", "b_2"}),
        ("keras", {"a_dream"}),
        ("program", {"a_2", "add", "max"}),
    ]


@pytest.mark.parametrize("first", [True, False])
def test_unknown_first_or_last(first):
    parts = [layers.Dense(5, "silu", name="mix"), layers.Dense(4, name="more")]
    parts.insert(0 if first else 2, Dream(name="dream"))
    model = keras.Sequential([keras.Input((4, 3)), *parts])
    program = compiled(model, numbers(8, 4, 3))
    wanted = [("keras", ("dream",)), ("program", ("mix", "more"))]
    assert kinds(program) == (wanted if first else wanted[::-1])


def test_several_outputs_and_inputs():
    image, more = keras.Input((6, 3), name="image"), keras.Input((5,), name="more")
    x = layers.Dense(4, "relu", name="mix")(image)
    dreamt = Dream(name="dream")(x)
    pooled = layers.GlobalAveragePooling1D(name="mean")(dreamt)
    y = layers.Concatenate(name="join")([pooled, layers.Dense(2, name="small")(more)])
    places = Places(name="places")(dreamt)
    outputs = [y, dreamt, places, x, more]
    program = compiled(keras.Model([image, more], outputs), numbers(8, 6, 3), numbers(8, 5, seed=1))
    assert [kind for kind, _ in kinds(program)] == ["program", "keras", "program"]
    assert "places" in program.parts[1].layers
    assert program.outputs[2].shape == (None, 6)
    given = numbers(1, 5)
    result = program(numbers(1, 6, 3), given)[4]
    assert not np.shares_memory(result, given)


def test_an_integer_embedding_branch():
    words, image = keras.Input((7,), dtype="int32", name="words"), keras.Input((6,), name="image")
    x = layers.Embedding(20, 4, name="embed")(words)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    x = layers.Concatenate(name="join")([x, layers.Dense(3, name="mix")(image)])
    model = keras.Model([words, image], layers.Dense(2, name="classes")(x))
    given = np.random.default_rng(0).integers(0, 20, (8, 7))
    program = compiled(model, given.astype("int32"), numbers(8, 6))
    assert program.parts[0].layers == ("embed",)
    assert [kind for kind, _ in kinds(program)] == ["keras", "program"]
    # Integers of other sizes, and lists, are taken as the model takes them.
    more = program(given.tolist(), numbers(8, 6).astype("float64"))
    np.testing.assert_array_equal(more, program(given, numbers(8, 6)))


def test_integers_stay_integers_between_layers_of_keras():
    words = keras.Input((8,), dtype="int32", name="words")
    turned = layers.Reshape((4, 2), name="turn")(words)
    turned = layers.Permute((2, 1), name="swap")(turned)
    x = layers.Embedding(20, 4, name="embed")(turned)
    x = layers.Dense(3, name="mix")(x)
    places = Places(name="places")(x)
    floats = ops.cast(places, "float32")
    y = layers.Dense(2, name="end")(floats)
    model = keras.Model(words, [y, layers.Reshape((-1,), name="flat")(places), turned])
    program = compiled(model, np.random.default_rng(0).integers(0, 20, (8, 8)).astype("int32"))
    why = {n: w for part in program.parts for n, w in zip(part.layers, part.why, strict=True)}
    assert why["turn"] == why["swap"] == "it moves integers, which programs give as floats"
    (cast,) = (
        reason for name, reason in why.items() if name.startswith("cast")
    )  # Keras numbers it
    assert cast == why["flat"] == "it takes values of the dtype int32, not float32"
    assert why["mix"] == why["end"] == ""
    assert program.parts[0].layers == ("turn", "swap", "embed")


def test_images_of_integers():
    image = keras.Input((8, 6, 3), dtype="uint8", name="image")
    x = layers.ZeroPadding2D(1, name="pad")(image)
    x = separable("mix")(layers.Rescaling(1 / 255, name="scale")(x))
    model = keras.Model(image, Dream(name="dream")(x))
    program = compiled(model, np.random.default_rng(0).integers(0, 256, (8, 8, 6, 3), "uint8"))
    assert kinds(program)[0] == ("program", ("pad", "scale", "mix"))


def test_unknown_layers_alone():
    model = keras.Sequential([keras.Input((4, 3)), Dream(name="one"), Dream(name="two")])
    program = compiled(model, numbers(8, 4, 3))
    assert kinds(program) == [("keras", ("one", "two"))]
    assert str(program.parts).startswith("compile: 0 of 2 layers in 0 programs")


def test_a_mask_goes_around_no_program():
    """The mask of the words reaches the sum beside the numbers, and from there the mean."""
    words, scale = keras.Input((6,), dtype="int32"), keras.Input((6, 4))
    x = layers.Embedding(9, 4, mask_zero=True, name="embed")(words)
    dreamt = Dream(name="dream")(scale)
    near = layers.Dense(4, name="near")(dreamt)
    mean = layers.GlobalAveragePooling1D(name="mean")(Beside(name="add")([x, near]))
    model = keras.Model([words, scale], layers.Dense(2, name="end")(mean))
    given = np.random.default_rng(0).integers(0, 3, (8, 6)).astype("int32")
    given[:, 0] = 1  # no row of masked words alone
    program = compiled(model, given, numbers(8, 6, 4))
    assert [kind for kind, _ in kinds(program)] == ["keras", "program"]
    assert program.parts[1].layers == ("end",)
    why = dict(zip(program.parts[0].layers, program.parts[0].why, strict=True))
    assert why["near"] == "a mask, or more, goes around it to 'add'"
    assert why["mean"] == "a mask goes through it"


@pytest.mark.parametrize("sparse", [False, True])
def test_values_of_an_unknown_dtype_are_taken_by_keras(sparse):
    """Keras calls the results of such layers floats, whatever they are."""
    words, scale = keras.Input((3,), dtype="int32", name="words"), keras.Input((4,), name="x")
    hot = layers.CategoryEncoding(5, output_mode="multi_hot", sparse=sparse, name="hot")(words)
    near = layers.Dense(5, name="near")(Squash(name="dream")(scale))
    both = layers.Add(name="sum")([hot, near])
    mixed = layers.Dense(3, name="mix")(hot)
    y = layers.Dense(2, name="end")(layers.Concatenate(name="join")([both, mixed]))
    model = keras.Model([words, scale], y)
    partition = Partition(Graph(model))
    (section,) = partition.sections()
    assert not section.known
    why = {step.name: reason for step, reason in partition.why.items()}
    assert why["near"] == "a mask, or more, goes around it to 'sum'"
    reason = "a sparse tensor" if sparse else "values of which the dtype is not known"
    assert why["mix"] == f"it takes {reason}"
    assert why["end"] == "it takes values of which the dtype is not known"


@pytest.mark.skipif(ENGINE != "tensorflow", reason="only TensorFlow has text")
def test_text():
    words = keras.Input((2,), dtype="string", name="words")
    x = layers.StringLookup(vocabulary=["a", "b"], name="look")(words)
    x = layers.Flatten(name="flat")(layers.Embedding(4, 3, name="embed")(x))
    model = keras.Model(words, layers.Dense(2, name="end")(x))
    program = sepconv.compile(model, partial=True)
    given = np.array([["a", "b"], ["b", "c"]])
    assert kinds(program)[0] == ("keras", ("look", "embed"))
    want = model(keras.ops.convert_to_tensor(given))
    np.testing.assert_allclose(program(given), want, rtol=1e-4, atol=1e-6)


def test_what_only_lowering_finds():
    x = keras.Input((6, 4))
    around = [(0, 0), (1, 1), (0, 0)]
    y = ops.pad(layers.Dense(4, name="mix")(x), around, mode="reflect")
    z = ops.pad(layers.Dense(4, name="less")(x), around, mode="reflect")
    model = keras.Model(x, layers.Dense(3, name="end")(layers.Add(name="add")([y, z])))
    program = compiled(model, numbers(8, 6, 4))
    assert [kind for kind, _ in kinds(program)] == ["program", "keras", "program"]
    assert program.parts[1].classes == ("Pad", "Pad")
    assert program.parts[1].why == ("its mode 'reflect' is not known",) * 2


def test_moves_between_layers_of_keras_are_theirs():
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            Dream(name="one"),
            layers.Dropout(0.5, name="drop"),
            layers.Permute((2, 1), name="turn"),
            Dream(name="two"),
        ]
    )
    program = compiled(model, numbers(8, 4, 3))
    assert kinds(program) == [("keras", ("one", "drop", "turn", "two"))]
    assert program.parts[0].why[1] == "it only moves values between layers that are left to Keras"


def test_nested_models_and_layers_called_twice():
    """Nested models are dissolved; a layer has one reason in all of its calls."""

    def block(name):
        return keras.Sequential(
            [keras.Input((4, 3)), layers.Dense(3, name="mix"), Dream(name="dream")], name=name
        )

    x = keras.Input((4, 3))
    twice = layers.Dense(3, name="twice")
    dream = Dream(name="again")
    y = block("second")(twice(block("first")(twice(x))))
    y = dream(layers.ReLU(name="relu")(dream(y)))
    program = compiled(keras.Model(x, y), numbers(8, 4, 3))
    assert kinds(program) == [
        ("program", ("twice", "first/mix")),
        ("keras", ("first/dream",)),
        ("program", ("twice", "second/mix")),
        ("keras", ("second/dream", "again")),
        ("program", ("relu",)),
        ("keras", ("again",)),
    ]
    assert program.parts[3].runs.get_layer("again") is program.parts[5].runs.get_layer("again")


def test_operations_and_open_sizes():
    x = keras.Input((None, 3), name="x")
    y = layers.Conv1D(4, 3, padding="same", activation="relu", name="mix")(x)
    first, second = ops.split(ops.cumsum(y * 2.0, axis=1), 2, axis=-1)
    model = keras.Model(x, layers.Dense(3, name="end")(first - second))
    for size in (5, 9):
        program = compiled(model, numbers(8, size, 3), batches=(3,))
        assert [kind for kind, _ in kinds(program)] == ["program", "keras", "program"]


@pytest.mark.parametrize("tune", [False, True])
def test_float64_programs(tune):
    model = keras.Sequential([keras.Input((4, 3)), layers.Dense(5, name="a"), Dream(name="b")])
    model.add(layers.Dense(2, name="c"))
    program = sepconv.compile(model, partial=True, dtype="float64", tune=tune)
    assert program.parts[0].runs.dtype == program.parts[2].runs.dtype == "float64"
    x = numbers(3, 4, 3)
    assert program(x).dtype == program.dtype == "float64"
    np.testing.assert_allclose(program(x), model.predict_on_batch(x), rtol=1e-4, atol=1e-5)


def test_a_model_that_compiles_whole_is_a_program():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    assert isinstance(sepconv.compile(model, partial=True), Program)


def test_a_partial_program_that_predicts_something_else_is_refused(monkeypatch):
    model = keras.Sequential([keras.Input((4, 3)), Dream(), layers.Dense(2)])
    monkeypatch.setattr(Program, "__call__", lambda self, x: np.zeros((*x.shape[:-1], 2)))
    with pytest.raises(ValueError, match="does not predict what the model does"):
        sepconv.compile(model, partial=True)
    assert isinstance(sepconv.compile(model, partial=True, verify=False), PartialProgram)


def test_errors(tmp_path):
    model = keras.Sequential([keras.Input((4, 3), name="x"), Dream(name="dream"), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"'dream'.*Dream.*partial=True"):
        sepconv.compile(model)
    program = sepconv.compile(model, partial=True)
    with pytest.raises(ValueError, match=r"left to Keras: \['dream'\].*model.save"):
        program.save(tmp_path / "never.sepconv")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"takes 1 inputs: \['x'\]. Received: 2"):
        program(numbers(1, 4, 3), numbers(1, 4, 3))
    with pytest.raises(ValueError, match=r"'x' must have the shape \(None, 4, 3\).*\(1, 4, 4\)"):
        program(numbers(1, 4, 4))
    with pytest.raises(TypeError, match="Sequential or Functional"):
        sepconv.compile(lambda x: x, partial=True)
    half = keras.Sequential([keras.Input((4, 3)), Dream(dtype="float16"), layers.Dense(2)])
    with pytest.raises(ValueError, match="throughout"):
        sepconv.compile(half, partial=True)


def test_inputs_that_are_no_arrays_are_refused():
    x, y = keras.Input((3,), name="x"), keras.Input((3,), name="y", optional=True)
    model = keras.Model([x, y], layers.Dense(2)(layers.Add()([x, y])))
    with pytest.raises(ValueError, match=r"'y' must be an array.*may be missing"):
        sepconv.compile(model, partial=True)


def test_a_layer_that_cannot_be_copied_is_named():
    class Reader(Dream):
        def __init__(self, file, **options):
            super().__init__(**options)
            self.file = file

    with open(__file__) as file:
        model = keras.Sequential([keras.Input((4, 3)), Reader(file, name="reader")])
        model.add(layers.Dense(2))
        with pytest.raises(ValueError, match=r"'reader', a Reader, can be neither copied"):
            sepconv.compile(model, partial=True)
