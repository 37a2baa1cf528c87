"""The truncation trick: latent vectors without large elements (Brock et al. 2019, section 2.1)."""

import math

import torch
from torch import Tensor

from latentpapers.errors import UserError
from latentpapers.latent.descent import known
from latentpapers.shapes import Codes

THRESHOLDS = (1.0, 0.75, 0.5, 0.25, 0.1)
"""Those of the authors' Table 1 (diamond-e24), largest first."""


def truncated(n: int, latent: int, threshold: float, generator: torch.Generator) -> Codes:
    """Fresh codes whose elements are N(0, 1) given |element| <= threshold (reading `paper`).

    Drawing again until an element fits gives the same law; the inverse distribution function gives
    it at once.

    Raises:
        UserError: a threshold that is not positive.
    """
    return _inside((n, latent), threshold, generator)


def truncate_again(z: Codes, threshold: float, generator: torch.Generator) -> Codes:
    """`z` with every element beyond the threshold drawn anew, the others kept (reading `code`).

    The authors apply it to codes on the sphere and, threshold after threshold, to the result of
    the one before (diamond-e25).
    """
    fresh = _inside(tuple(z.shape), threshold, generator).to(z)
    return torch.where(z.abs() > threshold, fresh, z)


def sequence(
    z: Codes, thresholds: tuple[float, ...], generator: torch.Generator, *, reading: str = "code"
) -> dict[float, Codes]:
    """Codes for each threshold: fresh ones (`paper`), or cut again and again from `z` (`code`).

    Raises:
        UnknownName: another reading. UserError: a threshold that is not positive.
    """
    known("reading", reading, ("code", "paper"))
    out = {}
    for t in thresholds:
        cut = truncate_again(z, t, generator)
        z = cut if reading == "code" else z
        out[t] = cut if reading == "code" else truncated(*z.shape, t, generator).to(z)
    return out


def expected_norm(latent: int, threshold: float) -> float:
    """sqrt(E ||z||^2) of truncated codes: below sqrt(n), so truncation leaves the shell.

    The variance of one element is 1 - 2 t phi(t) / (2 Phi(t) - 1), phi and Phi the normal density
    and distribution function.

    Raises:
        UserError: a threshold that is not positive.
    """
    _check(threshold)
    if threshold > 30:  # nothing is cut, and its square may be too large for a number
        return math.sqrt(latent)
    density = math.exp(-(threshold**2) / 2) / math.sqrt(2 * math.pi)
    mass = math.erf(threshold / math.sqrt(2))
    return math.sqrt(latent * (1 - 2 * threshold * density / mass))


def _inside(shape: tuple[int, ...], threshold: float, generator: torch.Generator) -> Tensor:
    _check(threshold)
    mass = math.erf(threshold / math.sqrt(2))
    u = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
    z = math.sqrt(2) * torch.erfinv((2 * u - 1) * mass)
    return z.clamp(-threshold, threshold).float()


def _check(threshold: float) -> None:
    if not threshold > 0:
        raise UserError(f"a truncation threshold must be positive, not {threshold}.")
