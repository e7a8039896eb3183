"""Simplifies a network: fewer steps that compute the same."""

from __future__ import annotations

from sepconv.program.network import Network

__all__ = ["simplify"]


def simplify(network: Network) -> Network:
    """The network with fewer steps."""
    return network
