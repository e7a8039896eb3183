"""Whole Keras models: patched, accelerated, optimized for inference, factorized."""
