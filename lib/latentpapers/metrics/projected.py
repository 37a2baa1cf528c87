"""Features of real images in the small, for data that cannot ship: a random projection of each.

Random directions keep distances between images (Johnson and Lindenstrauss 1984): those of Gaussian
features in 1280 dimensions to about 1 / sqrt(2 width) of themselves. The directions come from a
seed, so a hundred bytes an image are all that is kept, and no picture can be had back from them.
"""

from pathlib import Path
from typing import Any

import torch

from latentpapers import tensorfile
from latentpapers.errors import Corrupt
from latentpapers.seeds import generator
from latentpapers.shapes import Features

WIDTH = 96
_LEVELS = 127  # of either sign in 8 bits


def project(features: Features, *, width: int = WIDTH) -> Features:
    """(N, F) features on `width` random directions, (N, width), scaled so that distances stay.

    Args:
        features: of whatever network; equal F means equal directions.
        width: kept numbers an image.
    """
    size = features.shape[1]
    directions = torch.randn(size, width, generator=generator(0, "projection", size, width))
    return features @ directions.to(features) / width**0.5


def save(path: Path, rows: Features, card: dict[str, Any]) -> None:
    """Writes projected features in 8 bits a number, which moves a row by about half a percent.

    Args:
        path: the `.safetensors` file.
        rows: (N, width) of real images.
        card: data set, size, network: whatever says what was looked at.
    """
    scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / _LEVELS
    levels = (rows / scale).round().to(torch.int8)
    tensorfile.save(path, {"real": {"levels": levels, "scale": scale.float()}}, about=card)


def load(path: Path) -> tuple[Features, dict[str, Any]]:
    """What `save` wrote, and its card.

    Raises:
        Missing, Corrupt: no such file, or another kind of file.
    """
    card, whole = tensorfile.header(path), tensorfile.load(path)
    if "real" not in whole:
        raise Corrupt(f"{path} holds no features of real images.")
    return whole["real"]["levels"] * whole["real"]["scale"], card
