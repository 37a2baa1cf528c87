"""Energies of an auto-encoding discriminator and the objectives built from them.

Written from AVAE sections 3.2 to 3.4 (eqs 5 to 9, 13 to 15). The energy of an image is what the
discriminator's auto-encoder fails to reproduce. Every term is a batch mean; |.| in the paper's
denominators is the number of elements.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from latentpapers.ledger import implements
from latentpapers.shapes import Codes, Images, PerImage, Scalar


@implements("avae", eq="5")
def adversarial_discriminator(
    real: Scalar, fake: Scalar, recovered: Scalar, alpha: float
) -> Scalar:
    """L_dis = L_d - (L_g + alpha L_v): low energy for real images, high for both kinds of fake."""
    return real - (fake + alpha * recovered)


@implements("avae", eq="6")
def adversarial_generator(fake: Scalar, recovered: Scalar, alpha: float) -> Scalar:
    """L_gen = L_g + alpha L_v: the generator lowers the energy of what it makes."""
    return fake + alpha * recovered


@implements("avae", eq="7")
def energy(x: Images, reproduced: Images) -> Scalar:
    """L_d, L_g, L_v = |x - x'|_1 / |x|: mean L1 distance of images to their own reproductions.

    Eq 7 prints L_g with the real x; that would be an unpaired pixel loss. The energy of a fake is
    its distance to its own reproduction (erratum), and its gradient flows through both sides.
    """
    return (x - reproduced).abs().mean()


def energy_per_image(x: Images, reproduced: Images) -> PerImage:
    """`energy` image by image; its mean over images of one size is `energy`."""
    return (x - reproduced).abs().flatten(1).mean(1)


@implements("avae", eq="8")
def autoencode(
    encode: Callable[[Images], Codes], decode: Callable[[Codes], Images], x: Images
) -> tuple[Images, Codes]:
    """x' = F_ae-d(F_ae-e(x)): the reproduction and the code it passes through."""
    z = encode(x)
    return decode(z), z


@implements("avae", eq="9")
def latent_similarity(real_codes: Codes, recovered_codes: Codes) -> Scalar:
    """L_s = |z_d - z'_v|_1 / |z_d|: the learned similarity metric, paired image by image."""
    return (real_codes - recovered_codes).abs().mean()


def unpaired_latent_similarity(real_codes: Codes, fake_codes: Codes) -> Scalar:
    """Distance of the two batches' mean codes, for a generator without an encoder.

    The row "BEGAN* + LSM" has no x_v to pair with x, so eq 9 cannot be meant literally; matching
    pairs at random would pull every sample to the median code. This is our reading (erratum).
    """
    return (real_codes.mean(0) - fake_codes.mean(0)).abs().mean()


@implements("avae", eq="13")
def discriminator_objective(
    real: Scalar,
    fake: Scalar,
    recovered: Scalar,
    k: Float[Tensor, ""] | float,
    alpha: float,
) -> Scalar:
    """L_dis = L_d - k_{t-1} (L_g + alpha L_v): the controller's k weighs the second aim."""
    return real - k * (fake + alpha * recovered)


@implements("avae", eq="14")
def generator_objective(
    fake: Scalar,
    recovered: Scalar,
    similarity: Scalar,
    reconstructed: Scalar,
    *,
    alpha: float,
    beta: float,
    gamma: float,
) -> Scalar:
    """L_gen = L_g + alpha L_v + beta L_s + gamma L_e, for the decoder."""
    return fake + alpha * recovered + beta * similarity + gamma * reconstructed


@implements("avae", eq="15")
def encoder_objective(
    divergence: Scalar, similarity: Scalar, reconstructed: Scalar, *, beta: float, gamma: float
) -> Scalar:
    """L_enc = L_n + beta L_s + gamma L_e, for the encoder."""
    return divergence + beta * similarity + gamma * reconstructed
