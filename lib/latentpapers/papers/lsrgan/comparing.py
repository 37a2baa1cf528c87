"""Methods against each other: paired differences, means, ranges, and where they differ most."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from latentpapers.errors import UserError
from latentpapers.metrics import intervals
from latentpapers.metrics.protocol import Score
from latentpapers.papers.lsrgan.measuring import Values
from latentpapers.seeds import numpy
from latentpapers.shapes import PerImage


def pooled_groups(
    groups: Mapping[str, intervals.Groups], counts: Mapping[str, int]
) -> tuple[str, ...] | None:
    """Photographs of several sets' pictures, set after set; None where every picture is whole.

    Args:
        groups: set -> the photographs that its pictures were cut from (`photographs`).
        counts: set -> number of its pictures, in the order of pooling.
    """
    if not any(groups.get(name) is not None for name in counts):
        return None
    of = {name: groups.get(name) or range(n) for name, n in counts.items()}
    return tuple(f"{name} {photograph}" for name in counts for photograph in of[name])


def differences(
    first: Values, second: Values, column: str, *, spread: bool = False, percent: bool = False,
    groups: Mapping[str, intervals.Groups] | None = None,
) -> dict[str, Score]:  # fmt: skip
    """`first` less `second` on the same pictures: a set each, and `all images` pooled.

    Args:
        spread: of the standard deviations over pictures, not of the means.
        percent: of the second's mean.
        groups: set -> the photographs that its pictures were cut from (`photographs`).
    """
    both = {name: (first[name][column], second[name][column]) for name in first}
    of = {name: (groups or {}).get(name) for name in both}
    of["all images"] = pooled_groups(of, {name: len(old) for name, (_, old) in both.items()})
    both["all images"] = tuple(torch.cat([pair[i] for pair in both.values()]) for i in (0, 1))
    how = spread_difference if spread else intervals.paired_difference
    found = {name: how(a, b, groups=of[name]) for name, (a, b) in both.items()}
    if not percent:
        return found
    return {name: share_of(score, float(both[name][1].mean())) for name, score in found.items()}


def share_of(score: Score, base: float) -> Score:
    """A difference in per cent of `base`, interval and all."""
    return replace(score, **{k: 100 * getattr(score, k) / base for k in ("value", "low", "high")})


def mean_of(several: Sequence[Values], column: str) -> Values:
    """Several networks' values of a column, averaged picture by picture."""
    return {
        name: {column: torch.stack([values[name][column] for values in several]).mean(0)}
        for name in several[0]
    }


def best_of(rivals: Mapping[str, Values], columns: Mapping[str, bool]) -> dict[str, str]:
    """Who has the best mean, comparison by comparison: a set and a column each (Appendix C).

    Args:
        rivals: name -> its values.
        columns: column -> whether more is better.

    Returns:
        `column set` -> name; of equal ones the first. What was not measured is left out.
    """
    out = {}
    for place, found in next(iter(rivals.values())).items():
        for column, higher in columns.items():
            if column in found:
                means = {who: float(v[place][column].mean()) for who, v in rivals.items()}
                out[f"{column} {place}"] = (max if higher else min)(means, key=means.__getitem__)
    return out


def worst_sets(
    found: Sequence[Mapping[Any, Score]], *, higher: bool, leave: tuple[str, ...] = ()
) -> list[Score]:
    """The test set that favours a claim least: a claim about every set holds if it holds there.

    It is one set for all trainings, that whose interval reaches furthest against the claim: the
    interval over seeds where there are several, for that is what verdicts read. A set chosen for
    each training by itself, by its interval over pictures, may leave out the one that decides.

    Args:
        found: from `differences`, one a training.
        higher: whether the claim says that the difference is positive.
        leave: sets that the claim leaves out.

    Returns:
        That set's difference, one a training.

    Raises:
        UserError: no set is left.
    """

    def bound(name: Any) -> float:
        scores = [one[name] for one in found]
        whole = intervals.over_seeds([s.value for s in scores]) if scores[1:] else scores[0]
        low, high = (whole.value if b is None else b for b in (whole.low, whole.high))  # of 2 seeds
        return low if higher else -high

    names = [name for name in found[0] if name not in ("all images", *leave)]
    if not names:
        raise UserError("a claim about every test set needs one that it does not leave out.")
    worst = min(names, key=bound)
    return [one[worst] for one in found]


def spread_difference(
    a: PerImage, b: PerImage, *, groups: intervals.Groups = None, resamples: int = 2000,
    seed: int = 0,
) -> Score:  # fmt: skip
    """Population standard deviation of `a` less that of `b`; pictures are resampled together."""
    x, y = (v.double().numpy() for v in (a, b))
    weights = intervals.drawn(groups, len(x), resamples, numpy(seed, "bootstrap", "spread"))
    draws = intervals.weighted_std(x, weights) - intervals.weighted_std(y, weights)
    how = intervals.method(groups, paired=True)
    return score_of_draws(float(x.std() - y.std()), draws, len(x), how)


def range_of_means(
    several: list[PerImage], *, groups: intervals.Groups = None, resamples: int = 2000,
    seed: int = 0,
) -> Score:  # fmt: skip
    """Largest less smallest mean of several networks; pictures are resampled together."""
    x = torch.stack([v.double() for v in several]).numpy()
    weights = intervals.drawn(groups, x.shape[1], resamples, numpy(seed, "bootstrap", "range"))
    means = x @ weights.T
    value = float(x.mean(1).max() - x.mean(1).min())
    return score_of_draws(value, means.max(0) - means.min(0), x.shape[1], intervals.method(groups))


def score_of_draws(value: float, draws: Any, n: int, how: str) -> Score:
    """A value with the central 95 % of its bootstrap draws."""
    import numpy as np

    low, high = np.quantile(draws, [0.025, 0.975])
    return Score(value, float(low), float(high), n, how)


def place_of_largest_difference(
    first: Tensor, second: Tensor, crop: int, *, stride: int = 4
) -> tuple[int, int]:
    """The rule that figures choose their crops by: where two methods differ most in structure.

    The measure is the standard deviation of their difference inside the crop, so that a mere shift
    of brightness or colour counts for nothing.

    Args:
        first, second: uint8 (3, H, W).
        crop: side of the crop in pixels; a multiple of `stride`.

    Returns:
        Top and left of the crop with the largest measure; the first such in reading order.
        Multiples of `stride`, so that low-resolution pixels are not cut.

    Raises:
        UserError: pictures of two sizes, or smaller than the crop.
    """
    if first.shape != second.shape or not 0 < crop <= min(first.shape[1:]) or crop % stride:
        raise UserError(
            f"cannot cut {crop} px in steps of {stride} from {tuple(first.shape)} and "
            f"{tuple(second.shape)}."
        )
    gap = (first.double() - second.double()).mean(0)[None, None]
    mean, square = (nn.functional.avg_pool2d(x, crop, stride)[0, 0] for x in (gap, gap.square()))
    spread = square - mean.square()
    best = int(spread.argmax())
    return best // spread.shape[1] * stride, best % spread.shape[1] * stride
