"""Measures of walks in latent space: how real, how near the source, which setting is best.

Everything here works on features that were computed once. Sets of images made from the same starts
are compared pair by pair: they share their images, so they share their noise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentpapers import seeds
from latentpapers.errors import UserError
from latentpapers.metrics import frechet
from latentpapers.metrics.protocol import Score
from latentpapers.shapes import Features, PerImage

Indices = Int[Tensor, "n"]
_Z = 1.959963984540054  # the normal law's 97.5 % quantile


def realism(features: Features, real: Features, *, k: int = 5) -> PerImage:
    """Mean Euclidean distance of each image to its `k` nearest real ones; smaller is more real.

    Raises:
        UserError: fewer than `k` real images.
    """
    if not 1 <= k <= len(real):
        raise UserError(f"realism needs 1 <= k <= {len(real)} real images, not k = {k}.")
    return torch.cdist(features, real).topk(k, dim=1, largest=False).values.mean(1)


def similarity(a: Features, b: Features, centre: Float[Tensor, "F"]) -> PerImage:
    """Cosine of two images' features, from the mean of real images: 1 same, about 0 unrelated."""
    return torch.nn.functional.cosine_similarity(a - centre, b - centre, dim=1)


def rank_correlation(x: PerImage, y: PerImage, *, resamples: int = 1000, seed: int = 0) -> Score:
    """Spearman's coefficient with a percentile bootstrap over images.

    Raises:
        UserError: fewer than 4 pairs, lengths that differ, or a constant.
    """
    a, b = (np.asarray(t.detach().cpu(), np.float64) for t in (x, y))
    if a.shape != b.shape or a.ndim != 1 or len(a) < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
        raise UserError("a rank correlation needs at least 4 pairs of numbers that vary.")
    rng = seeds.numpy(seed, "bootstrap", "ranks")
    draws = [_spearman(a[i], b[i]) for i in rng.integers(0, len(a), (resamples, len(a)))]
    lo, hi = np.nanquantile(draws, [0.025, 0.975])
    return Score(
        float(_spearman(a, b)), float(lo), float(hi), len(a), "bootstrap over images, 95 %"
    )


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import rankdata

    ranks = rankdata(a), rankdata(b)
    if np.ptp(ranks[0]) == 0 or np.ptp(ranks[1]) == 0:
        return float("nan")  # a resample of one image: no correlation
    return float(np.corrcoef(*ranks)[0, 1])


def share(has: Float[Tensor, "N"]) -> Score:
    """Share of ones among zeros and ones with Wilson's interval, which has a width even where none
    or all are ones."""
    n, p = len(has), float(has.double().mean())
    middle, half = (p + _Z**2 / (2 * n)), _Z * np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n))
    scale = 1 + _Z**2 / n
    low, high = max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
    return Score(p, float(min(low, p)), float(max(high, p)), n, "Wilson's interval, 95 %")


def share_difference(a: Float[Tensor, "N"], b: Float[Tensor, "M"]) -> Score:
    """Share in `a` minus share in `b`, independent samples, with Newcombe's interval.

    Source: Newcombe 1998, method 10: the distances to Wilson's ends add in squares.
    """
    x, y = share(a), share(b)
    low = x.value - y.value - np.hypot(x.value - x.low, y.high - y.value)
    high = x.value - y.value + np.hypot(x.high - x.value, y.value - y.low)
    return Score(x.value - y.value, float(low), float(high), min(x.n, y.n),
                 "Newcombe's interval of two shares, 95 %")  # fmt: skip


def difference(a: Score, b: Score, *, what: str = "two ratios") -> Score:
    """`a` minus `b` of independent samples: the distances to the ends of their intervals add in
    squares, as in `share_difference`.

    Source: Zou and Donner 2008 (the method of variance estimates recovery).
    """
    value = a.value - b.value
    low = value - np.hypot(a.value - a.low, b.high - b.value)
    high = value + np.hypot(a.high - a.value, b.value - b.low)
    return Score(value, float(low), float(high), min(a.n, b.n),
                 f"difference of {what} with independent intervals, 95 %")  # fmt: skip


def principal(
    made: Float[Tensor, "S N F"], real: Features, *, width: int = 32
) -> tuple[Float[Tensor, "S N K"], frechet.Moments]:
    """Features of several sets on the principal components of the real ones, and the moments of the
    real ones there: distances of few images, whose covariance in all dimensions says nothing.

    Args:
        made: (S, N, F); real: (M, F).
        width: components, at most M.
    """
    centre, basis = frechet.principal_axes(real, width)
    return (made - centre) @ basis, frechet.moments((real - centre) @ basis)


@dataclass(frozen=True)
class Sets:
    """Images made from the same starts under several settings, as features.

    Attributes:
        names: of the settings.
        features: (S, N, F).
        real: moments of the reference images, taken as exact.
    """

    names: tuple[str, ...]
    features: Float[Tensor, "S N F"]
    real: frechet.Moments

    def distances(self, rows: Indices) -> Float[Tensor, "S"]:
        """Frechet distance of every setting, from these starts alone."""
        found = [frechet.distance(self.real, frechet.moments(f[rows])) for f in self.features]
        return torch.tensor(found, dtype=torch.float64)

    def among(self, names: list[str]) -> "Sets":
        """Some of the settings."""
        return Sets(tuple(names), self.features[[self.names.index(n) for n in names]], self.real)


def best(sets: Sets, rows: Indices) -> tuple[str, float]:
    """The paper's protocol: the setting with the smallest distance, and that distance.

    Chosen and reported on the same images, it is too small by what chance gives the best of many.
    """
    found = sets.distances(rows)
    return sets.names[int(found.argmin())], float(found.min())


def held_out(sets: Sets, rows: Indices, *, splits: int = 4, seed: int = 0) -> float:
    """The honest protocol: chosen on one half of the starts, reported on the other.

    Both halves serve as either, over several random splits; the mean of all is returned. Halves
    have half the images, so compare only with other numbers of this protocol.

    Raises:
        UserError: fewer than 8 starts.
    """
    if len(rows) < 8:
        raise UserError(f"halves of {len(rows)} starts are too small to choose a setting on.")
    reported = []
    for split in range(splits):
        shuffled = rows[_order(len(rows), seed, split)]
        halves = [sets.distances(h) for h in (shuffled[::2], shuffled[1::2])]
        reported += [halves[1][halves[0].argmin()], halves[0][halves[1].argmin()]]
    return float(torch.stack(reported).mean())


def left_out(
    n: int, statistic: Callable[[Indices], Float[Tensor, "K"]], *, groups: int = 8, seed: int = 0
) -> Float[Tensor, "G K"]:
    """A statistic of all starts, then of all but each group: what `from_left_out` needs.

    Equal n, groups and seed leave out equal starts, so that rows of two methods can be subtracted.

    Args:
        n: starts.
        statistic: rows -> K numbers; `groups` + 1 evaluations.

    Raises:
        UserError: fewer than 2 starts a group.
    """
    if n < 2 * groups:
        raise UserError(f"{groups} groups of {n} starts are too small for a jackknife.")
    everything = torch.arange(n)
    order = torch.as_tensor(_order(n, seed, 0))
    left = [np.setdiff1d(everything, order[g::groups]) for g in range(groups)]
    return torch.stack([statistic(torch.as_tensor(rows)) for rows in [everything, *left]])


def from_left_out(values: Float[Tensor, "G K"], n: int) -> list[Score]:
    """95 % intervals of the delete-a-group jackknife from what `left_out` gave for n starts."""
    from scipy.special import stdtrit

    value, parts = values[0], values[1:]
    groups = len(parts)
    spread = ((groups - 1) / groups * (parts - parts.mean(0)).square().sum(0)).sqrt()
    half = float(stdtrit(groups - 1, 0.975)) * spread
    method = f"jackknife over {groups} groups of starts, 95 %"
    return [Score(float(v), float(v - h), float(v + h), n, method) for v, h in zip(value, half)]


def jackknife(
    n: int, statistic: Callable[[Indices], Float[Tensor, "K"]], *, groups: int = 8, seed: int = 0
) -> list[Score]:
    """Statistics of paired sets with 95 % intervals: the delete-a-group jackknife over starts.

    Args:
        n, statistic, groups, seed: as in `left_out`.

    Raises:
        UserError: fewer than 2 starts a group.
    """
    return from_left_out(left_out(n, statistic, groups=groups, seed=seed), n)


def _order(n: int, seed: int, split: int) -> np.ndarray:
    return seeds.numpy(seed, "halves", split).permutation(n)
