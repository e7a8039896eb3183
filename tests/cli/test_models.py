"""`sepconv accelerate`, `optimize` and `factorize`: what they refuse, write and say."""

import json
import os
import sys
import zipfile
from collections import namedtuple

import numpy as np
import pytest

import sepconv
from sepconv import cli
from sepconv.models import command, files
from sepconv.models.record import Record

COMMANDS = tuple(command.COMMANDS)
Result = namedtuple("Result", "model record")


def line(name, source, target, *more):
    budget = ("--rank", "1") if name == "factorize" else ()
    return [name, str(source), str(target), *budget, *more]


@pytest.fixture(scope="module")
def saved(keras, tmp_path_factory):
    """A small network's file."""
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.SeparableConv2D(4, 3), layers.Flatten(), layers.Dense(2)]
    )
    path = tmp_path_factory.mktemp("model") / "in.keras"
    model.save(path)
    return path


@pytest.fixture
def stand_in(keras, monkeypatch):
    """`stand_in(change)` makes all three functions a copy of the model, which `change` changes."""
    received = []

    def install(change=lambda model: None):
        def function(model, **options):
            received.append(options)
            copy = keras.models.clone_model(model)
            copy.set_weights(model.get_weights())
            change(copy)
            record = Record("the record of it")
            record.verification = "verified: by whoever made it"
            return Result(copy, record)

        for name in COMMANDS:
            monkeypatch.setattr(sepconv, name, function, raising=False)
        return received

    return install


def scale(model):
    model.layers[-1].kernel.assign(1.01 * model.layers[-1].kernel)


@pytest.mark.parametrize("name", COMMANDS)
def test_it_writes_a_model_that_loads_and_says_how_far_apart_they_are(
    name, saved, stand_in, keras, tmp_path, capsys
):
    stand_in()
    target = tmp_path / "out.keras"
    assert cli.main(line(name, saved, target)) == 0
    shown = capsys.readouterr().out
    assert "the record of it" in shown
    assert "0.0e+00" in shown
    x = np.ones((2, 8, 8, 3), "float32")
    models = [keras.models.load_model(path) for path in (saved, target)]
    expected, found = (model.predict_on_batch(x) for model in models)
    np.testing.assert_array_equal(found, expected)
    assert os.listdir(tmp_path) == ["out.keras"]


@pytest.mark.parametrize("name", ["accelerate", "optimize"])
def test_a_model_that_predicts_otherwise_is_not_written(name, saved, stand_in, tmp_path, capsys):
    stand_in(scale)
    assert cli.main(line(name, saved, tmp_path / "out.keras")) == 1
    assert "the predictions differ by 1.0e-02" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_factorize_calls_the_difference_an_approximation(saved, stand_in, tmp_path, capsys):
    stand_in(scale)
    assert cli.main(line("factorize", saved, tmp_path / "out.keras")) == 0
    shown = capsys.readouterr().out
    assert "Approximation error: 1.0e-02" in shown
    assert "The same predictions" not in shown


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (("--rank", "2"), {"rank": 2}),
        (("--energy", "0.95"), {"energy": 0.95}),
        (("--max-error", "0.1"), {"max_error": 0.1}),
        (("--flops", "0.5"), {"flops": 0.5}),
        (("--flops", "4e6"), {"flops": 4_000_000}),
        (("--parameters", "1200"), {"parameters": 1200}),
    ],
)
def test_factorize_passes_the_budget_and_the_data_on(budget, expected, saved, stand_in, tmp_path):
    received = stand_in()
    np.save(tmp_path / "x.npy", np.ones((3, 8, 8, 3), "float32"))
    arguments = [str(saved), str(tmp_path / "out.keras"), "--data", str(tmp_path / "x.npy")]
    assert cli.main(["factorize", *arguments, *budget]) == 0
    (options,) = received
    assert options.pop("data").shape == (3, 8, 8, 3)
    assert options == expected


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ((), "one of the arguments"),
        (("--rank", "1", "--energy", "0.5"), "not allowed with argument"),
        (("--rank", "0"), "must be at least 1, received 0"),
        (("--energy", "1.5"), "at most 1, received 1.5"),
        (("--flops", "1.5"), "above 1 it must be a whole number, received 1.5"),
        (("--max-error", "nan"), "must be a number above 0, received nan"),
    ],
)
def test_a_wrong_budget_is_named(budget, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["factorize", "in.keras", "out.keras", *budget])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"no numbers", b""])
def test_data_of_another_kind_is_named(content, saved, stand_in, tmp_path, capsys):
    stand_in()
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    arguments = line("factorize", saved, tmp_path / "out.keras", "--data", str(path))
    assert cli.main(arguments) == 2
    assert f"{path} is not a .npy file with numbers" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_is_not_overwritten_unless_forced(name, saved, stand_in, tmp_path, capsys):
    stand_in()
    target = tmp_path / "out.keras"
    target.write_text("precious")
    assert cli.main(line(name, saved, target)) == 2
    assert f"{target} is there already; --force replaces it" in capsys.readouterr().err
    assert target.read_text() == "precious"
    assert cli.main(line(name, saved, target, "--force")) == 0
    assert zipfile.is_zipfile(target)


def test_the_model_itself_is_not_overwritten_unless_forced(saved, stand_in, tmp_path, capsys):
    stand_in()
    path = tmp_path / "model.keras"
    path.write_bytes(saved.read_bytes())
    arguments = line("accelerate", path, tmp_path / "." / "model.keras")
    assert cli.main(arguments) == 2
    assert "is the file to read, too" in capsys.readouterr().err
    assert path.read_bytes() == saved.read_bytes()
    assert cli.main([*arguments, "--force"]) == 0
    assert path.read_bytes() != saved.read_bytes()


def test_a_file_that_came_into_being_meanwhile_is_kept(saved, stand_in, tmp_path, capsys):
    target = tmp_path / "out.keras"
    stand_in(lambda model: target.write_text("somebody else's"))
    assert cli.main(line("accelerate", saved, target)) == 2
    assert "is there already" in capsys.readouterr().err
    assert target.read_text() == "somebody else's"
    assert os.listdir(tmp_path) == ["out.keras"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_interrupted_writing_leaves_no_file(
    error, saved, stand_in, keras, tmp_path, monkeypatch, capsys
):
    stand_in()

    def save(model, path):
        path.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(keras.Model, "save", save)
    code = cli.main(line("accelerate", saved, tmp_path / "out.keras"))
    assert code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert "out.keras" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def _zip(path, config):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)


NOT_MODELS = {
    "text": lambda path: path.write_text("I am no model"),
    "empty": lambda path: path.write_bytes(b""),
    "another archive": lambda path: zipfile.ZipFile(path, "w").close(),
    "no JSON": lambda path: _zip(path, "{"),
    "JSON of another kind": lambda path: _zip(path, "[1, 2]"),
    "no class": lambda path: _zip(path, "{}"),
    "unknown class": lambda path: _zip(
        path, json.dumps({"module": "my.code", "class_name": "Mine", "config": {}})
    ),
    "folder": lambda path: path.mkdir(),
    "missing": lambda path: None,
}


@pytest.mark.parametrize("kind", NOT_MODELS)
@pytest.mark.usefixtures("keras")
def test_what_is_no_model_gets_one_line_and_no_file(kind, tmp_path, stand_in, capsys):
    stand_in()
    source = tmp_path / "in.keras"
    NOT_MODELS[kind](source)
    before = os.listdir(tmp_path)
    assert cli.main(line("accelerate", source, tmp_path / "out.keras")) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"sepconv: {source}")
    assert "\n" not in said
    assert os.listdir(tmp_path) == before


def test_a_cut_off_file_gets_one_line_and_no_file(saved, stand_in, tmp_path, capsys):
    stand_in()
    source = tmp_path / "in.keras"
    source.write_bytes(saved.read_bytes()[:-100])
    assert cli.main(line("accelerate", source, tmp_path / "out.keras")) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert os.listdir(tmp_path) == ["in.keras"]


@pytest.mark.parametrize("name", COMMANDS)
def test_code_in_a_file_is_not_run(name, keras, stand_in, tmp_path, capsys):
    stand_in()
    mark = tmp_path / "it ran"
    layer = keras.layers.Lambda(lambda x, path=str(mark): (open(path, "w").close(), x)[1])
    source = tmp_path / "in.keras"
    keras.Sequential([keras.Input((4,)), layer]).save(source)
    mark.unlink()
    assert cli.main(line(name, source, tmp_path / "out.keras")) == 2
    said = capsys.readouterr().err.strip()
    assert "needs unsafe deserialization" in said
    assert "\n" not in said
    assert os.listdir(tmp_path) == ["in.keras"]


def test_other_names_and_folders_are_refused(saved, stand_in, tmp_path, capsys):
    stand_in()
    assert cli.main(["accelerate", str(saved), str(tmp_path / "out.h5")]) == 2
    assert "must end in .keras" in capsys.readouterr().err
    assert cli.main(["accelerate", str(saved), str(tmp_path / "no" / "out.keras")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    (tmp_path / "in.pb").write_bytes(b"")
    arguments = [str(tmp_path / "in.pb"), str(tmp_path / "out.keras")]
    assert cli.main(["accelerate", *arguments]) == 2
    assert "is not a .keras or .h5 file" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_an_old_file_becomes_a_new_one(suffix, saved, stand_in, keras, tmp_path):
    stand_in()
    model = keras.models.load_model(saved)
    model.save(tmp_path / f"in{suffix}")
    assert cli.main(line("accelerate", tmp_path / f"in{suffix}", tmp_path / "out.keras")) == 0
    x = np.ones((2, 8, 8, 3), "float32")
    again = keras.models.load_model(tmp_path / "out.keras")
    np.testing.assert_array_equal(again.predict_on_batch(x), model.predict_on_batch(x))


def test_what_is_no_old_model_gets_one_line(saved, stand_in, keras, tmp_path, capsys):
    stand_in()
    (tmp_path / "text.h5").write_text("I am no model")
    keras.models.load_model(saved).save_weights(tmp_path / "some.weights.h5")
    for name, message in (
        ("text.h5", "is not a Keras model"),
        ("some.weights.h5", "weights alone"),
    ):
        assert cli.main(line("accelerate", tmp_path / name, tmp_path / "out.keras")) == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith(f"sepconv: {tmp_path / name}")
        assert message in said
        assert "\n" not in said


# What Keras 2 wrote for a lambda: marshalled code, defaults and closure.
KERAS_2_LAMBDA = {"function_type": "lambda", "function": ["4wAA", None, None], "name": "lambda"}


@pytest.mark.parametrize("keras_2", [False, True])
def test_code_in_an_old_file_is_not_run(keras_2, keras, stand_in, tmp_path, capsys, monkeypatch):
    h5py = pytest.importorskip("h5py")
    stand_in()
    mark = tmp_path / "it ran"
    layer = keras.layers.Lambda(lambda x, path=str(mark): (open(path, "w").close(), x)[1])
    source = tmp_path / "in.h5"
    keras.Sequential([keras.Input((4,)), layer]).save(source)
    mark.unlink()
    if keras_2:
        with h5py.File(source, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            config["config"]["layers"][1]["config"] = KERAS_2_LAMBDA
            file.attrs["model_config"] = json.dumps(config)
    # Keras' own check is not what this relies on: older versions have none for these files.
    monkeypatch.setattr(keras.models, "load_model", lambda *_, **__: pytest.fail("was loaded"))
    assert cli.main(line("accelerate", source, tmp_path / "out.keras")) == 2
    assert "needs unsafe deserialization" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["in.h5"]


MODULE = """
import keras

@keras.saving.register_keras_serializable(package="{package}")
class Doubling(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


@pytest.fixture
def own(keras, tmp_path, monkeypatch):
    """`own(suffix)` saves a model with a layer of `own_layers.py`, which is no longer imported."""
    monkeypatch.chdir(tmp_path)

    def save(suffix, register=True):
        (tmp_path / "own_layers.py").write_text(MODULE.format(package="own"))

        class Doubling(keras.layers.Layer):
            def call(self, x):
                return 2 * x

        with keras.saving.CustomObjectScope({}):
            if register:
                Doubling = keras.saving.register_keras_serializable("own")(Doubling)
            layers = [keras.Input((4,)), Doubling(name="twice"), keras.layers.Dense(2)]
            keras.Sequential(layers).save(f"in{suffix}")
        keras.saving.get_custom_objects().pop("own>Doubling", None)

    yield save
    keras.saving.get_custom_objects().pop("own>Doubling", None)
    sys.modules.pop("own_layers", None)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_layer_of_ones_own_is_named_with_the_cure(suffix, own, stand_in, capsys):
    stand_in()
    own(suffix)
    arguments = line("accelerate", f"in{suffix}", "out.keras")
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert "the layer 'twice' of the class own>Doubling" in said
    assert "keras.saving.register_keras_serializable: --import MODULE" in said
    path = list(sys.path)
    assert cli.main([*arguments, "--import", "json", "--import", "own_layers"]) == 0
    assert sys.path == path
    assert os.path.isfile("out.keras")


def test_a_layer_that_was_never_registered_has_another_cure(own, stand_in, capsys):
    stand_in()
    own(".keras", register=False)
    assert cli.main(line("accelerate", "in.keras", "out.keras")) == 2
    said = capsys.readouterr().err
    assert "the layer 'twice' of the class Doubling" in said
    assert "keras.saving.get_custom_objects()['Doubling'] = Doubling: --import MODULE" in said


def test_explain_imports_modules_too(own, capsys):
    own(".keras")
    assert cli.main(["explain", "in.keras"]) == 2
    assert "--import MODULE" in capsys.readouterr().err
    assert cli.main(["explain", "in.keras", "--import", "own_layers"]) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "there is no module absent in "),
        ("own_layers.py", "Without the ending: own_layers"),
        ("broken", "broken fails with ZeroDivisionError: division by zero"),
        ("needy", "needy fails with ModuleNotFoundError: No module named 'absent'"),
    ],
)
def test_a_module_that_does_not_import_is_named(name, message, own, stand_in, tmp_path, capsys):
    stand_in()
    own(".keras")
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "needy.py").write_text("import absent")
    assert cli.main(line("accelerate", "in.keras", "out.keras", "--import", name)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("sepconv: --import: ")


def test_what_cannot_be_changed_is_told(saved, keras, monkeypatch, tmp_path, capsys):
    def refuse(model):
        raise ValueError("model cannot be cloned")

    monkeypatch.setattr(sepconv, "accelerate", refuse, raising=False)
    assert cli.main(line("accelerate", saved, tmp_path / "out.keras")) == 2
    assert "model cannot be cloned" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_another_engine_than_the_process_has_is_told(saved, keras, tmp_path, capsys, monkeypatch):
    other = "torch" if keras.backend.backend() == "jax" else "jax"
    monkeypatch.setenv("KERAS_BACKEND", os.environ["KERAS_BACKEND"])
    pytest.importorskip(other)
    arguments = line("accelerate", saved, tmp_path / "out.keras", "--engine", other)
    assert cli.main(arguments) == 2
    assert f"in this process, not {other}" in capsys.readouterr().err


def test_a_missing_engine_is_told_with_its_cure(saved, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "_installed", lambda module: module == "keras")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert cli.main(line("accelerate", saved, tmp_path / "out.keras")) == 2
    assert "pip install 'sepconv[jax]'" in capsys.readouterr().err


def test_random_inputs_follow_the_model(keras):
    from sepconv.models.verify import random_inputs

    inputs = {
        "picture": keras.Input((None, None, 3), name="picture"),
        "word": keras.Input((4,), dtype="int32", name="word"),
    }
    pooled = keras.layers.GlobalAveragePooling2D()(inputs["picture"])
    words = keras.layers.Flatten()(keras.layers.Embedding(2, 3)(inputs["word"]))
    model = keras.Model(inputs, keras.layers.Concatenate()([pooled, words]))
    drawn = random_inputs(model, batch=3, size=(5, 7))
    assert drawn["picture"].shape == (3, 5, 7, 3)
    assert drawn["word"].dtype == "int32"
    assert set(np.unique(drawn["word"])) <= {0, 1}
    again = random_inputs(model, batch=3, size=(5, 7))
    np.testing.assert_array_equal(drawn["picture"], again["picture"])
    assert model.predict_on_batch(drawn).shape == (3, 15)


def test_difference_is_relative_to_the_largest_and_never_hides_what_is_no_number(keras):
    from sepconv.models.verify import difference

    one, two = np.array([1.0, -4.0]), np.array([[100.0]])
    assert difference([one, two], [one, two + 25]) == 0.25
    assert difference([one], [np.array([1.0, np.nan])]) == np.inf
    assert difference([one * 0], [one]) == np.inf
    assert difference([one], [one[:1]]) == np.inf


def test_a_read_only_folder_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(files.FileError, match="cannot be written to"):
        files.check_target(tmp_path / "out.keras", force=True)


def test_a_model_of_integers(keras, tmp_path, capsys):
    x = keras.Input((3,), dtype="int32")
    y = keras.layers.Embedding(4, 8)(x)
    model = keras.Model(x, keras.layers.DepthwiseConv1D(2)(y))
    model.save(tmp_path / "in.keras")
    assert cli.main(line("accelerate", tmp_path / "in.keras", tmp_path / "out.keras")) == 0
    assert "The same predictions" in capsys.readouterr().out


def test_a_model_whose_predictions_are_random(keras, tmp_path, capsys):
    @keras.saving.register_keras_serializable("test")
    class Dice(keras.layers.Layer):
        def call(self, x):
            return x * os.urandom(1)[0]

    model = keras.Sequential(
        [keras.Input((8, 8, 3)), Dice(), keras.layers.DepthwiseConv2D(2, name="conv")]
    )
    model.save(tmp_path / "in.keras")
    assert cli.main(line("accelerate", tmp_path / "in.keras", tmp_path / "out.keras")) == 0
    assert "not compared: not verifiable" in capsys.readouterr().out
    assert (tmp_path / "out.keras").is_file()
