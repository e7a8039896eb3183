"""The layers that are measured: names, sizes, and what a pattern selects."""

import itertools

from sepconv.bench import workloads
from sepconv.bench.workloads import MODES, WORKLOADS, select


def test_every_workload_is_named_once_and_has_its_source():
    names = [workload.name for workload in WORKLOADS]
    assert len(set(names)) == len(names)
    assert all("arXiv" in workload.source for workload in WORKLOADS)
    assert {*workloads.QUICK} <= {*names}
    for network, count in (("mobilenet_v1", 13), ("eegnet", 2), ("conv_tasnet", 8)):
        assert sum(name.startswith(network + "/") for name in names) == count


def test_sizes_follow_from_one_block_to_the_next():
    blocks = [w for w in WORKLOADS if w.name.startswith("mobilenet_v1/")]
    for block, following in itertools.pairwise(blocks):
        assert block.output_size == (following.height, following.width)
        assert block.filters == following.channels


def test_workloads_of_one_shape_are_measured_once():
    found = select("mobilenet_v1/7,mobilenet_v1/8", "separable", (1,))
    assert [case.workload.name for case in found] == ["mobilenet_v1/7"]
    # Alone, the depthwise layers of these two are the same; with their 1x1 convolutions not.
    pair = "efficientnet_b0/1a,mobilenet_v1/1"
    assert len(select(pair, "separable", (1,))) == 2
    assert len(select(pair, "depthwise", (1,))) == 1


def test_select_by_pattern():
    assert {case.mode for case in select("eegnet", "*-training")} == {
        "separable-training",
        "depthwise-training",
        "pointwise-training",
    }
    assert {case.batch for case in select("eegnet")} == {1, 32}
    assert {case.batch for case in select(quick=True)} == {1}
    assert select("resnet") == []


def test_int8_is_for_inference_alone():
    found = select("mobilenet_v1/3", None, (1,), dtype="int8")
    assert [case.mode for case in found] == [mode for mode in MODES if "training" not in mode]
    assert {case.dtype for case in found} == {"int8"}
