"""Prints which kernel serves each layer of the benchmark, and how its work is cut, at every level.

    python tests/helpers/plans.py > tests/helpers/plans.txt

A line has a level, a layer of `sepconv.bench.workloads` and a batch size, then the plans of its
passes in the order of `PASSES`, the last two of layers with a 1x1 convolution alone. All are of
float32 on two threads. A plan is its steps with a + between them, after `N@` where N of the images
go through at a time; and a step is

    kernel[BANDSxROWS, pPIECES, cCHANNEL_PARTS, fFILTER_PARTS, gGROUPS]=TASKS

as in native/plan.h, without those parts of which there is one alone. The kernel of a fused step
comes after a point.
"""

from __future__ import annotations

import os
import subprocess
import sys

import sepconv
from sepconv import _native
from sepconv.bench.workloads import WORKLOADS, Workload
from sepconv.geometry import conv_spec, resolve

LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
THREADS = 2
_F32 = 0

#: Pass -> whether it is one of the separable convolution.
PASSES = (
    ("forward", False),
    ("input_gradient", False),
    ("kernel_gradient", False),
    ("forward", True),
    ("pointwise_kernel_gradient", True),
)


def plan(
    workload: Workload, batch: int, pass_: str, threads: int, separable: bool = False
) -> _native.Plan:
    """The plan of one pass over a layer."""
    spec = conv_spec(workload.strides, workload.padding, workload.dilation)
    geometry = resolve(spec, workload.x_shape(batch), workload.kernel_shape)
    filters = (workload.filters or 0) if separable else 0
    return _native.plan(geometry, _F32, pass_, threads, filters)


def _text(step: _native.PlanStep) -> str:
    name = {"depthwise": step["kernel"], "pointwise": "product"}.get(step["kind"])
    name = name or f"{step['kind']}.{step['kernel']}"
    cut = [f"{step['bands']}x{step['band_rows']}"]
    for letter, part in (("p", "row_pieces"), ("c", "channel_parts"), ("f", "filter_parts")):
        if step[part] > 1:
            cut.append(f"{letter}{step[part]}")
    if step["groups"]:
        cut.append(f"g{step['groups']}")
    return f"{name}[{','.join(cut)}]={step['tasks']}"


def lines() -> list[str]:
    """Those of the level in use."""
    found = []
    for workload in WORKLOADS:
        for batch in workload.batches:
            words = [sepconv.isa_name(), workload.name, str(batch)]
            for pass_, separable in PASSES:
                if separable and workload.filters is None:
                    continue
                made = plan(workload, batch, pass_, THREADS, separable)
                some = "" if made["images"] == batch else f"{made['images']}@"
                words.append(some + "+".join(map(_text, made["steps"])))
            found.append(" ".join(words))
    return found


def of_level(level: str) -> subprocess.CompletedProcess[str]:
    """This file in a process of that level, since a process chooses its level once."""
    environment = os.environ | {"SEPCONV_ISA": level}
    return subprocess.run(
        [sys.executable, __file__, "--this-level"], capture_output=True, text=True, env=environment
    )


def main() -> int:
    if "--this-level" in sys.argv[1:]:
        print("\n".join(lines()))
        return 0
    for level in LEVELS:
        done = of_level(level)
        if done.returncode != 0:
            print(f"{level}: {done.stderr}", file=sys.stderr)
            return 1
        print(done.stdout, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
