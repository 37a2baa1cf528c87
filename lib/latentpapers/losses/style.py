"""StarGAN v2's losses (Choi et al. 2020, section 2): style reconstruction, diversification, cycle.

The adversarial terms are `losses.logistic` (binary cross entropy of logits, non-saturating). All
arithmetic is at least fp32; every term is a mean over all elements, as in the authors' code.
"""

from torch import Tensor

from latentpapers.errors import UserError
from latentpapers.precision import widened
from latentpapers.shapes import Codes, Images, Scalar


def style_reconstruction(style: Codes, found: Codes) -> Scalar:
    """mean |s - E(G(x, s))| (eq 2): the style that was asked for can be read off the image.

    Args:
        style: s, what the generator was given.
        found: E(G(x, s)).
    """
    return _distance(style, found)


def diversification(image: Images, other: Images) -> Scalar:
    """mean |G(x, s1) - G(x, s2)| (eq 3): how far two styles of one source lie apart, >= 0.

    The generator *raises* it, so `generator_objective` subtracts it. The second image counts as a
    constant (authors' code), which halves the gradient.

    Args:
        image, other: two outputs for the same sources.
    """
    return _distance(image, other.detach())


def cycle(source: Images, back: Images) -> Scalar:
    """mean |x - G(G(x, s), E(x))| (eq 4): the source comes back with its own style.

    Args:
        source, back: images of one shape.
    """
    return _distance(source, back)


def generator_objective(
    adversarial: Scalar,
    style: Scalar,
    diversity: Scalar,
    cycle: Scalar,
    *,
    style_weight: float = 1.0,
    diversity_weight: float = 1.0,
    cycle_weight: float = 1.0,
) -> Scalar:
    """adversarial + style_weight * style - diversity_weight * diversity + cycle_weight * cycle.

    The diversity is subtracted (eq 5). The weights are the public code's for CelebA-HQ; AFHQ starts
    with a diversity weight of 2.
    """
    return adversarial + style_weight * style - diversity_weight * diversity + cycle_weight * cycle


def diversity_weight(step: int, steps: int, *, start: float = 1.0) -> float:
    """The weight of diversification: falls linearly from `start` to 0 over `steps`, stays there.

    Args:
        step: iterations done so far.
        steps: over how many it falls (100,000 in the authors' code).

    Raises:
        UserError: fewer than one step.
    """
    if steps < 1:
        raise UserError(f"the weight falls over at least one step, not {steps}.")
    return start * max(0.0, 1.0 - step / steps)


def _distance(a: Tensor, b: Tensor) -> Scalar:
    return (widened(a) - widened(b)).abs().mean()
