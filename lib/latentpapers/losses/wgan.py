"""The Wasserstein GAN with gradient penalty, as pure functions of critic values.

Written from LAG section 2.1 (eqs 4, 5, 8). A critic gives one number an image; the losses are batch
means. All arithmetic is at least fp32, also inside an autocast region: a penalty in half precision
loses the small differences it is made of.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentpapers.errors import UnknownName, UserError
from latentpapers.ledger import implements
from latentpapers.precision import widened
from latentpapers.shapes import Images, PerImage, Scalar

Norm = Literal["l2", "rms"]
NORMS = ("l2", "rms")


def critic_loss(real: PerImage, fake: PerImage) -> Scalar:
    """E[C(fake)] - E[C(real)], without a penalty: minus the objective of eq 4.

    Args:
        real, fake: critic values, any finite number.
    """
    return widened(fake).mean() - widened(real).mean()


def generator_loss(fake: PerImage) -> Scalar:
    """-E[C(fake)]: the part of eq 4 that the generator can change."""
    return -widened(fake).mean()


@implements("lag", eq="8")
def penalised_critic_loss(
    real: PerImage, fake: PerImage, penalty: Scalar | float, *, weight: float = 10.0
) -> Scalar:
    """L(C) = C(fake) - C(real) + weight * penalty.

    Args:
        real, fake: critic values.
        penalty: `gradient_penalty`.
        weight: 10 in the authors' code and in WGAN-GP; eq 8 prints none, which is 1 (lag-e7).
    """
    return critic_loss(real, fake) + weight * penalty


def mixture(real: Images, fake: Images, mix: PerImage) -> Images:
    """x_hat = mix * real + (1 - mix) * fake, a point on the line between two images.

    Args:
        real, fake: images of one shape.
        mix: rho of eq 5, one number an image, uniform on [0, 1].

    Raises:
        UserError: images of two shapes, or another number of mixing weights.
    """
    if real.shape != fake.shape or mix.shape != real.shape[:1]:
        shapes = ", ".join(str(tuple(v.shape)) for v in (real, fake, mix))
        raise UserError(
            f"a mixture takes two batches of one shape and a weight each, not {shapes}."
        )
    rho = mix.reshape(-1, *[1] * (real.ndim - 1)).to(real)
    return rho * real + (1 - rho) * fake


@implements("lag", eq="5")
def gradient_penalty(
    critic: Callable[[Images], PerImage],
    real: Images,
    fake: Images,
    mix: PerImage,
    *,
    norm: Norm = "l2",
    target: float = 1.0,
    eps: float = 1e-8,
) -> Scalar:
    """Mean over images of (|grad C(x_hat)| - target)^2, without a weight.

    `real` and `fake` are taken as constants, so the result depends on the critic's parameters
    alone, and it can be differentiated by them. The critic runs in full precision.

    Args:
        critic: images to one value each; images must not influence each other's value.
        real, fake: images of one shape.
        mix: rho, (N,), uniform on [0, 1].
        norm: `l2` as printed; `rms` divides the square by the number of elements (the authors'
            code, lag-e6).
        target: the slope that is asked for.
        eps: added under the root, so that a critic of slope zero has a finite gradient.

    Raises:
        UnknownName: not a norm.
        UserError: as `mixture`.
    """
    if norm not in NORMS:
        raise UnknownName("norm", norm, NORMS)
    with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
        x = mixture(widened(real.detach()), widened(fake.detach()), mix).requires_grad_()
        (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        return (slope_norm(slope, norm, eps) - target).square().mean()


def slope_norm(slope: Images, norm: Norm = "l2", eps: float = 1e-8) -> Float[Tensor, "N"]:
    """Length of each image's gradient: root of the sum (`l2`) or mean (`rms`) of squares."""
    squares = slope.square().flatten(1)
    return ((squares.sum(1) if norm == "l2" else squares.mean(1)) + eps).sqrt()
