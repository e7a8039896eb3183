"""A normalization and the activation after it as one pass: where, what it gives, and where not."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import pickle

import pytest
import torch
from helpers.pairing import Block, check, is_one_pass, pair
from helpers.torch_networks import assert_close, step
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
)
from torch.utils.checkpoint import checkpoint

import sepconv
from sepconv.engines import thresholds
from sepconv.modules.activation import mark

FORMATS = pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"]
)
ACTIVATIONS = [nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish]


@pytest.fixture(autouse=True)
def _small_images_too(monkeypatch):
    monkeypatch.setattr(thresholds, "LEAST_ACTIVATED", 1)


@FORMATS
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_gradients_and_statistics(activation, dtype, inplace, memory_format):
    check(
        *pair(Block, activation, inplace, dtype=dtype, memory_format=memory_format), one_pass=True
    )


class Nested(Block):
    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


class Twice(Block):
    """One activation, and one normalization, at two places."""

    def __init__(self):
        super().__init__()
        self.norm2 = nn.BatchNorm2d(8)

    def forward(self, x):
        x = self.act(self.norm(x))
        x = self.norm2(self.conv(x))
        x = self.act(x)
        x = self.norm(self.act(x))
        return self.act(x)


def sequential():
    block = Block(nn.SiLU)
    return nn.Sequential(block.conv, block.norm, block.act)


class OwnSequential(nn.Sequential):
    """As torchvision has them."""

    def __init__(self):
        super().__init__(*sequential())


class Decorated(Block):
    @torch.enable_grad()
    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


@pytest.mark.parametrize("kind", [Nested, Twice, sequential, OwnSequential])
def test_ways_to_write_it(kind):
    check(*pair(kind, dtype=torch.float64), one_pass=True)


def test_the_record_names_the_pairs():
    module = nn.Sequential(Twice(), nn.BatchNorm2d(8), nn.Tanh())
    _, record = sepconv.accelerate(module)
    notes = {change.layer: (change.kind, change.note) for change in record}
    assert notes == {
        "0.conv": ("Conv2d", "sepconv.modules.Conv2d"),
        "0.norm": ("BatchNorm2d", "sepconv.modules.BatchNorm2d; one pass with 0.act"),
        "0.act": ("ReLU6", "sepconv.modules.ReLU6; one pass with 0.norm, 0.norm2"),
        "0.norm2": ("BatchNorm2d", "sepconv.modules.BatchNorm2d; one pass with 0.act"),
        "1": ("BatchNorm2d", "sepconv.modules.BatchNorm2d"),
    }
    assert record.changed == 5
    assert repr(module) == repr(nn.Sequential(Twice(), nn.BatchNorm2d(8), nn.Tanh()))
    assert [type(part).__module__ for part in module.modules()].count("sepconv.modules") == 5
    _, record = sepconv.accelerate(module)
    assert record.changed == 0
    assert {change.note.partition(";")[0] for change in record} == {"sepconv's already"}
    sepconv.to_stock(module)
    assert not [part for part in module.modules() if type(part).__module__ == "sepconv.modules"]


# --- where something may look at what is between ----------------------------------------------


def seen(results):
    return lambda module, arguments, y: results.append(y.detach().clone())


@pytest.mark.parametrize("part", ["norm", "act"])
@pytest.mark.parametrize(
    "register",
    [
        lambda part: part.register_forward_hook(lambda *_: None),
        lambda part: part.register_forward_pre_hook(lambda *_: None),
        lambda part: part.register_full_backward_pre_hook(lambda *_: None),
    ],
    ids=["forward", "before", "backward"],
)
def test_hooks(register, part):
    stock, ours, x = pair(Block, nn.Hardswish, False)
    handles = [register(module.get_submodule(part)) for module in (stock, ours)]
    y = ours(x)
    assert not is_one_pass(y)
    stock(x)
    assert_close(step(ours, x), step(stock, x))
    for handle in handles:
        handle.remove()
    check(stock, ours, x, one_pass=True)


def test_a_hook_sees_what_it_sees_on_stock_modules():
    stock, ours, x = pair(Block, nn.Hardswish, False)
    results = [], []
    for module, result in zip((stock, ours), results, strict=True):
        module.norm.register_forward_hook(seen(result))
        module.register_forward_hook(seen(result))
        module(x)
    assert_close(*results)
    assert float(results[1][0].min()) < -1  # what no Hardswish gives


@pytest.mark.parametrize(
    "register",
    [
        register_module_forward_hook,
        register_module_forward_pre_hook,
        register_module_full_backward_hook,
    ],
)
def test_hooks_of_all_modules(register):
    stock, ours, x = pair(Block, nn.SiLU, False)
    handle = register(lambda *_: None)
    try:
        assert not is_one_pass(ours(x))
        stock(x)
        assert_close(step(ours, x), step(stock, x))
    finally:
        handle.remove()
    check(stock, ours, x, one_pass=True)


@pytest.mark.parametrize(
    ("other", "one_pass"),
    [(nn.Identity, True), (nn.Hardswish, False), (nn.Tanh, False), (lambda: nn.SiLU(True), False)],
)
def test_another_activation_in_its_place(other, one_pass):
    stock, ours, x = pair()
    for module in (stock, ours):
        module.act = other()
    check(stock, ours, x, one_pass=one_pass)  # an Identity adds no node


def test_another_activation_of_ours_in_its_place():
    stock, ours, x = pair()
    stock.act, ours.act = nn.SiLU(), sepconv.modules.SiLU()
    check(stock, ours, x, one_pass=True)


def test_a_clamp_of_other_limits():
    stock, ours, x = pair()
    stock.act.max_val = ours.act.max_val = 3.0
    check(stock, ours, x, one_pass=False)


def test_a_replaced_forward():
    for part in ("norm", "act"):
        stock, ours, x = pair(Block, nn.SiLU)
        for module in (stock, ours):
            changed = module.get_submodule(part)
            changed.forward = lambda x, forward=changed.forward: 2 * forward(x)
        y = ours(x)
        stock(x)
        assert not is_one_pass(y)
        assert_close(step(ours, x), step(stock, x))


def test_a_replaced_forward_of_the_class(monkeypatch):
    stock, ours, x = pair(Block, nn.SiLU)
    monkeypatch.setattr(nn.SiLU, "forward", lambda self, x: x.tanh())
    check(stock, ours, x, one_pass=False)


def test_a_mode_that_sees_every_function():
    stock, ours, x = pair(Block, nn.SiLU)

    class Doubled(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, arguments=(), options=None):
            y = function(*arguments, **(options or {}))
            return 2 * y if function is nn.functional.silu else y

    with Doubled():
        y, expected = ours(x), stock(x)
    assert_close([y], [expected])
    check(stock, ours, x, one_pass=True)


def test_an_owner_that_looks_up_its_parts_itself():
    class Swapping(Block):
        def __getattr__(self, name):
            return torch.tanh if name == "act" else super().__getattr__(name)

    check(*pair(Swapping), one_pass=False)

    class Hiding(Block):
        act = staticmethod(torch.tanh)

    stock, ours, x = pair(Hiding)
    check(stock, ours, x, one_pass=False)
    stock, ours, x = pair()
    for module in (stock, ours):
        vars(module)["act"] = torch.tanh
    check(stock, ours, x, one_pass=False)


def test_a_normalization_that_is_called_from_elsewhere():
    stock, ours, x = pair(Block, nn.Hardswish, False)
    for call in (
        lambda block: block.norm(x),
        lambda block: block.norm.forward(x),
        lambda block: [part(x) for part in block.children()][1],
        lambda block: nn.Sequential(block.norm)(x),
        lambda block: nn.Sequential(block.norm, nn.Hardswish(), block.norm)(x),
    ):
        y = call(ours)
        assert_close([y], [call(stock)])
        assert "_sepconv_activated_for" not in vars(y)
    check(stock, ours, x, one_pass=True)


def test_a_sequential_whose_parts_change():
    stock, ours, x = pair(sequential)
    for module in (stock, ours):
        module.insert(2, nn.Dropout(0.0))
    check(stock, ours, x, one_pass=False)
    for module in (stock, ours):
        del module[2:]
    y = ours(x)
    assert is_one_pass(y)
    assert_close([y], [stock(x)])


def test_branches_that_keep_the_result():
    class Keeping(Block):
        def forward(self, x):
            x = self.norm(self.conv(x))
            if self.training:
                self.kept = x * 1
            x = self.act(x)
            return x

    stock, ours, x = pair(Keeping, nn.SiLU)
    check(stock, ours, x, one_pass=False)
    assert_close([ours.kept], [stock.kept])


def test_a_mark_for_another_activation_is_an_error():
    x = torch.ones(1)
    mark(x, sepconv.modules.ReLU())
    with pytest.raises(RuntimeError, match="had computed for another one"):
        sepconv.modules.ReLU()(x)


def test_what_our_kernels_do_not_compute():
    stock, ours, x = pair(dtype=torch.float64)
    # Each rounds gradients once more or less, after the processor.
    halves = stock.bfloat16(), ours.bfloat16(), x.bfloat16()
    check(*halves, one_pass=False, most=0.02)
    stock, ours, x = pair()
    for module in (stock, ours):
        module.norm.momentum = None
    check(stock, ours, x, one_pass=False)


def test_small_images_and_large_ones(monkeypatch):
    stock, ours, x = pair()
    monkeypatch.setattr(thresholds, "LEAST_ACTIVATED", x.numel() + 1)
    check(stock, ours, x, one_pass=False)
    monkeypatch.setattr(thresholds, "LEAST_ACTIVATED", x.numel())
    check(stock, ours, x, one_pass=True)


# --- with the rest of PyTorch -----------------------------------------------------------------


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"]
)
def test_copies_are_one_pass_too(copied):
    stock, ours, x = pair()
    other = copied(ours)
    assert list(other.state_dict()) == list(stock.state_dict())
    check(stock, other, x, one_pass=True)
    assert not torch.equal(ours.norm.running_mean, other.norm.running_mean)
    file = io.BytesIO()
    torch.save(other, file)
    file.seek(0)
    check(stock, torch.load(file, weights_only=False), x, one_pass=True)
    alone = copied(ours.norm)
    assert_close([alone(x)], [copy.deepcopy(stock.norm)(x)])


def test_back_and_again():
    stock, ours, x = pair()
    check(stock, sepconv.to_stock(ours), x, one_pass=False)
    check(stock, sepconv.accelerate(ours).module, x, one_pass=True)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpoints(use_reentrant):
    stock, ours, x = pair(Block, nn.SiLU)
    expected = step(stock, x)
    ours.zero_grad()
    x = x.clone().requires_grad_()
    y = checkpoint(ours, x, use_reentrant=use_reentrant)
    weights = torch.linspace(1, 2, y.numel()).view(y.shape)
    (y.square() * weights).mean().backward()
    found = [y.detach(), x.grad, *(p.grad for p in ours.parameters())]
    assert_close(found, expected)


def test_data_parallel_without_devices():
    stock, ours, x = pair(nn.Sequential, Block(), Block(nn.SiLU))
    check(stock, nn.Sequential(nn.DataParallel(ours)), x, one_pass=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@FORMATS
def test_gradients_of_every_order(activation, memory_format):
    torch.manual_seed(0)
    block = sepconv.accelerate(Block(activation, channels=2).double()).module
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64).to(memory_format=memory_format)
    x.requires_grad_()
    weight, bias = block.norm.weight, block.norm.bias

    def function(x, *_):
        return block(x)

    assert is_one_pass(function(x))
    options = {"fast_mode": True}
    assert torch.autograd.gradcheck(function, (x, weight, bias), check_batched_grad=True, **options)
    assert torch.autograd.gradgradcheck(function, (x, weight, bias), **options)


def test_second_derivatives_are_stocks():
    for activation in ACTIVATIONS:
        stock, ours, x = pair(Block, activation, False, dtype=torch.float64)
        found = []
        for module in (stock, ours):
            leaf = x.clone().requires_grad_()
            y = module(leaf)
            inputs = [leaf, *module.parameters()]
            first = torch.autograd.grad(y.sin().sum(), inputs, create_graph=True)
            second = torch.autograd.grad(sum(g.sin().sum() for g in first), inputs)
            found.append([*first, *second])
        assert_close(*found, 1e-8)


def test_transforms_and_forward_mode():
    stock, ours, x = pair(Block, nn.SiLU, False, dtype=torch.float64)
    results = []
    for module in (stock, ours):
        names = dict(module.named_parameters())

        def call(values, x, module=module):
            buffers = {name: value.clone() for name, value in module.named_buffers()}
            return torch.func.functional_call(module, values | buffers, (x,))

        def loss(values, x, call=call):
            return call(values, x).sin().sum()

        results.append(
            [
                *torch.func.grad(loss)({k: v.detach() for k, v in names.items()}, x).values(),
                torch.func.jvp(functools.partial(call, names), (x,), (x.cos(),))[1],
            ]
        )
    assert_close(*results, 1e-8)


def test_functional_call_in_eager():
    stock, ours, x = pair(Block, nn.SiLU)
    values = {name: 2 * value.detach() for name, value in ours.named_parameters()}
    found, expected = (torch.func.functional_call(m, values, (x,)) for m in (ours, stock))
    assert_close([found], [expected])


def test_autocast():
    stock, ours, x = pair(Block, nn.SiLU)
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = ours(x), stock(x)
    assert y.dtype is expected.dtype
    assert_close([y.float()], [expected.float()], 0.05)


def test_compilers():
    torch._dynamo.reset()
    for compiled in ("", "norm", "act"):
        stock, ours, x = pair(Block, nn.SiLU, False)
        ours.get_submodule(compiled).compile(backend="aot_eager")
        assert_close(step(ours, x), step(stock, x))
    names = {str(n.target) for n in torch.export.export(ours.eval(), (x,)).graph.nodes}
    assert "aten.silu.default" in names


@pytest.mark.filterwarnings("ignore")
def test_traced():
    stock, ours, x = pair(Block, nn.SiLU)
    traced = torch.jit.trace(ours, x, check_trace=False)
    assert "silu" in str(traced.inlined_graph)
    assert_close([traced(x)], [stock(x)])
    graph = torch.fx.symbolic_trace(nn.Sequential(ours.act))
    assert_close([graph(x.clone())], [stock.act(x.clone())])


def test_an_older_optimizer_goes_on_for_some_steps():
    stock, ours, x = pair(nn.Sequential, Block(), Block(nn.Hardswish), nn.Conv2d(8, 4, 1))
    outputs = []
    for module in (stock, ours):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
        for _ in range(4):
            step(module, x)
            optimizer.step()
        outputs.append(module.eval()(x))
    assert_close(*([y] for y in outputs), 1e-3)


def test_gradients_that_are_accumulated_and_changed_weights():
    stock, ours, x = pair()
    for module in (stock, ours):
        module.zero_grad()
        for image in (x, 2 * x):
            module(image).square().mean().backward()
    assert_close([p.grad for p in ours.parameters()], [p.grad for p in stock.parameters()])
    y = ours(x)
    with torch.no_grad():
        ours.norm.bias.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# --- other packages' activations --------------------------------------------------------------


@pytest.mark.parametrize("name", ["HardSwishMe", "HardSwish", "Swish", "SwishMe"])
def test_geffnets_activations(name):
    activations = pytest.importorskip("geffnet.activations")
    kind = getattr(activations, name)
    stock, ours, x = pair(Block, kind)
    assert repr(ours) == repr(stock)
    assert type(ours.act) is not kind
    check(stock, ours, x, one_pass=True)
    again = pickle.loads(pickle.dumps(ours))
    assert type(again.act) is type(ours.act)
    check(stock, again, x, one_pass=True)
    assert type(sepconv.to_stock(ours).act) is kind


def test_foreign_classes_that_are_not_there():
    from sepconv.modules import foreign

    with pytest.raises(AttributeError, match="geffnet_Mish"):
        foreign.geffnet_Mish  # noqa: B018
    lookalike = type("Swish", (nn.Module,), {"__module__": "geffnet.activations.activations"})
    assert foreign.foreign_class(lookalike) is None
    with contextlib.suppress(ImportError):
        import geffnet.activations

        derived = type("Swish", (geffnet.activations.Swish,), {"__module__": __name__})
        assert foreign.foreign_class(derived) is None
