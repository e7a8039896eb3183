"""Opening a program's file: what it computes, and that its notes change nothing of that."""

import json

import numpy as np
import pytest
from helpers import programs

import sepconv
from sepconv.program import file
from sepconv.program.network import Input
from sepconv.program.program import Program, Tuning

X = np.random.default_rng(0).standard_normal((2, 40, 12, 16), "float32")


def test_the_file_computes_what_its_network_does(tmp_path):
    path, network = tmp_path / "a.sepconv", programs.every_operation()
    file.write(path, network)
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3), "float32")
    for found, expected in zip(sepconv.load(path)(x), Program(network)(x), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        (json.dumps(Tuning(0, 1024, 4)._asdict()), Tuning(0, 1024, 4)),
        (json.dumps(Tuning(-1, 0, 1)._asdict()), Tuning(-1, 0, 1)),
        (json.dumps(Tuning(0, 2**41, 4)._asdict()), None),
        (json.dumps(Tuning(0, True, 4)._asdict()), None),
        (json.dumps(Tuning(0, 1.5, 4)._asdict()), None),
        (json.dumps({"most_links": 4}), None),
        (json.dumps([0, 1024, 4]), None),
        ("[" * 10**5, None),
        ("9" * 10**4, None),
        ("", None),
    ],
)
def test_no_note_changes_a_bit(note, expected, tmp_path):
    path, network = tmp_path / "a.sepconv", programs.blocks()
    file.write(path, network, {"tuning": note})
    program = sepconv.load(path)
    assert program.tuning == expected
    alone = [report.seconds > 0 for report in program.profile(X)]
    assert all(alone) == (expected is None or expected.most_links < 2)
    assert program.notes == {"tuning": note}
    np.testing.assert_array_equal(program(X), Program(network)(X))


def test_a_network_whose_shapes_do_not_fit_is_refused_by_the_files_name(tmp_path):
    path, network = tmp_path / "a.sepconv", programs.blocks()
    file.write(path, network._replace(inputs=(Input("x", (None, None, 12, 5)),)))
    with pytest.raises(ValueError) as error:
        sepconv.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "first" in str(error.value)
