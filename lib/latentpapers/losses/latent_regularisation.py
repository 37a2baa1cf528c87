"""LSRGAN's objectives: an encoder's latent distance is rewarded in G's loss and minimised in L's.

Written from LSRGAN eqs 1, 7 to 11, 13 and 14. All four variants are one sum with terms left out:

    G = percep + lam * adversarial + eta * pixel - mu * latent
"""

from torch import Tensor

from latentpapers.errors import UserError
from latentpapers.ledger import implements
from latentpapers.shapes import Scalar


@implements("lsrgan", eq="10")
def latent_distance(real: Tensor, fake: Tensor) -> Scalar:
    """Loss_L = E |L(y) - L(G(z))|_1, a mean over elements. L minimises it; G is paid for it.

    Raises:
        UserError: codes of two shapes (they would be broadcast), or none.
    """
    if real.shape != fake.shape or not real.numel():
        raise UserError(f"codes of {tuple(real.shape)} and {tuple(fake.shape)} have no distance.")
    return (real - fake).abs().mean()


@implements("lsrgan", eq="8")
def lagrangian(adversarial: Tensor, pixel: Tensor, latent: Tensor, eta: float, k: float) -> Tensor:
    """The constrained problem of eq 7 as one function of G: adversarial + eta (pixel - K latent).

    The constraint is pixel <= K latent; its multiplier eta >= 0 is zero where it is slack. The
    latent term therefore enters with a minus: a larger latent distance loosens the constraint.
    """
    return adversarial + eta * (pixel - k * latent)


@implements("lsrgan", eq="9")
def regularised(
    adversarial: Tensor, pixel: Tensor, latent: Tensor, eta: float, mu: float
) -> Tensor:
    """Eq 9: eq 8 with eta K, whose K is unknown, replaced by a weight mu of its own."""
    return adversarial + eta * pixel - mu * latent


@implements("lsrgan", eq="1")
@implements("lsrgan", eq="11")
@implements("lsrgan", eq="13")
@implements("lsrgan", eq="14")
def generator_objective(
    perceptual: Tensor,
    adversarial: Tensor,
    pixel: Tensor,
    latent: Tensor | float = 0.0,
    *,
    lam: float = 5e-3,
    eta: float = 1e-2,
    mu: float = 0.0,
) -> Scalar:
    """percep + lam * adversarial + eta * pixel - mu * latent.

    ESR (eq 1) has mu = 0 and LSR (eq 11) mu = 1e-3, both with L1 between VGG features; CESR (eq 13)
    and CLSR (eq 14) are the same two with the contextual loss as `perceptual`.
    """
    return perceptual + regularised(lam * adversarial, pixel, latent, eta, mu)
