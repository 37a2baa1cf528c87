"""A supervised direction: the normal of a linear boundary in latent space ([30], InterFaceGAN)."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentpapers.errors import UserError
from latentpapers.latent.sphere import project
from latentpapers.shapes import Codes

STEPS = (0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
"""Multiples of the unit vector that the authors' Table 1 tries (diamond-e26)."""


def normal(codes: Codes, good: Bool[Tensor, "N"], *, cost: float = 1.0) -> Float[Tensor, "Z"]:
    """Unit normal of a linear support vector machine's boundary, pointing to the good side.

    Args:
        codes: (N, Z) latent vectors.
        good: one label each.
        cost: the machine's C; smaller is smoother.

    Raises:
        UserError: labels of one kind, or of another shape.
    """
    _check(codes, good)
    from sklearn.svm import LinearSVC  # half a second to import

    machine = LinearSVC(C=cost, random_state=0, max_iter=20_000)
    machine.fit(codes.double().cpu().numpy(), good.cpu().numpy())
    direction = torch.from_numpy(np.asarray(machine.coef_[0])).to(codes)
    return direction / direction.norm()


def accuracy(codes: Codes, good: Bool[Tensor, "N"], direction: Float[Tensor, "Z"]) -> float:
    """Share of pairs (one good, one bad) that the direction puts in order; 0.5 is chance.

    The area under the ROC curve: unlike a hit rate it needs no threshold and no even labels.

    Raises:
        UserError: labels of one kind.
    """
    _check(codes, good)
    along = codes @ direction
    gap = along[good][:, None] - along[~good][None, :]
    return float(((gap > 0).double() + 0.5 * (gap == 0)).mean())


def pushed(codes: Codes, direction: Float[Tensor, "Z"], distance: float) -> Codes:
    """Codes moved along a unit direction, then put back on the sphere."""
    return project(codes + distance * direction)


def _check(codes: Codes, good: Tensor) -> None:
    if good.dtype is not torch.bool or good.shape != codes.shape[:1]:
        raise UserError("a boundary needs one boolean label a latent vector.")
    if bool(good.all()) or not bool(good.any()):
        raise UserError("a boundary needs latent vectors on both of its sides.")
