"""The variational auto-encoder's terms: reconstruction, divergence, reparameterisation.

Written from AVAE section 3.1 (eqs 1 to 4).
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentpapers.ledger import implements
from latentpapers.shapes import Codes, Images, PerImage, Scalar

Reduction = Literal["mean", "sum", "pixels"]


@implements("avae", eq="1")
def log_likelihood(x: Images, decoded: Images, *, scale: float = 1.0) -> PerImage:
    """log p(x | z) per image (nats) of a decoder with independent Laplace noise around `decoded`.

    Eq 1 maximises its sum over the data set. With this density the pixel loss of eq 2 is, up to
    constants, the negative log-likelihood, which is why an L1 reconstruction is a likelihood.

    Args:
        x, decoded: images of one shape.
        scale: b of the Laplace density exp(-|x - d| / b) / 2b, positive.
    """
    distance = (x - decoded).abs().flatten(1)
    return -(distance / scale + math.log(2 * scale)).sum(1)


@implements("avae", eq="2")
def reconstruction(x: Images, recovered: Images) -> Scalar:
    """L_e = |x - x_v|_1 / |x|: mean absolute pixel difference, in units of the image range [-1, 1].

    The paper calls |x| the latent cardinality; it is the number of pixels (erratum).
    """
    return (x - recovered).abs().mean()


@implements("avae", eq="3")
def kl_to_standard_normal(
    mean: Codes, log_variance: Codes, *, reduction: Reduction = "mean", pixels: int = 1
) -> Scalar:
    """L_n = KL(N(mu, sigma) || N(0, I)) in nats, averaged over the batch.

    Args:
        mean, log_variance: (N, Z); log sigma^2, so that sigma is positive without a constraint.
        reduction: over the latent dimensions; the paper gives none (erratum).
            `sum`: the textbook's. `mean`: divided by Z. `pixels`: the sum divided by `pixels`, the
            same |x| that divides eq 2, so that L_n + L_e keeps the proportions of the ELBO.
        pixels: |x|, the number of image elements, for `reduction="pixels"`.
    """
    terms = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)
    divisor = {"sum": 1, "mean": mean.shape[1], "pixels": pixels}[reduction]
    return terms.sum(1).mean() / divisor


@implements("avae", eq="4")
def reparameterise(mean: Codes, log_variance: Codes, noise: Codes) -> Codes:
    """z_v = mu + eps * sigma with eps ~ N(0, I): a sample that gradients flow through.

    The paper calls sigma the variance and uses it as the standard deviation (erratum).
    """
    return mean + noise * torch.exp(0.5 * log_variance)


def elbo(
    x: Images,
    decoded: Images,
    mean: Codes,
    log_variance: Codes,
    *,
    scale: float = 1.0,
) -> Float[Tensor, ""]:
    """Evidence lower bound per image (nats): mean log p(x | z) - KL(q(z | x) || N(0, I))."""
    divergence = kl_to_standard_normal(mean, log_variance, reduction="sum")
    return log_likelihood(x, decoded, scale=scale).mean() - divergence
