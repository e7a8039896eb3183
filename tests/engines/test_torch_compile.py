"""PyTorch: torch.compile, torch.export, fake tensors, and PyTorch's own checks of operations."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode

import sepconv.torch
from sepconv.geometry import conv_spec
from sepconv.torch import depthwise_conv2d, separable_conv1d, separable_conv2d


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def _tensors():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(*s, generator=generator, requires_grad=True)
        for s in ((2, 7, 6, 3), (3, 2, 3, 2), (1, 1, 6, 4), (4,))
    ]


def _function(x, k, p, b):
    y = separable_conv2d(x + 1, k, p, b, strides=(1, 2), padding="same", activation="relu")
    return y.sin()


def _close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_fullgraph_values_and_gradients(backend, dynamic):
    tensors = _tensors()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # PyTorch 2.6 says so of its own settings.
        warnings.filterwarnings("ignore", "Skipping serialization of skipfiles", UserWarning)
        compiled = torch.compile(_function, fullgraph=True, backend=backend, dynamic=dynamic)
        y = compiled(*tensors)
    expected = _function(*tensors)
    _close(y, expected)
    grads = torch.autograd.grad(y.square().sum(), tensors)
    for a, b in zip(grads, torch.autograd.grad(expected.square().sum(), tensors), strict=True):
        _close(a, b)


def test_dynamic_batch_compiles_once():
    _, k, p, b = _tensors()
    counter = CompileCounter()
    compiled = torch.compile(lambda x: _function(x, k, p, b), fullgraph=True, backend=counter)
    for batch in (2, 3, 5):
        x = torch.randn(batch, 7, 6, 3)
        torch._dynamo.mark_dynamic(x, 0)
        _close(compiled(x), _function(x, k, p, b))
    assert counter.frame_count == 1


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["same", "valid", ((1, 0), (2, 3))])
def test_dynamic_image_sizes(data_format, padding):
    _, k, p, b = _tensors()
    counter = CompileCounter()

    def function(x):
        return separable_conv2d(
            x, k, p, b, strides=(2, 1), dilation_rate=2, padding=padding, data_format=data_format
        )

    compiled = torch.compile(function, fullgraph=True, backend=counter, dynamic=True)
    for height, width in ((9, 8), (11, 12), (20, 9)):
        shape = (2, height, width, 3) if data_format == "channels_last" else (2, 3, height, width)
        x = torch.randn(shape)
        _close(compiled(x), function(x))
    assert counter.frame_count == 1


def test_channels_last_memory_format_is_kept_when_compiled():
    _, k, _, _ = _tensors()
    x = torch.randn(2, 3, 7, 6).to(memory_format=torch.channels_last)

    def function(x):
        return depthwise_conv2d(x, k, data_format="channels_first")

    y = torch.compile(function, fullgraph=True, backend="inductor")(x)
    expected = function(x)
    assert y.stride() == expected.stride()
    _close(y, expected)


def test_one_dimension_and_half_types():
    x, k, p = torch.randn(2, 9, 3), torch.randn(3, 3, 1), torch.randn(1, 3, 2)
    tensors = [t.bfloat16() for t in (x, k, p)]

    def function(x, k, p):
        return separable_conv1d(x, k, p, padding="causal", dilation_rate=2)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*tensors), function(*tensors))


class _Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(torch.randn(3, 3, 3, 1))
        self.p = torch.nn.Parameter(torch.randn(1, 1, 3, 5))

    def forward(self, x):
        return separable_conv2d(x, self.k, self.p, padding="same", activation="relu6")


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_a_dynamic_batch(strict):
    model = _Model()
    exported = torch.export.export(
        model,
        (torch.randn(2, 6, 6, 3),),
        dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
        strict=strict,
    )
    names = {str(n.target) for n in exported.graph.nodes if n.op == "call_function"}
    assert names == {"sepconv.forward.default"}
    x = torch.randn(5, 6, 6, 3)
    _close(exported.module()(x), model(x))


def test_errors_are_raised_while_tracing():
    x, k, p, _ = _tensors()
    compiled = torch.compile(lambda x: depthwise_conv2d(x, k[:, :, :2]), fullgraph=True)
    with pytest.raises(Exception, match="depthwise_kernel's third axis must equal the input's"):
        compiled(x)
    compiled = torch.compile(lambda x: separable_conv2d(x, k, p[:, :, :3]), fullgraph=True)
    with pytest.raises(Exception, match=r"pointwise_kernel must have the shape \(1, 1, 6"):
        compiled(x)
    compiled = torch.compile(lambda x: depthwise_conv2d(x, k, strides=0))
    with pytest.raises(ValueError, match="strides must be positive"):
        compiled(x)


def test_sizes_unknown_while_tracing_are_checked_when_run():
    _, k, _, _ = _tensors()
    compiled = torch.compile(
        lambda x: depthwise_conv2d(x, k, dilation_rate=3), backend="aot_eager", dynamic=True
    )
    compiled(torch.randn(2, 9, 9, 3))
    with pytest.raises(Exception, match="The output would be empty"):
        compiled(torch.randn(2, 5, 9, 3))


@pytest.mark.parametrize(
    ("data_format", "separable", "activation"),
    [
        ("channels_last", True, 2),
        ("channels_first", True, 0),
        ("channels_last", False, 1),
    ],
)
def test_opcheck(data_format, separable, activation):
    x, k, p, b = _tensors()
    spec = list(conv_spec((1, 2), "same", (1, 2), data_format))
    if data_format == "channels_first":
        x = torch.randn(2, 3, 7, 6, requires_grad=True)
    p = p if separable else None
    b = b if separable else torch.randn(6, requires_grad=True)
    torch.library.opcheck(torch.ops.sepconv.forward.default, (x, k, p, b, spec, activation))
    dy = torch.randn_like(torch.ops.sepconv.forward(x, k, p, b, spec, 0)).requires_grad_()
    for wanted in ([True] * 4, [False, True, False, True]):
        wanted[2] = wanted[2] and separable
        torch.library.opcheck(torch.ops.sepconv.backward.default, (x, k, p, dy, spec, wanted))


def test_fake_and_real_strides_agree_where_formats_are_ambiguous():
    k = torch.randn(1, 1, 1, 3)
    for shape in ((2, 1, 4, 5), (2, 1, 1, 1), (1, 1, 6, 1)):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(shape).to(memory_format=memory_format)
            real = sepconv.torch.depthwise_conv2d(x, k, data_format="channels_first")
            with FakeTensorMode() as mode:
                fake = sepconv.torch.depthwise_conv2d(
                    mode.from_tensor(x), mode.from_tensor(k), data_format="channels_first"
                )
            assert fake.stride() == real.stride()
