"""The sphere of radius sqrt(n), where Gaussian latent vectors live, and its great circles."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from latentpapers.errors import UserError
from latentpapers.ledger.implements import implements
from latentpapers.shapes import Codes, PerImage

_TINY = 1e-12


def project(z: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B Z"]:
    """proj(z) = sqrt(n) z / ||z||, the nearest point of the sphere (section 3.2); 0 stays 0."""
    return z * (math.sqrt(z.shape[-1]) / z.norm(dim=-1, keepdim=True).clamp(min=_TINY))


@implements("diamond", eq="7")
def cosine(a: Float[Tensor, "*B Z"], b: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B"]:
    """M(a, b), the cosine of the angle between two codes, in [-1, 1] (eq 7)."""
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)).clamp(min=_TINY)


def angle(a: Float[Tensor, "*B Z"], b: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B"]:
    """The angle between two codes in degrees, accurate near 0 and 180 where arccos is not.

    Source: Kahan's formula, twice the arctangent of |u - v| over |u + v| for unit vectors.
    """
    u, v = (x / x.norm(dim=-1, keepdim=True).clamp(min=_TINY) for x in (a, b))
    return 2 * torch.rad2deg(torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1)))


def great_circle(
    z0: Codes, z1: Codes, degrees: Float[Tensor, "T"] | Float[Tensor, "T N"]
) -> Float[Tensor, "T N Z"]:
    """Points on the great circle from z0 through z1, at given angles from z0.

    Args:
        z0, z1: two codes each, not parallel; only their directions count.
        degrees: signed angles, for all codes or one column a code; that of z1 itself is
            `angle(z0, z1)`.

    Returns:
        codes of norm sqrt(n).

    Raises:
        UserError: parallel codes, or a zero, which lie on no one great circle.
    """
    u = z0 / z0.norm(dim=-1, keepdim=True)
    tangent = z1 - (z1 * u).sum(-1, keepdim=True) * u
    size = tangent.norm(dim=-1, keepdim=True)
    # not "size <= ...": a zero makes u NaN, which compares false with everything
    if not bool((size > 1e-6 * z1.norm(dim=-1, keepdim=True)).all()):
        raise UserError("parallel, zero or NaN latent vectors span no great circle.")
    t = torch.deg2rad(degrees.to(z0))
    t = t.view(-1, 1, 1) if t.ndim == 1 else t.unsqueeze(-1)
    return math.sqrt(z0.shape[-1]) * (torch.cos(t) * u + torch.sin(t) * tangent / size)


def position(z0: Codes, z1: Codes, z: Codes) -> Float[Tensor, "N"]:
    """Where `z` lies on the great circle from z0 through z1: the angle from z0 in degrees, in
    (-180, 180], positive on z1's side; the inverse of `great_circle`.

    Args:
        z0, z1: two codes each, not parallel.
        z: a code each; what points out of the circle's plane is ignored.
    """
    u = z0 / z0.norm(dim=-1, keepdim=True)
    aside = z1 - (z1 * u).sum(-1, keepdim=True) * u
    v = aside / aside.norm(dim=-1, keepdim=True).clamp(min=_TINY)
    return torch.rad2deg(torch.atan2((z * v).sum(-1), (z * u).sum(-1)))


def tangent(z: Codes, generator: torch.Generator) -> Codes:
    """A random unit vector at right angles to each code."""
    noise = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=generator.device)
    noise = noise.to(z.device)
    u = z / z.norm(dim=-1, keepdim=True)
    noise = noise - (noise * u).sum(-1, keepdim=True) * u
    return noise / noise.norm(dim=-1, keepdim=True)


def displaced(z: Codes, distance: PerImage, generator: torch.Generator) -> Codes:
    """Codes on the sphere at a given Euclidean distance from `z`, in a random direction (Fig. A4).

    Args:
        z: (N, Z) of norm sqrt(n).
        distance: (N,) chord lengths, at most the diameter 2 sqrt(n).
        generator: of the directions.

    Raises:
        UserError: a distance that is negative or beyond the diameter.
    """
    radius = math.sqrt(z.shape[-1])
    if not bool(((distance >= 0) & (distance <= 2 * radius)).all()):
        raise UserError(f"two points of this sphere are 0 to {2 * radius:.1f} apart.")
    turn = 2 * torch.asin(distance / (2 * radius)).unsqueeze(-1)
    return torch.cos(turn) * project(z) + radius * torch.sin(turn) * tangent(z, generator)


def chi_mean(n: int) -> float:
    """E ||X|| for X ~ N(0, I_n): sqrt(2) Gamma((n + 1) / 2) / Gamma(n / 2) (appendix A)."""
    return math.sqrt(2) * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2))


def chi_variance(n: int) -> float:
    """var ||X|| = n - E[||X||]^2 (eq A2), which tends to one half."""
    return n - chi_mean(n) ** 2


def walk_angles(first: float, steps: int) -> list[float]:
    """Angles, in degrees, of the steps of section 3.2's walk whose first step is `first`.

    Adding a chord and projecting turns an angle phi into arctan(sin phi / (2 - cos phi)): the
    steps shrink (erratum `diamond-e13`).
    """
    angles = [math.radians(first)]
    for _ in range(steps - 1):
        angles.append(math.atan2(math.sin(angles[-1]), 2 - math.cos(angles[-1])))
    return [math.degrees(a) for a in angles]
