"""Our modules under what PyTorch does with modules: compilers, transforms, copies, wrappers."""

from __future__ import annotations

import copy
import io
import os
import pickle
import socket

import pytest
import torch
import torch._dynamo.testing
from helpers.torch_networks import Block, Small, assert_close, small_pair, step
from torch import nn
from torch.utils.checkpoint import checkpoint

import sepconv
from sepconv.engines import thresholds

FORMATS = pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"]
)


def test_compile_by_inductor():
    torch._dynamo.reset()
    stock = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1))
    ours, _ = sepconv.accelerate(copy.deepcopy(stock))
    x = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last)
    compiled = torch.compile(ours, fullgraph=True)
    assert_close(step(compiled, x), step(stock, x))
    assert compiled(x).stride() == ours(x).stride()


@FORMATS
def test_compile(memory_format):
    torch._dynamo.reset()
    stock, ours, x = small_pair(memory_format=memory_format)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    assert_close(step(compiled, x), step(stock, x))
    assert_close([compiled(x)], [stock(x)])
    for a, b in zip(ours.buffers(), stock.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    stock.eval()
    compiled.eval()
    with torch.no_grad():
        assert_close([compiled(x)], [stock(x)])


def test_compiled_before_it_is_accelerated():
    torch._dynamo.reset()
    module = Small().eval()
    x = torch.randn(2, 3, 8, 8)
    seen = []

    def backend(graph, _):
        seen.append({str(node.target) for node in graph.graph.nodes})
        return graph

    compiled = torch.compile(module, backend=backend)
    expected = compiled(x)
    sepconv.accelerate(compiled)
    assert_close([compiled(x)], [expected])
    assert len(seen) == 2
    assert "sepconv.forward.default" in seen[1] - seen[0]


def test_compiled_for_every_batch_once():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    _, ours, _ = small_pair()
    compiled = torch.compile(ours.eval(), fullgraph=True, backend=counter)
    for batch in (2, 3, 5):
        x = torch.randn(batch, 3, 8, 8)
        torch._dynamo.mark_dynamic(x, 0)
        assert_close([compiled(x)], [ours(x)])
    assert counter.frame_count == 1


def test_export_has_our_operations_and_after_to_stock_pytorchs():
    stock, ours, x = small_pair()
    shapes = {"x": {0: torch.export.Dim("batch")}}
    exported = torch.export.export(ours.eval(), (x,), dynamic_shapes=shapes)
    names = {str(node.target) for node in exported.graph.nodes}
    assert {"sepconv.forward.default", "sepconv.pointwise.default"} <= names
    more = torch.cat([x, x])
    assert_close([exported.module()(more)], [stock.eval()(more)])
    exported = torch.export.export(sepconv.to_stock(ours), (x,))
    assert not any("sepconv" in str(node.target) for node in exported.graph.nodes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_jit_trace_has_our_operations():
    stock, ours, x = small_pair()
    traced = torch.jit.trace(ours.eval(), x)
    assert "sepconv::pointwise" in str(traced.inlined_graph)
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    assert_close([loaded(x)], [stock.eval()(x)])


def test_fx_traces_pytorchs_own():
    _, ours, x = small_pair()
    traced = torch.fx.symbolic_trace(nn.Sequential(ours.head))
    assert not any("sepconv" in str(node.target) for node in traced.graph.nodes)
    x = torch.randn(2, 8, 5, 5)
    assert_close([traced(x)], [ours.head(x)])


def test_autocast():
    stock, ours, x = small_pair()
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = ours(x), stock(x)
    assert y.dtype is expected.dtype is torch.bfloat16
    assert_close([y.float()], [expected.float()], 0.05)
    with torch.autocast("cpu", torch.bfloat16):
        grads = step(ours, x)
    assert all(g.dtype is torch.float32 and g.isfinite().all() for g in grads[1:])
    with torch.autocast("cpu", torch.bfloat16):
        y = ours.head(torch.randn(1, 8, 5, 5, requires_grad=True))
    assert y.dtype is torch.bfloat16
    assert y.grad_fn.name() == "_DepthwiseBackward"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_and_files_of_modules(copied):
    _, ours, x = small_pair()
    ours.eval()
    other = copied(ours)
    assert [type(part) for part in other.modules()] == [type(part) for part in ours.modules()]
    assert torch.equal(other(x), ours(x))
    file = io.BytesIO()
    torch.save(other, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert type(loaded.head).__module__ == "sepconv.modules"
    assert torch.equal(loaded(x), ours(x))


def test_functional_call_grad_and_vmap():
    stock, ours, x = small_pair(torch.float64)
    stock.eval()
    ours.eval()
    names = [name for name, _ in ours.named_parameters()]
    parameters = {name: p.detach() for name, p in ours.named_parameters()}

    def loss(module, parameters, x):
        return torch.func.functional_call(module, parameters, (x[None],)).square().sum()

    def per_image(module):
        grad = torch.func.grad(lambda parameters, x: loss(module, parameters, x))
        return torch.func.vmap(grad, (None, 0))(parameters, x)

    got, expected = per_image(ours), per_image(stock)
    assert_close([got[n] for n in names], [expected[n] for n in names], 1e-9)
    tangents = (torch.ones_like(x),)
    got, expected = (torch.func.jvp(m, (x,), tangents) for m in (ours, stock))
    assert_close(got, expected, 1e-9)


def test_forward_mode_in_eager():
    stock, ours, x = small_pair(torch.float64)
    tangents = []
    for module in (ours, stock):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            tangents.append(torch.autograd.forward_ad.unpack_dual(module(dual)).tangent)
    assert_close(*([t] for t in tangents), 1e-9)


@FORMATS
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing(use_reentrant, memory_format):
    _, ours, x = small_pair(memory_format=memory_format)
    expected = step(ours, x)
    forward = type(ours.block).forward

    class Checkpointed(Block):
        def forward(self, x):
            return checkpoint(lambda x: forward(self, x), x, use_reentrant=use_reentrant)

    ours.block.__class__ = Checkpointed
    assert_close(step(ours, x), expected, 1e-6)


@FORMATS
@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(2, 4, 2, groups=2, stride=(2, 1), padding=1),
        nn.Conv2d(8, 8, 1, stride=2),
        nn.BatchNorm2d(2),
    ],
    ids=["depthwise", "pointwise", "batch norm"],
)
def test_gradcheck_and_gradgradcheck(module, memory_format):
    torch.manual_seed(0)
    module, record = sepconv.accelerate(copy.deepcopy(module).double())
    assert record.changed == 1
    channels = 8 if module.weight.shape[0] == 8 else 2
    x = torch.randn(2, channels, 3, 3, dtype=torch.float64).to(memory_format=memory_format)
    names = [name for name, _ in module.named_parameters()]
    buffers = {name: b.clone() for name, b in module.named_buffers()}

    def function(x, *values):
        values = {
            **{k: b.clone() for k, b in buffers.items()},
            **dict(zip(names, values, strict=True)),
        }
        return torch.func.functional_call(module, values, (x,))

    inputs = [t.detach().clone().requires_grad_() for t in (x, *module.parameters())]
    options = {"fast_mode": True, "check_forward_ad": True, "check_batched_grad": True}
    torch.autograd.gradcheck(function, inputs, **options)
    torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


LAYERS = pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8),
        lambda: nn.Conv2d(8, 16, 3, stride=2, groups=8, bias=False),
        lambda: nn.Conv2d(8, 12, 1),
        lambda: nn.BatchNorm2d(8),
        lambda: nn.Sequential(nn.BatchNorm2d(8), nn.SiLU()),
    ],
    ids=["depthwise", "multiplier", "pointwise", "norm", "norm and activation"],
)


def accelerated_layer(layer, memory_format, monkeypatch):
    """A stock layer, ours of the same weights, however small, and what both take."""
    monkeypatch.setattr(thresholds, "LEAST_NORMALIZED", 1)
    monkeypatch.setattr(thresholds, "LEAST_ACTIVATED", 1)
    stock = layer().to(memory_format=memory_format)
    ours, _ = sepconv.accelerate(copy.deepcopy(stock))
    return stock, ours, torch.randn(3, 8, 6, 5).to(memory_format=memory_format)


def hooked_step(module, x, change):
    """A training step whose saved tensors come back changed."""
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, change):
        return step(module, x)


@LAYERS
@FORMATS
def test_saved_tensors_that_come_back_in_other_memory(layer, memory_format, monkeypatch):
    stock, ours, x = accelerated_layer(layer, memory_format, monkeypatch)
    expected = step(stock, x)
    for change in (
        lambda tensor: torch.stack([tensor, tensor], -1)[..., 0],
        lambda tensor: tensor.contiguous(),
    ):
        assert_close(hooked_step(ours, x, change), expected)


@LAYERS
@FORMATS
def test_saved_tensors_that_come_back_as_others(layer, memory_format, monkeypatch):
    """Our kernels do not read them as what was saved."""
    stock, ours, x = accelerated_layer(layer, memory_format, monkeypatch)
    expected = step(stock, x)
    if isinstance(stock, nn.Conv2d):
        for change in (torch.Tensor.bfloat16, lambda tensor: tensor[..., :1, :]):
            with pytest.raises((TypeError, ValueError, RuntimeError)):
                hooked_step(ours, x, change)
    else:
        found = hooked_step(ours, x, torch.Tensor.bfloat16)
        assert_close(found, expected, 0.05)


def test_data_parallel_without_devices():
    stock, ours, x = small_pair()
    assert_close(step(nn.DataParallel(ours), x), step(stock, x))


def test_memory_formats_and_modes_that_look_on():
    """Fake tensors, and modes that see every operation."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    _, ours, x = small_pair()
    with FlopCounterMode(display=False):
        assert ours(x).shape == (3, 5)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y = ours.head(mode.from_tensor(torch.randn(2, 8, 5, 5)))
    assert type(y).__name__ == "FakeTensor"
    assert y.shape == (2, 16, 5, 5)


def _train(rank, world, port, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    module = nn.parallel.DistributedDataParallel(_trained())
    _run(module, _images()[rank::world])
    if rank == 0:
        torch.save([p.detach() for p in module.parameters()], results)
    torch.distributed.destroy_process_group()


def _trained():
    torch.manual_seed(0)
    # In evaluation mode, since statistics are each process' own.
    return sepconv.accelerate(Small().eval()).module


def _images():
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def _run(module, images):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(images).square().mean().backward()  # a mean of the processes' means
        optimizer.step()


def test_two_processes_equal_one(tmp_path):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    results = tmp_path / "parameters.pt"
    torch.multiprocessing.spawn(_train, (2, port, str(results)), nprocs=2)
    module = _trained()
    _run(module, _images())
    assert_close([p.detach() for p in module.parameters()], torch.load(results), 1e-5)
