"""A program as a module of PyTorch's, and sepconv.optimize, which makes one."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers.torch_networks import small_pair  # noqa: E402
from torch import nn  # noqa: E402

import sepconv  # noqa: E402
from sepconv.modules import ProgramModule  # noqa: E402
from sepconv.program.network import Input, Network, Step  # noqa: E402
from sepconv.program.program import Program  # noqa: E402

AUTO = torch.export.Dim.AUTO


class Several(nn.Module):
    """Two inputs and a dictionary of two outputs, one of them with a multiple of the batch."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 8, 1)

    def forward(self, a, b):
        y = self.mix(a).relu() + b
        return {"sum": y, "pixels": y.permute(0, 2, 3, 1).reshape(-1, 8)}


@pytest.fixture(scope="module")
def pair():
    """A stock network in evaluation mode, what `optimize` makes of it, and images."""
    stock, _, x = small_pair()
    torch.manual_seed(1)
    for part in stock.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    optimized, _ = sepconv.optimize(stock, x)
    return stock.eval(), optimized, x


def test_it_gives_what_the_module_gives(pair):
    stock, optimized, x = pair
    for given in (x, x[:1], x.to(memory_format=torch.channels_last), x.double()):
        expected = stock(given.float())
        found = optimized(given)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not found.requires_grad
    assert not any(True for _ in optimized.parameters())


def test_the_record_names_steps_and_modules(pair):
    stock, _, x = pair
    record = sepconv.optimize(stock, x).record
    lines = str(record).splitlines()
    assert lines[0] == "optimize: 13 modules as 14 steps of one call, verified"
    assert (
        "  yes  block.act     ReLU6              convolution depthwise 3x3, 32 channels, relu6"
        in lines
    )
    assert "  yes  classify      Linear             dense 16 to 5 features" in lines
    assert record.verification.startswith("verified: the outputs differ by at most ")
    unchecked = sepconv.optimize(stock, x, verify=False).record
    assert unchecked.verification == "not verified: verify=False"


def test_the_module_given_stays_as_it_is(pair):
    stock, _, x = pair
    module = copy.deepcopy(stock).train()
    module.block.norm1.eval()
    before = [value.clone() for value in module.state_dict().values()]
    optimized, _ = sepconv.optimize(module, x)
    assert module.training
    assert not module.block.norm1.training
    expected = optimized(x).clone()
    for value, same in zip(module.state_dict().values(), before, strict=True):
        assert torch.equal(value, same)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.equal(optimized(x), expected)


def test_outputs_are_put_together_as_the_module_does():
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 8, 4, 4)
    stock = Several()
    optimized, _ = sepconv.optimize(stock, (a, b))
    for given in ((a, b), (a[:1], b[:1])):
        expected, found = stock(*given), optimized(*given)
        assert list(found) == ["sum", "pixels"]
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, expected[name].detach(), rtol=1e-4, atol=1e-4)
    plain = ProgramModule(optimized_program(stock, (a, b)))
    assert isinstance(plain(a, b), tuple)


class Named(nn.Module):
    """A dictionary of two inputs, which are treated differently."""

    def forward(self, given, more):
        return given["b"] - 2 * given["a"] + 3 * more[0]["c"]


def test_dictionaries_count_by_their_keys(tmp_path):
    a, b, c = torch.randn(3, 2, 4)
    stock = Named()
    optimized, _ = sepconv.optimize(stock, ({"b": b, "a": a}, [{"c": c}]))
    torch.save(optimized, tmp_path / "named.pt")
    loaded = torch.load(tmp_path / "named.pt", weights_only=False)
    compiled = torch.compile(optimized)
    for module in (optimized, copy.deepcopy(optimized), loaded, compiled):
        for given in ({"b": b, "a": a}, {"a": a, "b": b}):
            found = module(given, ({"c": c},))
            torch.testing.assert_close(found, stock(given, [{"c": c}]))
    with pytest.raises(ValueError, match=r"the keys \['b', 'a'\]. Received: \['a'\]"):
        optimized({"a": a}, [{"c": c}])


def test_a_program_s_module_takes_names(pair):
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 8, 4, 4)
    stock = Several()
    module = ProgramModule(sepconv.compile(stock, (a, b)))
    expected = list(stock(a, b).values())
    for given in ((a, b), ({"b": b, "a": a},), ([a, b],)):
        torch.testing.assert_close(list(module(*given)), expected)
    with pytest.raises(ValueError, match="must have an array for each of the inputs"):
        module({"a": a})


def test_arguments_may_be_given_by_name(pair):
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 8, 4, 4)
    stock = Several()
    optimized, _ = sepconv.optimize(stock, (a, b))
    quantized, _ = sepconv.quantize(stock, (a.repeat(9, 1, 1, 1), b.repeat(9, 1, 1, 1)))
    program = ProgramModule(sepconv.compile(stock, (a, b)))
    for module in (optimized, copy.deepcopy(optimized), quantized, program):
        expected = module(a, b)
        for found in (module(a, b=b), module(b=b, a=a)):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
        for arguments, named in (((a,), {}), ((a, b), {"c": b}), ((a, b), {"b": b})):
            with pytest.raises((TypeError, ValueError), match="takes"):
                module(*arguments, **named)


def optimized_program(module, inputs):
    return sepconv.compile(module, inputs)


@pytest.mark.parametrize("kind", ["deepcopy", "pickle", "save", "state"])
def test_copies_give_the_same_bits(pair, kind):
    _, optimized, x = pair
    if kind == "deepcopy":
        other = copy.deepcopy(optimized)
    elif kind == "pickle":
        other = pickle.loads(pickle.dumps(optimized))
    elif kind == "save":
        stream = io.BytesIO()
        torch.save(optimized, stream)
        stream.seek(0)
        other = torch.load(stream, weights_only=False)
    else:
        stream = io.BytesIO()
        torch.save(optimized.state_dict(), stream)
        stream.seek(0)
        other, _ = sepconv.optimize(nn.Flatten(), torch.zeros(1, 3))
        other.load_state_dict(torch.load(stream))
    assert other.file.data_ptr() != optimized.file.data_ptr()
    assert torch.equal(other(x), optimized(x))


def test_another_state_is_another_network_also_where_it_was_compiled(pair):
    stock, _, x = pair
    changed = copy.deepcopy(stock)
    with torch.no_grad():
        changed.classify.bias.add_(1)
    one, other = (sepconv.optimize(module, x).module for module in (stock, changed))
    compiled = torch.compile(one, backend="aot_eager")
    compiled(x)
    one.load_state_dict(other.state_dict())
    assert torch.equal(one(x), other(x))
    assert torch.equal(compiled(x), other(x))
    # The buffer itself, as an optimizer or a broadcast would change it.
    one.file.copy_(sepconv.optimize(stock, x).module.file)
    assert torch.equal(one(x), sepconv.optimize(stock, x).module(x))


def test_it_is_saved_as_a_program_and_opened_from_one(pair, tmp_path):
    _, optimized, x = pair
    optimized.save(tmp_path / "net.sepconv")
    found = sepconv.load(tmp_path / "net.sepconv")(x.numpy())
    np.testing.assert_array_equal(found, optimized(x).numpy())
    assert torch.equal(ProgramModule(tmp_path / "net.sepconv")(x), optimized(x))


def test_torch_compile_sees_one_operation(pair):
    _, optimized, x = pair
    compiled = torch.compile(
        nn.Sequential(optimized, nn.Softmax(1)), backend="aot_eager", fullgraph=True
    )
    for given in (x, x[:2], x[:1]):
        assert torch.equal(compiled(given), optimized(given).softmax(1))


def test_an_exported_file_holds_the_network(pair, tmp_path):
    _, optimized, x = pair
    exported = torch.export.export(optimized, (x,), dynamic_shapes=(({0: AUTO},),))
    torch.export.save(exported, tmp_path / "net.pt2")
    np.savez(tmp_path / "x.npz", x=x.numpy(), y=optimized(x[:2]).numpy())
    code = """
import sys, numpy as np, torch, sepconv.modules
given = np.load(sys.argv[2])
module = torch.export.load(sys.argv[1]).module()
x = torch.from_numpy(given["x"])
for _ in range(2):
    np.testing.assert_array_equal(module(x[:2]).numpy(), given["y"])
print("same")
"""
    paths = [str(tmp_path / name) for name in ("net.pt2", "x.npz")]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "same"


def test_compile_takes_its_steps(pair):
    _, optimized, x = pair
    network = nn.Sequential(nn.ReLU(), optimized, nn.Linear(5, 2)).eval()
    program = sepconv.compile(network, x)
    assert "1.classify" in [step.name for step in program.network.steps]
    expected = network(x.detach()).detach().numpy()
    np.testing.assert_allclose(program(x.numpy()), expected, rtol=1e-4, atol=1e-4)
    again, _ = sepconv.optimize(optimized, x)
    assert torch.equal(again(x), optimized(x))
    assert torch.equal(again.file, optimized.file)


def test_a_program_of_bfloat16(pair):
    stock, _, x = pair
    optimized, _ = sepconv.optimize(stock, x, dtype="bfloat16")
    found, expected = optimized(x), stock(x).detach()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)
    assert torch.equal(copy.deepcopy(optimized)(x), found)
    assert sepconv.compile(optimized, x).network.steps
    with pytest.raises(ValueError, match="values of bfloat16, as only a whole program may"):
        sepconv.compile(nn.Sequential(nn.ReLU(), optimized), x)


def test_gradients_are_refused_and_others_go_on(pair):
    _, optimized, x = pair
    needs = x.clone().requires_grad_()
    compiled = torch.compile(optimized, backend="eager")
    for call in (
        lambda: optimized(needs),
        lambda: compiled(needs),
        lambda: torch.func.grad(lambda x: optimized(x).sum())(x),
        lambda: torch.func.jvp(optimized, (x,), (x,)),
    ):
        with pytest.raises(Exception, match="is for inference: it has no gradient"):
            call()
    with torch.no_grad():
        assert torch.equal(optimized(needs), optimized(x))
    head = nn.Linear(5, 1)
    head(optimized(x)).sum().backward()
    assert head.weight.grad is not None


def test_vmap(pair):
    _, optimized, x = pair
    mapped = torch.vmap(optimized)(torch.stack([x, x + 1]))
    assert torch.equal(mapped, torch.stack([optimized(x), optimized(x + 1)]))
    (few,) = torch.vmap(lambda x: (optimized(x.mT),), in_dims=1)(x.mT[:, None])
    assert torch.equal(few[0], optimized(x))


def test_moves_and_modes_change_nothing(pair):
    _, optimized, x = pair
    network = nn.Sequential(optimized, nn.Dropout())
    network.train()
    assert not optimized.training
    moved = copy.deepcopy(optimized).double().to("cpu")
    assert torch.equal(moved(x), optimized(x))
    with pytest.raises(ValueError, match="computes on the CPU"):
        optimized(x.to("meta"))


def test_errors(pair):
    _, optimized, x = pair
    with pytest.raises(TypeError, match="example_inputs"):
        sepconv.optimize(nn.ReLU())
    # Some versions of torch.export read it, and some do not.
    with pytest.raises(ValueError, match=r"cannot be compiled|torch\.export cannot read"):
        sepconv.optimize(nn.LSTM(3, 4, batch_first=True), torch.zeros(1, 5, 3))
    with pytest.raises(TypeError, match="Received: Linear"):
        ProgramModule(nn.Linear(2, 2))
    step = Step("unary", "relu", (0,), {"function": "relu", "a": 0.0, "b": np.inf, "c": 0.0})
    network = Network("float32", [Input("x", (None, 3))], [step], [1], ["y"], [])
    with pytest.raises(ValueError, match="loaded from a file"):
        ProgramModule(Program(network, keep=False))
    with pytest.raises(ValueError, match="shape"):
        optimized(x[..., :4])
    damaged = copy.deepcopy(optimized)
    state = damaged.state_dict()
    state["file"] = state["file"].clone()
    state["file"][-1] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        damaged.load_state_dict(state)
