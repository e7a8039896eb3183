"""Makes models of Keras' own layers of networks: the way back from `sepconv.models.lowering`."""

from sepconv.models.raising.raise_network import raise_network

__all__ = ["raise_network"]
