"""The steps of networks in Keras' operations, differentiable, on every engine."""
