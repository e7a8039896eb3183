"""Prints requirements of pyproject.toml, one a line: `requirements.py NAME ...`.

A name is an extra's, or `dependencies`: what the package itself needs.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
GROUPS: dict[str, list[str]] = PROJECT["optional-dependencies"] | {
    "dependencies": PROJECT["dependencies"]
}

for name in sys.argv[1:]:
    print(*GROUPS[name], sep="\n")
