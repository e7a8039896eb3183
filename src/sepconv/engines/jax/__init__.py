"""JAX as an engine: its primitives, what they are composed of, and the rules for its transforms."""
