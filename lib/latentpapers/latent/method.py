"""The whole method in one call: start, inversion, protoimage, weight, improved image (Figure 3)."""

from dataclasses import dataclass, field, replace

import torch

from latentpapers.latent import inversion, walk
from latentpapers.latent.descent import Descended, chunks, known
from latentpapers.latent.found import Found
from latentpapers.latent.inversion import Inversion
from latentpapers.latent.pair import Pair, sample
from latentpapers.latent.walk import Proto, Sigma
from latentpapers.shapes import Codes


@dataclass(frozen=True)
class Search:
    """Everything that decides a search; a preset holds one for each kind of network.

    Attributes:
        inversion, proto, sigma: the three stages.
        batch: latent vectors that the critic judges together (diamond-e36).
        chunk: latent vectors worked on at once; bounds the memory, changes no result.
        start: raw starts (`paper`), or put on the sphere (`code`, diamond-e7).

    Raises:
        UnknownName: another start.
    """

    inversion: Inversion = field(default_factory=Inversion)
    proto: Proto = field(default_factory=Proto)
    sigma: Sigma = field(default_factory=Sigma)
    batch: int = 20
    chunk: int = 80
    start: str = "code"

    def __post_init__(self) -> None:
        known("start of a search", self.start, ("code", "paper"))


SEARCHES: dict[str, Search] = {
    "code": Search(),
    "paper": Search(
        inversion.READINGS["paper"], walk.PROTO["paper"], walk.SIGMA["paper"], start="paper"
    ),
    "wgan_gp": Search(proto=walk.PROTO["wgan_gp"], sigma=walk.SIGMA["wgan_gp"]),
}
"""Named readings of the method (errata `diamond-e1` to `-e36`)."""


TUNED: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "code": {
        "celeba": (2, 3, 0.5, 0.75), "church": (2, 5, 0.5, 0.7), "train": (5, 50, 0.5, 0.7),
        "celebahq512": (15, 50, 0.5, 0.75), "celebahq1024": (15, 50, 0.4, 0.7),
        "wgan_gp": (10, 0.2, 0.5, 0.75),
        "biggan": (15, 0.0, 0.5, 0.75),  # only walked: the rest is never read (diamond-e34)
    },
    "paper": {
        "celeba": (2, 3, 0.0, 1.0), "church": (2, 5, 0.0, 1.0), "train": (2, 5, 0.0, 1.0),
        "celebahq512": (10, 100, 0.0, 1.0), "celebahq1024": (10, 100, 0.0, 1.0),
        "wgan_gp": (2, 0.2, 0.0, 1.0), "biggan": (15, 100, 0.0, 1.0),
    },
}  # fmt: skip
"""alpha, lambda and the bounds of sigma by data set (appendix C; diamond-e20, -e32, -e33)."""


def tuned(how: Search, data: str, *, reading: str = "code") -> Search:
    """A search with the weights of one of the paper's data sets.

    Args:
        how: everything else.
        data: a key of `TUNED`.
        reading: the authors' configuration files (`code`), or appendix C (`paper`).

    Raises:
        UnknownName: another reading or data set.
    """
    known("reading", reading, tuple(TUNED))
    known("tuned data set", data, tuple(TUNED[reading]))
    alpha, weight, low, high = TUNED[reading][data]
    start = min(max(how.sigma.start, low), high)
    return replace(
        how,
        inversion=replace(how.inversion, alpha=alpha),
        proto=replace(how.proto, weight=weight),
        sigma=replace(how.sigma, start=start, low=low, high=high),
    )


def search(
    pair: Pair, z0: Codes, candidates: Codes, how: Search, *, z1: Codes | None = None,
    zp: Codes | None = None,
) -> Found:  # fmt: skip
    """Runs all three stages from `z0`.

    Args:
        pair: generator and critic, without parameter gradients.
        z0: (N, Z) starts on the sphere.
        candidates: (K, Z) random codes for the inversion.
        how: readings, weights, schedules.
        z1, zp: what the first stages found, where they need not run again; their steps are 0.
    """
    size, steps = {"batch": how.batch, "chunk": how.chunk}, [0.0, 0.0]
    if z1 is None:
        first = _inverted(pair, z0, candidates, how)
        z1, steps[0] = first.variable, _mean_steps(first)
    if zp is None:
        second = walk.protoimages(pair, z0, z1, how.proto, **size)
        zp, steps[1] = second.variable, _mean_steps(second)
    third = walk.weights(pair, z0, zp, how.sigma, **size)
    return Found(z0, z1, zp, third.variable, (*steps, _mean_steps(third)))


def _mean_steps(part: Descended) -> float:
    return float(part.steps.double().mean())


def _inverted(pair: Pair, z0: Codes, candidates: Codes, how: Search) -> Descended:
    """Inversions of the images of `z0`, which are made chunk by chunk too."""
    candidates, parts = candidates[: how.inversion.candidates], []
    judged = inversion.judge(pair, candidates, block=how.chunk)
    for rows, batch in chunks(len(z0), how.batch, how.chunk, pair.coupled):
        images = pair.images(z0[rows], block=batch if pair.coupled else how.chunk)
        parts.append(inversion.invert(pair, images, candidates, how.inversion, batch=batch,
                                      chunk=how.chunk, judged=judged))  # fmt: skip
    return inversion.joined(parts)


def starts(n: int, pair: Pair, how: Search, generator: torch.Generator) -> tuple[Codes, Codes]:
    """`n` starts and the random candidates of a search, from one stream."""
    z0 = sample(n, pair.latent, generator, reading=how.start)
    return z0, sample(how.inversion.candidates, pair.latent, generator, reading="paper")
