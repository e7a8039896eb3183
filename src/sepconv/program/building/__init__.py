"""Networks as data, written and simplified; for every reader of models, without Keras."""
