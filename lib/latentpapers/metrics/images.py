"""Per-image measures that need no network: distances, sharpness, and their bootstrap intervals."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentpapers import seeds
from latentpapers.errors import UserError
from latentpapers.shapes import Images, PerImage


@dataclass(frozen=True)
class Interval:
    """A mean with a 95 % interval over n independent items."""

    value: float
    lo: float
    hi: float
    n: int
    method: str


def bootstrap_mean(
    values: Tensor | np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap of the mean over images.

    Raises:
        UserError: fewer than 2 values, or one that is not finite.
    """
    x = _row(values)
    rng = seeds.numpy(seed, "bootstrap", "mean")
    draws = x[rng.integers(0, len(x), (resamples, len(x)))].mean(1)
    lo, hi = np.quantile(draws, [0.025, 0.975])
    return Interval(float(x.mean()), float(lo), float(hi), len(x), "bootstrap over images, 95 %")


def bootstrap_ratio(
    above: Tensor | np.ndarray, below: Tensor | np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Ratio of two means; the two samples are resampled independently of each other.

    Raises:
        UserError: as `bootstrap_mean`, or a denominator whose resampled means reach 0.
    """
    a, b = _row(above), _row(below)
    rng = seeds.numpy(seed, "bootstrap", "ratio")
    top = a[rng.integers(0, len(a), (resamples, len(a)))].mean(1)
    bottom = b[rng.integers(0, len(b), (resamples, len(b)))].mean(1)
    if bottom.min() <= 0 <= bottom.max():
        raise UserError("a bootstrap ratio needs a denominator whose mean stays away from 0.")
    lo, hi = np.quantile(top / bottom, [0.025, 0.975])
    n = min(len(a), len(b))
    return Interval(float(a.mean() / b.mean()), float(lo), float(hi), n,
                    "bootstrap over images, both samples, 95 %")  # fmt: skip


def _row(values: Tensor | np.ndarray) -> np.ndarray:
    x = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or len(x) < 2 or not np.isfinite(x).all():
        raise UserError(f"a bootstrap needs at least 2 finite values in one row, not {x.shape}.")
    return x


def _images(x: Tensor) -> Tensor:
    """Refuses what is surely not (N, C, H, W) in [-1, 1]; unclamped outputs may leave it a bit."""
    if x.ndim != 4 or not x.is_floating_point() or not x.numel():
        raise UserError(f"images must be floats (N, C, H, W), not {x.dtype} {tuple(x.shape)}.")
    peak = float(x.abs().max())
    if not peak <= 2:  # NaN too
        raise UserError(f"images must lie in [-1, 1]; the largest magnitude is {peak:.3g}.")
    return x


def gradient_energy(x: Images) -> PerImage:
    """Mean absolute difference of neighbouring pixels, an image's amount of fine detail.

    Args:
        x: (N, C, H, W) in [-1, 1].

    Returns:
        (N,), in units of the image range per pixel.

    Raises:
        UserError: another shape, type or range, or images of a single row or column.
    """
    if min(_images(x).shape[2:]) < 2:
        raise UserError("images of a single row or column have no gradient.")
    rows = (x[:, :, 1:] - x[:, :, :-1]).abs().flatten(1).mean(1)
    columns = (x[:, :, :, 1:] - x[:, :, :, :-1]).abs().flatten(1).mean(1)
    return (rows + columns) / 2


def nearest_distance(x: Images, reference: Images, *, block: int = 256) -> PerImage:
    """Root-mean-square distance of each image to its nearest neighbour in `reference`.

    Computed block by block; never holds an N x M matrix larger than `block` x M.

    Raises:
        UserError: another type or range, or images of two sizes.
    """
    if _images(x).shape[1:] != _images(reference).shape[1:]:
        raise UserError(f"images of {tuple(x.shape[1:])} and {tuple(reference.shape[1:])} differ.")
    a, b = x.flatten(1).double(), reference.flatten(1).double()
    squares = b.square().sum(1)
    parts = []
    for rows in a.split(block):
        squared = rows.square().sum(1, keepdim=True) - 2 * rows @ b.T + squares
        parts.append(squared.min(1).values)
    return torch.cat(parts).clamp(min=0).div(a.shape[1]).sqrt().float()
