"""accelerate and to_stock: what changes, what stays, what is left alone, and the record."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from helpers.torch_networks import Block, Small, assert_close, small_pair, step
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

import sepconv
from sepconv.modules.selecting import OURS


def _classes(module):
    return [type(part) for part in module.modules()]


def test_only_classes_change_and_come_back():
    module = Small()
    classes, parts = _classes(module), list(module.modules())
    state = module.state_dict(keep_vars=True)
    result, record = sepconv.accelerate(module)
    assert result is module
    assert record.changed == 10
    assert _classes(module) != classes
    assert all(a is b for a, b in zip(module.modules(), parts, strict=True))
    after = module.state_dict(keep_vars=True)
    assert list(after) == list(state)
    assert all(after[name] is state[name] for name in state)
    assert repr(module) == repr(Small())
    again, record = sepconv.accelerate(module)
    assert (again, record.changed) == (module, 0)
    assert "sepconv's already" in str(record)
    assert sepconv.to_stock(module) is module
    assert _classes(module) == classes


def test_state_dicts_load_both_ways():
    stock, ours, x = small_pair()
    other = Small()
    other.load_state_dict(ours.state_dict())
    assert_close([other.eval()(x)], [stock.eval()(x)])
    accelerated, _ = sepconv.accelerate(Small())
    accelerated.load_state_dict(stock.state_dict())
    assert_close([accelerated.eval()(x)], [stock(x)])


def test_an_older_optimizer_goes_on():
    torch.manual_seed(0)
    stock = Small()
    ours = copy.deepcopy(stock)
    x = torch.randn(4, 3, 8, 8)
    outputs = []
    for module in (stock, ours):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
        for number in range(4):
            if module is ours and number == 2:
                sepconv.accelerate(module)
            step(module, x)
            optimizer.step()
        outputs.append(module.eval()(x))
    assert_close(*([y] for y in outputs))


def test_hooks_and_modes_stay():
    module = Small()
    seen = []
    module.block.depthwise.register_forward_hook(lambda m, *_: seen.append(m))
    module.block.norm2.eval()
    sepconv.accelerate(module)
    module(torch.randn(2, 3, 8, 8))
    assert seen == [module.block.depthwise]
    assert not module.block.norm2.training
    assert int(module.block.norm2.num_batches_tracked) == 0
    assert int(module.block.norm1.num_batches_tracked) == 1


class _Own(nn.Conv2d):
    def forward(self, input):
        return 2 * super().forward(input)


def _replaced():
    conv = _depthwise()
    conv.forward = lambda x: x
    return conv


def _depthwise(**options):
    return nn.Conv2d(8, 8, 3, groups=8, **options)


LEFT_ALONE = {
    "a class of its own": lambda: _Own(8, 8, 3, groups=8),
    "its forward was replaced": _replaced,
    "computed from others, such as by weight norm": lambda: weight_norm(_depthwise()),
    "parametrized": lambda: parametrizations.weight_norm(_depthwise()),
    "its weight is computed": lambda: prune.l1_unstructured(_depthwise(), "weight", amount=0.5),
    "lazy": lambda: nn.LazyConv2d(8, 3),
    "pads by 'circular'": lambda: _depthwise(padding_mode="circular"),
    "on the device meta": lambda: _depthwise(device="meta"),
    "an ordinary convolution": lambda: nn.Conv2d(8, 8, 3, groups=2),
    "a 1x1 convolution with padding": lambda: nn.Conv2d(8, 8, 1, padding=1),
    "fewer than 8": lambda: nn.Conv2d(8, 4, 1),
    "1x1 convolution in bfloat16": lambda: nn.Conv2d(8, 8, 1, dtype=torch.bfloat16),
    "computes in complex64": lambda: _depthwise(dtype=torch.complex64),
    "9 filters on one channel": lambda: nn.Conv2d(1, 9, 3),
    "has no parameters": lambda: nn.BatchNorm2d(8, affine=False),
    "averages all batches": lambda: nn.BatchNorm2d(8, momentum=None),
    "device meta": lambda: nn.BatchNorm2d(8, device="meta"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("why", LEFT_ALONE)
def test_what_is_left_alone(why):
    module = nn.Sequential(LEFT_ALONE[why]())
    kind = type(module[0])
    _, record = sepconv.accelerate(module)
    assert type(module[0]) is kind
    assert [change.done for change in record] == [False]
    assert why in record[0].note


def test_verify_compares_and_undoes(monkeypatch):
    module = Small()
    x = torch.randn(1, 3, 8, 8)
    before = [part.training for part in module.modules()]
    _, record = sepconv.accelerate(module, verify=x)
    assert record.verification.startswith("verified: the outputs differ by at most")
    assert [part.training for part in module.modules()] == before
    sepconv.to_stock(module)
    conv2d = OURS[nn.Conv2d]
    monkeypatch.setattr(conv2d, "forward", lambda self, x: 1.5 * nn.Conv2d.forward(self, x))
    with pytest.raises(ValueError, match="differ by more than rounding explains"):
        sepconv.accelerate(module, verify=(x,))
    assert conv2d not in _classes(module)
    _, record = sepconv.accelerate(module, verify=False)
    assert record.verification.startswith("not verified")


def test_errors():
    with pytest.raises(TypeError, match=r"compiled by torch\.jit"):
        sepconv.accelerate(torch.jit.trace(nn.ReLU(), torch.ones(1)))
    module, _ = sepconv.accelerate(Block())
    parametrizations.weight_norm(module.depthwise)
    with pytest.raises(ValueError, match=r"'depthwise' was parametrized"):
        sepconv.to_stock(module)
    y = module(torch.randn(2, 8, 6, 6))  # and it computes nevertheless
    assert y.isfinite().all()


def test_without_keras():
    code = """
import sys
sys.modules["keras"] = None
import torch, sepconv
from torch import nn
module = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8))
module, record = sepconv.accelerate(module, verify=torch.ones(1, 8, 5, 5))
module(torch.randn(2, 8, 5, 5)).sum().backward()
print(record.changed, type(sepconv.to_stock(module)[0]).__module__)
assert not {"jax", "tensorflow"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "torch.nn.modules.conv"]
