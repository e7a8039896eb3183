"""A program on PyTorch's tensors, by `sepconv.torch.run_program` and as an operation."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import programs

torch = pytest.importorskip("torch")

import sepconv.torch  # noqa: E402
from sepconv.engines.torch import program as adapter  # noqa: E402
from sepconv.program.embedded import bytes_of  # noqa: E402
from sepconv.program.program import Program  # noqa: E402

run = sepconv.torch.run_program
operation = torch.ops.sepconv.program.default


@pytest.fixture(scope="module")
def program():
    every = programs.every_operation()
    return Program(every._replace(outputs=every.outputs[:1], output_names=every.output_names[:1]))


def image(batch=2):
    return torch.randn(batch, 8, 8, 3, generator=torch.Generator().manual_seed(0))


def test_it_gives_the_program_s_bits(program):
    for batch in (1, 3):
        x = image(batch)
        found = run(program, x)
        np.testing.assert_array_equal(found.numpy(), program(x.numpy()))
    for x in (image().double(), image().to(torch.bfloat16), image().transpose(1, 2)):
        expected = program(x.float().numpy())
        np.testing.assert_array_equal(run(program, x).numpy(), expected)


def test_code_around_it_may_be_compiled(program):
    x = image()
    compiled = torch.compile(lambda x: run(program, x + 1) * 2, backend="eager")
    assert torch.equal(compiled(x), run(program, x + 1) * 2)


def test_no_gradient(program):
    x = image().requires_grad_()
    with pytest.raises(ValueError, match="it has no gradient"):
        run(program, x)
    assert not run(program, x.detach()).requires_grad
    with torch.no_grad():
        run(program, x)


def test_the_operation_opens_a_file_once(program, monkeypatch):
    file = torch.from_numpy(bytes_of(program).copy())
    x = image()
    expected = program(x.numpy())
    sizes = list(expected.shape)
    opened = []
    real = adapter.open_program
    monkeypatch.setattr(adapter, "open_program", lambda *a: opened.append(1) or real(*a))
    for _ in range(3):
        (found,) = operation([x], file, sizes, [len(sizes)], [0])
        np.testing.assert_array_equal(found.numpy(), expected)
    assert len(opened) == 1
    torch.library.opcheck(operation, ([x], file, sizes, [len(sizes)], [0]))


def test_the_operation_checks_what_it_is_given(program):
    file, x = torch.from_numpy(bytes_of(program).copy()), image()
    sizes = list(program(x.numpy()).shape)
    with pytest.raises(ValueError, match="must be a tensor of bytes"):
        operation([x], file.float(), sizes, [len(sizes)], [0])
    with pytest.raises(ValueError, match="The graph was made for a program that gives"):
        operation([x], file, [9, *sizes[1:]], [len(sizes)], [0])
    operation([x], file, sizes, [len(sizes)], [0])
    with pytest.raises(ValueError, match="cut short"):  # at an address that was known
        operation([x], file[:-1], sizes, [len(sizes)], [0])
    with pytest.raises(ValueError, match="it has no gradient"):
        operation([x.requires_grad_()], file, sizes, [len(sizes)], [0])


def test_errors(program):
    with pytest.raises(TypeError, match="Received: str"):
        run("program", image())
    with pytest.raises(ValueError, match="computes on the CPU"):
        run(program, image().to("meta"))
    with pytest.raises(ValueError, match="inputs"):
        run(program, image(), image())
