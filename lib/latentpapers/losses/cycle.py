"""Adversarial and cycle losses of translation in both directions (LRC-I2I section 3.2).

Logits may be one number an image or a map of numbers; every expectation is a mean over all of them.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latentpapers.errors import UnknownName
from latentpapers.ledger import implements
from latentpapers.shapes import Images, Scalar

Logits = Float[Tensor, "N ..."]
R1_READINGS = ("textbook", "code")


@implements("lrc_i2i", eq="7")
def objective(reals: Sequence[Logits], fakes: Sequence[Logits]) -> Scalar:
    """The sum of E[log D(X, 0)] over `reals` and of E[log(1 - D(G, d))] over `fakes`. At most 0.

    Eq 7 prints two real terms (X, Y) and one generated; the text asks for both directions, and the
    authors' code adds both cycles, each term with a real one beside it (lrc_i2i-e6). With as many
    real terms as generated ones the best discriminator answers 1/2 where densities agree.

    Args:
        reals, fakes: logits, one tensor a term.
    """
    likes = [F.logsigmoid(v).mean() for v in reals] + [F.logsigmoid(-v).mean() for v in fakes]
    return torch.stack(likes).sum()


def discriminator_loss(reals: Sequence[Logits], fakes: Sequence[Logits]) -> Scalar:
    """Minus `objective`; 2 ln 2 for each pair of terms where the discriminator cannot tell."""
    return -objective(reals, fakes)


def generator_loss(fakes: Sequence[Logits], *, saturating: bool = False) -> Scalar:
    """-E[log D] summed over terms (the authors' code), or E[log(1 - D)] as printed (lrc_i2i-e7)."""
    if saturating:
        return torch.stack([F.logsigmoid(-v).mean() for v in fakes]).sum()
    return -torch.stack([F.logsigmoid(v).mean() for v in fakes]).sum()


@implements("lrc_i2i", eq="8")
def cycle_l1(x: Images, x_back: Images, y: Images, y_back: Images) -> Scalar:
    """E|X - G(G(X, y), x)| + E|Y - G(G(Y, x), y)|, each a mean over images and values.

    Args:
        x, y: the two sources.
        x_back, y_back: each translated to the other's target and back to its own.
    """
    return (x - x_back).abs().mean() + (y - y_back).abs().mean()


@implements("lrc_i2i", eq="4")
def full_objective(adversarial: Scalar, cycle: Scalar, *, weight: float = 1.0) -> Scalar:
    """L_adv + weight * L_cyc; D raises the first term alone, G lowers both (lrc_i2i-e5).

    Args:
        adversarial: `objective`, or for the generator's step `generator_loss`.
        cycle: `cycle_l1`.
        weight: 1 at 128 px, 0.1 at 256 px (section 4.1).
    """
    return adversarial + weight * cycle


def r1(
    logits: Logits, image: Images, *, reading: Literal["textbook", "code"] = "textbook",
    images: int | None = None,
) -> Scalar:  # fmt: skip
    """E |grad_X D(X, 0)|^2 of real images, to be weighted by gamma / 2 (section 4.1).

    Args:
        logits: D of `image`, one number or one map an image; computed in full precision.
        image: needs a gradient.
        reading: `textbook` differentiates each image's logit (of a map: their mean). `code`
            differentiates the softplus loss averaged over the batch, so that every slope carries
            sigmoid(-D) / images (lrc_i2i-e9).
        images: how many images the code's average runs over; those of `image` by default.

    Returns:
        The mean over images; differentiable by D's parameters.

    Raises:
        UnknownName: not a reading.
    """
    if reading not in R1_READINGS:
        raise UnknownName("reading", reading, R1_READINGS)
    each = logits.flatten(1).mean(1) if logits.ndim > 1 else logits
    if reading == "code":
        soft = F.softplus(-logits)
        each = (soft.flatten(1).mean(1) if soft.ndim > 1 else soft) / (images or len(image))
    (slope,) = torch.autograd.grad(each.sum(), image, create_graph=True)
    return slope.square().flatten(1).sum(1).mean()
