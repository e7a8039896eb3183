"""The doctor: NumPy's kernels are right, what is missing or broken is told apart, and shown."""

import sys

import pytest

from sepconv import cli, doctor, isa_name
from sepconv.doctor import Finding
from sepconv.versions import TESTED

FINDINGS = [
    Finding("NumPy kernels", "ok", "loaded"),
    Finding("JAX", "missing", "not installed", "pip install 'sepconv[jax]'"),
]
BROKEN = Finding("PyTorch", "broken", "2.0, but sepconv.torch fails: no [symbol]", "build anew")


def test_machine_names_the_kernels_in_use():
    rows = dict(doctor.machine())
    assert isa_name() in rows["instruction set"]
    assert "logical core" in rows["processor"]
    assert set(dict(doctor.machine("torch"))) - set(rows) == {"PyTorch", "Keras"}


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("x86-64-v4-bf16", "up to twice float32's rate"),
        ("neon-bf16", "an instruction of its own"),
        ("neon-i8mm", "at its rate: neon-i8mm has no instruction for it"),
        ("x86-64-v4-vnni", "at its rate: x86-64-v4-vnni has no instruction for it"),
        ("x86-64-v4", "multiplied as float32, at its rate: x86-64-v4 has no instruction for it"),
    ],
)
def test_the_rate_in_bfloat16_is_the_level_s(level, said, monkeypatch):
    monkeypatch.setattr("sepconv.isa_name", lambda: level)
    rows = dict(doctor.machine())
    assert said in rows["bfloat16"]
    assert level in rows["instruction set"]


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("x86-64-v4-bf16", "up to four times float32's rate"),
        ("x86-64-v4-vnni", "an instruction of its own"),
        ("x86-64-v4", "in pairs: x86-64-v4 has no instruction for it"),
        ("neon", "in pairs: neon has no instruction for it"),
        ("neon-dotprod", "an instruction of its own"),
        ("neon-i8mm", "an instruction of its own"),
        ("neon-bf16", "up to four times float32's rate"),
    ],
)
def test_the_rate_in_int8_is_the_level_s(level, said, monkeypatch):
    monkeypatch.setattr("sepconv.isa_name", lambda: level)
    assert said in dict(doctor.machine())["int8"]


def test_numpy_is_right_in_a_process_of_its_own():
    error, problem = doctor._probe_apart("numpy")
    assert problem == ""
    assert 0 < error < 1e-6


def test_an_adapter_that_fails_is_broken_and_says_why():
    finding = doctor._examine_adapter("nonsense", "Nonsense", "1.0", "mend it so")
    assert finding.state == "broken"
    assert "ValueError" in finding.found
    assert "Received: 'nonsense'" in finding.found
    assert finding.mend == "mend it so"


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_a_wrong_result_is_broken(error, monkeypatch):
    monkeypatch.setattr(doctor, "_probe_apart", lambda engine: (error, ""))
    assert doctor._examine_adapter("jax", "JAX", "1.0", "").state == "broken"


def test_an_engine_that_is_not_there_is_missing_and_not_broken(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    finding = doctor._examine_engine("torch")
    assert finding.state == "missing"
    assert finding.mend == "pip install 'sepconv[torch]'"


UNTESTED = [
    ("keras", "3.9.2", "is older than what is tested: 3.10 to 3.15"),
    ("keras", "3.16.0", "is newer than what is tested: 3.10 to 3.15"),
    ("jax", "0.11.0", "is newer than what is tested: 0.5 to 0.10"),
    ("torch", "2.14.0+cpu", "is newer than what is tested: 2.6 to 2.13"),
    ("tensorflow-cpu", "2.17.1", "is older than what is tested: 2.18 to 2.21"),
]


def _examine(distribution, version, error, monkeypatch):
    """What the doctor says where one thing is installed, and computes with an error."""
    monkeypatch.setattr(doctor, "_version", lambda *names: version)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(doctor, "_probe_apart", lambda engine: (error, "it crashed"))
    if distribution == "keras":
        return doctor._examine_keras()
    return doctor._examine_engine(distribution.removesuffix("-cpu"))


@pytest.mark.parametrize(("distribution", "version", "said"), UNTESTED)
def test_a_version_outside_of_the_tested_ones_is_untested(distribution, version, said, monkeypatch):
    finding = _examine(distribution, version, 1e-7, monkeypatch)
    assert finding.state == "untested"
    assert f"{version} {said}" in finding.found
    assert f"pip install '{distribution}~={said.rsplit(maxsplit=1)[1]}.0'" in finding.mend


@pytest.mark.parametrize("module", TESTED)
def test_a_tested_version_is_well_and_says_the_range(module, monkeypatch):
    for version in (TESTED[module].oldest, f"{TESTED[module].newest}.1+cpu"):
        finding = _examine(module, version, 1e-7, monkeypatch)
        assert finding.state == "ok"
        assert finding.found.startswith(version)
        assert finding.found.endswith(f"; tested: {TESTED[module]}")
        assert finding.mend == ""


def test_a_broken_engine_of_an_untested_version_is_broken(monkeypatch):
    finding = _examine("jax", "0.11.0", None, monkeypatch)
    assert finding.state == "broken"
    assert "it crashed" in finding.found
    assert "0.11.0 is newer than what is tested" in finding.found
    assert "pip install" in finding.mend


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        (FINDINGS, 0),
        ([*FINDINGS, BROKEN], 1),
        ([*FINDINGS, Finding("Keras", "untested", "9.0", "take 3")], 0),
    ],
)
def test_doctor_fails_only_for_what_is_broken(findings, code, monkeypatch, capsys):
    monkeypatch.setattr("sepconv.doctor.examine", lambda: findings)
    assert cli.main(["doctor"]) == code
    shown = capsys.readouterr().out
    for what, state, *_ in findings:
        assert what in shown
        assert state in shown
    assert "pip install 'sepconv[jax]'" in shown


def test_doctor_needs_no_rich(monkeypatch, capsys):
    monkeypatch.setattr("sepconv.doctor.examine", lambda: [*FINDINGS, BROKEN])
    monkeypatch.setitem(sys.modules, "rich", None)
    assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ok", "NumPy", "kernels", "loaded"]
    assert lines[-2].endswith("no [symbol]")
