"""`sepconv.layers.TrainableInt8`: an int8 network that trains, by simulated rounding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from sepconv.layers.devices import supports_jit
from sepconv.layers.exporting import NotExported
from sepconv.layers.program_layer import fitting
from sepconv.layers.steps.int8 import Simulation
from sepconv.program import header
from sepconv.program.dtypes import TENSORS
from sepconv.program.network import INT8_PRODUCTS, Network
from sepconv.program.program import Program
from sepconv.program.shapes import shapes
from sepconv.program.validate import validate
from sepconv.quantization.origin import NOTE, Origin, origin_of, write_origin
from sepconv.quantization.unrounded import floats_of, with_floats

__all__ = ["TrainableInt8"]


@keras.saving.register_keras_serializable(package="sepconv")
class TrainableInt8(NotExported, keras.layers.Layer):
    """An int8 network in floats: values and weights are rounded in the forward pass alone.

    It gives what the int8 network gives. Its weights are floats, which are rounded each time they
    are used, and gradients pass straight through all rounding: so it is trained as any other layer.
    `sepconv.quantize(model, examples, trainable=True)` makes a model of one, and
    `sepconv.quantize` of that the int8 model. Scales of values stay as they are; those of weights
    grow where a weight becomes larger than all that they have numbers for.

    What is not a number stays so, where an int8 network takes it for zero.

    Args:
        network: the int8 network without its weights, as a string; `TrainableInt8.of` writes it.
        origin: what its bytes stand for, as a string.
        record: what became of every block, which `sepconv.quantize` keeps here.
        **kwargs: `name` and what else `keras.layers.Layer` takes.

    Call arguments:
        inputs: what the network takes, with the batch first; of several inputs a list.

    Output shape:
        The network's; of several outputs a list.

    Raises:
        ValueError: the network or the origin is damaged, or has a step that is not trained.

    Example:
        >>> import numpy as np, sepconv
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.SeparableConv2D(4, 3)])
        >>> pictures = np.random.default_rng(0).standard_normal((16, 8, 8, 3)).astype("float32")
        >>> simulated = sepconv.quantize(model, pictures, trainable=True).model
        >>> layer = simulated.layers[-1]
        >>> type(layer).__name__, [tuple(weight.shape) for weight in layer.trainable_weights]
        ('TrainableInt8', [(3, 3, 3, 1), (3,), (1, 1, 3, 4), (4,)])
    """

    _instead = "Freeze it with sepconv.quantize(model), or export sepconv.to_stock(model)"

    def __init__(
        self,
        network: str,
        origin: str,
        record: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        kwargs["dtype"], kwargs["autocast"] = "float32", False
        super().__init__(**kwargs)
        self._config = {"network": network, "origin": origin, "record": record}
        #: What became of every block, as it was given.
        self.record = record
        name = f"The layer {self.name!r}"
        self._network = _network(network, name)
        self._origin = origin_of(self._network, {NOTE: origin}, name)
        _check(self._network, name)
        self._simulation = Simulation(self._network, self._origin)
        self._weights_of: dict[tuple[int, str], Any] = {}
        for (i, part), array in floats_of(self._network, self._origin).items():
            step = self._network.steps[i]
            fixed = step.operation == "constant" or (
                step.operation in INT8_PRODUCTS and part.endswith("scale")
            )
            self._weights_of[i, part] = self.add_weight(
                name=f"{step.name}_{part}".replace("/", "_"),
                shape=array.shape,
                dtype="float32",
                trainable=not fixed,
                initializer="zeros",
            )
        self.supports_jit = supports_jit()
        self.built = True

    @classmethod
    def of(
        cls,
        network: Network,
        origin: Origin,
        record: Mapping[str, Any],
        name: str | None = None,
    ) -> TrainableInt8:
        """The layer of an int8 network, with its weights.

        Raises:
            ValueError: the network has a step that is not trained.
        """
        text = header.encode(network, {}).decode()
        layer = cls(text, write_origin(origin), record, name=name)
        for key, array in floats_of(network, origin).items():
            layer._weights_of[key].assign(array)
        return layer

    def frozen(self) -> Network:
        """The int8 network with the layer's weights, rounded.

        Raises:
            ValueError: weights are not finite, or so large that sums could leave int32.
        """
        arrays = {
            key: np.asarray(keras.ops.convert_to_numpy(weight.value), np.float32)
            for key, weight in self._weights_of.items()
        }
        return with_floats(self._network, self._origin, arrays)

    def program(self) -> Program:
        """The program of the int8 network, with a note of its origin.

        Raises:
            ValueError: see `frozen`.
        """
        return Program(self.frozen(), notes={NOTE: write_origin(self._origin)})

    def build(self, *shapes: Any) -> None:
        """Nothing is left to do: a network knows its sizes."""
        self.built = True

    def call(self, inputs: Any) -> Any:
        """See the class."""
        tensors = [
            keras.ops.cast(tensor, "float32") for tensor in fitting(self.name, self.wanted, inputs)
        ]
        weights = {
            key: keras.ops.convert_to_tensor(weight) for key, weight in self._weights_of.items()
        }
        found = self._simulation(tensors, weights)
        return found[0] if len(found) == 1 else found

    @property
    def wanted(self) -> list[tuple[str, tuple[int | None, ...]]]:
        """The names and shapes of what it takes."""
        return [(entry.name, tuple(entry.shape)) for entry in self._network.inputs]

    def compute_output_spec(self, inputs: Any) -> Any:
        """The results' shapes, with None for sizes that follow from open ones."""
        fitting(self.name, self.wanted, inputs)
        found = [keras.KerasTensor(shape, dtype="float32") for shape in self._output_shapes()]
        return found[0] if len(found) == 1 else found

    def compute_output_shape(self, input_shape: Any) -> Any:
        """As `compute_output_spec`."""
        found = self._output_shapes()
        return found[0] if len(found) == 1 else found

    def _output_shapes(self) -> list[tuple[int | None, ...]]:
        found = shapes(self._network)
        return [tuple(found[value]) for value in self._network.outputs]

    def get_config(self) -> dict[str, Any]:
        """The network without its weights, and what its bytes stand for."""
        config = super().get_config()
        config.pop("dtype", None)
        return {**config, **self._config}


def _network(text: str, name: str) -> Network:
    """A network of its header, with zeros for weights, which take no memory."""
    try:
        places = json.loads(text)["tensors"]
        end = places[-1]["offset"] + places[-1]["size"] if places else 0
        found = header.decode(text.encode(), end)
        tensors = [
            np.broadcast_to(np.zeros((), TENSORS[place.dtype]), place.shape)
            for place in found.places
        ]
        network = found.network._replace(tensors=tensors)
        validate(network)
        return network
    # Whatever a config may have in the place of a network.
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: its network is damaged: {error}") from error


def _check(network: Network, name: str) -> None:
    """Raises where a step has no form that is trained."""
    found = shapes(network)
    for step in network.steps:
        given = step.attributes
        why = None
        if step.operation == "pool" and given["function"] == "max":
            if any(size > 1 for size in given["spec"][2:4]):
                why = "a maximum over windows with dilation"
        elif step.operation == "resize" and given["interpolation"] != "nearest":
            axes = (2, 3) if given["channels_first"] else (1, 2)
            if any(found[step.inputs[0]][axis] is None for axis in axes):
                why = "bilinear interpolation of images of open sizes"
        elif step.operation == "cast":
            why = "a change of the dtype"
        if why is not None:
            raise ValueError(
                f"{name}: the block {step.name!r} is {why}, which is not trained. Quantise the "
                "network without trainable=True"
            )
