"""Low resolution subspaces and what the discriminator sees of them (LRC-I2I sections 3.1, 3.2).

R_x holds the small images near the target x, M_x the large images that reduce into it. Images are
on [-1, 1], so one grey level of 255 is 2/255; distances are means over the values of an image, so
that they do not grow with its size.
"""

from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from latentpapers.errors import UnknownName, UserError
from latentpapers.ledger import implements
from latentpapers.losses.low_resolution import STEPS, difference_map, no_difference
from latentpapers.shapes import Images, PerImage

Reading = Literal["code", "paper", "literal"]
GREY = (0.3, 0.59, 0.11)  # weights of the colour ablation, authors' code


def reduce(image: Images, side: int, *, grey: bool = False) -> Images:
    """DS(X): means over equal blocks, (N, 3, side, side), not rounded.

    Args:
        image: (N, 3, H, H).
        side: divides H.
        grey: all three channels become the brightness (the colour ablation).

    Raises:
        UserError: a side that does not divide H.
    """
    if side < 1 or image.shape[-1] % side:
        raise UserError(f"{image.shape[-1]} px do not divide into {side} blocks.")
    low = F.avg_pool2d(image, image.shape[-1] // side)
    return brightness(low) if grey else low


def brightness(image: Images) -> Images:
    """0.3 R + 0.59 G + 0.11 B in all three channels."""
    weights = torch.tensor(GREY, dtype=image.dtype, device=image.device).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True).expand_as(image)


def distance(a: Images, b: Images, p: float = 1.0) -> PerImage:
    """||a - b||_p of each image, as a mean: (mean |a - b|^p)^(1/p); infinity: the largest."""
    gap = (a - b).abs().flatten(1)
    if p == float("inf"):
        return gap.amax(1)
    return gap.pow(p).mean(1).pow(1 / p)


@implements("lrc_i2i", eq="1")
def in_low_subspace(
    low: Images, target: Images, epsilon: float, *, p: float = 1.0
) -> Bool[Tensor, "N"]:
    """Whether each small image lies in R_x: ||x_i - x||_p <= epsilon.

    Args:
        low, target: (N, 3, h, h); x_i and x.
        epsilon: the radius, on [-1, 1] as a mean over values; 0 asks for the very image.
        p: of the norm.
    """
    return distance(low, target, p) <= epsilon


@implements("lrc_i2i", eq="2")
def in_subspace(
    image: Images, target: Images, epsilon: float, *, p: float = 1.0
) -> Bool[Tensor, "N"]:
    """Whether each large image lies in M_x: its reduction lies in R_x.

    Args:
        image: (N, 3, H, H); X_j.
        target: (N, 3, h, h); x.
        epsilon, p: as in `in_low_subspace`.
    """
    return in_low_subspace(reduce(image, target.shape[-1]), target, epsilon, p=p)


def nearest(image: Images, target: Images) -> Images:
    """P(X, y) = X + UP(y - DS(X)): the member of M_y (epsilon = 0) that is nearest to X.

    An orthogonal projection, because repeated pixels reduce to themselves: no network is needed to
    fit a target. The values may leave [-1, 1].

    Args:
        image: (N, C, H, H).
        target: (N, C, h, h), h a divisor of H.
    """
    gap = target - reduce(image, target.shape[-1])
    return image + F.interpolate(gap, size=image.shape[-1], mode="nearest")


@implements("lrc_i2i", eq="5")
def difference(
    target: Images, reduced: Images, *, reading: Reading = "code", step: float | None = None,
    epsilon: float = 0.0, tolerance: float = 0.0,
) -> Images:  # fmt: skip
    """d: how far a generated image's reduction is from its target, in every value.

    Both remedies of section 5 act before the rounding; at 0 they change nothing.

    Args:
        target: y, (N, 3, h, h).
        reduced: DS(G(X, y)), of the same shape.
        reading: `code` rounds the difference to steps, s round(|y - DS| / s); `paper` rounds the
            reduction, |y - r round(DS / r)| / r, and counts in steps; `literal` is the print,
            |y - floor(r DS)| / r (lrc_i2i-e1).
        step: s or r; by default 8/255 for `code`, 2/255 else (lrc_i2i-e2).
        epsilon: the radius of R_y (eq 1, p = 1): d is the way to the nearest image in it on the
            line to y, so that it is zero within, and shorter by epsilon without.
        tolerance: what each value may be off at no cost (the discriminator's input, eq 6).

    Returns:
        Non-negative, of the target's shape. Gradients pass the rounding straight through.

    Raises:
        UnknownName: not a reading. UserError: a negative epsilon or tolerance.
    """
    if reading not in STEPS:
        raise UnknownName("reading", reading, STEPS)
    if epsilon < 0 or tolerance < 0:
        raise UserError("epsilon and tolerance must not be negative.")
    near = forgiven(target, reduced, epsilon, tolerance)
    if reading == "literal":
        r = STEPS[reading] if step is None else step
        scaled = r * near
        return (target - (scaled + (scaled.floor() - scaled).detach())).abs() / r
    return difference_map(target, near, reading=reading, step=step)


def forgiven(target: Images, reduced: Images, epsilon: float, tolerance: float) -> Images:
    """The reduction, moved towards the target by what epsilon and tolerance forgive."""
    gap = reduced - target
    if epsilon:
        length = gap.abs().mean((1, 2, 3), keepdim=True)
        # inside R_y nothing is left, and nothing pulls; the floor keeps 0 / 0 out
        gap = gap * (1 - epsilon / length.clamp_min(torch.finfo(gap.dtype).tiny)).clamp_min(0)
    if tolerance:
        gap = gap.sign() * (gap.abs() - tolerance).clamp_min(0)
    return target + gap if epsilon or tolerance else reduced


@implements("lrc_i2i", eq="6")
def seen(
    image: Images, target: Images, *, real: bool, grey: bool = False, **options: object
) -> tuple[Images, Images]:
    """What the discriminator is given: (Y, 0) of real images, (G(X, y), d) of generated ones.

    Args:
        image: (N, 3, H, H).
        target: (N, 3, h, h): y; of a real image its own reduction.
        real: whether zeros take the difference's place.
        grey: compare brightness alone (the colour ablation).
        options: of `difference`.
    """
    if real:
        return image, no_difference(target)
    low = reduce(image, target.shape[-1], grey=grey)
    return image, difference(target, low, **options)  # type: ignore[arg-type]
