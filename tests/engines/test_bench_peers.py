"""The benchmark's peers: each computes the right values, by every way it knows, in its dtypes.

Those whose library is not installed are skipped, and so are engines that are not selected.
"""

import pytest
from helpers.selection import selected

from sepconv.bench import cases, measure, peers
from sepconv.bench.worker import encode
from sepconv.bench.workloads import MODES, Case, Workload

WORKLOADS = (
    Workload("strided", "nowhere", 8, 7, 4, (3, 3), strides=(2, 2), filters=5),
    Workload("dilated", "nowhere", 9, 9, 3, (3, 3), dilation=(2, 2), filters=4),
    Workload("one row", "nowhere", 1, 20, 4, (1, 4), filters=3),
    Workload("multiplied", "nowhere", 8, 5, 3, (8, 1), padding="valid", depth_multiplier=2),
)
#: Of float32, tighter than what is timed all the same.
TOLERANCES = cases.TOLERANCES | {"float32": 1e-5}
#: Peer -> the engine whose tests it belongs to; the others run wherever they are installed.
ENGINES = {"torch": "torch", "tensorflow": "tensorflow", "litert": "tensorflow", "jax": "jax"}


def _engine(name):
    return name.removeprefix("keras-") if name.startswith("keras-") else ENGINES.get(name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", peers.PEERS)
def test_a_peer_is_right_in_every_mode(name, dtype, tmp_path):
    check_every_mode(name, dtype, MODES, tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("name", peers.PEERS)
def test_a_peer_is_right_in_other_dtypes(name, dtype, tmp_path):
    check_every_mode(name, dtype, ("separable", "separable-training+relu6"), tmp_path)


def check_every_mode(name, dtype, modes, tmp_path):
    kind = peers.load(name)
    if dtype not in kind.dtypes:
        pytest.skip(f"{kind.title} has no {dtype}")
    if _engine(name) is not None and _engine(name) not in selected():
        pytest.skip(f"{_engine(name)} is not selected")
    if not kind.available():
        pytest.skip(f"{kind.title} is not installed")
    done = 0
    with measure.workers([name], 1, 120) as team:
        assert team[name].version == kind.version()
        for index, mode in enumerate(modes):
            workload = WORKLOADS[index % len(WORKLOADS)]
            if MODES[mode].operation != "depthwise" and workload.filters is None:
                workload = WORKLOADS[0]
            case = Case(workload, 2, mode, dtype)
            if not kind.supports(case):
                continue
            folder = tmp_path / str(index)
            folder.mkdir()
            inputs, answers = cases.make(case)
            cases.save(folder / "inputs", inputs)
            cases.save(folder / "answers", answers)
            command = {"case": encode(case), "folder": str(folder), "thorough": False}
            answer = team[name].ask(120, do="prepare", **command)
            # A setting that adds up in float16 may be off by too much, as may one in bfloat16
            # on a processor without an instruction for it. It is then not timed.
            late = "not tried, since others took long already"
            wrong = {setting: why for setting, why in answer["wrong"].items() if why != late}
            rough = dtype in ("float16", "bfloat16")
            assert wrong == {} or rough, case
            done += 1
            if not answer["settings"] and rough:
                # OpenVINO computes float16 in bfloat16 where the processor multiplies that.
                assert all("off by" in why for why in answer["wrong"].values()), case
                continue
            assert answer["settings"], case
            assert answer["error"] < TOLERANCES[dtype]
            assert team[name].ask(60, do="choose")["setting"] in answer["settings"]
            assert len(team[name].ask(60, do="run", warm=0, calls=2)["seconds"]) == 2
    assert done >= (4 if dtype in ("float32", "bfloat16") else 1)
