"""Named random streams: one seed, one purpose, one generator. Nothing global is seeded.

Two purposes never share numbers, and adding a purpose never shifts another one's: resuming,
reordering and evaluating cannot disturb training.
"""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for `purpose` under `seed` (first bytes of a SHA-256)."""
    text = "/".join([str(int(seed)), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int, device: str = "cpu") -> "torch.Generator":
    """A torch generator on `device` for this purpose."""
    import torch

    return torch.Generator(device).manual_seed(derive(seed, *purpose))


def numpy(seed: int, *purpose: str | int) -> "np.random.Generator":
    """A NumPy generator for this purpose."""
    import numpy as np

    return np.random.default_rng(derive(seed, *purpose))
