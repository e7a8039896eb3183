"""Operations of PyTorch graphs: what programs make of them, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from sepconv.modules.lowering import lower  # noqa: E402
from sepconv.program import reference  # noqa: E402
from sepconv.program.building.refusal import NotLowered  # noqa: E402
from sepconv.program.program import Program  # noqa: E402


class Calls(nn.Module):
    """Gives the results of functions, so that many are exported at once."""

    def __init__(self, *functions, **parts):
        super().__init__()
        self.functions = functions
        self.parts = nn.ModuleDict(parts)

    def forward(self, *inputs):
        return tuple(function(*inputs) for function in self.functions)


def drawn(module):
    """The module with statistics as after training."""
    rng = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3, generator=rng)
            part.running_var.uniform_(0.5, 2, generator=rng)
        for parameter in part.parameters(recurse=False):
            if parameter.ndim == 1:
                nn.init.normal_(parameter, 0.5, 0.5, generator=rng)
    return module


def check(module, *shapes, batches=(1, 3), positive=False):
    """Compares the reference and the program with a module, for batches that it did not see."""
    module = drawn(module).eval()
    network = lower(module, tuple(torch.zeros(2, *shape) for shape in shapes))
    program = Program(network)
    rng = np.random.default_rng(0)
    for batch in batches:
        inputs = [rng.normal(size=(batch, *shape)).astype("float32") for shape in shapes]
        inputs = [np.abs(x) + 0.1 for x in inputs] if positive else inputs
        with torch.no_grad():
            expected = module(*(torch.from_numpy(x) for x in inputs))
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = program(*inputs)
        found = found if isinstance(found, tuple) else (found,)
        exact = reference.run(network, *inputs)
        for want, got, slow in zip(expected, found, exact, strict=True):
            scale = max(1.0, float(want.abs().max()))
            np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=2e-5 * scale)
            np.testing.assert_allclose(slow, want.numpy(), rtol=0, atol=2e-5 * scale)
    return network


def operations(network):
    return [step.operation for step in network.steps]


def test_convolutions():
    parts = {
        "plain": nn.Conv2d(4, 6, 3, 2, 1),
        "depthwise": nn.Conv2d(4, 8, 3, padding="same", dilation=2, groups=4, bias=False),
        "grouped": nn.Conv2d(4, 6, (1, 3), (2, 1), groups=2),
        "pointwise": nn.Conv2d(4, 5, 1, stride=2),
        "even": nn.Conv2d(4, 4, 4, padding="same", groups=4),
        "wide": nn.Conv2d(4, 3, 1, padding=1),
    }
    module = Calls(*(lambda x, part=part: part(x) for part in parts.values()), **parts)
    check(module, (4, 9, 8))


def test_convolutions_of_one_axis():
    parts = {
        "plain": nn.Conv1d(4, 6, 3, 2, 1),
        "depthwise": nn.Conv1d(4, 4, 5, padding="same", groups=4),
        "wide": nn.Conv1d(4, 3, 1, padding=2),
        "norm": nn.Sequential(nn.Conv1d(4, 3, 1), nn.BatchNorm1d(3)),
    }
    module = Calls(*(lambda x, part=part: part(x) for part in parts.values()), **parts)
    check(module, (4, 11))


def test_a_block_is_one_step_between_transposes():
    block = nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)),  # as networks from TensorFlow pad
        nn.Conv2d(4, 4, 3, 2, groups=4, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU6(inplace=True),
        nn.Conv2d(4, 6, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.Hardswish(inplace=True),
    )
    network = check(block, (4, 8, 8))
    assert operations(network) == ["transpose", "convolution", "transpose"]
    assert network.steps[1].attributes["depthwise_activation"] == "relu6"
    assert network.steps[1].attributes["activation"] == "hard_silu"
    assert network.steps[1].attributes["spec"][5:9] == [0, 1, 0, 1]


def test_a_normalization_before_is_a_step():
    network = check(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), (4, 5, 5))
    assert operations(network) == ["scale", "unary"]


def test_a_shared_convolution_is_kept_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return self.part(self.part(x))

    assert len(check(Twice(), (4, 5, 5)).tensors) == 2


def test_activations():
    functions = [
        F.relu, F.relu6, F.hardtanh, F.hardswish, F.hardsigmoid, F.silu, F.sigmoid, F.tanh, F.gelu,
        F.leaky_relu, F.elu, F.selu, F.celu, F.softplus, F.softsign, F.mish, F.logsigmoid,
        F.glu,
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: F.threshold(x, 0.1, -2.0),
        lambda x: F.softmax(x, 1),
        lambda x: F.log_softmax(x, -1),
        lambda x: x.clamp(-0.5, 0.25),
        lambda x: x.clamp(min=-0.5),
        lambda x: x.clamp(max=0.5),
        lambda x: x.clamp(0, 6) * x,
    ]  # fmt: skip
    check(Calls(*functions), (4, 5, 6))
    parts = {"one": nn.PReLU(), "each": nn.PReLU(4)}
    check(Calls(*(lambda x, part=part: part(x) for part in parts.values()), **parts), (4, 5, 6))


def test_arithmetic():
    row, image = torch.arange(1.0, 7), torch.linspace(-1, 1, 120).reshape(4, 5, 6)
    many = torch.ones(2, 1, 4, 5, 6)
    functions = [
        lambda x, y: x + y,
        lambda x, y: torch.sub(x, y, alpha=2),
        lambda x, y: x * y.mean((2, 3), keepdim=True),
        lambda x, y: x / (y * y + 1),
        lambda x, y: torch.maximum(x, y) - torch.minimum(x, y),
        lambda x, y: x + y.mean(),  # fewer axes
        lambda x, y: 3 - x * 2 + 1.5,
        lambda x, y: x / 3 - row,
        lambda x, y: torch.add(x, row, alpha=3),
        lambda x, y: image[:, :1, :1] * x + image,
        lambda x, y: (x + many)[1] if False else x**2 + x**3,
        lambda x, y: -x.abs() + x.sign() + x.round() + x.floor() + x.ceil(),
        lambda x, y: x.sin() + x.cos() + x.erf() + x.exp() + x.square(),
    ]
    # In the order of PyTorch's axes, and of a convolution's results.
    first = nn.Conv2d(4, 4, 1)
    around = [lambda x, y, f=f: f(first(x), y) for f in functions]
    around += [lambda x, y, f=f: f(y, first(x)) for f in functions[:6]]
    check(Calls(*functions), (4, 5, 6), (4, 5, 6))
    check(Calls(*around, first=first), (4, 5, 6), (4, 5, 6))
    functions = [
        torch.log,
        torch.sqrt,
        torch.rsqrt,
        torch.reciprocal,
        lambda x: x**-0.5,
        lambda x: 2 / x,
    ]
    check(Calls(*functions), (3, 4), positive=True)


def test_operations_along_axes():
    first = nn.Conv2d(4, 6, 1)
    functions = [
        lambda x: x.mean((2, 3)),
        lambda x: x.mean((1, 2)),
        lambda x: x.mean(3),
        lambda x: x.sum((1,), keepdim=True),
        lambda x: x.amax((2, 3), keepdim=True),
        lambda x: x.amin(-1),
        lambda x: x.var((2, 3), keepdim=True),
        lambda x: F.softmax(x, 1),
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        lambda x: F.adaptive_avg_pool2d(x, (4, 2)),
        lambda x: F.adaptive_avg_pool2d(x, (8, None)),
        lambda x: F.max_pool2d(x, 3, 2, 1),
        lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
        lambda x: F.max_pool2d(x, 2, 1, dilation=2),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.interpolate(x, size=(16, 18), mode="bilinear"),
    ]
    around = [lambda x, f=f: f(first(x)) for f in functions]
    check(Calls(*around, first=first), (4, 8, 6))
    functions = [
        lambda x: F.max_pool1d(x, 2),
        lambda x: F.avg_pool1d(x, 3, 1, 1),
        lambda x: F.adaptive_avg_pool1d(x, 1),
        lambda x: F.adaptive_avg_pool1d(x, 4),
    ]
    check(Calls(*functions), (4, 8))


def test_normalizations():
    parts = {
        "layer": nn.LayerNorm(6),
        "image": nn.LayerNorm((8, 5, 6)),
        "plain": nn.LayerNorm(6, elementwise_affine=False),
        "group": nn.GroupNorm(2, 8),
        "instance": nn.InstanceNorm2d(8, affine=True),
        "square": nn.RMSNorm(6),
    }
    first = nn.Conv2d(4, 8, 1)
    functions = [lambda x, part=part: part(first(x)) for part in parts.values()]
    check(Calls(*functions, first=first, **parts), (4, 5, 6))


def test_shapes():
    first = nn.Conv2d(4, 8, 1)
    functions = [
        lambda x: x.flatten(1),
        lambda x: x.view(x.size(0), 2, 4, 5, 6).transpose(1, 2).reshape(x.size(0), 8, 5, 6),
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: x.transpose(1, -1) + 1,
        lambda x: x[:, 1:-1, ::2],
        lambda x: x[:, -1],
        lambda x: x[:, 2, 1:3],
        lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
        lambda x: torch.cat([*x.split([3, 2, 3], 1), x], 1),
        lambda x: torch.stack([x, x * 2], 2),
        lambda x: x.unsqueeze(2).expand(-1, -1, 3, -1, -1),
        lambda x: x.narrow(2, 1, 2).contiguous().clone(),
        lambda x: F.pad(x, (1, 2, 0, 1), value=0.5),
        lambda x: F.pad(x, (-1, 2, 0, -1)),
        lambda x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1),
        lambda x: F.dropout(x, 0.5, training=False).unflatten(1, (2, 4)),
        lambda x: x.reshape(-1, 6).mean(-1),
    ]
    around = [lambda x, f=f: f(first(x)) for f in functions]
    check(Calls(*around, first=first), (4, 5, 6))


def test_products():
    weight = nn.Linear(6, 3)
    functions = [
        lambda x: weight(x),
        lambda x: weight(x.flatten(2).mean(1).reshape(x.size(0), 5, 6)),
        lambda x: x @ weight.weight.t(),
        lambda x: torch.mm(x[:, 0, 0], weight.weight.t()),
        lambda x: torch.addmm(weight.bias, x[:, 0, 0], weight.weight.t()),
    ]
    check(Calls(*functions, weight=weight), (4, 5, 6))


def test_a_block_of_convnext_needs_no_transpose_within():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(4, 4, 7, padding=3, groups=4)
            self.norm = nn.LayerNorm(4)
            self.wide, self.narrow = nn.Linear(4, 16), nn.Linear(16, 4)
            self.gamma = nn.Parameter(torch.ones(4))

        def forward(self, x):
            y = self.norm(self.first(x).permute(0, 2, 3, 1))
            y = self.gamma * self.narrow(F.gelu(self.wide(y)))
            return x + y.permute(0, 3, 1, 2)

    found = operations(check(Block(), (4, 6, 6)))
    assert found.count("transpose") == 2
    assert (found[0], found[-1]) == ("transpose", "transpose")


def test_what_is_computed_from_constants_is_one():
    part = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
    network = check(nn.Sequential(part), (4, 5, 5))
    assert operations(network) == ["transpose", "convolution", "transpose"]


def test_sizes_that_are_open():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    auto = torch.export.Dim.AUTO
    shapes = ({0: auto, 2: auto, 3: auto},)
    network = lower(module, (torch.zeros(2, 3, 8, 9),), dynamic_shapes=shapes)
    assert network.inputs[0].shape == (None, 3, None, None)
    x = np.random.default_rng(0).normal(size=(3, 3, 5, 12)).astype("float32")
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(Program(network)(x), expected, atol=1e-5)


def test_integers_that_are_only_moved():
    class Pixels(nn.Module):
        def forward(self, x):
            return x.flip(0) if False else x.permute(0, 2, 3, 1) / 255.0

    x = np.arange(24, dtype="uint8").reshape(2, 3, 2, 2)
    network = lower(Pixels(), (torch.from_numpy(x),))
    np.testing.assert_allclose(Program(network)(x), x.transpose(0, 2, 3, 1) / 255, rtol=1e-6)


class Within(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.body = nn.Sequential(Calls(function))

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: torch.cumsum(x, 1), "aten.cumsum.default.*it is not known"),
        (lambda x: x @ x.transpose(2, 3), "second factor must be a matrix"),
        (lambda x: F.conv2d(x, x[:4, :, :3, :3].mean((0,), keepdim=True)), "must not depend"),
        (lambda x: F.interpolate(x, size=(7, 7)), "whole factors"),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "mode='reflect'"),
        (lambda x: F.adaptive_avg_pool2d(x, 3), "no equal windows"),
        (lambda x: F.softplus(x, 2.0), "beta is 2"),
        (lambda x: torch.div(x, 2, rounding_mode="floor"), "rounding_mode"),
        (lambda x: x.argmax(1), "argmax"),
        (lambda x: (x > 0) * x, "aten.gt.Scalar"),
        (lambda x: x.to(torch.float64), "float32 or in float64 throughout"),
        (lambda x: x + torch.rand(1), "aten.rand.default.*draws random numbers"),
        (lambda x: x + torch.randn(4), "aten.randn.default.*draws random numbers"),
        (lambda x: x * torch.ones(4).bernoulli(), "aten.bernoulli.default.*draws random numbers"),
        (lambda x: F.dropout(x, 0.5), "aten.(native_)?dropout.default.*draws random numbers"),
    ],
)
def test_what_is_refused_is_named(function, message):
    with pytest.raises(ValueError, match=message) as caught:
        lower(Within(function), (torch.zeros(2, 4, 4, 4),))
    if isinstance(caught.value, NotLowered):
        assert "'body.0'" in str(caught.value)


def test_a_module_that_decides_by_values_is_refused():
    class Decides(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match=r"torch\.export cannot read"):
        lower(Decides(), (torch.zeros(2, 4),))


def test_a_module_that_keeps_something_is_refused():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count += 1
            return x * 2

    with pytest.raises(ValueError, match="changes buffers"):
        lower(Counts(), (torch.zeros(2, 4),))


def test_a_fixed_batch_is_refused_unless_asked_for():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(2, 3, 4) * 2

    x = torch.zeros(2, 12)
    with pytest.raises(ValueError, match="dynamic_shapes"):
        lower(Fixed(), (x,))
    assert lower(Fixed(), (x,), dynamic_shapes=({},)).inputs[0].shape == (2, 12)
