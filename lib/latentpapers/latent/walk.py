"""Walks on the latent sphere: the plain one (section 3.2), Algorithm 1, and the way back (eq 8, 9).

`protoimages` and `weights` work on all latent vectors at once, in chunks; `plain` holds the same
searches as loops to read.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentpapers.errors import UserError
from latentpapers.latent.descent import (
    Descended,
    PerBatch,
    Plan,
    chunks,
    descend,
    known,
    per_batch,
)
from latentpapers.latent.inversion import Reading, joined
from latentpapers.latent.pair import Pair, rows, statistic_group
from latentpapers.latent.sphere import cosine, project
from latentpapers.ledger.implements import implements
from latentpapers.shapes import Codes, PerImage

_TINY = 1e-12


@dataclass(frozen=True)
class Proto:
    """How protoimages are searched.

    Attributes:
        weight: lambda of eq 6.
        step: divides by the norm (`paper`) or its square (`code`) of the last step (diamond-e9).
        start: q_1 is all ones (`ones`, the authors' code) or the last step, which begins with the
            plain walk (`forward`, diamond-e10).
        cosine: `signed` as printed, or `absolute` (diamond-e12).
        score_spread, cosine_spread: gamma and delta of eq A4.
        descent: rate, steps, stop; `stop="below"` is Algorithm 1's own rule on the step's length
            (diamond-e11).

    Raises:
        UnknownName: another step, start or cosine.
    """

    weight: float = 3.0
    step: Reading = "code"
    start: Literal["ones", "forward"] = "ones"
    cosine: Literal["signed", "absolute"] = "signed"
    score_spread: float = 0.0
    cosine_spread: float = 0.0
    descent: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        known("step of Algorithm 1", self.step, ("code", "paper"))
        known("start of Algorithm 1", self.start, ("ones", "forward"))
        known("cosine", self.cosine, ("signed", "absolute"))


@dataclass(frozen=True)
class Sigma:
    """How the weights of eq 8 are searched (diamond-e20, -e21).

    Attributes:
        start, low, high: first value and bounds.
        target: scores are pulled to this value (eq 9: 0; the authors' WGAN-GP: -1).
        spread: weight of the variance of a batch's scores (the authors' WGAN-GP: 1).
        aim: `target`, or `highest`: the score itself is raised, which the paper advises against.
        descent: rate, steps, stop.

    Raises:
        UnknownName: another aim.
    """

    start: float = 0.6
    low: float = 0.5
    high: float = 0.75
    target: float = 0.0
    spread: float = 0.0
    aim: Literal["target", "highest"] = "target"
    descent: Plan = field(default_factory=lambda: Plan(0.01, 100, 50, 1e-5))

    def __post_init__(self) -> None:
        known("aim of sigma", self.aim, ("target", "highest"))


PROTO: dict[str, Proto] = {
    "code": Proto(),
    "paper": Proto(step="paper", descent=Plan(decay_every=0, tolerance=1e-3, stop="below")),
    "wgan_gp": Proto(weight=0.2, score_spread=1.0, cosine_spread=3.0),
}
"""Readings of section 3.3; the paper gives no epsilon, 1e-3 is ours. `wgan_gp` is appendix C."""

SIGMA: dict[str, Sigma] = {
    "code": Sigma(),
    "paper": Sigma(0.7, 0.0, 1.0, descent=Plan(0.01, 100, 0, 0.0)),
    "wgan_gp": Sigma(target=-1.0, spread=1.0),
}
"""Readings of section 3.4; the bounds of `code` are those for CelebA."""


# --- the plain walk ---------------------------------------------------------------------------


@implements("diamond", eq="walk")
def onward(previous: Codes, current: Codes) -> Codes:
    """The next point of the walk: repeat the last step, project (section 3.2)."""
    return project(current + (current - previous))


def walk(z0: Codes, z1: Codes, steps: int) -> Float[Tensor, "T N Z"]:
    """z0, z1 and the points after them, `steps` + 1 in all (the authors' figures: 7 steps).

    Raises:
        UserError: no step.
    """
    if steps < 1:
        raise UserError(f"a walk takes at least one step, not {steps}.")
    path = [z0, z1]
    while len(path) <= steps:
        path.append(onward(path[-2], path[-1]))
    return torch.stack(path)


# --- Algorithm 1 ------------------------------------------------------------------------------


@implements("diamond", eq="alg1")
def directed_step(previous: Codes, current: Codes, q: Codes, *, reading: Reading = "code") -> Codes:
    """Algorithm 1's step: along the last one, as far as q projected onto it says, then project.

    Args:
        previous, current: z_{k-1}, z_k.
        q: the trainable vector; a gradient flows to it alone.
        reading: `code` projects q onto the last step (the squared norm below), `paper` divides by
            the norm as printed, so that each step's length scales with the one before.

    Raises:
        UnknownName: another reading.
    """
    known("reading", reading, ("code", "paper"))
    last = current - previous
    size = last.norm(dim=-1, keepdim=True).clamp(min=_TINY)
    along = (q * last).sum(-1, keepdim=True) / (size.square() if reading == "code" else size)
    return project(current + along * last)


@implements("diamond", eq="6")
def protoimage_loss(
    scores: Float[Tensor, "U B"], cosines: Float[Tensor, "U B"], *, weight: float
) -> PerBatch:
    """Mean score plus lambda times mean cosine similarity to the start, by batch (eq 6)."""
    return scores.mean(1) + weight * cosines.mean(1)


@implements("diamond", eq="A4")
def even_protoimage_loss(
    scores: Float[Tensor, "U B"],
    cosines: Float[Tensor, "U B"],
    *,
    weight: float,
    score_spread: float,
    cosine_spread: float,
) -> PerBatch:
    """Eq 6 plus the spread of scores and of cosines in each batch (eq A4, standard deviations
    with n - 1), so that a batch moves at one pace.

    Raises:
        UserError: batches of one, which have no spread.
    """
    if scores.shape[1] < 2:
        raise UserError("eq A4 needs batches of at least two latent vectors.")
    even = score_spread * scores.std(1) + cosine_spread * cosines.std(1)
    return protoimage_loss(scores, cosines, weight=weight) + even


def protoimages(
    pair: Pair, z0: Codes, z1: Codes, how: Proto, *, batch: int = 20, chunk: int = 64
) -> Descended:
    """The protoimages' codes z_p by Algorithm 1, for all starts at once.

    Args:
        pair: generator and critic, without parameter gradients.
        z0, z1: starts and their recovered codes, on the sphere.
        how: weights, step, schedule.
        batch: latent vectors whose images the critic sees together; its statistic is shared by
            `statistic_group(batch)` of them.
        chunk: latent vectors worked on at once; bounds the memory.

    Returns:
        `variable` z_p (N, Z); `context` holds the point before it; losses and steps by batch.
    """
    found = []
    for part, size in chunks(len(z0), batch, chunk, pair.coupled):
        a, b = rows((z0, z1), part)
        q = torch.ones_like(a) if how.start == "ones" else b - a
        done = descend(q, (a, b, a), ProtoObjective(pair, how, size), how.descent, batch=size)
        previous, current, _ = done.context
        found.append(Descended(current, (previous,), done.losses, done.steps))
    return joined(found)


@dataclass(frozen=True)
class ProtoObjective:
    """Eq 6 or A4 of a chunk as `descent.descend` wants it. The context moves: z_{k-1}, z_k, z_0."""

    pair: Pair
    how: Proto
    batch: int

    def __call__(
        self, q: Codes, previous: Codes, current: Codes, z0: Codes
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Losses and gauges by batch, and the context one step on."""
        new = directed_step(previous, current, q, reading=self.how.step)
        images = self.pair.generate(new)
        scores = self.pair.score(images, statistic_group(self.batch))
        losses = self.loss(scores, cosine(new, z0))
        lengths = per_batch((new.detach() - current).norm(dim=1), self.batch).amax(1)
        gauges = losses if self.how.descent.stop == "change" else lengths
        return losses, gauges, (current, new, z0)

    def loss(self, scores: PerImage, cosines: PerImage) -> PerBatch:
        """Eq 6, or eq A4 where it has a weight."""
        how = self.how
        cosines = cosines.abs() if how.cosine == "absolute" else cosines
        s, c = per_batch(scores, self.batch), per_batch(cosines, self.batch)
        if not (how.score_spread or how.cosine_spread):
            return protoimage_loss(s, c, weight=how.weight)
        spreads = {"score_spread": how.score_spread, "cosine_spread": how.cosine_spread}
        return even_protoimage_loss(s, c, weight=how.weight, **spreads)


def mean_protoimage(zp: Codes) -> Float[Tensor, "1 Z"]:
    """One code for all: the mean of many protoimages' codes, on the sphere (appendix D)."""
    return project(zp.mean(0, keepdim=True))


# --- between start and protoimage ---------------------------------------------------------------


@implements("diamond", eq="8")
def interpolate(z0: Codes, zp: Codes, sigma: Float[Tensor, "N"] | float) -> Codes:
    """The improved code between start (sigma 0) and protoimage (1), on the sphere (eq 8).

    Args:
        z0: (N, Z).
        zp: (N, Z), or (1, Z) for one protoimage for all.
        sigma: one weight a code, or one for all, in [0, 1].

    Raises:
        UserError: one weight for all outside [0, 1]. (Those of a tensor are not looked at: a search
            would wait for the device at every step. `weights` clamps its own.)
    """
    if not isinstance(sigma, Tensor) and not 0 <= sigma <= 1:
        raise UserError(f"sigma lies between start (0) and protoimage (1), not at {sigma}.")
    s = sigma.unsqueeze(-1) if isinstance(sigma, Tensor) else sigma
    return project(s * zp + (1 - s) * z0)


@implements("diamond", eq="9")
def weight_loss(
    scores: Float[Tensor, "U B"], *, target: float = 0.0, spread: float = 0.0
) -> PerBatch:
    """Mean squared distance of a batch's scores from `target` (eq 9, where it is 0).

    Args:
        scores: one row a batch.
        target, spread: the authors' WGAN-GP aims at -1 and adds the variance (with n - 1).

    Raises:
        UserError: a spread of batches of one.
    """
    loss = (scores - target).square().mean(1)
    if not spread:
        return loss
    if scores.shape[1] < 2:
        raise UserError("a spread of scores needs batches of at least two latent vectors.")
    return loss + spread * scores.var(1)


def weights(
    pair: Pair, z0: Codes, zp: Codes, how: Sigma, *, batch: int = 20, chunk: int = 64
) -> Descended:
    """The weight sigma of every code (eq 9), clamped to its bounds after each step.

    Args:
        pair, batch, chunk: as in `protoimages`.
        z0, zp: starts and protoimages; one protoimage (1, Z) serves all.
        how: start, bounds, target, schedule.

    Returns:
        `variable` sigma (N,), `context` empty, losses and steps by batch.

    Raises:
        UserError: bounds that do not hold the start inside [0, 1].
    """
    if not 0 <= how.low <= how.start <= how.high <= 1:
        raise UserError(
            f"sigma needs 0 <= low <= start <= high <= 1, not {how.low}, {how.start}, {how.high}."
        )
    zp, found = zp.expand_as(z0), []
    for part, size in chunks(len(z0), batch, chunk, pair.coupled):
        a, b = rows((z0, zp), part)
        start = a.new_full((len(a), 1), how.start)
        done = descend(
            start, (a, b), SigmaObjective(pair, how, size), how.descent, batch=size,
            constrain=lambda s: s.clamp(how.low, how.high),
        )  # fmt: skip
        found.append(Descended(done.variable[:, 0], (), done.losses, done.steps))
    return joined(found)


@dataclass(frozen=True)
class SigmaObjective:
    """Eq 9 of a chunk as `descent.descend` wants it."""

    pair: Pair
    how: Sigma
    batch: int

    def __call__(
        self, sigma: Float[Tensor, "N 1"], z0: Codes, zp: Codes
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Losses by batch (twice: they are the stop's gauge too) and the context, unchanged."""
        images = self.pair.generate(interpolate(z0, zp, sigma[:, 0]))
        scores = self.pair.score(images, statistic_group(self.batch))
        s = per_batch(scores, self.batch)
        if self.how.aim == "highest":
            losses = -s.mean(1)
        else:
            losses = weight_loss(s, target=self.how.target, spread=self.how.spread)
        return losses, losses, (z0, zp)
