"""The Python examples in README.md and in docs/: which there are, and which engine each names.

The examples of a page run in order, in one namespace, as a reader would type them in; those that
name another engine than the one that is tested, or a library of networks that is not installed, are
left out.
"""

from __future__ import annotations

import importlib.util
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", flags=re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^( *)```\w*\n.*?^\1```$", flags=re.MULTILINE | re.DOTALL)
_ENGINE = re.compile(
    r'^\s*import (jax|torch|tensorflow)\b|KERAS_BACKEND"\] = "(\w+)"', flags=re.MULTILINE
)
_LIBRARY = re.compile(r"^\s*(?:import|from) (flax|geffnet)\b", flags=re.MULTILINE)


class Example(NamedTuple):
    """A block of Python in a page.

    Attributes:
        page: the page, from the repository's root.
        line: where it begins.
        code: what it says.
        engine: the one engine that it names, or None.
    """

    page: str
    line: int
    code: str
    engine: str | None

    def is_installed(self) -> bool:
        """Whether the library of networks that it imports is; true where there is none."""
        return all(importlib.util.find_spec(name) for name in _LIBRARY.findall(self.code))

    def run(self, namespace: dict[str, object]) -> None:
        """Runs it; a traceback shows the page's own lines."""
        source = "\n" * self.line + self.code
        exec(compile(source, str(ROOT / self.page), "exec"), namespace)


def examples(page: Path) -> list[Example]:
    """The examples of a page, in order."""
    text, found = page.read_text(encoding="utf-8"), []
    for block in _BLOCK.finditer(text):
        code = textwrap.dedent(block[2])
        named = {a or b for a, b in _ENGINE.findall(code)}
        assert len(named) <= 1, f"{page.name}: an example names several engines: {named}"
        line = text.count("\n", 0, block.start()) + 1
        name = page.relative_to(ROOT).as_posix()
        found.append(Example(name, line, code, named.pop() if named else None))
    return found


def needs_an_engine(page: Path) -> bool:
    """Whether a page's examples run once an engine: some name one, or use Keras."""
    return any(e.engine or re.search(r"\bkeras\b", e.code) for e in examples(page))


def original(page: Path) -> Path | None:
    """The page that a page translates, with the same code; None where it is no translation."""
    translations = ROOT / "docs" / "zh"
    if not page.is_relative_to(translations):
        return None
    found = ROOT / "docs" / page.relative_to(translations)
    return found if found.is_file() else None


def code(page: Path) -> list[str]:
    """All blocks of code of a page, also those that are no examples, in order."""
    text = page.read_text(encoding="utf-8")
    return [textwrap.dedent(block[0]) for block in _CODE.finditer(text)]


def pages(engine: bool) -> list[Path]:
    """The pages with examples to run, those that need an engine or those that do not."""
    return [
        page
        for page in PAGES
        if examples(page) and not original(page) and needs_an_engine(page) == engine
    ]
