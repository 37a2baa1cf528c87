"""The relativistic average GAN: real images should look more real than the average fake.

Written from Jolicoeur-Martineau's definition, which LAG section 3.1 names as an alternative and
ESRGAN uses. Inputs are logits, before any sigmoid.
"""

from torch.nn import functional as F

from latentpapers.shapes import PerImage, Scalar


def relative(logits: PerImage, others: PerImage) -> PerImage:
    """C(x) - E[C(x')]: how much more real these look than the average of the others."""
    return logits - others.mean()


def critic_loss(real: PerImage, fake: PerImage) -> Scalar:
    """Mean cross entropy of "real is above the average fake" and "fake is below the average real".

    softplus(-(C(x) - E C(x'))) + softplus(C(x') - E C(x)), halved: ln 2 when all logits are equal.
    """
    above, below = relative(real, fake), relative(fake, real)
    return 0.5 * (F.softplus(-above).mean() + F.softplus(below).mean())


def generator_loss(real: PerImage, fake: PerImage) -> Scalar:
    """`critic_loss` with the roles exchanged; here gradients reach the generator through both."""
    return critic_loss(fake, real)
