"""PyTorch as an engine: its operations, what they are composed of, and rules for its transforms."""
