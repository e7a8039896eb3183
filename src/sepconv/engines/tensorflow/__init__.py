"""TensorFlow as an engine: its operations, what they are composed of, and their gradients."""
