"""Measures of translations: what several sources become under each of several targets.

Everything works on features that were computed once: (n, K, F) for K sources under each of n
targets, (S, T, F) for a grid. Images are on [-1, 1]. Intervals leave out targets with all their
outputs, because the outputs for one target are no independent sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers.errors import UserError
from latentpapers.metrics import density, frechet, perceptual, walks
from latentpapers.metrics.protocol import Score
from latentpapers.shapes import Features, Images, PerImage

Outputs = Float[Tensor, "n K F"]
Rows = Int[Tensor, "r"]


@torch.no_grad()
def pooled(network: nn.Module, images: Images, *, block: int = 64) -> Features:
    """Features of images on [-1, 1] by a network that takes [0, 1], on the CPU.

    Args:
        network: on any device; the images go there block by block.
    """
    where = next(iter(network.state_dict().values())).device
    images = images.contiguous(memory_format=torch.channels_last)
    parts = [network((part.to(where).clamp(-1, 1) + 1) / 2).cpu() for part in images.split(block)]
    return torch.cat(parts)


def drawn_sources(
    n: int, k: int, pool: int, generator: torch.Generator
) -> Int[Tensor, "n k"]:  # fmt: skip
    """Each target's own sources: k different images of the pool, never the target itself.

    Args:
        n: targets, the first n images of the pool.

    Raises:
        UserError: a pool without k others, or smaller than n.
    """
    if pool < n or pool <= k:
        raise UserError(f"{pool} images cannot give {n} targets with {k} sources each.")
    others = [torch.tensor([j for j in range(pool) if j != i]) for i in range(n)]
    return torch.stack([o[torch.randperm(len(o), generator=generator)[:k]] for o in others])


@dataclass(frozen=True)
class Reference:
    """Real images, as features, and the axes on which the Frechet distance looks at them.

    Attributes:
        real: (R, F).
        basis: (F, C) orthonormal.
        moments: of the real features on those axes.
    """

    real: Features
    basis: Float[Tensor, "F C"]
    moments: frechet.Moments

    @classmethod
    def of(cls, real: Features, components: int = 0) -> "Reference":
        """All features, or the first principal components of the real ones.

        Args:
            components: 0 for all; few images of many features need few axes.
        """
        basis = torch.eye(real.shape[1])
        if components:
            _, basis = frechet.principal_axes(real, components)
        return cls(real, basis, frechet.moments((real - real.mean(0)) @ basis))

    def fd(self, outputs: Outputs, rows: Rows) -> float:
        """Frechet distance of the outputs for some targets to all real images."""
        found = (outputs[rows].flatten(0, 1) - self.real.mean(0)) @ self.basis
        return frechet.distance(self.moments, frechet.moments(found))

    def numbers(self, outputs: Outputs, rows: Rows) -> Float[Tensor, "3"]:
        """Frechet distance, density and coverage of the outputs for some targets."""
        found = density.density_coverage(self.real, outputs[rows].flatten(0, 1))
        numbers = [self.fd(outputs, rows), found.density, found.coverage]
        return torch.tensor(numbers, dtype=torch.float64)


def diversity(outputs: Outputs) -> PerImage:
    """Target by target: mean distance of unit features over all pairs of its outputs, 0 to 2."""
    return torch.stack([perceptual.feature_distances(group).mean() for group in outputs])


def similarities(
    outputs: Float[Tensor, "S T F"], sources: Features, centre: Float[Tensor, "F"]
) -> Float[Tensor, "S T S"]:
    """Cosine of every output of a grid to every source, from `centre`."""
    own = F.normalize(sources - centre, dim=1)
    return F.normalize(outputs - centre, dim=2) @ own.T


def own_less_others(found: Float[Tensor, "S T S"]) -> PerImage:
    """Source by source: similarity to its own outputs less that to the other sources' outputs for
    the same targets, averaged over targets; 0 if the outputs say nothing of their source."""
    own = found.diagonal(dim1=0, dim2=2).T
    return (own - (found.sum(0).T - own) / (len(found) - 1)).mean(1)


def layout(images: Images, lows: Images) -> PerImage:
    """Correlation over positions of an image's reduction with its target, each channel's mean and
    contrast taken away from both: no change of colours can raise it.

    Args:
        images: (N, C, H, H).
        lows: (N, C, h, h), h a divisor of H.
    """
    reduced = F.avg_pool2d(images, images.shape[-1] // lows.shape[-1])
    return (F.instance_norm(reduced) * F.instance_norm(lows)).mean((1, 2, 3))


def kept_difference(a: Sequence[float], b: Sequence[float], n: int) -> Score:
    """a less b where both were kept as `walks.left_out` gives them, of the same targets.

    Args:
        a, b: the statistic of all targets, then without each group.
        n: targets.
    """
    gap = torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
    return walks.from_left_out(gap[:, None], n)[0]
