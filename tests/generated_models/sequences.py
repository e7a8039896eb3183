"""The menu of series, and of integers and strings: recurrent layers, attention, embeddings."""

from __future__ import annotations

import keras
from keras import layers, ops

from generated_models.draw import UnfitError
from generated_models.menu import on

#: Integers are below it; words are the digits' names.
VOCABULARY = 12
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven")


def _recurrent(d, name=None, **options):
    kind = d.one(layers.LSTM, layers.GRU, layers.SimpleRNN)
    if d.chance(0.3):
        options["dropout"] = 0.2
        options["seed"] = d.seed()
    # JAX compiles a loop anew at each call, operations once a shape.
    options["unroll"] = d.chance(0.9 if d.engine == "jax" else 0.2)
    if kind is layers.GRU:
        options["reset_after"] = d.chance(0.7)
    if name is None:
        return d.layer(kind, 4, **options)
    return kind(4, name=name, **options)


@on("series", weight=2)
def recurrent(d, shape):
    options = {"return_sequences": d.chance(0.6), "go_backwards": d.chance(0.2)}
    if d.chance(0.15):
        d.features.add("stateful")
        options["stateful"] = True
    return _recurrent(d, **options)


@on("series", weight=1)
def bidirectional(d, shape):
    inner = _recurrent(d, name="inner", return_sequences=True)
    return d.layer(layers.Bidirectional, inner, merge_mode=d.one("concat", "sum", "ave"))


@on("series", weight=0.8)
def cells(d, shape):
    parts = [layers.LSTMCell(4, name="first"), layers.GRUCell(4, name="second")]
    cell = layers.StackedRNNCells(parts) if d.chance(0.7) else parts[d.number(0, 1)]
    unroll = d.engine == "jax" or d.chance(0.2)
    return d.layer(layers.RNN, cell, return_sequences=d.chance(0.6), unroll=unroll)


@on("series", weight=1.2, plain=False)
def attention(d, shape):
    if None in shape:
        raise UnfitError
    pick = d.number(0, 3)
    if pick == 0:
        layer = d.layer(layers.MultiHeadAttention, 2, 4, dropout=d.one(0.0, 0.1), seed=d.seed())
        return lambda x: layer(x, x)
    if pick == 1:
        layer = d.layer(layers.GroupQueryAttention, 4, 4, 2, seed=d.seed())
        return lambda x: layer(x, x, use_causal_mask=True)
    kind = layers.AdditiveAttention if pick == 2 else layers.Attention
    layer = d.layer(kind, use_scale=True)
    return lambda x: layer([x, ops.tanh(x)])


@on("series", weight=0.7)
def masking(d, shape):
    return d.layer(layers.Masking, 0.0)


@on("series", weight=0.8)
def row_by_row(d, shape):
    if None in shape:
        raise UnfitError
    inner = d.one(layers.Dense(4, name="inner"), layers.BatchNormalization(name="inner"))
    return d.layer(layers.TimeDistributed, inner)


@on("series", weight=0.8)
def to_picture(d, shape):
    if None in shape or shape[0] % 2:
        raise UnfitError
    return d.layer(layers.Reshape, (2, shape[0] // 2, shape[1]))


@on("series", weight=0.5)
def permute(d, shape):
    if None in shape:
        raise UnfitError
    return d.layer(layers.Permute, (2, 1))


@on("series", weight=0.4)
def series_dropout(d, shape):
    return d.layer(layers.SpatialDropout1D, 0.2, seed=d.seed())


# --- integers and strings -----------------------------------------------------------------------


@on("numbers", weight=4)
def embedding(d, shape):
    lora = d.chance(0.25)
    options = {"mask_zero": d.chance(0.2), **d.regularized("embeddings")}
    if lora and d.chance(0.5):
        options["lora_rank"] = 2
        options.pop("embeddings_constraint", None)
    if options["mask_zero"]:
        d.features.add("mask")
    layer = d.layer(layers.Embedding, VOCABULARY, d.one(4, 8), **options)
    if lora and "lora_rank" not in options:
        d.say(f"{layer.name}.enable_lora(2)")
        d.later.append(lambda: layer.enable_lora(2))
        d.features.add("lora")
    elif d.chance(0.1):
        d.say(f"{layer.name}.quantize(int8)")
        d.features.add("int8")
        d.last.append(lambda: layer.quantize("int8"))
    return layer


@on("numbers")
def encoding(d, shape):
    mode = d.one("multi_hot", "count", "one_hot")
    return d.layer(layers.CategoryEncoding, VOCABULARY, output_mode=mode)


@on("numbers", weight=0.8)
def hashing(d, shape):
    options = {"output_mode": d.one("multi_hot", "one_hot"), "salt": d.one(None, d.seed())}
    return d.layer(layers.Hashing, 6, **options)


@on("numbers", weight=1.2)
def integer_lookup(d, shape):
    mode = d.one("multi_hot", "one_hot", "count")
    if d.chance(0.5):
        words = list(range(0, VOCABULARY, 2))
        return d.layer(layers.IntegerLookup, vocabulary=words, output_mode=mode)
    layer = d.layer(layers.IntegerLookup, output_mode=mode, max_tokens=9)
    data = d.random.integers(0, VOCABULARY, (16, 4))
    layer.adapt(data)
    d.say(f"{layer.name} is adapted")
    return layer


@on("words", weight=2, engines=("tensorflow",))
def string_lookup(d, shape):
    d.features.add("words")
    mode = d.one("multi_hot", "one_hot", "int")
    if d.chance(0.5):
        return d.layer(layers.StringLookup, vocabulary=list(WORDS[:5]), output_mode=mode)
    layer = d.layer(layers.StringLookup, output_mode=mode)
    layer.adapt(keras.ops.convert_to_tensor([list(WORDS[2:])]))
    d.say(f"{layer.name} is adapted")
    return layer


@on("words", weight=1, engines=("tensorflow",))
def string_hashing(d, shape):
    d.features.add("words")
    return d.layer(layers.Hashing, 6, output_mode="multi_hot", salt=d.one(None, [3, 4]))
