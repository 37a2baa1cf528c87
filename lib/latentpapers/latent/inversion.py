"""Generator inversion: the latent vector of a given image (section 3.1, eqs 1 to 5).

Many at once: candidates are judged once for all images, and one descent moves every latent vector.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentpapers.errors import UserError
from latentpapers.latent.descent import Descended, Plan, chunks, descend, known, per_batch
from latentpapers.latent.pair import Pair, statistic_group
from latentpapers.latent.sphere import project
from latentpapers.ledger.implements import implements
from latentpapers.shapes import Codes, Features, Images, PerImage

Reading = Literal["code", "paper"]


@dataclass(frozen=True)
class Inversion:
    """How images are inverted.

    Attributes:
        reading: `code` puts alpha on the pixels and squares the distance from the sphere, `paper`
            puts alpha on the features and takes its absolute value (diamond-e1, -e3).
        shell: another reading of the distance from the sphere alone; None: as `reading`.
        alpha, beta: weights of eq 5.
        reduction: the norms of eqs 2 and 3 are means or sums over elements (diamond-e4).
        statistic: what a critic with a minibatch statistic sees: the search's own `batch` against
            targets judged alone (the authors' code, diamond-e6), or each image `alone`, so that
            the feature term can reach 0 and latent vectors do not touch each other.
        candidates: random starts, of which each image takes the nearest in feature space.
        descent: rate, steps, stop (diamond-e2).

    Raises:
        UnknownName: another reading, reduction or statistic.
    """

    reading: Reading = "code"
    alpha: float = 2.0
    beta: float = 1.0
    reduction: Literal["mean", "sum"] = "mean"
    statistic: Literal["batch", "alone"] = "batch"
    candidates: int = 1000
    descent: Plan = field(default_factory=Plan)
    shell: Reading | None = None

    def __post_init__(self) -> None:
        known("reading", self.reading, ("code", "paper"))
        known("reading", self.shell or self.reading, ("code", "paper"))
        known("reduction", self.reduction, ("mean", "sum"))
        known("statistic", self.statistic, ("batch", "alone"))


READINGS: dict[str, Inversion] = {
    "code": Inversion(),
    "paper": Inversion("paper", statistic="alone", descent=Plan(rate=0.01, decay_every=0)),
}
"""The authors' code, and the paper's words where they differ from it."""


@implements("diamond", eq="1")
def frobenius(x: Images, y: Images) -> PerImage:
    """||X - G(z)||_F, the distance that inversion minimises in general (eq 1)."""
    return (x - y).flatten(1).norm(dim=1)


@implements("diamond", eq="2")
def pixel_distance(x: Images, y: Images, *, reduction: str = "mean") -> PerImage:
    """L_reconst, the L1 distance of two images, one number a pair (eq 2)."""
    return _l1(x, y, reduction)


@implements("diamond", eq="3")
def feature_distance(a: Features, b: Features, *, reduction: str = "mean") -> PerImage:
    """L_percep, the L1 distance of the critic's features of two images (eq 3)."""
    return _l1(a, b, reduction)


@implements("diamond", eq="4")
def shell_distance(z: Codes, *, reading: Reading = "code") -> PerImage:
    """L_reg, the distance of a code from the sphere of radius sqrt(n) (eq 4).

    Args:
        z: (N, Z).
        reading: `paper` as printed, `code` squared.

    Raises:
        UnknownName: another reading.
    """
    known("reading", reading, ("code", "paper"))
    off = z.norm(dim=1) - math.sqrt(z.shape[1])
    return off.square() if reading == "code" else off.abs()


@implements("diamond", eq="5")
def inversion_loss(
    pixel: PerImage,
    feature: PerImage,
    shell: PerImage,
    *,
    alpha: float,
    beta: float,
    reading: Reading = "code",
) -> PerImage:
    """The three terms together (eq 5); alpha weighs the features (`paper`) or pixels (`code`).

    Raises:
        UnknownName: another reading.
    """
    known("reading", reading, ("code", "paper"))
    first, second = (feature, pixel) if reading == "code" else (pixel, feature)
    return first + alpha * second + beta * shell


def nearest_candidates(
    features: Features, candidates: Codes, judged: Features, *, block: int = 4096
) -> Codes:
    """For each image the candidate whose features are nearest in Euclidean distance (section 4).

    Args:
        features: (N, F) of the images.
        candidates: (K, Z).
        judged: (K, F), the candidates' features.
        block: images compared at once, so that no table larger than `block` x K is held.

    Raises:
        UserError: no candidates.
    """
    if not len(candidates):
        raise UserError("an inversion starts from at least one candidate.")
    nearest = [torch.cdist(part, judged).argmin(1) for part in features.split(block)]
    return candidates[torch.cat(nearest)]


def judge(pair: Pair, candidates: Codes, *, block: int = 64) -> Features:
    """The critic's features of the candidates' images, each judged alone; no more than `block`
    images exist at once.

    Raises:
        UserError: no candidates.
    """
    if not len(candidates):
        raise UserError("an inversion starts from at least one candidate.")
    parts = candidates.split(block)
    return torch.cat([pair.alone(pair.images(part, block=block), block=block) for part in parts])


def invert(
    pair: Pair,
    images: Images,
    candidates: Codes,
    how: Inversion,
    *,
    batch: int = 20,
    chunk: int = 64,
    start: Codes | None = None,
    judged: Features | None = None,
) -> Descended:
    """The codes z_1 of `images` (eq 5), put on the sphere.

    Args:
        pair: generator and critic, without parameter gradients.
        images: (N, C, H, W), the generator's own.
        candidates: (K, Z) random codes; the first `how.candidates` are tried for every image.
        how: terms, weights, schedule.
        batch: latent vectors that share a loss, a stop and, by `how.statistic`, a minibatch
            statistic (the authors' README: 20).
        chunk: latent vectors worked on at once; bounds the memory.
        start: (N, Z) codes to start from, for example an encoder's (section 4.2); then no candidate
            is looked at.
        judged: what `judge` found of the first `how.candidates`, where several calls share them.

    Returns:
        `variable` z_1 (N, Z), `context` empty, losses and steps by batch.
    """
    candidates, found = candidates[: how.candidates], []
    if start is None and judged is None:
        judged = judge(pair, candidates, block=chunk)
    for rows, size in chunks(len(images), batch, chunk, pair.coupled):
        features = pair.alone(images[rows], block=chunk)
        near = (
            start[rows] if start is not None else nearest_candidates(features, candidates, judged)
        )
        context = (images[rows], features)
        done = descend(near, context, Objective(pair, how, size), how.descent, batch=size)
        found.append(Descended(project(done.variable), (), done.losses, done.steps))
    return joined(found)


@dataclass(frozen=True)
class Objective:
    """Eq 5 of a chunk as `descent.descend` wants it: means over each batch."""

    pair: Pair
    how: Inversion
    batch: int

    def __call__(
        self, z: Codes, images: Images, features: Features
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Losses by batch (twice: they are the stop's gauge too) and the context, unchanged."""
        how = self.how
        made = self.pair.generate(z)
        group = 1 if how.statistic == "alone" else statistic_group(self.batch)
        seen = self.pair.features(made, group)
        each = inversion_loss(
            pixel_distance(made, images, reduction=how.reduction),
            feature_distance(seen, features, reduction=how.reduction),
            shell_distance(z, reading=how.shell or how.reading),
            alpha=how.alpha, beta=how.beta, reading=how.reading,
        )  # fmt: skip
        losses = per_batch(each, self.batch).mean(1)
        return losses, losses, (images, features)


def joined(parts: list[Descended]) -> Descended:
    """The chunks of one search, in order."""
    contexts = zip(*(p.context for p in parts)) if parts[0].context else ()
    return Descended(
        torch.cat([p.variable for p in parts]),
        tuple(torch.cat(c) for c in contexts),
        torch.cat([p.losses for p in parts]),
        torch.cat([p.steps for p in parts]),
    )


def _l1(a: Float[Tensor, "N ..."], b: Float[Tensor, "N ..."], reduction: str) -> PerImage:
    known("reduction", reduction, ("mean", "sum"))
    return getattr((a - b).abs().flatten(1), reduction)(1)
