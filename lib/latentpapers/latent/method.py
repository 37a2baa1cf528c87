"""The whole method in one call: start, inversion, protoimage, weight, improved image (Figure 3)."""

from dataclasses import dataclass, field

import torch

from latentpapers.latent import inversion, walk
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
        start: raw starts, or put on the sphere (diamond-e7).
    """

    inversion: Inversion = field(default_factory=Inversion)
    proto: Proto = field(default_factory=Proto)
    sigma: Sigma = field(default_factory=Sigma)
    batch: int = 20
    chunk: int = 80
    start: str = "code"


SEARCHES: dict[str, Search] = {
    "code": Search(),
    "paper": Search(
        inversion.READINGS["paper"], walk.PROTO["paper"], walk.SIGMA["paper"], start="paper"
    ),
    "wgan_gp": Search(proto=walk.PROTO["wgan_gp"], sigma=walk.SIGMA["wgan_gp"]),
}
"""Named readings of the method (errata `diamond-e1` to `-e36`)."""


def search(pair: Pair, z0: Codes, candidates: Codes, how: Search) -> Found:
    """Runs all three stages from `z0`.

    Args:
        pair: generator and critic, without parameter gradients.
        z0: (N, Z) starts on the sphere.
        candidates: (K, Z) random codes for the inversion.
        how: readings, weights, schedules.
    """
    size = {"batch": how.batch, "chunk": how.chunk}
    x0 = pair.images(z0, block=how.batch if pair.coupled else how.chunk)
    first = inversion.invert(pair, x0, candidates, how.inversion, **size)
    second = walk.protoimages(pair, z0, first.variable, how.proto, **size)
    third = walk.weights(pair, z0, second.variable, how.sigma, **size)
    steps = tuple(float(part.steps.double().mean()) for part in (first, second, third))
    return Found(z0, first.variable, second.variable, third.variable, steps)


def starts(n: int, pair: Pair, how: Search, generator: torch.Generator) -> tuple[Codes, Codes]:
    """`n` starts and the random candidates of a search, from one stream."""
    z0 = sample(n, pair.latent, generator, reading=how.start)
    return z0, sample(how.inversion.candidates, pair.latent, generator, reading="paper")
