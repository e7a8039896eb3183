"""README's NumPy example runs as it stands, and what README names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENGINES = re.compile(r"^import (keras|jax|torch|tensorflow)", flags=re.MULTILINE)


def test_the_numpy_example_runs():
    examples = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    mine = [example for example in examples if not ENGINES.search(example)]
    assert len(mine) == 1
    exec(compile(mine[0], "README.md", "exec"), {})


def test_the_two_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_folders_that_it_names_exist():
    for path in re.findall(r"`([a-z/_]+/)`", README):
        assert (ROOT / path).is_dir(), path
