"""The Python examples in README.md and in docs/: which there are, and which engine each names.

The examples of a page run in order, in one namespace, as a reader would type them in; those that
name another engine than the one that is tested are left out.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", flags=re.MULTILINE | re.DOTALL)
_ENGINE = re.compile(
    r'^\s*import (jax|torch|tensorflow)\b|KERAS_BACKEND"\] = "(\w+)"', flags=re.MULTILINE
)


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


def is_translation(page: Path) -> bool:
    """Whether a page is the translation of another, with the same examples."""
    return page.parent.name == "zh" and (ROOT / "docs" / page.name).is_file()


def pages(engine: bool) -> list[Path]:
    """The pages with examples to run, those that need an engine or those that do not."""
    return [
        page
        for page in PAGES
        if examples(page) and not is_translation(page) and needs_an_engine(page) == engine
    ]
