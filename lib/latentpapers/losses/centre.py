"""Closeness in the critic's latent space: the centre loss and what takes the place of z = 0.

Written from LAG section 2.1 (eqs 6, 7) and from the two extensions its end proposes: an embedding
z_i per training image, and an encoder z = E(x).
"""

from typing import Literal

from latentpapers.errors import UnknownName, UserError
from latentpapers.ledger import implements
from latentpapers.shapes import Images, Scalar

Reading = Literal["mean", "sum"]
READINGS = ("mean", "sum")


@implements("lag", eq="6")
def centre_loss(real: Images, centre: Images, *, reading: Reading = "mean") -> Scalar:
    """(P(x) - P(G(y, 0)))^2: distance of the central output to the real image, seen by the critic.

    Args:
        real: P(x, 0), (N, C, H, W); in training a constant, since the critic does not minimise it.
        centre: P(G(y, 0), d).
        reading: `mean` over everything (the authors' code), or `sum` over a code and mean over
            the batch; the print has neither (lag-e9).

    Raises:
        UnknownName: not a reading.
        UserError: codes of two shapes, which would be stretched to each other in silence.
    """
    if reading not in READINGS:
        raise UnknownName("reading", reading, READINGS)
    if real.shape != centre.shape:
        shapes = f"{tuple(real.shape)} and {tuple(centre.shape)}"
        raise UserError(f"the centre loss compares codes of one shape, not {shapes}.")
    squares = (real.float() - centre.float() if real.dtype.itemsize < 4 else real - centre).square()
    return squares.mean() if reading == "mean" else squares.flatten(1).sum(1).mean()


@implements("lag", eq="7")
def generator_objective(adversarial: Scalar, centre: Scalar, *, weight: float = 10.0) -> Scalar:
    """L(G) = -C(G(y, z), y) + weight * L_center.

    Args:
        adversarial: -E[C(G(y, z), y)], `wgan.generator_loss`.
        centre: `centre_loss`.
        weight: 10 in the authors' code, 1 in print (lag-e10); 0 is a conditional GAN.
    """
    return adversarial + weight * centre


def prior_moments(codes: Images) -> Scalar:
    """How far a batch of embeddings is from N(0, 1): squared mean plus squared log-variance.

    Section 2.1 asks for z_i ~ N(0, 1) and names no term. Per code element this is (mean over the
    batch)^2 + (log of the second moment around it)^2 / 4: zero exactly where the two first moments
    agree, and the KL divergence of a Gaussian to second order.

    Args:
        codes: z_i or E(x_i), (N, Z, h, w).

    Raises:
        UserError: fewer than two images, which have no variance.
    """
    if len(codes) < 2:
        raise UserError(f"the moments of a batch need 2 images or more, not {len(codes)}.")
    mean = codes.mean(0)
    log_variance = (codes.var(0, correction=0) + 1e-8).log()
    return 0.5 * (mean.square() + 0.5 * log_variance.square()).mean()
