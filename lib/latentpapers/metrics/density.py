"""Density, coverage, precision and recall of two sets of features, in blocks.

Naeem et al. 2020, "Reliable fidelity and diversity metrics for generative models", section 3. The
ball of a point reaches to its k-th neighbour in its own set, the point itself excluded; a point is
inside if its distance is *less than* the radius.

Nothing of size N x M is ever held. Blocks of squared distances come from one matrix product each
(|a|^2 + |b|^2 - 2 a.b on centred features) with a proven bound of its rounding; wherever that bound
leaves a comparison open, the two rows are subtracted in float64. So the counts are those of exact
distances, whatever the block, the order of rows or the precision of the products, ties included: a
copy of somebody's k-th neighbour lies on the ball, not inside.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentpapers import seeds
from latentpapers.errors import UserError
from latentpapers.metrics.protocol import Score
from latentpapers.shapes import Features

_SPARE = 8  # candidates kept beyond k: a row with more near ties is done again in float64
_OPEN = 256  # a block with more than 1 in 256 comparisons open is done again in float64


@dataclass(frozen=True)
class Neighbours:
    """What the balls of two sets say of each other.

    Attributes:
        density: generated points in real balls, over k M; may exceed 1.
        coverage: share of real points with a generated point inside their ball.
        precision: share of generated points inside some real ball.
        recall: share of real points inside some generated ball; None if not asked for.
        k: the neighbour that sets the radius.
        real_hits: (N,) generated points inside each real ball.
        fake_hits: (M,) real balls that each generated point lies in.
        draws: (2, resamples) density and coverage of bootstrap resamples; None without.
    """

    density: float
    coverage: float
    precision: float
    recall: float | None
    k: int
    real_hits: Int[Tensor, "N"]
    fake_hits: Int[Tensor, "M"]
    draws: Float[Tensor, "2 R"] | None = None


def density_coverage(
    real_features: Features,
    fake_features: Features,
    k: int = 5,
    *,
    recall: bool = False,
    dtype: torch.dtype = torch.float32,
    block: int = 1024,
    resamples: int = 0,
    seed: int = 0,
) -> Neighbours:
    """Density and coverage (and precision) of generated features; the order of arguments matters.

    Args:
        real_features: (N, F), on any device.
        fake_features: (M, F), on the same device.
        k: the neighbour that sets the radius.
        recall: also the balls of the generated points (half as much work again).
        dtype: of the matrix products, float32 or float64; the result is the same.
        block: rows of a block; it decides memory (two blocks of features) and speed alone.
        resamples: bootstrap resamples of both sets, the balls held fixed.
        seed: of the bootstrap.

    Raises:
        UserError: shapes, types or devices that do not fit, NaN, or k >= N (or M for recall).
    """
    _check(real_features, fake_features, k, recall, dtype, block)
    with torch.no_grad(), _full_precision():
        centre = _centre(real_features)
        real, fake = (_Points.of(x, centre, block) for x in (real_features, fake_features))
        if max(real.norms.max(), fake.norms.max()) > 1e36 or real.norms.max() < 1e-30:
            dtype = torch.float64  # squares would leave float32
        tally = _Tally(real, fake, resamples, seed)
        own = _radii(fake, k, dtype) if recall else None
        _count(real, fake, _radii(real, k, dtype), own, dtype, tally)
    return tally.result(k, recall)


def scores(measured: Neighbours) -> dict[str, Score]:
    """Density and coverage with 95 % intervals.

    The balls are held fixed, so what another real sample would do to the radii is left out.
    Resamples repeat points, which lowers coverage: they are re-centred on the value.

    Raises:
        UserError: measured without resamples.
    """
    if measured.draws is None:
        raise UserError("density and coverage without resamples have no interval; ask for some.")
    method = "bootstrap over real and generated images, balls held fixed, re-centred, 95 %"
    out = {}
    for name, draws in zip(("density", "coverage"), measured.draws.numpy(), strict=True):
        value = getattr(measured, name)
        low, high = np.quantile(draws, [0.025, 0.975]) - np.median(draws) + value
        top = np.inf if name == "density" else 1.0
        n = len(measured.fake_hits)
        out[name] = Score(value, max(float(low), 0.0), min(float(high), top), n, method)
    return out


# --- points ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Points:
    """Distinct rows of a set. Equal rows (mode collapse) are one point that counts several times:
    otherwise each of their ties would have to be decided one by one."""

    rows: Tensor
    first: Tensor  # (U,) where each distinct row stands
    which: Tensor  # (N,) the distinct row of each row
    centre: Tensor
    block: int

    @classmethod
    def of(cls, rows: Tensor, centre: Tensor, block: int) -> "_Points":
        first, which = _distinct(rows)
        return cls(rows, first, which, centre.to(_work(rows)), block)

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def counts(self) -> Tensor:
        return torch.bincount(self.which, minlength=len(self))

    @cached_property
    def norms(self) -> Tensor:
        """Squared norms of the centred rows, float64."""
        out = torch.empty(len(self), dtype=torch.float64, device=self.rows.device)
        for index in torch.arange(len(self), device=out.device).split(_step(self.rows)):
            out[index] = self.centred(index, torch.float64).square_().sum(1)
        return out

    def centred(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows less the centre, rounded once to `dtype`."""
        work = torch.promote_types(self.centre.dtype, dtype)
        return (self.rows[self.first[index]].to(work) - self.centre).to(dtype)

    def blocks(self) -> Iterator[Tensor]:
        yield from torch.arange(len(self), device=self.rows.device).split(self.block)


def _step(rows: Tensor) -> int:
    """Rows of a chunk of float64 work: on a CPU so few that they stay in a core's cache and no
    threads have to meet, on a GPU enough to fill it."""
    return max(1, 2 ** (14 if rows.device.type == "cpu" else 24) // rows.shape[1])


def _centre(rows: Tensor) -> Tensor:
    """Mean row, float64, without a float64 copy of all rows."""
    return sum(p.sum(0, dtype=torch.float64) for p in rows.split(_step(rows))) / len(rows)


def _work(rows: Tensor) -> torch.dtype:
    return torch.float64 if rows.dtype == torch.float64 else torch.float32


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """First occurrence of each distinct row, and the distinct row of each row."""
    keys = _hashes(rows)
    _, which = torch.unique(keys, return_inverse=True)
    order = torch.arange(len(rows), device=rows.device)
    first = torch.full((int(which.max()) + 1,), len(rows), device=rows.device)
    first = first.scatter_reduce(0, which, order, "amin")
    repeats = (first[which] != order).nonzero()[:, 0]
    for part in repeats.split(256):
        if not torch.equal(rows[part], rows[first[which[part]]]):  # two rows under one hash
            return order, order
    return first, which


def _hashes(rows: Tensor) -> Tensor:
    """64 bits a row from its bits alone: no rounding, so equal rows agree on every device."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.element_size()]
    odd = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=seeds.generator(0, "hash"))
    odd = (2 * odd + 1).to(rows.device)
    out = torch.empty(len(rows), dtype=torch.long, device=rows.device)
    step = _step(rows)  # written in place: small results kept between chunks fragment the heap
    for keys, part in zip(out.split(step), rows.detach().split(step), strict=True):
        keys.copy_((part.contiguous().view(integers) * odd).sum(1))
    return out


# --- distances -------------------------------------------------------------------------------


def _slack(width: int, dtype: torch.dtype) -> float:
    """c such that a squared distance from a product is off by at most c (|a|^2 + |b|^2).

    A dot product of F terms errs by at most F u |a||b| in any order of summation, u the unit
    roundoff; centring, norms and the last sums add a few u. Twice a.b is at most |a|^2 + |b|^2.
    """
    return (width + 16) * torch.finfo(dtype).eps / 2


def _lows(a: Tensor, b: Tensor, norms_a: Tensor, norms_b: Tensor) -> Tensor:
    """Lower bounds of the squared distances between two centred blocks."""
    keep = 1 - _slack(a.shape[1], a.dtype)
    out = torch.addmm((keep * norms_b).to(a.dtype), a, b.T, alpha=-2)
    return out.add_((keep * norms_a).to(a.dtype)[:, None])


def _exact(a: _Points, b: _Points, i: Tensor, j: Tensor) -> Tensor:
    """Squared distances of pairs of rows, by subtraction in float64.

    Summed by halving, one elementwise sum at a time: the same bits for a pair wherever it stands,
    whichever comes first, on every device. So ties are ties.
    """
    out = torch.empty(len(i), dtype=torch.float64, device=a.rows.device)
    step = _step(a.rows)
    for result, p, q in zip(out.split(step), i.split(step), j.split(step), strict=True):
        x = a.rows[a.first[p]].double().sub_(b.rows[b.first[q]]).square_()
        while x.shape[1] > 1:
            half = (x.shape[1] + 1) // 2
            x[:, : x.shape[1] - half] += x[:, half:]
            x = x[:, :half]
        result.copy_(x[:, 0])
    return out


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Products in true float32: TF32 and bfloat16 would break the bound of `_slack`."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


# --- radii -----------------------------------------------------------------------------------


def _radii(points: _Points, k: int, dtype: torch.dtype) -> Tensor:
    """Exact squared distance of each distinct row to its k-th neighbour, itself excluded.

    Products first; rows whose candidates are too close to tell again in float64; what is still
    open (clusters tighter than float64 products resolve) by subtraction.
    """
    out, todo = _settle(points, _scan_all(points, k + _SPARE, dtype), k, dtype)
    if len(todo) and dtype != torch.float64:
        found = _scan(points, todo, k + _SPARE, torch.float64)
        out[todo], todo = _settle(points, found, k, torch.float64, todo)
    for row in todo:
        others = torch.arange(len(points), device=todo.device)
        others = others[others != row]
        exact = _exact(points, points, row.expand(len(others)), others)
        out[row] = _weighted_kth(exact[None], points.counts[others][None], _missing(points, k)[row])
    return out


def _missing(points: _Points, k: int) -> Tensor:
    """Neighbours still to find beyond a row's own repetitions, which lie at distance 0."""
    return k - (points.counts - 1)


def _scan_all(points: _Points, keep: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Lowest bounds to other rows, (U, keep), and whose they are. Each product serves twice."""
    best, who = _nothing(len(points), keep, dtype, points.rows.device)
    blocks = list(points.blocks())
    for n, rows in enumerate(blocks):
        a = points.centred(rows, dtype)
        for columns in blocks[n:]:
            own = columns is rows
            b = a if own else points.centred(columns, dtype)
            low = _lows(a, b, points.norms[rows], points.norms[columns])
            if own:
                low.fill_diagonal_(torch.inf)
            best[rows], who[rows] = _merge(best[rows], who[rows], low, columns)
            if not own:
                turned = low.T.contiguous()
                best[columns], who[columns] = _merge(best[columns], who[columns], turned, rows)
    return best, who


def _scan(points: _Points, some: Tensor, keep: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """As `_scan_all` for some rows alone."""
    best, who = _nothing(len(some), keep, dtype, points.rows.device)
    for part in torch.arange(len(some), device=some.device).split(points.block):
        a = points.centred(some[part], dtype)
        for columns in points.blocks():
            b = points.centred(columns, dtype)
            low = _lows(a, b, points.norms[some[part]], points.norms[columns])
            low[some[part][:, None] == columns] = torch.inf
            best[part], who[part] = _merge(best[part], who[part], low, columns)
    return best, who


def _nothing(
    rows: int, keep: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    best = torch.full((rows, keep), torch.inf, dtype=dtype, device=device)
    return best, torch.zeros((rows, keep), dtype=torch.long, device=device)


def _merge(best: Tensor, who: Tensor, low: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    keep = best.shape[1]
    values, at = low.topk(min(keep, low.shape[1]), dim=1, largest=False, sorted=False)
    values, who = torch.cat([best, values], 1), torch.cat([who, columns[at]], 1)
    values, at = values.topk(keep, dim=1, largest=False, sorted=False)
    return values, who.gather(1, at)


def _settle(
    points: _Points,
    found: tuple[Tensor, Tensor],
    k: int,
    dtype: torch.dtype,
    some: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Exact radii from candidates, and the rows whose candidates do not suffice."""
    low, who = found[0].double(), found[1]
    some = torch.arange(len(points), device=who.device) if some is None else some
    counts, need = points.counts[who], _missing(points, k)[some]
    slack = _slack(points.rows.shape[1], dtype)
    high = low + 2 * slack * (points.norms[some][:, None] + points.norms[who])
    least, most = (_weighted_kth(x, counts, need) for x in (low, high))
    open_ = (low <= most[:, None]) & (high >= least[:, None]) & (need > 0)[:, None] & low.isfinite()
    value = torch.full_like(low, torch.inf).masked_fill_(high < least[:, None], -1)  # far, near
    row, column = open_.nonzero(as_tuple=True)
    value[row, column] = _exact(points, points, some[row], who[row, column])
    radii = torch.where(need > 0, _weighted_kth(value, counts, need), 0.0)
    short = (low.amax(1) <= most) & low.amax(1).isfinite() & (need > 0)
    return radii, some[short]


def _weighted_kth(values: Tensor, counts: Tensor, need: Tensor) -> Tensor:
    """The need-th smallest of each row where values[i, j] stands counts[i, j] times."""
    values, order = values.sort(1)
    reached = counts.gather(1, order).cumsum(1) >= need.reshape(-1, 1)
    return values.gather(1, reached.long().argmax(1, keepdim=True))[:, 0]


# --- counting --------------------------------------------------------------------------------


class _Tally:
    """Sums over blocks; per row of the sets, never per pair."""

    def __init__(self, real: _Points, fake: _Points, resamples: int, seed: int) -> None:
        self.real, self.fake = real, fake
        device = real.rows.device
        self.real_hits = torch.zeros(len(real), dtype=torch.long, device=device)
        self.fake_hits = torch.zeros(len(fake), dtype=torch.long, device=device)
        self.recalled = torch.zeros(len(real), dtype=torch.bool, device=device)
        self.weights = None
        if resamples:
            self.weights = [_resampled(p, resamples, seed, i) for i, p in enumerate((real, fake))]
            self.inside = torch.zeros(len(real), resamples, device=device)

    def add(self, rows: Tensor, columns: Tensor, i: Tensor, j: Tensor) -> None:
        """Pairs (real, generated) of a block with the generated point inside the real ball."""
        self.real_hits.index_add_(0, rows[i], self.fake.counts[columns[j]])
        self.fake_hits.index_add_(0, columns[j], self.real.counts[rows[i]])
        if self.weights is not None and len(i):
            pairs = torch.zeros(len(rows), len(columns), device=rows.device)
            pairs[i, j] = 1
            self.inside[rows] += pairs @ self.weights[1][columns]

    def result(self, k: int, recall: bool) -> Neighbours:
        n, m = len(self.real.which), len(self.fake.which)
        covered, real_counts = self.real_hits > 0, self.real.counts
        total = int((self.real_hits * real_counts).sum())
        return Neighbours(
            density=total / (k * m),
            coverage=int((covered * real_counts).sum()) / n,
            precision=int(((self.fake_hits > 0) * self.fake.counts).sum()) / m,
            recall=int((self.recalled * real_counts).sum()) / n if recall else None,
            k=k,
            real_hits=self.real_hits[self.real.which].cpu(),
            fake_hits=self.fake_hits[self.fake.which].cpu(),
            draws=self._draws(k) if self.weights is not None else None,
        )

    def _draws(self, k: int) -> Tensor:
        """Density and coverage under each resample's weights."""
        weights, inside = self.weights[0].double(), self.inside.double()
        density = (weights * inside).sum(0) / (k * len(self.fake.which))
        coverage = (weights * (inside > 0)).sum(0) / len(self.real.which)
        return torch.stack([density, coverage]).cpu()


def _resampled(points: _Points, resamples: int, seed: int, which: int) -> Tensor:
    """How often each distinct row is drawn, (U, R)."""
    n = len(points.which)
    rng = seeds.numpy(seed, "bootstrap", "density_coverage", which)
    out = torch.zeros(len(points), resamples)
    index = points.which.cpu()
    for r in range(resamples):
        drawn = torch.from_numpy(np.bincount(rng.integers(0, n, n), minlength=n)).float()
        out[:, r].index_add_(0, index, drawn)
    return out.to(points.rows.device)


def _count(
    real: _Points, fake: _Points, radii: Tensor, own: Tensor | None, dtype: torch.dtype,
    tally: _Tally,
) -> None:  # fmt: skip
    """Which generated points lie in which real balls (and the reverse, given `own` radii)."""
    for rows in real.blocks():
        a = real.centred(rows, dtype)
        for columns in fake.blocks():
            b = fake.centred(columns, dtype)
            low = _lows(a, b, real.norms[rows], fake.norms[columns])
            pairs = _Block(real, fake, rows, columns, low)
            tally.add(rows, columns, *pairs.inside(radii[rows][:, None]))
            if own is not None:
                tally.recalled[rows[pairs.inside(own[columns][None])[0]]] = True


@dataclass
class _Block:
    """Bounds of the squared distances between some real and some generated points."""

    real: _Points
    fake: _Points
    rows: Tensor
    columns: Tensor
    low: Tensor

    def inside(self, radii: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs closer than the radius of one side; radii (rows, 1) or (1, columns)."""
        eps = torch.finfo(self.low.dtype).eps
        i, j = (self.low < (radii * (1 + 4 * eps)).to(self.low.dtype)).nonzero(as_tuple=True)
        limit = radii.expand(len(self.rows), len(self.columns))[i, j]
        norms = self.real.norms[self.rows][i] + self.fake.norms[self.columns][j]
        slack = 2 * _slack(self.real.rows.shape[1], self.low.dtype)
        sure = self.low[i, j].double() + slack * norms < limit * (1 - 4 * eps)
        if self.low.dtype != torch.float64 and (~sure).sum() > 64 + self.low.numel() // _OPEN:
            return self._finer().inside(radii)
        doubt = (~sure).nonzero()[:, 0]
        at = self.rows[i[doubt]], self.columns[j[doubt]]
        sure[doubt] = _exact(self.real, self.fake, *at) < limit[doubt]
        return i[sure], j[sure]

    def _finer(self) -> "_Block":
        a, b = self.real.centred(self.rows, torch.float64), self.fake.centred(
            self.columns, torch.float64)  # fmt: skip
        low = _lows(a, b, self.real.norms[self.rows], self.fake.norms[self.columns])
        return _Block(self.real, self.fake, self.rows, self.columns, low)


def _check(
    real: Tensor, fake: Tensor, k: int, recall: bool, dtype: torch.dtype, block: int
) -> None:
    for name, x in (("real", real), ("generated", fake)):
        if not isinstance(x, Tensor) or x.ndim != 2 or not x.is_floating_point() or not x.numel():
            form = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise UserError(f"{name} features must be floats (N, F), not {form}.")
        if not all(bool(p.isfinite().all()) for p in x.split(_step(x))):
            raise UserError(f"{name} features hold NaN or infinity.")
    if real.shape[1] != fake.shape[1] or real.device != fake.device or real.dtype != fake.dtype:
        raise UserError(
            f"features of {tuple(real.shape)} {real.dtype} on {real.device} and of "
            f"{tuple(fake.shape)} {fake.dtype} on {fake.device} cannot be compared."
        )
    smallest = min(len(real), len(fake)) if recall else len(real)
    if not 1 <= k < smallest:
        raise UserError(f"the k-th neighbour needs 1 <= k < n, not k = {k} with n = {smallest}.")
    if dtype not in (torch.float32, torch.float64) or block < 1:
        raise UserError("products are float32 or float64, and a block has at least one row.")
