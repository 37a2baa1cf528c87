"""Per-image measures that need no network and no reference image: sharpness, nearest distances."""

import torch
from torch import Tensor

from latentpapers.errors import UserError
from latentpapers.shapes import Images, PerImage


def _images(x: Tensor) -> Tensor:
    """Refuses what is surely not (N, C, H, W) in [-1, 1]; unclamped outputs may leave it a bit."""
    if x.ndim != 4 or not x.is_floating_point() or not x.numel():
        raise UserError(f"images must be floats (N, C, H, W), not {x.dtype} {tuple(x.shape)}.")
    peak = float(x.abs().max())
    if not peak <= 2:  # NaN too
        raise UserError(f"images must lie in [-1, 1]; the largest magnitude is {peak:.3g}.")
    return x


def gradient_energy(x: Images) -> PerImage:
    """Mean absolute difference of neighbouring pixels, an image's amount of fine detail.

    Args:
        x: (N, C, H, W) in [-1, 1].

    Returns:
        (N,), in units of the image range per pixel.

    Raises:
        UserError: another shape, type or range, or images of a single row or column.
    """
    if min(_images(x).shape[2:]) < 2:
        raise UserError("images of a single row or column have no gradient.")
    rows = (x[:, :, 1:] - x[:, :, :-1]).abs().flatten(1).mean(1)
    columns = (x[:, :, :, 1:] - x[:, :, :, :-1]).abs().flatten(1).mean(1)
    return (rows + columns) / 2


def nearest_distance(x: Images, reference: Images, *, block: int = 256) -> PerImage:
    """Root-mean-square distance of each image to its nearest neighbour in `reference`.

    Computed block by block; never holds an N x M matrix larger than `block` x M.

    Raises:
        UserError: another type or range, or images of two sizes.
    """
    if _images(x).shape[1:] != _images(reference).shape[1:]:
        raise UserError(f"images of {tuple(x.shape[1:])} and {tuple(reference.shape[1:])} differ.")
    a, b = x.flatten(1).double(), reference.flatten(1).double()
    squares = b.square().sum(1)
    parts = []
    for rows in a.split(block):
        squared = rows.square().sum(1, keepdim=True) - 2 * rows @ b.T + squares
        parts.append(squared.min(1).values)
    return torch.cat(parts).clamp(min=0).div(a.shape[1]).sqrt().float()
