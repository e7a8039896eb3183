"""Refuses a Keras that is older than those that sepconv is tested with."""

import keras

from sepconv.versions import check

__all__: list[str] = []

check("keras", keras.__version__)
