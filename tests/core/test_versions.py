"""The tested versions: older ones are refused in one sentence, and pyproject.toml says the same."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sepconv.versions import TESTED, Versions, check

ROOT = Path(__file__).parents[2]
KERAS = Versions("Keras", "3.10", "3.15")
#: Distribution -> the name in `TESTED`.
MODULES = {"keras": "keras", "jax": "jax", "torch": "torch", "tensorflow-cpu": "tensorflow"}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("version", "place"),
    [
        ("2.15.0", -1),
        ("3.9.2", -1),
        ("3.10", 0),
        ("3.10.0rc1", 0),
        ("3.12.4", 0),
        ("3.15.1+local.7", 0),
        ("3.16.0", 1),
        ("3.100", 1),
        ("4.0", 1),
    ],
)
def test_a_version_has_a_place(version, place):
    assert KERAS.place(version) == place


def test_a_version_within_the_range_passes():
    for module, tested in TESTED.items():
        check(module, tested.oldest)
        check(module, tested.newest)
        check(module, "99.0")


def test_an_older_version_is_refused():
    with pytest.raises(ImportError, match=r"needs JAX 0\.5 or newer. Received: JAX 0\.4\.38\."):
        check("jax", "0.4.38")


@pytest.mark.parametrize(
    ("module", "version", "ours"),
    [
        ("keras", "2.15.0", "sepconv.layers"),
        ("torch", "2.5.1+cpu", "sepconv.torch"),
        ("tensorflow", "2.17.0", "sepconv.tensorflow"),
    ],
)
def test_importing_says_so_before_anything_else_fails(module, version, ours):
    code = f"""
import sys, types
sys.modules["{module}"] = fake = types.ModuleType("{module}")
fake.__version__, fake.__path__ = "{version}", []
import sepconv
try:
    import {ours}
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tested = TESTED[module]
    assert f"sepconv needs {tested.name} {tested.oldest} or newer" in done.stdout


def test_every_extra_asks_for_the_oldest_tested():
    found = {}
    for extra, wanted in project()["project"]["optional-dependencies"].items():
        for text in wanted:
            match = re.fullmatch(r"([\w-]+)>=([\d.]+)", text)
            if match and match[1] in MODULES:
                found.setdefault(match[1], set()).add((match[2], extra))
    assert set(found) == set(MODULES)
    for distribution, bounds in found.items():
        assert {bound for bound, _ in bounds} == {TESTED[MODULES[distribution]].oldest}, bounds


def test_the_middle_is_between_and_the_build_is_of_the_oldest_jaxlib():
    middle = (ROOT / "requirements" / "middle.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", middle, re.MULTILINE))
    assert set(pins) == set(MODULES)
    for distribution, version in pins.items():
        assert TESTED[MODULES[distribution]].place(version) == 0
    wheel = (ROOT / "requirements" / "wheel.txt").read_text(encoding="utf-8")
    assert f"jaxlib=={TESTED['jax'].oldest}.0" in wheel
    assert any(
        f"jaxlib=={TESTED['jax'].oldest}.0;" in r for r in project()["build-system"]["requires"]
    )
