"""`import sepconv` makes Keras know the layers, before Keras or after it, and never breaks Keras.

Keras and the layers are stand-ins here; `tests/layers/test_saving.py` has the real ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import sepconv

#: What `sepconv.layers` is replaced by: it notes in what state it found Keras.
LAYERS = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "sepconv.layers":
            from importlib.machinery import ModuleSpec
            return ModuleSpec(name, self)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        import keras
        keras.registered = getattr(keras, "registered", 0) + 1
        {layers}
sys.meta_path.insert(0, Finder())
"""


def run(folder, program, keras="complete = True", layers="", **files):
    """Runs a program beside a stand-in for Keras; returns what it prints and what it warns of."""
    (folder / "keras.py").write_text(textwrap.dedent(keras))
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    code = LAYERS.format(layers=layers) + textwrap.dedent(program)
    path = os.pathsep.join([str(folder), str(Path(sepconv.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    "program",
    [
        "import sepconv, keras",
        "import keras, sepconv",
        "import importlib, sepconv; importlib.reload(sepconv); import keras",
        "import importlib, sepconv, keras; importlib.reload(keras); importlib.reload(sepconv)",
        "import importlib.util, sepconv; assert importlib.util.find_spec('keras'); import keras",
        "import sepconv.layers, keras",
        "import threading, sepconv\n"
        "threads = [threading.Thread(target=__import__, args=('keras',)) for _ in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "import keras",
    ],
)
def test_the_layers_are_registered_once(program, tmp_path):
    shown, warned = run(tmp_path, f"{program}\nprint(keras.registered, keras.complete)")
    assert shown == ["1", "True"]
    assert not warned


def test_nothing_is_left_behind(tmp_path):
    program = """
    before = len(sys.meta_path)
    import sepconv
    assert len(sys.meta_path) == before + 1
    assert "keras" not in sys.modules and "sepconv.layers" not in sys.modules
    import keras, inspect
    assert len(sys.meta_path) == before
    print(type(keras.__loader__).__name__, inspect.getsource(keras).strip())
    """
    assert run(tmp_path, program, "whole = 1")[0] == ["SourceFileLoader", "whole", "=", "1"]


def test_sepconv_imported_in_the_middle_of_keras_own_import(tmp_path):
    keras = """
    import users
    complete = True
    """
    users = """
    import sepconv, sys
    assert "sepconv.layers" not in sys.modules
    """
    layers = "assert keras.complete"
    program = "import keras; print(keras.registered, type(keras.__spec__).__name__)"
    shown, warned = run(tmp_path, program, keras, layers, users=users)
    assert shown == ["1", "ModuleSpec"]
    assert not warned


@pytest.mark.parametrize("order", ["sepconv, keras", "keras, sepconv"])
def test_layers_that_do_not_fit_keras_are_one_warning(order, tmp_path):
    program = f"import {order}\nimport keras, sepconv; print(keras.complete)"
    shown, warned = run(tmp_path, program, layers="keras.ops")
    assert shown == ["True"]
    assert warned.count("RuntimeWarning") == 1
    assert "could not be registered with Keras" in warned
    assert "AttributeError: " in warned
    assert "has no attribute 'ops'" in warned


def test_a_keras_that_fails_fails_as_ever_and_may_come_again(tmp_path):
    keras = """
    import os
    if "BROKEN" in os.environ:
        raise OSError("broken")
    """
    program = """
    import os, sepconv
    os.environ["BROKEN"] = "1"
    try:
        import keras
    except OSError as error:
        print(error, "sepconv.layers" in sys.modules)
    del os.environ["BROKEN"]
    import keras
    print(keras.registered)
    """
    assert run(tmp_path, program, keras) == (["broken", "False", "1"], "")


def test_no_keras_is_no_error(tmp_path):
    program = """
    import sepconv
    sys.path.remove(sys.path[1])
    sys.meta_path[:] = [f for f in sys.meta_path if "Path" not in getattr(f, "__name__", "")]
    try:
        import keras
    except ModuleNotFoundError as error:
        print(error.name)
    """
    assert run(tmp_path, program)[0] == ["keras"]
