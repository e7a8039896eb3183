"""`sepconv.quantize` of Keras models: predictions, files, programs, commands."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import sepconv
from sepconv import cli
from sepconv.layers import ProgramLayer
from sepconv.models import files, quantize_command
from sepconv.program import reference
from sepconv.program.program import Program
from sepconv.quantization.origin import NOTE, origin_of


def network(size=12):
    """A small network with most of what int8 knows, in the middle of training."""
    keras.utils.set_random_seed(0)
    x = keras.Input((size, size, 3), name="picture")
    y = layers.Conv2D(8, 3, 2, padding="same", use_bias=False, name="stem")(x)
    y = layers.ReLU(6.0, name="stem_relu")(layers.BatchNormalization(name="stem_norm")(y))
    z = layers.SeparableConv2D(8, 3, padding="same", activation="silu", name="block")(y)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(z)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(gate)
    z = layers.Conv2D(8, 1, name="project")(layers.Multiply(name="gated")([z, gate]))
    y = layers.Add(name="sum")([y, z])
    y = layers.GlobalAveragePooling2D(name="mean")(y)
    model = keras.Model(x, layers.Dense(5, "softmax", name="classes")(y), name="small")
    norm = model.get_layer("stem_norm")
    rng = np.random.default_rng(0)
    norm.set_weights([rng.uniform(0.5, 1.5, 8) for _ in range(4)])
    return model


def pictures(count=64, size=12):
    rng = np.random.default_rng(0)
    smooth = rng.standard_normal((count, size // 4, size // 4, 3)).repeat(4, 1).repeat(4, 2)
    return (smooth + 0.2 * rng.standard_normal((count, size, size, 3))).astype("float32")


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def made(model):
    return sepconv.quantize(model, pictures())


def test_it_predicts_nearly_the_same(model, made):
    x = pictures(32)[::-1]
    expected, found = model.predict(x, verbose=0), made.model.predict(x, verbose=0)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 0.05
    assert np.abs(found - expected).max() > 0
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.9


def test_all_but_the_softmax_is_int8(made):
    assert list(made.record.floats.values()) == ["softmax has no int8 form"]
    assert made.record.error < 0.05
    assert "blocks in int8" in str(made.record)
    assert made.model.name == "small_int8"
    assert [x.name for x in made.model.inputs] == ["picture"]


def test_logits_are_float_without_a_last_rounding(made):
    program = sepconv.compile(made.model)
    dense, softmax = program.network.steps[-2:]
    assert (dense.operation, softmax.operation) == ("dequantized_dense", "softmax")
    (line,) = (block for block in made.record if block.name == "classes" and block.int8)
    assert np.isnan([line.least, line.greatest]).all()
    assert line.decibels > 20
    # Each is a whole number times its class' scale.
    network = program.network._replace(
        steps=program.network.steps[:-1], outputs=[len(program.network.steps) - 1]
    )
    logits = Program(network)(pictures(16))
    numbers = logits / program.network.tensors[dense.weights["scale"]]
    np.testing.assert_allclose(numbers, np.rint(numbers), rtol=1e-6)
    assert len(np.unique(logits)) > 60
    np.testing.assert_array_equal(logits, reference.run(network, pictures(16))[0])


def test_it_saves_loads_and_compiles(made, tmp_path):
    x = pictures(4)
    expected = made.model.predict(x, verbose=0)
    made.model.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), expected)
    program = sepconv.compile(again)
    np.testing.assert_array_equal(program(x), expected)
    # Notes are kept; that of what its bytes stand for belongs to the network.
    assert list(program.notes) == [NOTE]
    origin_of(program.network, program.notes, "it")
    assert sepconv.compile(again, tune=True, verify=False).notes == program.notes
    program.save(tmp_path / "small.sepconv")
    loaded = sepconv.load(tmp_path / "small.sepconv")
    assert loaded.notes == program.notes
    np.testing.assert_array_equal(loaded(x), expected)
    before = sepconv.num_threads()
    try:
        for threads in (1, 2, 3):
            sepconv.set_num_threads(threads)
            np.testing.assert_array_equal(loaded(x), expected)
    finally:
        sepconv.set_num_threads(before)


def test_the_file_of_a_larger_network_is_a_third(tmp_path):
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(512, "relu"), layers.Dense(512, "relu"), layers.Dense(9)]
    )
    x = np.random.default_rng(0).standard_normal((64, 64))
    sepconv.compile(model).save(tmp_path / "float.sepconv")
    small = sepconv.quantize(model, x).model
    sepconv.compile(small).save(tmp_path / "int8.sepconv")
    sizes = [(tmp_path / f"{name}.sepconv").stat().st_size for name in ("float", "int8")]
    assert sizes[1] < 0.3 * sizes[0]


def test_calibration_is_what_fit_takes(model):
    x = pictures(16)

    class Pictures(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return x[8 * i : 8 * i + 8], np.zeros(8)

    a, b = (sepconv.quantize(model, given) for given in (x, Pictures()))
    np.testing.assert_array_equal(a.model.predict(x, verbose=0), b.model.predict(x, verbose=0))


def test_several_inputs_keep_their_names():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    y = layers.Concatenate()([layers.Dense(8, "relu")(a), layers.Dense(8, "gelu")(b)])
    model = keras.Model({"a": a, "b": b}, [layers.Dense(3)(y), layers.Dense(2)(y)])
    rng = np.random.default_rng(0)
    data = {name: rng.standard_normal((64, 6)).astype("float32") for name in "ab"}
    made = sepconv.quantize(model, data)
    expected = model.predict(data, verbose=0)
    found = made.model.predict([data["a"], data["b"]], verbose=0)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=0.06 * np.abs(other).max())


def test_a_program_gives_a_program(model):
    program = sepconv.compile(model)
    made = sepconv.quantize(program, pictures(), keep=["stem*"])
    assert made.record.floats["stem_relu"] == "as asked for"
    x = pictures(3)
    assert np.abs(made.model(x) - program(x)).max() < 0.05
    assert isinstance(made.model.network.tensors[0], np.ndarray)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"keep": "stem"}, TypeError, "keep must be a list of names. Received: keep='stem'"),
        ({"keep": ["no such"]}, ValueError, "'no such', which fits none"),
        ({"tolerance": "0.1"}, TypeError, "tolerance must be a number or None. Received: tol"),
        ({"tolerance": 0}, ValueError, "tolerance must be above 0. Received: tolerance=0"),
        ({"calibration": pictures()[:, 1:]}, ValueError, r"must have the shape \(None, 12, 12, 3"),
        ({"model": "mobilenet"}, TypeError, "model"),
    ],
)
def test_what_does_not_fit_is_refused(model, change, error, message):
    given = {"model": model, "calibration": pictures(4), **change}
    with pytest.raises(error, match=message):
        sepconv.quantize(given.pop("model"), given.pop("calibration"), **given)


def test_programs_of_float64_and_of_int8_are_refused(model, made):
    with pytest.raises(ValueError, match="quantize takes programs of float32"):
        sepconv.quantize(sepconv.compile(model, dtype="float64"), pictures(4))
    with pytest.raises(ValueError, match="Received: values of float32 and uint8"):
        sepconv.quantize(sepconv.compile(made.model), pictures(4))


# ---- the command


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "in.keras"
    model.save(path)
    np.save(path.parent / "x.npy", pictures())
    return path


@pytest.mark.parametrize("name", ["out.keras", "out.sepconv"])
def test_the_command_writes_what_the_function_makes(saved, made, tmp_path, name, capsys):
    target = tmp_path / name
    words = ["quantize", str(saved), str(target), "--calibration", str(saved.parent / "x.npy")]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert str(made.record).splitlines()[0] in printed
    assert "Written:" in printed
    x = pictures(4)
    if name.endswith(".sepconv"):
        found = sepconv.load(target)(x)
    else:
        found = keras.models.load_model(target).predict(x, verbose=0)
    np.testing.assert_array_equal(found, made.model.predict(x, verbose=0))
    assert cli.main(words) == 2  # it is there already
    assert cli.main([*words, "--force", "--keep", "block", "--tolerance", "0.5"]) == 0
    assert "as asked for" in capsys.readouterr().out


def test_pictures_of_a_folder_are_read(saved, tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures" / "more"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(0, 256, (20, 30, 3)).astype("uint8")
        image.fromarray(pixels).save((folder if i % 2 else folder.parent) / f"{i}.png")
    (folder / "notes.txt").write_text("no picture")
    found = quantize_command.examples_of(folder.parent, (None, 12, 12, 3), "-1..1")
    assert found.shape == (8, 12, 12, 3)
    assert found.dtype == np.float32
    assert -1 <= found.min() < -0.5 < 0.5 < found.max() <= 1
    plain = quantize_command.examples_of(folder.parent, (None, 12, 12, 3), "0..255")
    np.testing.assert_allclose(plain * 2 / 255 - 1, found, atol=1e-5)
    grey = quantize_command.examples_of(folder.parent, (None, 6, None, 1), "0..1")
    assert grey.shape == (8, 6, 224, 1)
    net = quantize_command.examples_of(folder.parent, (None, 12, 12, 3), "imagenet")
    np.testing.assert_allclose(
        net[..., 1], (plain[..., 1] / 255 - 0.456) / 0.224, rtol=1e-4, atol=1e-4
    )
    target = tmp_path / "out.sepconv"
    words = ["quantize", str(saved), str(target), "--calibration", str(folder.parent)]
    assert cli.main([*words, "--scale=-1..1"]) == 0
    assert target.exists()


def test_the_command_says_what_is_wrong(saved, tmp_path, capsys):
    def run(calibration, target="out.keras"):
        words = ["quantize", str(saved), str(tmp_path / target)]
        assert cli.main([*words, "--calibration", str(calibration)]) == 2
        assert not list(tmp_path.glob("out*"))
        return capsys.readouterr().err

    assert "there is no such file or folder" in run(tmp_path / "none")
    assert "there are no pictures in" in run(tmp_path)
    (tmp_path / "text.npy").write_text("no array")
    assert "is not a .npy file with numbers" in run(tmp_path / "text.npy")
    np.savez(tmp_path / "archive.npz", x=pictures(2))
    assert "is an archive of arrays" in run(tmp_path / "archive.npz")
    np.save(tmp_path / "small.npy", pictures(2)[:, 1:])
    assert "must have the shape (None, 12, 12, 3)" in run(tmp_path / "small.npy")
    assert "must end in .keras" in run(saved.parent / "x.npy", "out.h5")
    pytest.importorskip("PIL")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert "broken.png is not a picture" in run(tmp_path)
    with pytest.raises(files.FileError, match="are for models of one input"):
        quantize_command.examples_of(tmp_path, [(None, 4), (None, 4)], "0..1")


def test_the_layer_is_a_program_s():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    made = sepconv.quantize(model, np.eye(4))
    assert isinstance(made.model.layers[-1], ProgramLayer)
