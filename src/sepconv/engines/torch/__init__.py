"""PyTorch as an engine: its operations, what they are composed of, and rules for its transforms."""

import torch

from sepconv.versions import check

check("torch", torch.__version__)
