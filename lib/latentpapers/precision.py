"""Half precision: the kinds by name, and the way out of it."""

import torch
from torch import Tensor

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def widened(x: Tensor) -> Tensor:
    """Half precision as fp32, other kinds as they are.

    Images, codes, scores and losses leave an autocast region this way: small differences of large
    numbers are what losses measure.
    """
    return x.float() if x.dtype in HALVES.values() else x
