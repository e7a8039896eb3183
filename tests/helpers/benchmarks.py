"""Small layers, a machine of round numbers, and results that the tests of the benchmark share."""

from __future__ import annotations

import math

from sepconv.bench import measure, peers, roofline
from sepconv.bench.workloads import Workload

SMALL = Workload("small/1", "nowhere", 6, 7, 4, (3, 3), strides=(2, 2), filters=5)


MULTIPLIED = Workload("small/2", "nowhere", 9, 5, 3, (5, 1), padding="valid", depth_multiplier=2)


MACHINE = roofline.Machine(
    2,
    100e9,
    (roofline.Level("L2", 1e6, 80e9), roofline.Level("memory", math.inf, 10e9)),
)


def result(case, ours, **others):
    samples = {peers.OURS: ours, **others}
    return measure.Result(
        case,
        roofline.floor(case, MACHINE),
        {name: measure.Sample("as it is", 1e-8, times) for name, times in samples.items()},
        {"jax": "took longer than 30 s"},
    )
