"""Imports: light, and in one direction, from the kernels up to the command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import sepconv

ENGINES = ("jax", "torch", "tensorflow")
ROOT = Path(sepconv.__file__).parent

#: From the lowest to the highest; a file may import its own layer and lower ones.
LAYERS = (
    ("_native", "_xla", "_types", "_commands", "_hold", "_imports", "versions"),
    ("arrays", "arguments", "geometry", "reference"),
    ("convolution", "functional", "fused", "pointwise", "prepared", "quantized"),
    ("program",),
    ("quantization",),
    ("onnx_file",),
    ("engines",),
    ENGINES,
    ("layers",),
    ("_registration",),
    ("doctor",),
    ("models", "modules", "quantization.quantize"),
    ("bench", "demo"),
    ("explain", "program.command"),
    ("cli",),
)


def _run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_import_brings_in_no_engine():
    loaded = _run("import sys, sepconv; print(*sorted(sys.modules))").split()
    for name in (*ENGINES, "keras", "jaxlib", "scipy", "matplotlib", "rich"):
        assert name not in loaded
    assert "sepconv.functional" in loaded


def test_import_is_quick():
    code = (
        "import numpy, time; start = time.process_time(); import sepconv; "
        "print(time.process_time() - start)"
    )
    assert min(float(_run(code)) for _ in range(3)) < 0.2


def _level(name):
    """The layer of ``sepconv.<name>...``; None for the package itself, which re-exports."""
    first = name.split(".")[0]
    for whole in (name, first):  # a file may be in another layer than its folder
        for level, names in enumerate(LAYERS):
            if whole in names:
                return level
    raise AssertionError(f"sepconv.{first} belongs to no layer; add it to LAYERS.")


def _imported(path):
    """The sepconv modules that a file imports, anywhere in it, without the leading 'sepconv.'."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # 'from sepconv import x' may import a module or a name: modules are what counts.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.module == "sepconv":
                names = [n for n in names if _is_module(n)]
        else:
            continue
        yield from (n.removeprefix("sepconv.") for n in names if n.startswith("sepconv."))


def _is_module(name):
    base = ROOT.joinpath(*name.split(".")[1:])
    return base.is_dir() or any(base.parent.glob(f"{base.name}.*"))


def _files():
    for path in sorted(ROOT.rglob("*.py")):
        if path != ROOT / "__init__.py":
            yield path, ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_no_file_imports_a_higher_layer():
    checked = 0
    for path, name in _files():
        for other in _imported(path):
            checked += 1
            assert _level(other) <= _level(name), f"{name} imports sepconv.{other}"
    assert checked > 10


def test_every_name_in_layers_is_there():
    for name in (name for names in LAYERS for name in names):
        # Built only where jaxlib was there for it.
        assert name == "_xla" or _is_module(f"sepconv.{name}"), name


def _engine_of(name):
    """The engine whose module ``sepconv.<name>`` is; None for what serves every engine."""
    parts = name.split(".")
    engine = parts[1] if parts[0] == "engines" else parts[0]
    return engine if engine in ENGINES else None


def test_an_engine_imports_no_other():
    checked = dict.fromkeys(ENGINES, 0)
    for path, name in _files():
        engine = _engine_of(name)
        if engine is None:
            continue
        checked[engine] += 1
        others = set(ENGINES) - {engine}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            assert not {n.split(".")[0] for n in names} & others, name
        assert not {_engine_of(n) for n in _imported(path)} & others, name
    assert min(checked.values()) > 4, checked


def test_below_the_engines_nothing_imports_one():
    for path, name in _files():
        if _level(name) < _level("engines"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    for alias in node.names:
                        assert alias.name.split(".")[0] not in (*ENGINES, "keras"), name
