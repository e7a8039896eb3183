"""Random models: layers of the menu in a row or a graph, in all classes of models."""

from __future__ import annotations

import keras
from keras import layers

from generated_models import features, own, pictures, sequences  # noqa: F401 (fill the menu)
from generated_models.draw import UnfitError
from generated_models.menu import FLOATS, MENU

#: What a model takes as input, by its kind: the shape of one, and how often.
_INPUTS = {
    "picture": (5, ((8, 8, 1), (8, 8, 3), (8, 8, 4), (8, 8, 4))),
    "series": (1.5, ((8, 4), (8, 3))),
    "volume": (0.8, ((4, 6, 6, 2), (4, 6, 6, 4))),
    "vector": (0.7, ((6,), (8,))),
    "numbers": (1.2, ((8,),)),
    "words": (0.8, ((6,),)),
}
BATCH = 2


def kind_of(tensor):
    """The menu's word for a tensor; None for one that is on no menu."""
    axes, dtype = len(tensor.shape) - 1, keras.backend.standardize_dtype(tensor.dtype)
    if dtype == "string":
        return "words" if axes == 1 else None
    if keras.backend.is_int_dtype(dtype):
        return "numbers" if axes == 1 else None
    return FLOATS.get(axes)


class Value:
    """A tensor of the graph, with the data format that it is in."""

    def __init__(self, tensor, data_format="channels_last"):
        self.tensor, self.format = tensor, data_format
        self.kind = kind_of(tensor)

    @property
    def shape(self):
        return tuple(self.tensor.shape[1:])


def draw_item(d, value, only_plain=False):
    """Something from the menu for a value; what `UnfitError` says is drawn again."""
    d.format = value.format
    items = [
        item
        for item in MENU[value.kind]
        if (item.first or value.format == "channels_last") and (item.plain or not only_plain)
    ]
    weights = [item.weight for item in items]
    total = sum(weights)
    for _ in range(30):
        item = items[d.random.choice(len(items), p=[w / total for w in weights])]
        said, had = len(d.made), set(d.features)
        try:
            return item.make(d, value.shape), item.plain
        except UnfitError:
            del d.made[said:]
            d.features = had
    raise UnfitError("nothing on the menu goes with it")


def apply(d, value, function):
    """What a layer or function makes of a value; of several tensors the first."""
    result = function(value.tensor)
    return Value(keras.tree.flatten(result)[0], value.format)


def start(d, only=None):
    """An input."""
    kinds = [k for k in _INPUTS if (k != "words" or d.engine == "tensorflow")]
    if only:
        kinds = only
    weights = [_INPUTS[k][0] for k in kinds]
    kind = kinds[d.random.choice(len(kinds), p=[w / sum(weights) for w in weights])]
    shape, data_format = d.one(*_INPUTS[kind][1]), "channels_last"
    if kind == "picture":
        if d.engine != "tensorflow" and d.chance(0.2):
            shape, data_format = (shape[2], *shape[:2]), "channels_first"
        elif d.chance(0.15):
            shape = (None, None, shape[2])
    dtype = {"numbers": "int32", "words": "string"}.get(kind, "float32")
    name = d.name(f"{kind}_input")
    tensor = keras.Input(batch_shape=(BATCH, *shape), name=name, dtype=dtype)
    if d.chance(0.5):
        tensor = keras.Input(shape, name=name, dtype=dtype)
    d.made.append(f"{name}: {shape} {data_format}")
    return Value(tensor, data_format)


def to_vector(d, value):
    """The value with one axis, most of the time by averaging."""
    while value.kind != "vector":
        d.format = value.format
        if value.kind in ("numbers", "words"):
            function, _ = draw_item(d, value)
        elif None not in value.shape and d.chance(0.3):
            function = d.layer(layers.Flatten)
        else:
            name = d.one("GlobalAveragePooling", "GlobalAveragePooling", "GlobalMaxPooling")
            kind = pictures.class_of(name, len(value.shape) - 1)
            function = d.layer(kind, data_format=value.format)
        value = Value(apply(d, value, function).tensor)
    return value


def chain(d, value, length, only_plain=True):
    """Layers in a row; returns them and the value at their end."""
    parts = []
    for _ in range(length):
        function, _ = draw_item(d, value, only_plain)
        following = apply(d, value, function)
        if following.kind is None:
            continue
        parts.append(function)
        value = following
    return parts, value


def inner_model(d, value):
    """A model to be used as a layer, for tensors such as the value."""
    length = d.number(2, 4)
    name = d.name("inner_model")
    if d.chance(0.3):
        inputs = Value(keras.Input(batch_shape=value.tensor.shape, name="x"), value.format)
        if inputs.kind != value.kind:
            raise UnfitError
        parts, _ = chain(d, inputs, length)
        d.say(f"{name}: a Chain of the last {len(parts)}")
        d.features |= {"subclassed inside", "config with layers"}
        return own.Chain(parts, name=name)
    kind = d.one(keras.Sequential, own.Line)
    dtype = keras.backend.standardize_dtype(value.tensor.dtype)
    inputs = keras.Input(batch_shape=value.tensor.shape, dtype=dtype, name="x")
    parts, end = chain(d, Value(inputs, value.format), length)
    if d.chance(0.5):
        d.say(f"{name}: a {kind.__name__} of the last {len(parts)}")
        return kind([inputs, *parts], name=name)
    d.say(f"{name}: a functional model of the last {len(parts)}")
    if end.tensor is inputs:
        raise UnfitError
    return d.one(keras.Model, own.Net)(inputs, end.tensor, name=name)


def merge(d, one, other):
    """Two values of the same shape as one."""
    pick = d.number(0, 6)
    if pick == 0:
        d.say("a sum by an operator")
        return Value(one.tensor * 0.6 + other.tensor, one.format)
    if pick == 1:
        axis = 1 if one.format == "channels_first" else -1
        return Value(d.layer(layers.Concatenate, axis=axis)([one.tensor, other.tensor]), one.format)
    kind = d.one(
        *(layers.Add, layers.Add, layers.Average, layers.Maximum, layers.Minimum, layers.Subtract),
        layers.Multiply,
    )
    return Value(d.layer(kind)([one.tensor, other.tensor]), one.format)


def functional(d):
    """A graph with skips, merges, shared layers and models in it, and one or more outputs."""
    inputs = [start(d) for _ in range(d.one(1, 1, 1, 2))]
    pool, reusable = list(inputs), []
    for _ in range(d.number(4, 10)):
        index = d.number(0, len(pool) - 1)
        value = pool[index]
        pairs = [
            v
            for v in pool
            if v is not value and v.shape == value.shape and v.format == value.format
        ]
        same = [
            layer
            for layer, shape, data_format in reusable
            if shape == value.shape and data_format == value.format
        ]
        if pairs and value.kind in FLOATS.values() and d.chance(0.5):
            other = pairs[d.number(0, len(pairs) - 1)]
            if other.kind == value.kind:
                pool = [v for v in pool if v is not value and v is not other]
                pool.append(merge(d, value, other))
                continue
        if same and d.chance(0.35):
            function = same[d.number(0, len(same) - 1)]
            d.say(f"{function.name} again")
        elif value.kind in FLOATS.values() and d.chance(0.12):
            function = inner_model(d, value)
            reusable.append((function, value.shape, value.format))
        else:
            function, plain = draw_item(d, value)
            if plain and isinstance(function, keras.layers.Layer):
                reusable.append((function, value.shape, value.format))
        following = apply(d, value, function)
        if following.kind is None:
            continue
        if len(pool) >= 3 or not d.chance(0.3):
            pool.pop(index)
        pool.append(following)
    names = {id(v.tensor) for v in inputs}
    vectors = [to_vector(d, value) for value in pool]
    if len(vectors) == 1 or d.chance(0.6):
        vectors = vectors[:1] if len(vectors) == 1 else [_joined(d, vectors)]
    outputs = [head(d, vector) for vector in vectors]
    if d.chance(0.15):
        whole = [v for v in pool if v.kind != "words" and id(v.tensor) not in names]
        whole = [v for v in whole if v.kind in ("picture", "series") and None not in v.shape]
        outputs += [v.tensor for v in whole[:1]]
    given = [v.tensor for v in inputs]
    given = given[0] if len(given) == 1 and d.chance(0.7) else _structure(d, given, "in")
    outputs = outputs[0] if len(outputs) == 1 and d.chance(0.8) else _structure(d, outputs, "out")
    kind = d.one(keras.Model, keras.Model, own.Net)
    d.say(f"a functional {kind.__name__}")
    return kind(given, outputs, name="generated")


def _joined(d, vectors):
    tensors = [v.tensor for v in vectors]
    return Value(d.layer(layers.Concatenate)(tensors))


def _structure(d, tensors, word):
    if d.chance(0.5):
        return tensors
    if word == "in":
        return {tensor.name: tensor for tensor in tensors}
    return {f"{word}_{index}": tensor for index, tensor in enumerate(tensors)}


def head(d, value):
    """Logits in float32."""
    name = d.name("head")
    d.made.append(f"{name}: Dense(5)")
    return layers.Dense(5, name=name, dtype="float32")(value.tensor)


def sequential(d):
    """A row of layers."""
    value = first = start(d)
    parts, value = chain(d, value, d.number(4, 9))
    while value.kind != "vector":
        before = value
        if value.kind in ("numbers", "words"):
            function, _ = draw_item(d, value, only_plain=True)
        elif None not in value.shape and d.chance(0.3):
            function = d.layer(layers.Flatten)
        else:
            rank = len(value.shape) - 1
            function = d.layer(
                pictures.class_of("GlobalAveragePooling", rank), data_format=value.format
            )
        parts.append(function)
        value = apply(d, before, function)
    last = layers.Dense(5, name="logits", dtype="float32")
    kind = d.one(keras.Sequential, keras.Sequential, own.Line)
    d.say(f"a {kind.__name__}")
    return kind([first.tensor, *parts, last], name="generated")


def subclassed(d):
    """A model of one's own class."""
    value = start(d, ["picture"])
    d.input_shape = (None, *value.shape)
    parts, value = chain(d, value, d.number(2, 5))
    while value.kind != "vector":
        rank = len(value.shape) - 1
        if value.kind not in FLOATS.values():
            raise UnfitError
        function = d.layer(
            pictures.class_of("GlobalAveragePooling", rank), data_format=value.format
        )
        parts.append(function)
        value = apply(d, value, function)
    parts.append(layers.Dense(5, name="logits", dtype="float32"))
    d.say("all of it a Chain")
    d.features |= {"subclassed", "config with layers"}
    return own.Chain(parts, name="generated")
