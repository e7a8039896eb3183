"""`sepconv explain` of a program: the numbers, the table, what is refused."""

import re

import numpy as np
import pytest
from helpers import programs

import sepconv
from sepconv import cli
from sepconv.explain.programs import example_inputs, explain_program
from sepconv.program import file
from sepconv.program.network import Input, Network, Step
from sepconv.program.program import Program


@pytest.fixture
def path(tmp_path):
    file.write(tmp_path / "every.sepconv", programs.every_operation())
    return tmp_path / "every.sepconv"


def test_the_numbers_are_those_of_the_steps(path, machine):
    program = sepconv.load(path)
    arrays = [np.ones((2, 8, 8, 3), "float32")]
    found = explain_program("every", program, arrays, machine, 0.0)
    assert [row.operation for row in found.rows] == [
        step.operation for step in programs.every_operation().steps
    ]
    block = found.rows[1]
    assert block.name == "the convolution 1"
    assert block.shape == (2, 9, 9, 4)
    assert block.multiply_adds == 2 * 81 * (6 * 9 + 6 * 4)
    assert block.floor == 2 * block.multiply_adds / machine.peak
    assert block.weight_bytes == 4 * (54 + 6 + 24 + 4)
    dense = next(row for row in found.rows if row.operation == "dense")
    assert dense.multiply_adds == 2 * 3 * 5
    assert found.rows[0].floor == 0
    assert found.seconds > 0
    assert found.input_shapes == [(2, 8, 8, 3)]
    assert found.memory.weights > 0
    assert (found.threads, found.level) == (sepconv.num_threads(), sepconv.isa_name())


def test_open_sizes_are_filled_in_order(tmp_path):
    steps = (Step("unary", "", (0,), {"function": "exp", "a": 0.0, "b": 0.0, "c": 0.0}),)
    inputs = (Input("x", (None, None, None, 3)), Input("y", (4, 2)))
    file.write(tmp_path / "a.sepconv", Network("float64", inputs, steps, (2,), ("z",), ()))
    program = sepconv.load(tmp_path / "a.sepconv")
    for options, shape in (
        ((), (1, 64, 64, 3)),
        ((4, (5,)), (4, 5, 5, 3)),
        ((4, (5, 6)), (4, 5, 6, 3)),
    ):
        x, y = example_inputs(program, *options)
        assert (x.shape, y.shape, x.dtype) == (shape, (4, 2), "float64")
    with pytest.raises(ValueError, match="the input y has a batch of 4, not of 2"):
        example_inputs(program, 2)


@pytest.mark.usefixtures("quick")
def test_it_prints_a_table(path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert cli.main(["explain", str(path), "--batch", "3"]) == 0
    shown = " ".join(capsys.readouterr().out.split())  # a long path wraps the title
    for words in ("on 3x8x8x3", "the convolution 1", "9x9x4", "floor ms", "all of them"):
        assert words in shown
    assert "weights KiB" in shown
    assert f"of {sepconv.isa_name()}." in shown
    assert "MiB of packed weights" in shown


def test_steps_of_int8_say_how_they_go(machine):
    program = Program(programs.quantized())
    found = explain_program("int8", program, [np.ones((2, 12, 10, 3), "float32")], machine, 0.0)
    plans = {row.operation: row.plan for row in found.rows}
    products = [row for row in found.rows if row.multiply_adds]
    ordinary, separable, depthwise, dense, floats, head = products
    assert re.fullmatch(r"patches in \d+ tasks? of \d+ pixels? by 16 filters", ordinary.plan)
    cut = r"x\d+ in (\d+) tasks? of (\d+) rows?"
    assert re.fullmatch(f"tiles small of 2{cut}", separable.plan)
    found_rows = re.fullmatch(rf"depthwise small of (\d+){cut}", depthwise.plan)
    assert found_rows is not None
    rows, tasks, most = map(int, found_rows.groups())
    assert (rows, tasks * most >= 2 * 6) == (1, True)
    assert re.fullmatch(r"product in \d+ tasks? of 2 pixels by 7 filters", dense.plan)
    assert re.fullmatch(r"product in \d+ tasks? of 2 pixels by 5 filters", floats.plan)
    assert re.fullmatch(f"tiles small of 2{cut}", head.plan)
    assert plans["lookup"] == plans["dequantize"] == ""
    # Their floor is of int8's arithmetic.
    rates = [row.floor / row.multiply_adds for row in products]
    assert rates == pytest.approx([rates[0]] * 6)
    assert dense.floor != 2 * dense.multiply_adds / machine.peak


@pytest.mark.usefixtures("quick")
def test_a_model_that_is_a_program_is_shown_as_one(keras, tmp_path, capsys):
    program = Program(programs.quantized())
    inputs = keras.Input((12, 10, 3))
    model = keras.Model(inputs, sepconv.layers.ProgramLayer(program)(inputs))
    model.save(tmp_path / "int8.keras")
    assert cli.main(["explain", str(tmp_path / "int8.keras"), "--batch", "2"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "a program, on 2x12x10x3" in shown
    assert "tiles small of 2x" in shown
    picture = ["--output", str(tmp_path / "a.svg")]
    assert cli.main(["explain", str(tmp_path / "int8.keras"), *picture]) == 2
    assert "--output is for models of layers" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_what_is_no_program_and_what_is_for_models_is_named(path, capsys):
    for option in (["--output", "a.svg"], ["--engine", "jax"], ["--import", "mine"]):
        assert cli.main(["explain", str(path), *option]) == 2
        assert f"{option[0]} is for Keras models" in capsys.readouterr().err
    assert cli.main(["explain", str(path.parent / "no.sepconv")]) == 2
    assert "no.sepconv cannot be read: No such file" in capsys.readouterr().err
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    assert cli.main(["explain", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"sepconv: {path}: it is cut short")


@pytest.mark.usefixtures("quick")
def test_a_program_that_does_not_take_what_is_made_for_it_is_named(tmp_path, capsys):
    step = Step("reshape", "", (0,), {"shape": (7, -1)})
    network = Network("float32", (Input("x", (None, 7)),), (step,), (1,), ("y",), ())
    file.write(tmp_path / "a.sepconv", network)
    capsys.readouterr()
    assert cli.main(["explain", str(tmp_path / "a.sepconv"), "--batch", "3"]) == 0
    step = Step("dense", "", (0,), {"activation": "none"}, {"kernel": 0})
    kernel = np.ones((128, 2), "float32")
    network = Network("float32", (Input("x", (None, None)),), (step,), (1,), ("y",), (kernel,))
    file.write(tmp_path / "b.sepconv", network)
    assert cli.main(["explain", str(tmp_path / "b.sepconv")]) == 2
    assert capsys.readouterr().err.startswith(f"sepconv: {tmp_path / 'b.sepconv'}: ")
