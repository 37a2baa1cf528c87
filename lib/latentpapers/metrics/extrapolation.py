"""Groups of images, the jackknife over them, and straight lines in 1/n.

For distances of two sets, which are no means over images: their noise comes from leaving out one
group of both, their bias, of order 1/n, from comparing disjoint subsets of several sizes. Metrics
of one set have `intervals.half_samples` and `intervals.subset_extrapolation`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latentpapers import seeds
from latentpapers.errors import UserError


def groups(n: int, parts: int, together: int = 1, seed: int = 0) -> list[Tensor]:
    """Disjoint random index sets of nearly one size that cover range(n).

    Args:
        together: consecutive items that stay in one group.

    Raises:
        UserError: fewer than 2 items a group, or `n` no multiple of `together`.
    """
    if parts < 1 or together < 1 or n % together or n // together < parts or n < 2 * parts:
        raise UserError(f"{n} images, {together} to a unit, do not make {parts} groups of 2.")
    units = torch.from_numpy(seeds.numpy(seed, "groups", parts).permutation(n // together))
    inside = torch.arange(together)
    return [(u[:, None] * together + inside).flatten() for u in units.tensor_split(parts)]


def jackknife(left_out: Sequence[float]) -> float:
    """Standard error from the statistic without each group in turn (delete-a-group jackknife)."""
    x = np.asarray(left_out, np.float64)
    return float(math.sqrt((len(x) - 1) / len(x) * np.square(x - x.mean()).sum()))


def around(value: float, error: float, parts: int) -> tuple[float, float]:
    """95 % interval by Student's t with `parts` - 1 degrees of freedom."""
    from scipy.stats import t

    half = float(t.ppf(0.975, parts - 1)) * error
    return value - half, value + half


def intercept(inverse_n: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Value at 1/n = 0 of the least-squares line, and its standard error (0 from two points).

    Raises:
        UserError: fewer than 2 different sizes.
    """
    x, y = np.asarray(inverse_n, np.float64), np.asarray(values, np.float64)
    if len(np.unique(x)) < 2:
        raise UserError("an extrapolation in 1/n needs at least 2 sample sizes.")
    design = np.stack([np.ones_like(x), x], 1)
    inverse = np.linalg.inv(design.T @ design)
    fit = inverse @ design.T @ y
    free = len(x) - 2
    rest = np.square(y - design @ fit).sum() / free if free else 0.0
    return float(fit[0]), float(math.sqrt(rest * inverse[0, 0]))
