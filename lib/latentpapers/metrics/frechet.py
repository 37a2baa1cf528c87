"""The Frechet distance of two sets of features, its interval and its bias.

|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Heusel et al. 2017, eq 6; Dowson and Landau 1982). With
S = A^T A for each set, tr (S1 S2)^(1/2) is the sum of the singular values of A1 A2^T: real and not
negative by construction, and defined for fewer images than features, where A is the centred
features themselves. No square root of a matrix is formed.

The distance of finite samples is too large: sampling noise adds to it about in proportion to 1/n,
and features of many dimensions make that large. So the number of images is part of a protocol's id;
`frechet_infinity` removes the bias.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latentpapers import seeds
from latentpapers.errors import UserError
from latentpapers.metrics import extrapolation
from latentpapers.metrics.protocol import Score
from latentpapers.shapes import Features

_BLOCK = 4096


@dataclass(frozen=True)
class Moments:
    """What the distance needs to know of a set, in float64.

    Attributes:
        mean: (F,).
        root: (R, F) with covariance = root^T root; R is the smaller of images and features.
        n: images; None where only mean and covariance were published.
    """

    mean: Float[Tensor, "F"]
    root: Float[Tensor, "R F"]
    n: int | None = None


def moments(features: Features) -> Moments:
    """Mean and root of the covariance (divided by n - 1) of features.

    Args:
        features: (N, F), any float type and device; worked on in float64, block by block.

    Raises:
        UserError: another shape, a single image, NaN.
    """
    x = _checked(features)
    n, width = x.shape
    mean = _mean(x)
    if n <= width:
        return Moments(mean, (x.double() - mean) / math.sqrt(n - 1), n)
    return Moments(mean, _root(_scatter(x, mean) / (n - 1)), n)


def from_covariance(
    mean: Float[Tensor, "F"], covariance: Float[Tensor, "F F"], n: int | None = None
) -> Moments:
    """Moments of published statistics.

    Raises:
        UserError: shapes that do not fit, NaN, or a matrix that is no covariance.
    """
    mean, covariance = mean.double(), covariance.double()
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(
            f"a mean of {tuple(mean.shape)} and a covariance of {tuple(covariance.shape)} do not "
            "belong together."
        )
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise UserError("the statistics hold NaN or infinity.")
    scale = covariance.diagonal().abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    # 1e-6: what statistics kept in single precision lose
    if (covariance - covariance.T).abs().max() > 1e-6 * scale:
        raise UserError("the covariance is not symmetric.")
    if torch.linalg.eigvalsh(covariance)[0] < -1e-6 * scale * len(mean):
        raise UserError("the covariance has a negative variance.")
    return Moments(mean, _root((covariance + covariance.T) / 2), n)


def distance(a: Moments, b: Moments) -> float:
    """Squared Frechet distance of two Gaussians; never negative, symmetric.

    Raises:
        UserError: features of two widths or devices.
    """
    if a.mean.shape != b.mean.shape or a.mean.device != b.mean.device:
        raise UserError(
            f"{a.mean.numel()} features on {a.mean.device} against {b.mean.numel()} on "
            f"{b.mean.device}."
        )
    cross = a.root @ b.root.T
    gram = cross @ cross.T if len(cross) <= cross.shape[1] else cross.T @ cross
    overlap = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()  # singular values of cross
    spread = a.root.square().sum() + b.root.square().sum() - 2 * overlap
    return max(float((a.mean - b.mean).square().sum() + spread), 0.0)


def frechet_distance(real_features: Features, fake_features: Features) -> float:
    """Squared Frechet distance of two sets of features, float64.

    Raises:
        UserError: as `moments` and `distance`.
    """
    return distance(moments(real_features), moments(fake_features))


def frechet_score(
    real: Features | Moments, fake: Features, *, parts: int = 10, together: int = 1, seed: int = 0
) -> Score:
    """The distance with a 95 % interval; its bias is left in, as the papers print it.

    The delete-a-group jackknife: `parts` further distances, each without one part of both sets.

    Args:
        real: features, or published moments, which are then taken as exact.
        fake: features.
        parts: groups; the cost is `parts` + 1 distances.
        together: consecutive generated images that are no independent draws (outputs for one
            input); they stay in one group.
        seed: which images form a group.

    Raises:
        UserError: as `moments`, or fewer than 2 images a group.
    """
    value = distance(real if isinstance(real, Moments) else moments(real), moments(fake))
    spread = _jackknife(real, fake, parts, together, seed)
    low, high = extrapolation.around(value, spread, parts)
    method = f"jackknife over {parts} groups of images, 95 %; biased upwards at this n"
    return Score(value, max(low, 0.0), high, len(fake), method)


def on_components(
    real: Features, fake: Features, *, components: int = 32, parts: int = 8
) -> Score:  # fmt: skip
    """`frechet_score` on the first principal components of the real features, which is what some
    hundreds of images can fill. The real moments are taken as exact.

    Args:
        components: axes; at most the number of features.
        parts: groups of generated images, for the interval.

    Raises:
        UserError: as `frechet_score`.
    """
    middle, basis = principal_axes(real, components)
    return frechet_score(moments((real - middle) @ basis), (fake - middle) @ basis, parts=parts)


def principal_axes(
    features: Features, components: int
) -> tuple[Float[Tensor, "F"], Float[Tensor, "F C"]]:
    """Mean and first principal axes of features, orthonormal, by falling variance."""
    middle = features.mean(0)
    return middle, torch.linalg.svd(features - middle, full_matrices=False).Vh[:components].T


def frechet_infinity(
    real: Features | Moments,
    fake: Features,
    *,
    fractions: Iterable[int] = (1, 2, 3, 4),
    parts: int = 10,
    together: int = 1,
    seed: int = 0,
) -> Score:
    """The distance at infinitely many images, extrapolated in 1/n (Chong and Forsyth 2020).

    Both sets are divided into m disjoint subsets for each m of `fractions`; the mean distance of
    the subsets, a straight line in 1/n, is read off at 0. Every m uses every image once, so what
    is left of the noise is that of the jackknife. May come out slightly negative.

    Raises:
        UserError: as `frechet_score`; fewer than 2 fractions.
    """
    levels = sorted(set(fractions))
    means = []
    for m in levels:
        pairs = zip(_subsets(real, m, 1, seed), _subsets(fake, m, together, seed), strict=True)
        means.append(sum(distance(_moments(a), _moments(b)) for a, b in pairs) / m)
    value, unsure = extrapolation.intercept([m / len(fake) for m in levels], means)
    spread = math.hypot(_jackknife(real, fake, parts, together, seed), unsure)
    low, high = extrapolation.around(value, spread, parts)
    smallest = len(fake) // levels[-1]
    method = f"extrapolated in 1/n from {smallest} to {len(fake)} images, jackknife, 95 %"
    return Score(value, low, high, len(fake), method)


def _moments(x: Tensor | Moments) -> Moments:
    return x if isinstance(x, Moments) else moments(x)


def _subsets(x: Tensor | Moments, parts: int, together: int, seed: int) -> list[Tensor | Moments]:
    if isinstance(x, Moments):
        return [x] * parts
    index = extrapolation.groups(len(x), parts, together, seeds.derive(seed, "frechet"))
    return [x[i.to(x.device)] for i in index]


def _jackknife(real: Tensor | Moments, fake: Tensor, parts: int, together: int, seed: int) -> float:
    """Standard error from distances without one group of both sets."""
    left = []
    for a, b in zip(_without(real, parts, 1, seed), _without(fake, parts, together, seed)):
        left.append(distance(a, b))
    return extrapolation.jackknife(left)


def _without(x: Tensor | Moments, parts: int, together: int, seed: int) -> Iterable[Moments]:
    if isinstance(x, Moments):
        return [x] * parts
    index = extrapolation.groups(len(x), parts, together, seeds.derive(seed, "frechet"))
    index = [i.to(x.device) for i in index]
    if len(x) - max(map(len, index)) > x.shape[1]:
        return _downdated(_checked(x), index)
    return (moments(x[torch.cat([j for j in index if j is not i])]) for i in index)


def _downdated(x: Tensor, index: list[Tensor]) -> Iterator[Moments]:
    """Moments without each group: its share is taken from the sums over all, so that every image
    is multiplied out twice, not once for every other group."""
    mean = _mean(x)
    scatter = _scatter(x, mean)
    for group in index:
        part, left = x[group], len(x) - len(group)
        step = sum((p.double() - mean).sum(0) for p in part.split(_BLOCK)) / -left
        rest = scatter - _scatter(part, mean) - left * torch.outer(step, step)
        yield Moments(mean + step, _root(rest / (left - 1)), left)


def _mean(x: Tensor) -> Tensor:
    return sum(p.sum(0, dtype=torch.float64) for p in x.split(_BLOCK)) / len(x)


def _scatter(x: Tensor, mean: Tensor) -> Tensor:
    """Sum over images of the outer products of their deviations from `mean`."""
    out = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for part in x.split(_BLOCK):
        centred = part.double() - mean
        out.addmm_(centred.T, centred)
    return out


def _root(covariance: Tensor) -> Tensor:
    """A with A^T A = covariance: Cholesky's factor, or the eigenvectors' where it is singular."""
    upper, failed = torch.linalg.cholesky_ex(covariance, upper=True)
    if not failed:
        return upper
    values, vectors = torch.linalg.eigh(covariance)
    return values.clamp(min=0).sqrt()[:, None] * vectors.T


def _checked(features: Tensor) -> Tensor:
    if not isinstance(features, Tensor) or features.ndim != 2 or not features.is_floating_point():
        form = getattr(features, "shape", type(features).__name__)
        raise UserError(f"a Frechet distance takes float features (N, F), not {form}.")
    if len(features) < 2 or not features.shape[1]:
        raise UserError(f"a Frechet distance needs at least 2 images, not {len(features)}.")
    if not all(bool(p.isfinite().all()) for p in features.split(_BLOCK)):
        raise UserError("the features hold NaN or infinity.")
    return features.detach()
