"""The logarithmic GAN objective of eq 9 (LAG section 2.2), from logits: D = sigmoid(logit)."""

from torch.nn import functional as F

from latentpapers.ledger import implements
from latentpapers.shapes import PerImage, Scalar


@implements("lag", eq="9")
def objective(real: PerImage, fake: PerImage) -> Scalar:
    """E[log D(x | y)] + E[log(1 - D(G(y) | y))]: D raises it, G lowers it. At most 0.

    Args:
        real, fake: logits of the discriminator.
    """
    return F.logsigmoid(real).mean() + F.logsigmoid(-fake).mean()


def discriminator_loss(real: PerImage, fake: PerImage) -> Scalar:
    """Minus `objective`; 2 ln 2 where the discriminator cannot tell."""
    return -objective(real, fake)


def generator_loss(fake: PerImage) -> Scalar:
    """-E[log D(G(y) | y)]: the same fixed point as eq 9 with a gradient that does not vanish."""
    return -F.logsigmoid(fake).mean()
