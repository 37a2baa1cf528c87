"""Intervals: bootstrap over images, paired differences, seeds, and the bias of small samples."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from latentpapers import seeds
from latentpapers.errors import UserError
from latentpapers.metrics.protocol import Score

Groups = Sequence[str] | None
"""What each image was cut from; None: every image is a picture of its own."""


def drawn(
    groups: Groups, n: int, resamples: int, rng: np.random.Generator
) -> Float[np.ndarray, "R N"]:
    """Weights of `n` images in each resample, rows of sum 1: images or whole groups are drawn.

    Crops of one photograph resemble each other, so the photographs are what is independent:
    resampling crops one by one would promise too narrow an interval.

    Raises:
        UserError: another number of images, or fewer than 2 groups.
    """
    names, of = np.unique(np.arange(n) if groups is None else groups, return_inverse=True)
    if len(of) != n or len(names) < 2:
        raise UserError(f"a bootstrap needs 2 or more groups of its {n} images; {len(names)} came.")
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)[:, of]
    return times / times.sum(1, keepdims=True)


def method(groups: Groups, paired: bool = False) -> str:
    """How an interval was made, as results say it."""
    what = "images" if groups is None else f"{len(set(groups))} photographs"
    return f"{'paired ' * paired}bootstrap over {what}, 95 %"


def bootstrap_mean(
    values: Tensor | np.ndarray, *, groups: Groups = None, resamples: int = 2000, seed: int = 0
) -> Score:
    """Percentile bootstrap of the mean over images.

    Args:
        groups: photographs that the images were cut from; they are then drawn whole.

    Raises:
        UserError: fewer than 2 values, or one that is not finite; as `drawn`.
    """
    x = _row(values)
    rng = seeds.numpy(seed, "bootstrap", "mean")
    if groups is None:
        draws = x[rng.integers(0, len(x), (resamples, len(x)))].mean(1)
    else:
        draws = drawn(groups, len(x), resamples, rng) @ x
    low, high = np.quantile(draws, [0.025, 0.975])
    return Score(float(x.mean()), float(low), float(high), len(x), method(groups))


def bootstrap_ratio(
    above: Tensor | np.ndarray, below: Tensor | np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> Score:
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
    low, high = np.quantile(top / bottom, [0.025, 0.975])
    n = min(len(a), len(b))
    return Score(float(a.mean() / b.mean()), float(low), float(high), n,
                 "bootstrap over images, both samples, 95 %")  # fmt: skip


def bootstrap_std(
    values: Tensor | np.ndarray, *, groups: Groups = None, resamples: int = 2000, seed: int = 0
) -> Score:
    """Population standard deviation (ddof 0) over images; percentile bootstrap.

    Resampling repeats values, so the interval sits low by a factor of about 1 - 1 / (2 n).

    Raises:
        UserError: as `bootstrap_mean`.
    """
    x = _row(values)
    rng = seeds.numpy(seed, "bootstrap", "std")
    if groups is None:
        draws = x[rng.integers(0, len(x), (resamples, len(x)))].std(1)
    else:
        draws = weighted_std(x, drawn(groups, len(x), resamples, rng))
    low, high = np.quantile(draws, [0.025, 0.975])
    return Score(float(x.std()), float(low), float(high), len(x), method(groups))


def weighted_std(
    x: Float[np.ndarray, "N"], weights: Float[np.ndarray, "R N"]
) -> Float[np.ndarray, "R"]:
    """Population standard deviation of `x` under each row of weights."""
    apart = x - x.mean()  # so that the difference of squares below cancels nothing
    return np.sqrt(np.maximum(weights @ apart**2 - (weights @ apart) ** 2, 0))


def paired_difference(
    a: Tensor | np.ndarray, b: Tensor | np.ndarray, *, groups: Groups = None,
    resamples: int = 2000, seed: int = 0,
) -> Score:  # fmt: skip
    """mean(a) - mean(b) of two methods on the same images; "A beats B" if 0 lies outside.

    What the images share (an easy image is easy for both) cancels, so the interval is far
    narrower than that of two separate means.

    Args:
        a, b: one value per image, in the same order.
        groups: as in `bootstrap_mean`.

    Raises:
        UserError: as `bootstrap_mean`, or different numbers of images.
    """
    x, y = _row(a), _row(b)
    if len(x) != len(y):
        raise UserError(f"pairs need the same images on both sides, not {len(x)} and {len(y)}.")
    found = bootstrap_mean(x - y, groups=groups, resamples=resamples, seed=seed)
    return dataclasses.replace(found, method=method(groups, paired=True))


def added(score: Score, change: Score) -> Score:
    """A number and an independent change of it; half widths add in squares."""
    middle = score.value + change.value
    below = math.hypot(score.value - score.low, change.value - change.low)
    above = math.hypot(score.high - score.value, change.high - change.value)
    return dataclasses.replace(score, value=middle, low=middle - below, high=middle + above)


def side(score: Score, low: float = -math.inf, high: float = math.inf) -> int:
    """1: the whole interval lies between `low` and `high`, -1: all of it outside, 0: neither."""
    inside = low <= score.low and score.high <= high
    return int(inside) - int(score.high < low or score.low > high)


def carried(before: Score, now: Score, low: float = -math.inf, high: float = math.inf) -> str:
    """What becomes of a verdict whose claim is that a number lies between `low` and `high`.

    Args:
        before: the number that decides it.
        now: the number that would, `added` for a change that was measured elsewhere.

    Returns:
        `same` or `other`: inside, or outside, as before or not; `open`: the interval now holds a
        limit; `undecided`: it did before.
    """
    was, found = side(before, low, high), side(now, low, high)
    if not was:
        return "undecided"
    return "same" if found == was else "other" if found else "open"


def over_seeds(values: Sequence[float]) -> Score:
    """Mean over training seeds with Student's t interval; no interval below 3 seeds.

    Raises:
        UserError: no value, or one that is not finite.
    """
    from latentpapers.ledger import verdicts

    x = [float(v) for v in values]
    if not x or not np.isfinite(x).all():
        raise UserError(f"a mean over seeds needs finite values, not {x}.")
    found = verdicts.t_interval(x)
    if len(x) < 3:
        return Score(found.value, None, None, len(x), "none: fewer than 3 seeds")
    return Score(found.value, found.lo, found.hi, len(x), "t over seeds, 95 %")


def seeds_and_images(
    values: Sequence[Tensor | np.ndarray], *, groups: Groups = None, resamples: int = 2000,
    seed: int = 0,
) -> Score:  # fmt: skip
    """Mean over seeds and images with an interval that covers other seeds and other images.

    The two errors are independent, so their half widths add in squares: Student's t over the seeds'
    means (which a bootstrap of three seeds would make far too narrow), and a bootstrap over images
    of the mean over seeds.

    Args:
        values: of each seed, one value per image, all in the same order; often a difference.
        groups: as in `bootstrap_mean`.

    Raises:
        UserError: as `bootstrap_mean`, or seeds with different numbers of images.
    """
    rows = [_row(v) for v in values]
    if len({len(r) for r in rows}) != 1:
        raise UserError(f"seeds need the same images, not {', '.join(str(len(r)) for r in rows)}.")
    runs = over_seeds([float(r.mean()) for r in rows])
    images = bootstrap_mean(np.mean(rows, 0), groups=groups, resamples=resamples, seed=seed)
    if runs.low is None:
        return runs
    below, above = (float(np.hypot(runs.value - a, runs.value - b))
                    for a, b in ((runs.low, images.low), (runs.high, images.high)))  # fmt: skip
    how = f"t over seeds and {method(groups).removesuffix(', 95 %')}, in squares, 95 %"
    return Score(runs.value, runs.value - below, runs.value + above, len(rows), how)


# --- metrics of a whole sample (FID, Inception score) ----------------------------------------


def half_samples(
    measure: Callable[[np.ndarray], float], n: int, *, halves: int = 20, seed: int = 0
) -> Score:
    """A metric of n images, with an interval from random halves of them (delete-half jackknife).

    A bootstrap repeats images, which distribution metrics take for lost variety; halves do not.
    Half samples scatter about their own mean as full samples do about theirs. A bias that falls
    as 1 / n (FID up, Inception score down) is as large at n as the step from n to n / 2: it is
    stated in `method`, neither removed nor part of the interval.

    Args:
        measure: takes indices of images (int64, no repeats), returns the metric of those.
        n: number of images, at least 4.
        halves: number of random halves, at least 3.

    Raises:
        UserError: fewer images or halves, or a metric that is not finite.
    """
    from scipy import stats

    if n < 4 or halves < 3:
        raise UserError(f"half samples need 4 images and 3 halves, not {n} and {halves}.")
    value = _measured(measure, np.arange(n))
    draws = np.array([_measured(measure, s) for s in _subsets(n, n // 2, halves, seed)])
    half = float(
        stats.t.ppf(0.975, halves - 1) * draws.std(ddof=1) * np.sqrt(n // 2 / (n - n // 2))
    )
    bias = float(draws.mean()) - value
    method = f"{halves} half samples, 95 %; bias of {n} images about {bias:+.2g}, not removed"
    return Score(value, value - half, value + half, n, method)


def subset_extrapolation(
    measure: Callable[[np.ndarray], float],
    n: int,
    *,
    sizes: int = 6,
    smallest: float = 0.25,
    repeats: int = 3,
    seed: int = 0,
) -> Score:
    """A metric extrapolated to infinitely many images (Chong and Forsyth 2020).

    FID and the Inception score have a bias that falls as 1 / m: the metric of subsets is fitted by
    a straight line over 1 / m, whose intercept is returned. Terms in 1 / m^2 remain: subsets with
    fewer images than features are not on the line. The interval adds, in squares, the error of
    the fit and that of the n images, which the scatter of equal subsets tells.

    Args:
        measure: as in `half_samples`.
        n: number of images.
        sizes: number of subset sizes, spaced evenly in 1 / m, from `smallest` * n to n.
        smallest: smallest subset as a share of n, in (0, 1).
        repeats: random subsets of each size below n, at least 2.

    Raises:
        UserError: too few images, sizes or repeats, or a metric that is not finite.
    """
    from scipy import stats

    if not 0 < smallest < 1 or sizes < 3 or repeats < 2 or smallest * n < 2:
        raise UserError("extrapolation needs 3 sizes from 2 images up, and 2 subsets of each.")
    lengths = np.unique(np.rint(1 / np.linspace(1 / (smallest * n), 1 / n, sizes)).astype(int))
    if len(lengths) < 3:
        raise UserError(f"{n} images give only {len(lengths)} subset sizes; use more images.")
    below = [(m, [_measured(measure, s) for s in _subsets(n, m, repeats, seed)])
             for m in lengths[:-1].tolist()]  # fmt: skip
    points = [(1 / m, v) for m, found in below for v in found]
    line = stats.linregress(*np.array([*points, (1 / n, _measured(measure, np.arange(n)))]).T)
    # a subset of m scatters by s (1 / m - 1 / n)^(1/2) about the whole, the whole by s / n^(1/2)
    scatter = np.mean([np.var(v, ddof=1) * m / (n - m) for m, v in below])
    free = len(below) * (repeats - 1)
    parts = (stats.t.ppf(0.975, len(points) - 1) * line.intercept_stderr,
             stats.t.ppf(0.975, free) * np.sqrt(scatter))  # fmt: skip
    low, high = (float(line.intercept + sign * np.hypot(*parts)) for sign in (-1, 1))
    method = f"extrapolated over 1/m from subsets of {lengths[0]} to {n} images, 95 %"
    return Score(float(line.intercept), low, high, n, method)


def _subsets(n: int, m: int, count: int, seed: int) -> Iterator[np.ndarray]:
    rng = seeds.numpy(seed, "subset", m)
    return (np.sort(rng.permutation(n)[:m]) for _ in range(count))


def _measured(measure: Callable[[np.ndarray], float], subset: np.ndarray) -> float:
    value = float(measure(subset))
    if not np.isfinite(value):
        raise UserError(f"the metric of {len(subset)} images is {value}, not a number.")
    return value


def _row(values: Tensor | np.ndarray) -> np.ndarray:
    x = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or len(x) < 2 or not np.isfinite(x).all():
        raise UserError(f"a bootstrap needs at least 2 finite values in one row, not {x.shape}.")
    return x
