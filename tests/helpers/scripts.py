"""Scripts outside of the package, as tests import them: benchmarks and examples."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """The modules of a folder can be imported, as when one of them is run; afterwards none is left.

    Folders have modules of the same name, so one that stayed would be taken for another's.
    """
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file is not None and Path(file).parent == folder:
                del sys.modules[name]
