"""Objectives of the generative networks that AVAE is compared with, one idea each.

Energies, logits and features in, scalars out; a batch mean unless said otherwise. `logistic` holds
the plain GAN's objective (DCGAN), `variational` the VAE's terms, `energy` BEGAN's and AVAE's.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latentpapers.shapes import Features, Images, PerImage, Scalar

# --- EBGAN: an energy with a margin ----------------------------------------------------------


def squared_energy(x: Images, reproduced: Images) -> Scalar:
    """Mean squared distance of images to their reproductions, at most 4 on [-1, 1].

    Source: Zhao et al. 2017, eq 3; a mean, as the public PyTorch reading takes it.
    """
    return (x - reproduced).square().mean()


def margin_discriminator(real: Scalar, fake: Scalar, margin: float) -> Scalar:
    """E(x) + max(0, m - E(G(z))): fakes are pushed up to the margin and no further.

    The public margin of 20 never binds under a mean squared energy, which is at most 4.

    Source: Zhao et al. 2017, eq 1.
    """
    return real + (margin - fake).clamp_min(0)


def pulling_away(codes: Features) -> Scalar:
    """Mean squared cosine between the codes of different images; 0 where all are orthogonal.

    Args:
        codes: (N, F), N >= 2; of the whole batch, since every pair counts.

    Source: Zhao et al. 2017, section 2.3.
    """
    direction = F.normalize(codes.float(), dim=1)
    cosines = direction @ direction.T
    n = len(codes)
    return (cosines.square().sum() - cosines.diagonal().square().sum()) / (n * (n - 1))


# --- BGAN: seek the boundary -----------------------------------------------------------------


def boundary_seeking(fake: PerImage, log_z: Float[Tensor, ""] | float = 0.0) -> Scalar:
    """(logit D(G(z)) - log Z)^2: the generator goes to where the discriminator cannot tell.

    Source: Hjelm et al. 2018, continuous case, public code.
    """
    return (fake - log_z).square().mean()


def partition(fake: PerImage) -> Scalar:
    """Z = E[D / (1 - D)] over fakes: the mean of exp(logit), which is 1 for the best discriminator.

    Logits are cut at 30, so that one certain image does not overflow.
    """
    return fake.clamp_max(30).exp().mean()


# --- VAE-GAN: a learned similarity -----------------------------------------------------------


def feature_likelihood(real: Features, recovered: Features) -> Scalar:
    """-log N(f(x); f(x_v), I) up to a constant: half the squared distance, summed over features.

    Source: Larsen et al. 2016, eqs 7 and 8.
    """
    return 0.5 * (real - recovered).square().sum(1).mean()


def shared_decoder(likelihood: Scalar, adversarial: Scalar, share: float) -> Scalar:
    """share * reconstruction + (1 - share) * GAN, for the decoder alone.

    Source: VAE-GAN's public code, share 1e-6.
    """
    return share * likelihood + (1 - share) * adversarial


# --- ALI: infer adversarially ----------------------------------------------------------------


def pair_discriminator(encoded: PerImage, decoded: PerImage) -> Scalar:
    """softplus(-D(x, E(x))) + softplus(D(G(z), z)), from logits.

    Source: Dumoulin et al. 2017, eq 2, public code.
    """
    return F.softplus(-encoded).mean() + F.softplus(decoded).mean()


def pair_generator(encoded: PerImage, decoded: PerImage) -> Scalar:
    """softplus(D(x, E(x))) + softplus(-D(G(z), z)): encoder and decoder swap the roles of pairs."""
    return pair_discriminator(decoded, encoded)


def log_odds(pixels: Images) -> Float[Tensor, "C"]:
    """The logit of the mean colour, where pixels run from 0 to 1: one number a colour.

    ALI's last bias starts there, so that its first images have the colour of the data.

    Args:
        pixels: images in [-1, 1].
    """
    mean = ((pixels.mean((0, 2, 3)) + 1) / 2).clamp(1e-3, 1 - 1e-3)
    return torch.logit(mean)
