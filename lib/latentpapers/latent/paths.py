"""Paths through a latent space: straight lines and great circles."""

import torch
from jaxtyping import Float
from torch import Tensor

from latentpapers.shapes import Codes


def linear(start: Codes, end: Codes, steps: int) -> Float[Tensor, "T N Z"]:
    """`steps` equally spaced points from `start` to `end`, both included."""
    t = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device).view(-1, 1, 1)
    return start + t * (end - start)


def spherical(start: Codes, end: Codes, steps: int) -> Float[Tensor, "T N Z"]:
    """Great-circle path: the direction turns at constant speed, the norm changes linearly.

    Samples of N(0, I) in many dimensions lie near a sphere; a straight line leaves it (its middle
    has 0.7 of the norm), a great circle does not. Parallel, opposite and zero vectors, which have
    no one great circle, fall back to the line.
    """
    t = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device).view(-1, 1, 1)
    norms = [v.norm(dim=1, keepdim=True) for v in (start, end)]
    a, b = (v / n.clamp(min=1e-12) for v, n in zip((start, end), norms))
    angle = torch.arccos((a * b).sum(1, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle)
    direction = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / sine.clamp(min=1e-6)
    on_circle = direction * (norms[0] + t * (norms[1] - norms[0]))
    turns = (sine > 1e-4) & (norms[0] > 0) & (norms[1] > 0)
    return torch.where(turns, on_circle, linear(start, end, steps))
