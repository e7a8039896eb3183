"""The doctor: NumPy's kernels are right, and what is missing or broken is told apart."""

import pytest

from sepconv import doctor, isa_name


def test_machine_names_the_kernels_in_use():
    rows = dict(doctor.machine())
    assert isa_name() in rows["instruction set"]
    assert "logical core" in rows["processor"]
    assert set(dict(doctor.machine("torch"))) - set(rows) == {"PyTorch", "Keras"}


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
