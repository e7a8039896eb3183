"""README's examples for an engine run as they stand."""

import os
import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
ENGINES = os.environ.get("SEPCONV_TEST_ENGINES", "jax,torch,tensorflow").split(",")


@pytest.mark.parametrize(
    ("module", "count"), [("jax", 1), ("torch", 1), ("tensorflow", 1), ("keras", 2)]
)
def test_examples_run(module, count):
    if module != "keras" and module not in ENGINES:
        pytest.skip(f"SEPCONV_TEST_ENGINES leaves {module} out")
    examples = [e for e in EXAMPLES if re.search(rf"^import {module}\b", e, flags=re.MULTILINE)]
    assert len(examples) == count
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})
