"""The fuzzer of programs' files runs, briefly; `make fuzz` runs it for longer."""

import subprocess
import sys

from helpers.documents import ROOT


def test_it_finds_nothing_in_a_few_cases():
    command = [sys.executable, str(ROOT / "tests/fuzz/program_file.py")]
    options = ["--seed", "0", "--count", "150", "--seconds", "60"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "150 cases, 0 to 149, no finding" in done.stdout
    assert "vary: run" in done.stdout
