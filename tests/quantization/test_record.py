"""The record of a quantisation, as text and as a picture."""

import math

import pytest

from sepconv.quantization.record import Block, Record

BLOCKS = [
    Block("first", "convolution", True, "", -1.0, 6.0, 31.25, 0.75, 0.5),
    Block("mix", "dense", False, "as asked for", math.nan, math.nan, math.inf, 0.25, 0.25),
    Block("classes", "softmax", False, "softmax has no int8 form", *[math.nan] * 3, 0.0, 0.25),
]


@pytest.fixture
def record():
    return Record(
        BLOCKS,
        error=0.0123,
        examples=16,
        equalised=True,
        corrected=False,
        adapted=False,
        refined=False,
    )


def test_it_is_a_sequence(record):
    assert len(record) == 3
    assert record[0].name == "first"
    assert list(record[1:]) == BLOCKS[1:]
    assert record.floats == {"mix": "as asked for", "classes": "softmax has no int8 form"}


def test_it_prints_a_line_a_block(record):
    lines = str(record).splitlines()
    assert lines[0] == (
        "quantize: 1 of 3 blocks in int8, 75 % of the multiply-adds; error 1.2 % on 16 examples"
    )
    assert lines[1] == "channels equalised"
    heads = "layer operation as least greatest noise dB % of work % of time"
    assert lines[2].split() == heads.split()
    assert lines[3].split() == ["first", "convolution", "int8", "-1", "6", "31.2", "75.0", "50.0"]
    assert lines[4].endswith("25.0  as asked for")
    assert "nan" not in str(record)
    assert repr(record) == "<Record of 3 blocks, error 0.0123>"


def test_it_draws_the_noise(record, tmp_path):
    pytest.importorskip("matplotlib")
    figure = record.plot(tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size > 1000
    (axes,) = figure.axes
    assert "1.23%" in axes.get_title()
    (bar,) = [bar for bar in axes.patches if bar.get_height()]
    assert bar.get_height() == pytest.approx(31.25)


def test_the_record_of_a_trained_network_knows_no_error():
    import json

    block = Block("conv", "convolution", True, "", 0.0, 6.0, math.inf, 1.0, 0.5)
    other = Block("soft", "softmax", False, "no form", math.nan, math.nan, 3.0, 0.0, 0.5)
    how = {"equalised": True, "corrected": False, "adapted": True, "refined": False}
    record = Record([block, other], error=0.25, examples=8, **how)
    config = json.loads(json.dumps(record.as_config(), allow_nan=False))
    trained = Record.of_trained(config)
    assert trained.trained
    assert math.isnan(trained.error)
    assert all(math.isnan(each.decibels) for each in trained)
    assert trained[0][:6] == block[:6]
    assert math.isnan(trained[1].least)
    assert trained.floats == record.floats
    assert {name: getattr(trained, name) for name in how} == how
    assert "trained since, so the error is not known" in str(trained)
