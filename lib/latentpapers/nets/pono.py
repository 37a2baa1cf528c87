"""Positional normalisation and the moment shortcut (LRC-I2I section 3.3; Li et al., PONO).

PONO takes mean and standard deviation over the channels at every position away from a feature map:
two one-channel pictures, which hold much of its structure. A moment shortcut puts such a pair back
into a map of a later layer; the dynamic one lets a small convolution align it first.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

Maps = Float[Tensor, "N C H W"]
OneMap = Float[Tensor, "N 1 H W"]
EPS = 1e-5  # added to the variance


class Moments(NamedTuple):
    """Mean and standard deviation over channels, one value a position each."""

    mean: OneMap
    std: OneMap


def pono(x: Maps) -> tuple[Maps, Moments]:
    """(x - mean) / std over the channels of every position, and what was taken away.

    std is the root of the *unbiased* variance plus 1e-5, as in the cited layer (lrc_i2i-e19).

    Args:
        x: at least two channels.
    """
    rows = x.permute(0, 2, 3, 1)  # a position is a row: its mean is a product, quick in bf16 too
    average = x.new_full((x.shape[1], 1), 1 / x.shape[1])
    mean = rows @ average
    rows = rows - mean
    std = _deviation(rows, average)
    residue = rows * std.reciprocal()
    return residue.permute(0, 3, 1, 2), Moments(*(m.permute(0, 3, 1, 2) for m in (mean, std)))


def _deviation(rows: Tensor, average: Tensor) -> Tensor:
    """Root of the unbiased variance of rows of mean 0, plus `EPS`."""
    unbiased = len(average) / (len(average) - 1)
    if rows.dtype is not torch.float16:
        return (rows.square() @ average * unbiased + EPS).sqrt()
    # fp16 ends at 65,504, the square of 256
    norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=torch.float32)
    return (norm.square() / len(average) * unbiased + EPS).sqrt().half()


def restore(x: Maps, moments: Moments) -> Maps:
    """x * std + mean: the inverse of `pono`, and the plain moment shortcut."""
    return x * moments.std + moments.mean


class DynamicMoments(nn.Module):
    """The moment shortcut through a convolution: (mean, std) -> a one-channel shift and scale.

    Source: section 3.3, "instead of reinjecting mu and sigma as is"; 2 to 2 channels, 3x3, as in
    the authors' code (lrc_i2i-e21).

    Args:
        conv: makes a convolution (inputs, outputs, side of the kernel).
    """

    def __init__(self, conv: Callable[[int, int, int], nn.Module]) -> None:
        super().__init__()
        self.conv = conv(2, 2, 3)

    def forward(self, x: Maps, moments: Moments) -> Maps:
        shift, scale = self.conv(torch.cat(moments, 1)).chunk(2, 1)
        return x * scale + shift
