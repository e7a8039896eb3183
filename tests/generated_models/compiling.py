"""How a model is compiled: optimizers, losses and metrics with all that they can be told."""

from __future__ import annotations

import keras
import numpy as np

from generated_models import own


def optimizer(d, model):
    """An optimizer. Adaptive ones have a large epsilon, or gradients of nothing but noise count."""
    rate = d.one(0.01, 0.02)
    pick = d.random.random()
    if pick < 0.2:
        rate = own.Sink(0.02)
    elif pick < 0.3:
        rate = keras.optimizers.schedules.ExponentialDecay(0.02, 2, 0.5, staircase=True)
    options = {}
    clip = d.number(0, 5)
    if clip < 3:
        options = [{"clipnorm": 0.5}, {"clipvalue": 0.2}, {"global_clipnorm": 0.7}][clip]
    if d.chance(0.15):
        options |= {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 2}
    elif d.chance(0.15):
        options["gradient_accumulation_steps"] = 2
    kinds = keras.optimizers
    kind, more = d.one(
        (kinds.SGD, {"momentum": 0.9, "nesterov": d.chance(0.5)}),
        (kinds.SGD, {}),
        (kinds.Adam, {"epsilon": 0.05, "amsgrad": d.chance(0.3)}),
        (kinds.AdamW, {"epsilon": 0.05, "weight_decay": 0.5}),
        (kinds.AdamW, {"epsilon": 0.05, "weight_decay": 0.5}),
        (kinds.RMSprop, {"epsilon": 0.05, "centered": d.chance(0.3)}),
        (kinds.Nadam, {"epsilon": 0.05}),
        (kinds.Adamax, {"epsilon": 0.05}),
        (kinds.Adagrad, {"epsilon": 0.05}),
        (kinds.Ftrl, {}),
    )
    new = kind(rate, **more, **options)
    if kind is not kinds.AdamW and d.chance(0.1):
        new = kind(rate, weight_decay=0.5, **more, **options)
    said = f"{kind.__name__} {more | options}"
    if new.weight_decay and model.trainable_variables and d.chance(0.8):
        if d.chance(0.5):
            new.exclude_from_weight_decay(var_names=["bias", "gamma"])
            said += ", excludes bias and gamma by name"
        else:
            some = model.trainable_variables[:: d.one(1, 2)]
            new.exclude_from_weight_decay(var_list=some)
            said += f", excludes {len(some)} variables by reference"
    if d.chance(0.12) and "gradient_accumulation_steps" not in options:
        new = kinds.LossScaleOptimizer(new, initial_scale=16.0, dynamic_growth_steps=2)
        said += ", in a LossScaleOptimizer"
    d.say(f"compiled with {said}")
    return new


def compile_model(d, model):
    """Compiles a model in one of many ways."""
    outputs = keras.tree.flatten(model.outputs) if hasattr(model, "outputs") else [None]
    structure = getattr(model, "_outputs_struct", None)
    losses = ("mse", own.own_loss, keras.losses.Huber(delta=0.7), "mae")
    options = {}
    if isinstance(structure, dict):
        options["loss"] = {key: d.one(*losses) for key in structure}
        if d.chance(0.5):
            options["loss_weights"] = {key: 0.5 + i for i, key in enumerate(structure)}
        if d.chance(0.4):
            options["metrics"] = {key: [own.Widest(2.0), "mae"] for key in structure}
    elif len(outputs) > 1:
        options["loss"] = [d.one(*losses) for _ in outputs]
        if d.chance(0.5):
            options["loss_weights"] = [0.5 + i for i in range(len(outputs))]
    else:
        options["loss"] = d.one(*losses)
        if d.chance(0.5):
            options["metrics"] = [own.Widest(3.0), own.own_metric, "mse"]
        if d.chance(0.3):
            options["weighted_metrics"] = [keras.metrics.MeanSquaredError("heavy")]
    options["run_eagerly"] = d.chance(0.6)
    if not options["run_eagerly"]:
        options["steps_per_execution"] = 1 if d.engine == "torch" else d.one(1, 1, 2)
        options["jit_compile"] = d.one("auto", False, False)
    said = {k: v for k, v in options.items() if k in ("run_eagerly", "jit_compile")}
    said["loss"] = str(options["loss"])[:60]
    d.say(f"compiled {said}")
    model.compile(optimizer(d, model), **options)


def train(model, inputs, targets, steps, weights=None):
    """The losses of some steps, with the engine's own generator at a state of ours."""
    keras.utils.set_random_seed(1)  # PyTorch's draws what a dropout without a seed drops
    losses = []
    for _ in range(steps):
        logs = model.train_on_batch(inputs, targets, sample_weight=weights, return_dict=True)
        losses.append({k: float(v) for k, v in logs.items()})
    return losses


def targets_for(d, outputs):
    """Numbers to learn, in the structure of the outputs."""
    return keras.tree.map_structure(
        lambda y: d.random.standard_normal(np.shape(y)).astype("float32"), outputs
    )
