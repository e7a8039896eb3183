"""Draws all figures and writes the tables that they share their numbers with: ``make figures``."""

import runpy
from pathlib import Path

for script in sorted(Path(__file__).parent.glob("*.py")):
    if script.stem not in ("bars", "draw", "drawing"):
        runpy.run_path(str(script), run_name="__main__")
