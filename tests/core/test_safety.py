"""What SECURITY.md promises of the sources: no pickle, and no file that may bring code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sepconv

ROOT = Path(__file__).parents[2]
FOLDERS = (Path(sepconv.__file__).parent, ROOT / "benchmarks", ROOT / "examples")
SOURCES = sorted(path for folder in FOLDERS for path in folder.rglob("*.py"))

#: Modules whose files run code when they are read.
FORBIDDEN = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


#: What may be, by the ends of paths. The reader is a `pickle.Unpickler` that knows four names and
#: refuses every other; rebuild.py goes by the config of a model that lives in the process.
ALLOWED = {
    "efficientnet_lite0/checkpoint.py": "pickle",
    "models/rebuild.py": "safe_mode is not True",
}


def _imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def _is(value, expected):
    return isinstance(value, ast.Constant) and value.value is expected


def _settings(node):
    """What a node sets by name: a call's keywords, a dictionary's items, parameters' defaults."""
    if isinstance(node, ast.Call):
        return [(keyword.arg, keyword.value) for keyword in node.keywords]
    if isinstance(node, ast.Dict):
        items = zip(node.keys, node.values, strict=True)
        return [(key.value, value) for key, value in items if isinstance(key, ast.Constant)]
    if isinstance(node, ast.FunctionDef):
        names = node.args.posonlyargs + node.args.args
        pairs = zip(reversed(names), reversed(node.args.defaults), strict=False)
        pairs = [*pairs, *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
        return [(name.arg, value) for name, value in pairs if value is not None]
    return []


def unsafe(source):
    """What in a program loads or writes what may carry code: the line and the reason."""
    found = []
    for node in ast.walk(ast.parse(source)):
        found += [(node.lineno, n) for n in _imported(node) if n.split(".")[0] in FORBIDDEN]
        settings = _settings(node)
        for name, value in settings:
            handed_on = isinstance(value, ast.Name) and value.id == name  # its default is checked
            if name == "safe_mode" and not (_is(value, True) or handed_on):
                found.append((node.lineno, "safe_mode is not True"))
            if name == "allow_pickle" and not _is(value, False):
                found.append((node.lineno, "allow_pickle is not False"))
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.endswith("enable_unsafe_deserialization"):
                found.append((node.lineno, called))
            if called == "torch.load" and not _is(dict(settings).get("weights_only"), True):
                found.append((node.lineno, "torch.load without weights_only=True"))
    return found


def test_all_sources_are_found():
    assert len(SOURCES) > 30
    assert any(path.name == "saving.py" for path in SOURCES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nothing_unsafe(path):
    allowed = ALLOWED.get("/".join(path.parts[-2:]))
    assert [item for item in unsafe(path.read_text()) if item[1] != allowed] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from marshal import loads",
        "import shelve as s",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "keras.saving.load_model(p, safe_mode=False)",
        "layer.from_config(c, safe_mode=flag)",
        "def load(path, safe_mode=False): ...",
        "options = {'safe_mode': None}",
        "keras.config.enable_unsafe_deserialization()",
        "np.load(p, allow_pickle=True)",
    ],
)
def test_what_is_unsafe_is_seen(source):
    assert len(unsafe(source)) == 1


def test_what_is_safe_is_not():
    assert unsafe("keras.models.load_model(p, safe_mode=True)") == []
    assert unsafe("torch.load(p, weights_only=True)") == []
    assert unsafe("def load(p, safe_mode=True): read(p, safe_mode=safe_mode)") == []
    assert unsafe("np.load(p, allow_pickle=False); import json") == []
