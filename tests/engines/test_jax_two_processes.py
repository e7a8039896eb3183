"""Training on JAX in two processes: the losses of one process, and no hang when one dies."""


def test_same_losses_as_one_process(training, capsys):
    assert training.compare("jax", "keras", steps=3) <= training.TOLERANCE
    assert "largest difference" in capsys.readouterr().out
    # A program that gathered would have failed there, too.


def test_a_dead_worker_ends_the_other(training, capsys):
    assert training.kill("jax", "jit", patience=10) < 60
    assert "saying" in capsys.readouterr().out
