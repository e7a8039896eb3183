"""What must hold for what sepconv makes of a model: `check`."""

from __future__ import annotations

import contextlib
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

import sepconv
from generated_models import compiling, weights
from generated_models.cases import distance, predict, values_of
from generated_models.own import CUSTOM_OBJECTS
from generated_models.refusals import refusal_of

FUNCTIONS = ("accelerate", "to_stock", "factorize", "optimize")


class Failure(NamedTuple):
    """Something that does not hold.

    Attributes:
        function: of sepconv, of which the result is wrong.
        check: what does not hold, in a few words.
        message: the rest.
    """

    function: str
    check: str
    message: str


class Outcome:
    """What came of a model.

    Attributes:
        failures: what does not hold.
        refusals: (function, documented reason), also where Keras itself cannot.
        driven: the functions that returned something.
    """

    def __init__(self):
        self.failures: list[Failure] = []
        self.refusals: list[tuple[str, str]] = []
        self.driven: list[str] = []

    def expect(self, function, check, right, message=""):
        """Adds a failure unless something is right."""
        if not right:
            self.failures.append(Failure(function, check, str(message)[:1500]))
        return right


def check(case, folder, train=True):
    """Drives all functions on a model.

    Args:
        case: the model; it is trained at the end.
        folder: where files may be written.
        train: whether the model and its copies are trained and compared.

    Returns:
        An `Outcome`.
    """
    outcome = Outcome()
    before = Snapshot(case)
    results = {}
    fast = drive(outcome, case, "accelerate", lambda: sepconv.accelerate(case.model).model)
    if fast is not None:
        _check_copy(outcome, case, "accelerate", fast, before)
        results["accelerate"] = fast
        stock = drive(outcome, case, "to_stock", lambda: sepconv.to_stock(fast))
        if stock is not None:
            _check_copy(outcome, case, "to_stock", stock, before)
            results["to_stock"] = stock
    goal = {"rank": 1} if case.seed % 3 else {"energy": 0.9999}
    small = drive(outcome, case, "factorize", lambda: sepconv.factorize(case.model, **goal))
    if small is not None:
        _check_factorized(outcome, case, *small, before)
        results["factorize"] = small.model
    served = drive(outcome, case, "optimize", lambda: sepconv.optimize(case.model).model)
    if served is not None:
        _check_predictions(outcome, case, "optimize", "predictions", served, before.predictions)
        _check_apart(outcome, case, "optimize", served)
        results["optimize"] = served
    program = drive(outcome, case, "compile", lambda: sepconv.compile(case.model, verify=False))
    if program is not None:
        _check_program(outcome, case, program, before.predictions, Path(folder))
    for name, model in results.items():
        check_file(outcome, case, name, model, Path(folder))
    before.check_unchanged(outcome, case)
    if train and case.model.compiled:
        _check_training(outcome, case, {n: results[n] for n in FUNCTIONS[:2] if n in results})
    return outcome


def drive(outcome, case, function, call):
    """The result of a function of sepconv; None where it raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call()
    except Exception as error:
        reason = refusal_of(function, error, case)
        if reason:
            outcome.refusals.append((function, reason))
        else:
            outcome.expect(function, "raises", False, f"{type(error).__name__}: {error}")
        return None
    outcome.driven.append(function)
    return result


class Snapshot:
    """What a model is before sepconv sees it."""

    def __init__(self, case):
        model = case.model
        self.layers = [(layer, type(layer), layer.name) for layer in model._flatten_layers()]
        self.variables = [(v, v.trainable, values_of(v)) for v in _variables(model)]
        self.predictions = predict(model, case.inputs)
        self.compiled = model.compiled, getattr(model, "optimizer", None)

    def check_unchanged(self, outcome, case):
        """The model is what it was."""
        now = list(case.model._flatten_layers())
        same = [(layer, type(layer), layer.name) for layer in now] == self.layers
        outcome.expect("any", "the original's layers stay", same, now)
        for variable, trainable, values in self.variables:
            same = np.array_equal(values_of(variable), values, equal_nan=True)
            outcome.expect("any", "the original's variables stay", same, variable.path)
            outcome.expect(
                "any", "the original's trainable flags", variable.trainable == trainable, variable
            )
        compiled = case.model.compiled, getattr(case.model, "optimizer", None)
        outcome.expect("any", "the original's compilation stays", compiled == self.compiled)
        apart = distance(self.predictions, predict(case.model, case.inputs))
        outcome.expect("any", "the original's predictions stay", apart < 1e-6, apart)


def _variables(model):
    """All variables, the optimizer's among them."""
    optimizer = getattr(model, "optimizer", None) if model.compiled else None
    return [*model.variables, *([] if optimizer is None else optimizer.variables)]


def _check_copy(outcome, case, function, copy, before):
    """A copy is what the original is, but for the classes that sepconv replaces."""

    def expect(check, right, message=""):
        return outcome.expect(function, check, right, message)

    olds, news = list(case.model._flatten_layers()), list(copy._flatten_layers())
    names = [layer.name for layer in olds], [layer.name for layer in news]
    if expect("names", names[0] == names[1], names):
        for old, new in zip(olds, news, strict=True):
            stock = getattr(type(new), "_stock", type(new))
            kind = type(new) if function == "to_stock" else stock
            expect("classes", type(old) in (kind, type(new)), f"{old.name}: {type(new)}")
            expect("trainable layers", old.trainable == new.trainable, old.name)
            policies = [_policy(layer) for layer in (old, new)]
            expect("dtype policies", policies[0] == policies[1], f"{old.name} {policies}")
    if expect("variables", len(case.model.variables) == len(copy.variables)):
        for old, new in zip(case.model.variables, copy.variables, strict=True):
            said = [(v.name, v.trainable, v.dtype, tuple(v.shape)) for v in (old, new)]
            if expect("variables", said[0] == said[1], said):
                same = np.array_equal(values_of(old), values_of(new), equal_nan=True)
                expect("values of variables", same, old.path)
        paths = [sorted({v.path for v in m.trainable_variables}) for m in (case.model, copy)]
        # By them PyTorch's modules know their parameters, and whose gradients to forget.
        expect("paths that tell variables apart", len(paths[0]) == len(paths[1]), paths)
    _check_predictions(outcome, case, function, "predictions", copy, before.predictions)
    _check_apart(outcome, case, function, copy)
    _check_compiled(outcome, case, function, copy)


def _policy(layer):
    policy = layer.dtype_policy
    return type(policy).__name__, policy.name, policy.compute_dtype, policy.variable_dtype


def _check_predictions(outcome, case, function, check, model, expected):
    try:
        apart = distance(expected, predict(model, case.inputs))
    except Exception as error:
        outcome.expect(function, f"{check}: raises", False, f"{type(error).__name__}: {error}")
        return
    outcome.expect(function, check, apart <= case.bound, f"{apart:.2e} apart")


def _check_program(outcome, case, program, expected, folder):
    """It predicts the same, of any batch, on any number of threads, and from a file."""
    wanted = keras.tree.flatten(expected)

    def check_predictions(flat, found):
        apart = distance(wanted, [y.astype("float64") for y in found])
        outcome.expect("compile", "predictions", apart <= case.bound, f"{apart:.2e} apart")
        if all(one.shape[0] is None for one in program.inputs):
            first = outputs_of(program, [x[:1] for x in flat])
            apart = distance([y[:1] for y in wanted], [y.astype("float64") for y in first])
            outcome.expect("compile", "one of the batch", apart <= case.bound, f"{apart:.2e} apart")

    check_runs(outcome, case, program, folder, check_predictions)


def check_runs(outcome, case, program, folder, further=lambda flat, found: None):
    """A program gives the same bits on any number of threads and from a file, and an empty batch.

    `further(inputs, outputs)` checks what else must hold.
    """
    flat = [np.asarray(ops.convert_to_numpy(x)) for x in keras.tree.flatten(case.inputs)]
    before = sepconv.num_threads()
    path = folder / "program.sepconv"
    try:
        found = outputs_of(program, flat)
        sepconv.set_num_threads(1 + case.seed % 5)
        further(flat, found)
        program.save(path)
        for other in (program, sepconv.load(path)):
            outcome.expect("compile", "bits", same_bits(outputs_of(other, flat), found))
        if all(one.shape[0] is None for one in program.inputs):
            shapes = [y.shape for y in outputs_of(program, [x[:0] for x in flat])]
            none = [(0, *y.shape[1:]) for y in found]
            outcome.expect("compile", "an empty batch", shapes == none, shapes)
    except Exception as error:
        outcome.expect("compile", "raises when called", False, f"{type(error).__name__}: {error}")
    finally:
        sepconv.set_num_threads(before)
        path.unlink(missing_ok=True)


def outputs_of(program, inputs):
    outputs = program(*inputs)
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def same_bits(a, b):
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def _check_apart(outcome, case, function, copy):
    """No variable, and no memory, is shared with the original."""
    olds = _variables(case.model)
    ids, memory = {id(v) for v in olds}, {_address(v) for v in olds} - {None}
    for variable in _variables(copy):
        outcome.expect(function, "shares a variable", id(variable) not in ids, variable.path)
        address = _address(variable)
        outcome.expect(function, "shares memory", address not in memory, variable.path)


def _address(variable):
    """Where its numbers are; None where an engine does not say, or it has none."""
    value = variable.value
    if keras.backend.backend() == "torch":
        return value.data_ptr() or None
    if keras.backend.backend() == "jax" and hasattr(value, "unsafe_buffer_pointer"):
        with contextlib.suppress(Exception):
            return value.unsafe_buffer_pointer() if value.size else None
    return None


def _check_compiled(outcome, case, function, copy):
    def expect(check, right, message=""):
        return outcome.expect(function, check, right, message)

    model = case.model
    if not expect("compiled", model.compiled == copy.compiled) or not model.compiled:
        return
    old, new = model.optimizer, copy.optimizer
    configs = [_plain(o.get_config()) for o in (old, new)]
    expect("the optimizer's config", configs[0] == configs[1], configs)
    values = [[values_of(v) for v in o.variables] for o in (old, new)]
    same = len(values[0]) == len(values[1]) and all(map(np.array_equal, *values))
    expect("the optimizer's state", same)
    pairs = [(m.trainable_variables, o) for m, o in ((model, old), (copy, new))]
    decays = [[_inner(o)._use_weight_decay(v) for v in some] for some, o in pairs]
    expect("the optimizer's exclusions", decays[0] == decays[1], decays)
    arguments = [m._compile_config.config for m in (model, copy)]
    for name in ("loss", "loss_weights", "run_eagerly", "steps_per_execution"):
        same = [_plain(a.get(name)) for a in arguments]
        expect(f"compiled with the same {name}", same[0] == same[1], same)


def _inner(optimizer):
    return getattr(optimizer, "inner_optimizer", optimizer)


def _plain(value):
    """Something to compare and to print: without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _check_factorized(outcome, case, model, report, before):
    """It computes what the original does with its kernels cut off at the reported ranks."""
    ranks = {row.layer: row.rank for row in report if row.rank is not None}
    found = {path: layer for path, layer in paths(case.model) if path in ranks}
    outcome.expect(
        "factorize", "reports layers that are there", ranks.keys() == found.keys(), ranks
    )
    kernels = {path: values_of(layer.kernel) for path, layer in found.items()}
    expected = before.predictions
    try:
        for path, layer in found.items():
            cut = weights.cut_off(kernels[path].astype("float64"), ranks[path])
            layer.kernel.assign(ops.cast(cut, layer.kernel.dtype))
        if found:
            expected = predict(case.model, case.inputs)
    finally:
        for path, layer in found.items():
            layer.kernel.assign(ops.cast(kernels[path], layer.kernel.dtype))
    _check_predictions(outcome, case, "factorize", "predictions", model, expected)
    _check_apart(outcome, case, "factorize", model)
    outcome.expect("factorize", "compiled", model.compiled == case.model.compiled)


def paths(model, prefix=""):
    """(path, layer) of the layers within a model, as sepconv's reports name them."""
    for part in model._flatten_layers(include_self=False, recursive=False):
        yield prefix + part.name, part
        yield from paths(part, f"{prefix}{part.name}/")


def check_file(outcome, case, function, model, folder):
    """It can be saved and loaded, unless Keras cannot do that with the original either."""
    error = _file_error(case, model, folder / f"{function}.keras")
    if error is None:
        outcome.driven.append(f"{function}, saved and loaded")
        return
    own = _file_error(case, case.model, folder / "original.keras")
    if own is not None and own.split(":")[0] == error.split(":")[0]:
        outcome.refusals.append((f"saving after {function}", f"Keras' own: {own[:100]}"))
    else:
        outcome.expect(function, f"file: {error.split(':')[0]}", False, f"{error} (Keras: {own})")


def _file_error(case, model, path):
    """Why a model's file does not do what the model does; None where it does."""
    try:
        expected = predict(model, case.inputs)
        model.save(path)
        loaded = keras.models.load_model(path, CUSTOM_OBJECTS, compile=False, safe_mode=False)
        apart = distance(expected, predict(loaded, case.inputs))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        path.unlink(missing_ok=True)
    return None if apart <= case.bound else f"other predictions: {apart:.2e} apart"


def _check_training(outcome, case, copies):
    """Two steps more give the same losses and weights."""
    arguments = case.inputs, case.targets, 2, case.sample_weights
    start = [values_of(v) for v in case.model.variables]
    try:
        expected = compiling.train(case.model, *arguments)
    except Exception as error:
        outcome.refusals.append(("training", f"the original does not train: {error}"[:150]))
        return
    if not np.isfinite([value for losses in expected for value in losses.values()]).all():
        outcome.refusals.append(("training", "the original's loss is not finite"))
        return
    outcome.driven.append("training")
    wanted = [values_of(v) for v in case.model.variables]
    half = case.bound > 1e-3
    for function, copy in copies.items():
        try:
            found = compiling.train(copy, *arguments)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            outcome.expect(function, "training: raises", False, message)
            continue
        for old, new in zip(expected, found, strict=True):
            near = old.keys() == new.keys() and all(
                np.isclose(old[k], new[k], rtol=0.2 if half else 2e-3, atol=1e-5) for k in old
            )
            outcome.expect(function, "training: losses", near, f"{expected} {found}")
        if half:
            continue
        for variable, was, goal in zip(copy.variables, start, wanted, strict=True):
            apart, moved = _moves(was, goal, values_of(variable))
            near = apart <= 0.02 * moved + 1e-5
            message = f"{variable.path}: {apart:.1e} apart after a step of {moved:.1e}"
            outcome.expect(function, "training: weights", near, message)


def _moves(was: Any, goal: Any, found: Any):
    """How far numbers are from where they should be, and how far they should have gone."""
    if not goal.size:
        return 0.0, 0.0
    was, goal, found = (np.asarray(a, "float64") for a in (was, goal, found))
    largest = max(1.0, np.abs(goal).max())
    return np.abs(found - goal).max() / largest, np.abs(goal - was).max() / largest
