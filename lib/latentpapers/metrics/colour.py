"""Brightness as MATLAB has it: Y of `rgb2ycbcr` and the grey level of `rgb2gray`.

Two roundings of colour are the commonest reason why two PSNR values disagree, so they are named.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentpapers.errors import UserError
from latentpapers.shapes import Bytes, Images

# BT.601 with studio swing: black is 16, white 235; thousandths of a grey level per full channel.
_STUDIO = (65_481, 128_553, 24_966)
# First row of the inverse of MATLAB's NTSC matrix.
_NTSC = (0.298936021293775, 0.587043074451121, 0.114020904255103)


def luma(images: Bytes) -> Bytes:
    """Y of MATLAB's `rgb2ycbcr` on bytes: 16 + (65.481 R + 128.553 G + 24.966 B) / 255, rounded.

    Exact integers; halves go up as in MATLAB (NumPy's rounding in floats to even differs on 111 of
    the 16.8 million colours).

    Args:
        images: (N, C, H, W) uint8; a single channel is taken as Y already.

    Returns:
        (N, 1, H, W) uint8 in 16..235 (0..255 for a single channel).

    Raises:
        UserError: another type, or neither 1 nor 3 channels.
    """
    if not _is_colour(images, torch.uint8):
        return images
    total = _weighted(images.int(), _STUDIO)
    return (16 + (total + 127_500).div(255_000, rounding_mode="floor")).to(torch.uint8)


def luma_float(images: Images) -> Float[Tensor, "N 1 H W"]:
    """Y of MATLAB's `rgb2ycbcr` on numbers in [0, 1], not rounded: in [16/255, 235/255].

    Raises:
        UserError: not floats, or neither 1 nor 3 channels.
    """
    if not _is_colour(images, images.dtype if images.is_floating_point() else torch.float32):
        return images
    return (16 + _weighted(images, [w / 1000 for w in _STUDIO])) / 255


def grey(images: Bytes) -> Bytes:
    """MATLAB's `rgb2gray` on bytes: 0.2989 R + 0.5870 G + 0.1140 B, full swing, rounded.

    Args:
        images: (N, C, H, W) uint8; a single channel is returned as it is.

    Returns:
        (N, 1, H, W) uint8.

    Raises:
        UserError: another type, or neither 1 nor 3 channels.
    """
    if not _is_colour(images, torch.uint8):
        return images
    total = _weighted(images.double(), _NTSC)
    return (total + 0.5).floor().to(torch.uint8)


def _weighted(x: Tensor, weights: tuple | list) -> Tensor:
    red, green, blue = (x[:, i : i + 1] * weights[i] for i in range(3))
    return red + green + blue


def _is_colour(x: Tensor, dtype: torch.dtype) -> bool:
    """True for three channels, false for one, refuses anything else."""
    if x.dtype != dtype or x.ndim != 4 or x.shape[1] not in (1, 3):
        raise UserError(f"colour takes {dtype} (N, 1 or 3, H, W), not {x.dtype} {tuple(x.shape)}.")
    return x.shape[1] == 3
