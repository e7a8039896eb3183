"""Networks to measure with, built from Keras' own layers and with sepconv's in their place."""
