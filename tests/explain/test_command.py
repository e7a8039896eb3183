"""`sepconv explain`: the table, the picture, what is refused."""

import os

import pytest

from sepconv import cli


@pytest.mark.usefixtures("quick")
def test_it_prints_a_table_and_draws_a_picture(network, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    path, picture = tmp_path / "small.keras", tmp_path / "small.svg"
    network.save(path)
    assert cli.main(["explain", str(path), "--output", str(picture), "--batch", "3"]) == 0
    shown = capsys.readouterr().out
    for words in ("batch 3", "dw", "depthwise", "8x8x4", "floor ms", "time ms", "all of them"):
        assert words in shown
    for words in ("sepconv's kernels", "8x8x4", "tasks", "scratch KiB"):
        assert words in shown
    svg = picture.read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "prefers-color-scheme: dark" in svg
    for words in ("sep", "convolution", "floor", "milliseconds"):
        assert words in svg
    assert sorted(os.listdir(tmp_path)) == ["small.keras", "small.svg"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("width", [80, 110])
def test_no_column_is_cut(width, network, explain):
    from rich.console import Console

    from sepconv.explain import command

    console = Console(width=width, record=True)
    for part in command._shown(explain(network, 1, 8, 8, 4), width):
        console.print(part)
    shown = console.export_text()
    assert "…" not in shown
    assert all(f"  {name} " in shown for name in ("dw", "sep", "conv", "fc"))
    assert ("standard" in shown) == (width == 110)


def test_a_picture_is_not_overwritten_unless_forced(network, tmp_path, capsys):
    path, picture = tmp_path / "small.keras", tmp_path / "small.svg"
    network.save(path)
    picture.write_text("precious")
    arguments = ["explain", str(path), "--output", str(picture)]
    assert cli.main(arguments) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert picture.read_text() == "precious"
    assert cli.main([*arguments, "--force"]) == 0
    assert picture.read_text().startswith("<svg")


@pytest.mark.usefixtures("quick")
def test_a_size_is_taken_where_the_model_leaves_it_open(keras, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "open.keras"
    keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3)]).save(path)
    assert cli.main(["explain", str(path), "--size", "12x10"]) == 0
    assert "10x8x2" in capsys.readouterr().out
    assert cli.main(["explain", str(path), "--size", "2"]) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.usefixtures("keras", "quick")
def test_unknown_models_are_named(tmp_path, capsys):
    assert cli.main(["explain", "MobileNett"]) == 2
    said = capsys.readouterr().err
    assert "MobileNett is no file and not in keras.applications" in said
    assert "MobileNetV2" in said
    assert cli.main(["explain", str(tmp_path / "no.keras")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_wrong_usage_is_named(capsys):
    for option, message in (("--batch", "at least 1"), ("--size", "at least 1")):
        with pytest.raises(SystemExit) as ended:
            cli.main(["explain", "MobileNet", option, "0"])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_help_teaches_with_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["explain", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "sepconv explain MobileNet" in shown
    assert "multiply-adds" in shown
