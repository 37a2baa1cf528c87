"""Attribute arithmetic: directions in latent space that add or remove a property."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentpapers.errors import UserError
from latentpapers.shapes import Codes


def mean_difference(codes: Codes, has: Bool[Tensor, "N"]) -> Float[Tensor, "Z"]:
    """Mean code of the images with an attribute minus that of those without (AVAE section 5.5).

    Raises:
        UserError: an attribute that all or none of the images have, or that is not boolean (as
            numbers it would pick rows instead of masking them).
    """
    if has.dtype is not torch.bool or has.shape != codes.shape[:1]:
        raise UserError("an attribute is one boolean an image.")
    if bool(has.all()) or not bool(has.any()):
        raise UserError("an attribute vector needs images with and without the attribute.")
    return codes[has].mean(0) - codes[~has].mean(0)


def shifted(
    codes: Codes, direction: Float[Tensor, "Z"], strengths: list[float]
) -> Float[Tensor, "T N Z"]:
    """Codes moved along `direction` by each strength."""
    weights = torch.tensor(strengths, dtype=codes.dtype, device=codes.device).view(-1, 1, 1)
    return codes + weights * direction
