"""TensorFlow as an engine: its operations, what they are composed of, and their gradients."""

import tensorflow

from sepconv.versions import check

check("tensorflow", tensorflow.__version__)
