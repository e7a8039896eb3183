"""`sepconv compile` and `sepconv run`: what they refuse, write and say."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import programs

import sepconv
from sepconv import cli
from sepconv.program import file
from sepconv.program.network import Input, Network, Step
from sepconv.program.program import Program


@pytest.fixture(scope="module")
def saved(keras, tmp_path_factory):
    """A small network's file."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, "relu"), layers.Dense(2)])
    path = tmp_path_factory.mktemp("model") / "in.keras"
    model.save(path)
    return path


@pytest.fixture
def stand_in(monkeypatch):
    """`stand_in(factor)` compiles such a network, with weights that are `factor` times its own."""
    received = []

    def install(factor=1.0):
        def compile(model, *, dtype=None, tune=False):
            received.append((dtype, tune))
            dtype = "float64" if dtype == "float64" else "float32"
            tensors = [factor * np.asarray(w, dtype) for w in model.get_weights()]
            steps = [
                Step("dense", layer.name, (i,), {"activation": activation}, weights)
                for i, (layer, activation, weights) in enumerate(
                    zip(
                        model.layers,
                        ("relu", "none"),
                        ({"kernel": 0, "bias": 1}, {"kernel": 2, "bias": 3}),
                        strict=True,
                    )
                )
            ]
            return Program(
                Network(dtype, (Input("x", (None, 8)),), steps, (2,), ("logits",), tensors)
            )

        monkeypatch.setitem(vars(sepconv), "compile", compile)
        return received

    return install


@pytest.fixture
def every(tmp_path):
    """The file of a program of two outputs, and the input's array beside it."""
    path = tmp_path / "every.sepconv"
    file.write(path, programs.every_operation())
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((2, 8, 8, 3), "float32"))
    return path


def run(path, inputs=(), outputs=(), *more):
    folder = path.parent
    words = ["run", str(path)]
    words += [word for name in inputs for word in ("--input", str(folder / name))]
    words += [word for name in outputs for word in ("--output", str(folder / name))]
    return cli.main([*words, *more])


# ---- compile


def test_it_writes_a_program_that_loads_and_says_how_far_apart_they_are(
    saved, stand_in, keras, tmp_path, capsys
):
    received = stand_in()
    target = tmp_path / "out.sepconv"
    assert cli.main(["compile", str(saved), str(target)]) == 0
    assert "The same predictions: on made-up input they differ by" in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["out.sepconv"]
    x = np.random.default_rng(0).standard_normal((3, 8), "float32")
    expected = keras.models.load_model(saved).predict_on_batch(x)
    np.testing.assert_allclose(sepconv.load(target)(x), expected, rtol=1e-5, atol=1e-6)
    assert cli.main(["compile", str(saved), str(target), "--force", "--dtype", "float64"]) == 0
    assert sepconv.load(target).dtype == "float64"
    assert cli.main(["compile", str(saved), str(target), "--force", "--tune"]) == 0
    assert received == [(None, False), ("float64", False), (None, True)]


def test_a_program_that_predicts_otherwise_is_not_written(saved, stand_in, tmp_path, capsys):
    stand_in(1.01)
    assert cli.main(["compile", str(saved), str(tmp_path / "out.sepconv")]) == 1
    assert "of the largest, more than 1e-04" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_program_of_bfloat16_may_differ_by_its_roundings(saved, stand_in, tmp_path, capsys):
    received = stand_in(1.01)
    arguments = ["compile", str(saved), str(tmp_path / "out.sepconv"), "--dtype", "bfloat16"]
    assert cli.main(arguments) == 0
    assert "(allowed: 6e-02)" in capsys.readouterr().out
    assert received == [("bfloat16", False)]
    stand_in(1.1)
    assert cli.main([*arguments, "--force"]) == 1
    assert "of the largest, more than 6e-02" in capsys.readouterr().err


def test_what_cannot_be_compiled_is_named(saved, tmp_path, monkeypatch, capsys):
    def refuse(model, dtype, tune):
        raise ValueError("the layer 'words' (Embedding) is not known")

    monkeypatch.setitem(vars(sepconv), "compile", refuse)
    assert cli.main(["compile", str(saved), str(tmp_path / "out.sepconv")]) == 2
    assert f"{saved}: the layer 'words' (Embedding)" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("keras")
def test_wrong_files_are_named(saved, tmp_path, capsys):
    (tmp_path / "there.sepconv").write_text("precious")
    (tmp_path / "text.keras").write_text("text")
    for source, target, message in (
        (saved, "out.keras", "the file to write must end in .sepconv"),
        (saved, "there.sepconv", "--force replaces it"),
        (saved, "no/out.sepconv", "there is no folder"),
        (tmp_path / "no.keras", "out.sepconv", "no such file"),
        (tmp_path / "text.keras", "out.sepconv", "is not a Keras model"),
        (tmp_path / "there.sepconv", "out.sepconv", "is not a .keras or .h5 file"),
    ):
        assert cli.main(["compile", str(source), str(tmp_path / target)]) == 2
        assert message in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["text.keras", "there.sepconv"]
    assert (tmp_path / "there.sepconv").read_text() == "precious"


# ---- run


def test_it_writes_what_the_program_gives_and_times_it(every, capsys):
    assert run(every, ["x.npy"], ["y.npy", "z.npy"], "--repeat", "3") == 0
    shown = capsys.readouterr().out
    assert "y: 2x5 float32" in shown
    assert "größe: 2x9x9x4 float32" in shown
    assert f"ms a run, the median of 3, on {sepconv.num_threads()} thread" in shown
    assert sepconv.isa_name() in shown
    expected = sepconv.load(every)(np.load(every.parent / "x.npy"))
    for name, array in zip(("y.npy", "z.npy"), expected, strict=True):
        np.testing.assert_array_equal(np.load(every.parent / name), array)


def test_an_output_that_is_there_is_not_replaced_unless_forced(every, capsys):
    (every.parent / "y.npy").write_text("precious")
    arguments = (every, ["x.npy"], ["y.npy", "z.npy"])
    assert run(*arguments) == 2
    assert "y.npy is there already; --force replaces it" in capsys.readouterr().err
    assert (every.parent / "y.npy").read_text() == "precious"
    assert not (every.parent / "z.npy").exists()
    assert run(*arguments, "--force") == 0
    assert np.load(every.parent / "y.npy").shape == (2, 5)


def test_it_needs_no_keras(every):
    words = ["run", str(every), "--input", str(every.parent / "x.npy")]
    code = f"import sys; from sepconv import cli; print(cli.main({words!r}), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    printed = done.stdout.splitlines()[-1].split()
    assert printed[0] == "0"
    assert not {"keras", "jax", "torch", "tensorflow"} & set(printed)


def test_arrays_that_do_not_fit_are_named(every, capsys):
    folder = every.parent
    np.save(folder / "small.npy", np.ones((2, 7, 8, 3)))
    np.save(folder / "words.npy", np.array(["a"]))
    np.save(folder / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(folder / "several.npz", a=np.ones(3))
    (folder / "text.npy").write_text("text")
    (folder / "empty.npy").write_bytes(b"")
    for inputs, outputs, message in (
        ([], [], "has 1 input: x ?x8x8x3. Give --input as often. Received: 0"),
        (["x.npy", "x.npy"], [], "has 1 input"),
        (["x.npy"], ["y.npy"], "has 2 outputs: y ?x5, größe ?x9x9x4. Give --output as often"),
        (["x.npy"], ["y.txt", "z.npy"], "the file to write must end in .npy"),
        (["x.npy"], ["no/y.npy", "z.npy"], "there is no folder"),
        (["small.npy"], [], "every.sepconv: "),
        (["words.npy"], [], "must hold numbers"),
        (["objects.npy"], [], "objects.npy is not a .npy file with numbers"),
        (["several.npz"], [], "is an archive of arrays: save one alone"),
        (["text.npy"], [], "text.npy is not a .npy file with numbers"),
        (["empty.npy"], [], "empty.npy is not a .npy file with numbers"),
        (["none.npy"], [], "none.npy is not a .npy file with numbers"),
    ):
        assert run(every, inputs, outputs) == 2
        assert message in capsys.readouterr().err


def test_files_that_are_no_programs_are_named(every, capsys):
    raw = every.read_bytes()
    every.write_bytes(raw[:-1])
    assert run(every, ["x.npy"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"sepconv: {every}: it is cut short")
    assert run(every.parent / "no.sepconv", ["x.npy"]) == 2
    assert "no.sepconv cannot be read: No such file" in capsys.readouterr().err


def test_what_stops_it_is_told(every, monkeypatch, capsys):
    for error, code, message in (
        (MemoryError, 1, "there is not enough memory"),
        (KeyboardInterrupt, 130, "stopped."),
    ):

        def stop(*_, error=error):
            raise error

        monkeypatch.setattr(Program, "__call__", stop)
        assert run(every, ["x.npy"]) == code
        assert message in capsys.readouterr().err


def test_a_full_disk_leaves_nothing(every, monkeypatch, capsys):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    assert run(every, ["x.npy"], ["y.npy", "z.npy"]) == 2
    assert "y.npy cannot be written: No space left on device" in capsys.readouterr().err
    assert sorted(os.listdir(every.parent)) == ["every.sepconv", "x.npy"]
