"""Runs the notebooks of this folder; fails if one fails, or takes over three minutes.

    python examples/notebooks.py                 # all, leaving them as they are
    python examples/notebooks.py eegnet --write  # one, with its outputs saved
    python examples/notebooks.py --quick         # shorter trainings, as the tests do

They run in a folder of their own that is removed afterwards. Needs nbclient, ipykernel, matplotlib,
scikit-learn and an engine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

HERE = Path(__file__).parent
SECONDS = 180

#: The parameters that `--quick` sets after the cell tagged "parameters", by notebook.
QUICK: dict[str, dict[str, object]] = {
    "digits": {"EPOCHS": 4},
    "eegnet": {"EPOCHS": 4},
    "factorize": {"BUDGETS": (0.25,)},
}


def shorten(notebook: nbformat.NotebookNode, parameters: dict[str, object]) -> None:
    """Overrides parameters, in a cell after the one that sets them."""
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    for name in parameters:
        if f"\n{name} = " not in cell.source:
            raise ValueError(f"the cell of parameters sets no {name}")
    code = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(notebook.cells.index(cell) + 1, nbformat.v4.new_code_cell(code))


def run(path: Path, write: bool = False, quick: bool = False) -> str | None:
    """Runs a notebook; returns what went wrong, or None."""
    notebook = nbformat.read(path, as_version=4)
    if quick:
        shorten(notebook, QUICK[path.stem])
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": folder}})
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            return str(error)
    seconds = time.monotonic() - started
    print(f"{path.name}: {seconds:.0f} s", flush=True)
    if seconds > SECONDS:
        return f"it took {seconds:.0f} s, more than {SECONDS}"
    if write:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # the times of running, which always differ
            if "outputs" in cell:  # notices of libraries, which depend on what is installed
                cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        nbformat.write(notebook, path)
    return None


def main() -> int:
    """Returns 0 where all went well, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    names = sorted(path.stem for path in HERE.glob("*.ipynb"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--write", action="store_true", help="keep outputs in the notebooks")
    how.add_argument("--quick", action="store_true", help="shorter trainings")
    given = parser.parse_args()
    unknown = set(given.names) - set(names)
    if unknown:
        parser.error(f"no such notebook: {', '.join(sorted(unknown))}")
    failed = False
    for name in given.names or names:
        wrong = run(HERE / f"{name}.ipynb", given.write, given.quick)
        if wrong:
            print(f"{name}.ipynb: {wrong}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
