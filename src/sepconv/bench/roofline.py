"""The machine's limits, measured, and the least time that they allow a case.

A case's floor is the larger of two times: its operations at the rate of multiply-adds on registers
alone, and its least traffic at the bandwidth of the smallest memory that its data fits in.

Operations, where P is the number of output pixels times the batch, taps the number of kernel
positions that lie on the input, summed over output pixels (those in the padding need no work), C
the input's channels, M the depth multiplier and F the filters; one multiply-add counts as two:

    depthwise   2 taps C M                 pointwise   2 P C M F

Training takes three times as many: each of a convolution's two gradients takes as many as the
convolution.

Bytes, where X, Y, G and W are those of the input, the output, the output's gradient and the
weights. Nothing is written between the two steps (they are fused):

    forward   X + Y + W                    backward    2 X + G + 3 W

Both depend on the dtype: bytes are those of its elements, and the rate is that of the multiply-adds
that its products are made of. In the half types these are float32's, or those of an instruction for
pairs of bfloat16, where the kernels in use have one. In int8, weights are bytes, but X and Y are
float32: programs take and give that, and quantise within.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from sepconv import _native
from sepconv.arrays import DTYPES
from sepconv.bench.workloads import Case, Workload

__all__ = [
    "BYTES",
    "Floor",
    "Level",
    "Machine",
    "floor",
    "measure",
    "measure_peak",
    "traffic",
    "work",
]

#: The bytes of an element.
BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2, "int8": 1}


@dataclass(frozen=True)
class Level:
    """A level of memory.

    Attributes:
        name: "L2", "L3" or "memory".
        size: bytes, for all threads together; infinite for memory.
        bandwidth: bytes a second, read or written.
    """

    name: str
    size: float
    bandwidth: float


@dataclass(frozen=True)
class Machine:
    """The limits for a number of threads.

    Attributes:
        threads: for which it was measured.
        peak: operations a second, in the dtype.
        levels: from the smallest to the largest.
        dtype: a key of `BYTES`.
    """

    threads: int
    peak: float
    levels: tuple[Level, ...]
    dtype: str = "float32"

    def best_of(self, other: Machine) -> Machine:
        """The higher of each limit, for two measurements of the same machine."""
        levels = tuple(
            max(pair, key=lambda level: level.bandwidth)
            for pair in zip(self.levels, other.levels, strict=True)
        )
        return Machine(self.threads, max(self.peak, other.peak), levels, self.dtype)

    def level(self, size: float) -> Level:
        """The smallest level that holds `size` bytes."""
        return next(level for level in self.levels if size <= level.size)


@dataclass(frozen=True)
class Floor:
    """The least that a case needs.

    Attributes:
        operations: floating-point operations.
        bytes: traffic.
        level: the name of the level whose bandwidth counts.
        seconds: the larger of the two times.
        bound: "operations" or "bytes", whichever takes that time.
    """

    operations: float
    bytes: float
    level: str
    seconds: float
    bound: str


#: Common sizes of caches, for systems that do not report them (level -> bytes).
_USUAL_CACHES = {2: 1 << 20, 3: 16 << 20}


def _caches() -> dict[int, tuple[int, int]]:
    """Level -> (bytes, how many processors share it)."""
    found = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind, size, level, shared = (
                (folder / name).read_text().strip()
                for name in ("type", "size", "level", "shared_cpu_list")
            )
            if kind != "Instruction" and size.endswith("K"):
                found[int(level)] = (int(size[:-1]) << 10, _count(shared))
        except (OSError, ValueError):
            continue
    return found or {level: (size, 1) for level, size in _USUAL_CACHES.items()}


def _count(processors: str) -> int:
    """The number of processors in a list such as "0-3,8"."""
    ranges = [part.split("-") for part in processors.split(",")]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in ranges)


def measure(threads: int, seconds: float = 0.5, dtype: str = "float32") -> Machine:
    """Measures this machine.

    Args:
        threads: how many to use.
        seconds: how long each of the few measurements takes.
        dtype: whose multiply-adds are measured, a key of `BYTES`.
    """
    levels = []
    for level, (size, shared) in sorted(_caches().items()):
        if level < 2:
            continue
        total = size * math.ceil(threads / shared)
        # Half of the cache, since other data is in it, too.
        bandwidth = _native.measure_bandwidth(total // 2, threads, seconds)
        levels.append(Level(f"L{level}", total, bandwidth))
    last = levels[-1].size if levels else 0
    large = int(max(128 << 20, 4 * last))
    bandwidth = _native.measure_bandwidth(large, threads, seconds)
    levels.append(Level("memory", math.inf, bandwidth))
    return Machine(threads, measure_peak(threads, seconds, dtype), tuple(levels), dtype)


def measure_peak(threads: int, seconds: float = 0.5, dtype: str = "float32") -> float:
    """The operations a second of multiply-adds on registers alone, each of which counts as two.

    Args:
        threads: how many to use.
        seconds: how long it takes.
        dtype: whose multiply-adds, a key of `sepconv.arrays.DTYPES`; or "int8", of products of
            uint8 and int8.
    """
    return _native.measure_fma(threads, seconds, "int8" if dtype == "int8" else DTYPES[dtype])


def _taps(workload: Workload) -> int:
    """Pairs of an output pixel and a kernel position that lies on the input, in one image."""
    product = 1
    sizes = (workload.height, workload.width)
    for axis in range(2):
        stride, dilation = workload.strides[axis], workload.dilation[axis]
        before = workload.pads[axis][0]
        product *= sum(
            0 <= p * stride + i * dilation - before < sizes[axis]
            for p in range(workload.output_size[axis])
            for i in range(workload.kernel[axis])
        )
    return product


def work(case: Case) -> float:
    """The operations of a case; see the top of this file.

    Example:
        >>> from sepconv.bench.workloads import select
        >>> work(select("mobilenet_v1/3", "pointwise", (1,))[0]) == 2 * 56 * 56 * 128 * 128
        True
    """
    w = case.workload
    operations = 0.0
    if case.operation != "pointwise":
        operations += 2 * case.batch * _taps(w) * w.middle
    if case.operation != "depthwise":
        operations += 2 * case.batch * math.prod(w.output_size) * w.middle * case.output_channels
    return operations * (3 if case.training else 1)


def traffic(case: Case) -> float:
    """The bytes of a case; see the top of this file."""
    w = case.workload
    pixels = case.batch * math.prod(w.output_size)
    weights = 0
    if case.operation == "pointwise":
        x = pixels * w.middle
    else:
        x = math.prod(w.x_shape(case.batch))
        weights += math.prod(w.kernel_shape)
    if case.operation != "depthwise":
        weights += w.middle * case.output_channels
    y = pixels * case.output_channels
    if case.dtype == "int8":
        return float(BYTES["float32"] * (x + y) + BYTES["int8"] * weights)
    elements = x + y + weights
    if case.training:
        elements += 2 * x + y + 3 * weights
    return float(BYTES[case.dtype] * elements)


def _footprint(case: Case) -> float:
    """The bytes that a case's arrays take up together."""
    forward = traffic(case._replace(mode=case.mode.replace("-training", "")))
    return forward * (2 if case.training else 1)  # the gradients are as large


def floor(case: Case, machine: Machine) -> Floor:
    """The time that a case takes at least on a machine."""
    operations, moved = work(case), traffic(case)
    level = machine.level(_footprint(case))
    times = {"operations": operations / machine.peak, "bytes": moved / level.bandwidth}
    bound = max(times, key=lambda name: times[name])
    return Floor(operations, moved, level.name, times[bound], bound)
