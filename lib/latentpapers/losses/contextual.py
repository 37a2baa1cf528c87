"""The cosine contextual loss: each target feature should best match some output feature.

Written from LSRGAN eq 12 (after Mechrez et al.). With x_i the points of the output's feature map
and y_j those of the target's, both less the mean target r and brought to unit length:

    d_ij = 1 - x_i . y_j      d'_ij = d_ij / (min_k d_ik + eps)
    A_ij = softmax over j of (1 - d'_ij) / h      CCX = -log mean_j max_i A_ij

The matrix A has (points)^2 entries an image. Only its column maxima matter, and the gradient
passes through the rows that hold them, so rows are made in blocks, forward and backward, and the
whole matrix never exists.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentpapers.ledger import implements
from latentpapers.shapes import PerImage, Scalar

Maps = Float[Tensor, "N C H W"]
Points = Float[Tensor, "N P C"]
_SCALES = {"cosine": 1.0, "half": 0.5}
_CELLS = 2**19  # entries of A held at once: 2 MB a copy, what a core's cache can hold


@implements("lsrgan", eq="12")
def contextual(
    output: Maps,
    target: Maps,
    *,
    bandwidth: float = 0.5,
    epsilon: float = 1e-5,
    distance: Literal["cosine", "half"] = "cosine",
) -> Scalar:
    """CCX of feature maps, averaged over the batch: 0 if every point finds its own copy alone,
    log(points) if no feature says anything.

    Args:
        output, target: features of the generated and of the real images; shapes may differ in H, W.
        bandwidth: h; not printed (erratum). 0.5 in public ports, 0.1 in super-resolution practice.
        epsilon: guards the row minimum, 1e-5 in the paper.
        distance: `cosine` is 1 - cos, `half` is (1 - cos) / 2 (the TensorFlow original); they
            differ through epsilon alone. Eq 12 prints the similarity itself (erratum).

    A feature that is NaN or infinite makes its image's loss NaN, in whatever block it lies.

    Raises:
        ValueError: shapes that do not fit, maps without points, an unknown distance, or a bandwidth
            or epsilon that is not positive.
    """
    return contextual_per_image(
        output, target, bandwidth=bandwidth, epsilon=epsilon, distance=distance
    ).mean()


def contextual_per_image(
    output: Maps,
    target: Maps,
    *,
    bandwidth: float = 0.5,
    epsilon: float = 1e-5,
    distance: Literal["cosine", "half"] = "cosine",
) -> PerImage:
    """`contextual` image by image; the reference r is the mean over batch and space."""
    _check(output, target, bandwidth, epsilon)
    if distance not in _SCALES:
        raise ValueError(f"contextual takes the distances {', '.join(_SCALES)}, not {distance!r}.")
    x, y = directions(output, target)
    scale = _SCALES[distance]
    best = _BestAffinity.apply(x, y, 1 / bandwidth, epsilon / scale)
    return -best.mean(1).log()


def directions(output: Maps, target: Maps) -> tuple[Points, Points]:
    """Both maps as unit vectors around the mean target point; float32 at least.

    A point equal to the mean has no direction: it becomes the zero vector, at distance 1 of all.
    """
    dtype = torch.promote_types(output.dtype, torch.float32)
    reference = target.to(dtype).mean(dim=(0, 2, 3), keepdim=True)
    return _unit(output.to(dtype) - reference), _unit(target.to(dtype) - reference)


def _unit(maps: Maps) -> Points:
    points = maps.flatten(2).transpose(1, 2)
    # smooth at 0, where dividing by the norm has no gradient
    return points * (points.square().sum(2, keepdim=True) + 1e-10).rsqrt()


def _check(output: Maps, target: Maps, bandwidth: float, epsilon: float) -> None:
    if output.ndim != 4 or target.ndim != 4 or output.shape[:2] != target.shape[:2]:
        shapes = f"{tuple(output.shape)} and {tuple(target.shape)}"
        raise ValueError(f"contextual takes two (N, C, H, W) maps of equal N and C, not {shapes}.")
    if not output.numel() or not target.numel():
        raise ValueError("contextual takes maps with at least one image, channel and point.")
    if not bandwidth > 0 or not epsilon > 0:
        raise ValueError(f"bandwidth {bandwidth} and epsilon {epsilon} must be positive.")


def _rows(x: Points, y: Points, sharpness: float, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Distances, their row minima and where those are, for a block of output points."""
    d = torch.baddbmm(x.new_ones(()), x, y.transpose(1, 2), alpha=-1).clamp_min_(0)
    low, where = d.min(2, keepdim=True)
    return d, low, where


def _affinity(d: Tensor, low: Tensor, sharpness: float, epsilon: float) -> Tensor:
    """Rows of A. The common factor e^((1 - d'_min) / h) cancels, so no exponent is positive."""
    return torch.softmax((low - d).mul_(sharpness / (low + epsilon)), 2)


class _BestAffinity(torch.autograd.Function):
    """max_i A_ij for each target point, without ever holding A."""

    @staticmethod
    def forward(ctx: Any, x: Points, y: Points, sharpness: float, epsilon: float) -> Tensor:
        best = x.new_full((len(x), y.shape[1]), -1.0)
        row = torch.zeros_like(best, dtype=torch.long)
        size = _block(x, y)
        for start in range(0, x.shape[1], size):
            d, low, _ = _rows(x[:, start : start + size], y, sharpness, epsilon)
            top, at = _affinity(d, low, sharpness, epsilon).max(1)
            better = (top > best) | top.isnan()  # else a later block would hide it
            best = torch.where(better, top, best)
            row = torch.where(better, at + start, row)
        ctx.save_for_backward(x, y, row)
        ctx.scales = (sharpness, epsilon)
        return best

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, y, row = ctx.saved_tensors
        to_x, to_y = torch.zeros_like(x), torch.zeros_like(y)
        for image in range(len(x)):
            used, of = row[image].unique(return_inverse=True)  # most rows hold no maximum
            size = max(1, _CELLS // y.shape[1])
            for start in range(0, len(used), size):
                part = used[start : start + size]
                block = _gradient_block(
                    x[image, part], y[image], of - start, grad[image], *ctx.scales
                )
                to_x[image, part] = block @ y[image]
                to_y[image].addmm_(block.T, x[image, part])
        return to_x, to_y, None, None


def _gradient_block(
    x: Float[Tensor, "R C"],
    y: Float[Tensor, "P C"],
    row_of: Int[Tensor, "P"],
    grad: Float[Tensor, "P"],
    sharpness: float,
    epsilon: float,
) -> Float[Tensor, "R P"]:
    """d loss / d (x . y) for some rows; `row_of` says which row each column's maximum is in."""
    d, low, where = (t[0] for t in _rows(x[None], y[None], sharpness, epsilon))
    a = _affinity(d[None], low[None], sharpness, epsilon)[0]
    chosen = torch.zeros_like(a)
    inside = ((row_of >= 0) & (row_of < len(x))).nonzero()[:, 0]
    chosen[row_of[inside], inside] = grad[inside]
    weighted = chosen.mul_(a)
    # softmax, then (min - d) / (min + eps) by the quotient rule
    to_logit = weighted.sub_(a.mul_(weighted.sum(1, keepdim=True)))
    share = sharpness / (low + epsilon)
    through_low = (to_logit * (d - low)).sum(1, keepdim=True) * share / (low + epsilon)
    through_low += to_logit.sum(1, keepdim=True) * share
    to_d = to_logit.mul_(-share).scatter_add_(1, where, through_low)
    return to_d.neg_().mul_(d > 0)


def _block(x: Points, y: Points) -> int:
    return max(1, _CELLS // (len(x) * y.shape[1]))
