"""NIQE, equal to the authors' MATLAB release (Mittal, Soundararajan, Bovik 2013).

Contrast-normalised brightness of 96 x 96 blocks is described by 18 numbers at each of two scales;
the score is the distance of their mean and covariance from those of pristine photographs. Details
that a port gets wrong: the grey level is rounded to bytes, blocks wrap around in themselves, the
shape parameters come from a table, the second scale is MATLAB's antialiased bicubic.
"""

import functools
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latentpapers import tensorfile
from latentpapers.errors import UserError
from latentpapers.metrics import colour
from latentpapers.metrics.protocol import Protocol
from latentpapers.shapes import Bytes, PerImage

BLOCK = 96
SHAVE = 4  # pixels that the PIRM 2018 script cuts from every side
_PRISTINE = Path(__file__).with_name("niqe_pristine.safetensors")
_ROUNDING = 1e-9  # far above float64's 1e-13 at 255, far below any true difference
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))


def niqe_matlab(images: Bytes) -> PerImage:
    """NIQE of whole images: `rgb2gray`, no border cut. Lower is better; photographs have 2 to 5.

    Within 0.05 % of the release's values on the three published images of TID2013, to 1e-13 on
    the one without flat areas (see `contrast_normalised`).

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        (N,) float64.

    Raises:
        UserError: fewer than two 96 x 96 blocks, or fewer than two of them with any structure.
    """
    return _scores(colour.grey(images))


def niqe_pirm(images: Bytes) -> PerImage:
    """NIQE as the PIRM 2018 script calls it: Y of `rgb2ycbcr` in bytes, 4 px cut on every side.

    Args, returns and errors: as `niqe_matlab`.
    """
    return _scores(pirm_luma(images))


def pirm_luma(images: Bytes) -> Bytes:
    """What the PIRM 2018 script measures: Y in bytes, 4 px cut on every side.

    Raises:
        UserError: images of 8 px or fewer.
    """
    if min(images.shape[2:]) <= 2 * SHAVE:
        raise UserError(f"nothing is left of {tuple(images.shape[2:])} px after cutting {SHAVE}.")
    return colour.luma(images)[..., SHAVE:-SHAVE, SHAVE:-SHAVE]


def _scores(brightness: Bytes) -> PerImage:
    scores = [_distance(block_features(x[0].cpu().double())) for x in brightness]
    return torch.tensor(scores, dtype=torch.float64)


def block_features(brightness: Float[Tensor, "H W"]) -> Float[Tensor, "B 36"]:
    """The 36 numbers of each block, 18 a scale.

    Args:
        brightness: grey levels 0..255, float64.

    Returns:
        (B, 36); NaN where a block has no structure.

    Raises:
        UserError: fewer than two blocks.
    """
    from latentpapers.data.degrade import downscale

    rows, columns = (side // BLOCK for side in brightness.shape)
    if rows * columns < 2:
        raise UserError(
            f"NIQE needs at least two {BLOCK} x {BLOCK} blocks; {tuple(brightness.shape)} px "
            "has fewer."
        )
    x = brightness[: rows * BLOCK, : columns * BLOCK]
    parts = []
    for side in (BLOCK, BLOCK // 2):
        blocks = contrast_normalised(x).view(rows, side, columns, side).transpose(1, 2)
        parts.append(_features(blocks.reshape(-1, side, side)))
        if side == BLOCK:
            x = downscale(x[None, None] / 255, 2, "bicubic_symmetric")[0, 0] * 255
    return torch.cat(parts, 1)


def contrast_normalised(x: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """(x - mean) / (deviation + 1) over a 7 x 7 Gaussian window of width 7/6, edges repeated.

    Where the image is flat the numerator is exactly 0 but computed as some 1e-14 of either sign,
    which the left and right moments would count: a hundredth of a per cent of the score that
    changes with the machine (in the release too). So such values are set to 0.

    Args:
        x: grey levels 0..255; the 1 in the denominator is one grey level.
    """
    taps = torch.exp(-0.5 * (torch.arange(-3, 4, dtype=x.dtype) * 6 / 7) ** 2)
    taps = taps / taps.sum()
    mean = smooth(x, taps)
    deviation = (smooth(x * x, taps) - mean * mean).abs().sqrt()
    normalised = (x - mean) / (deviation + 1)
    return normalised.where(normalised.abs() > _ROUNDING, 0.0)


def smooth(
    x: Float[Tensor, "H W"], taps: Float[Tensor, "T"], *, outside: str = "nearest"
) -> Float[Tensor, "H W"]:
    """Filtered along both axes with the same odd, symmetric taps (torch's float64 convolution takes
    thirty times as long).

    Args:
        x: float64.
        outside: `nearest` repeats the edges, `constant` takes zeros.
    """
    from scipy.ndimage import correlate1d

    across = correlate1d(x.numpy(), taps.numpy(), 1, mode=outside)
    return torch.from_numpy(correlate1d(across, taps.numpy(), 0, mode=outside))


def _features(blocks: Float[Tensor, "B S S"]) -> Float[Tensor, "B 18"]:
    """Shape and width of the values; shape, mean and both widths of four neighbour products."""
    shape, left, right = asymmetric_gaussian(blocks.flatten(1))
    out = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        products = blocks * blocks.roll(shift, (1, 2))  # wraps around inside the block
        shape, left, right = asymmetric_gaussian(products.flatten(1))
        ratio = torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape))
        out += [shape, (right - left) * ratio, left, right]
    return torch.stack(out, 1)


def asymmetric_gaussian(values: Float[Tensor, "B P"]) -> tuple[Tensor, Tensor, Tensor]:
    """Moment-matched asymmetric generalised Gaussian of each row (Lasmar et al. 2009).

    Args:
        values: float64.

    Returns:
        shape, from the release's table 0.2, 0.201, … 10 (0.2 where it is undefined, as MATLAB's
        `min` of NaN picks the first entry); left and right scale, NaN for a side without values.
    """
    squares = values.square()
    left, right = (
        ((squares * side).sum(1) / side.sum(1)).sqrt() for side in (values < 0, values > 0)
    )
    skew = left / right
    kurtosis = values.abs().mean(1).square() / squares.mean(1)
    wanted = kurtosis * (skew**3 + 1) * (skew + 1) / (skew**2 + 1).square()
    shape = _from_table(wanted)
    width = torch.exp(0.5 * (torch.lgamma(1 / shape) - torch.lgamma(3 / shape)))
    return shape, left * width, right * width


@functools.cache
def _table() -> tuple[Tensor, Tensor]:
    """(shapes, G(2/a)^2 / (G(1/a) G(3/a))), the second rising with the first."""
    shapes = torch.arange(9801, dtype=torch.float64) / 1000 + 0.2
    one, two, three = (torch.lgamma(i / shapes) for i in (1, 2, 3))
    return shapes, torch.exp(2 * two - one - three)


def _from_table(wanted: Tensor) -> Tensor:
    shapes, ratios = _table()
    upper = torch.searchsorted(ratios, wanted.nan_to_num(0)).clamp(1, len(shapes) - 1)
    nearer = (wanted - ratios[upper - 1]) <= (ratios[upper] - wanted)
    found = shapes[torch.where(nearer, upper - 1, upper)]
    return torch.where(wanted.isfinite(), found, shapes[0])


def _distance(features: Tensor) -> float:
    """Mahalanobis-like distance between the blocks and pristine photographs."""
    whole = features[~features.isnan().any(1)]
    if len(whole) < 2:
        raise UserError("NIQE is undefined: fewer than two blocks of the image have structure.")
    pristine = _pristine()
    gap = (pristine["mean"] - features.nanmean(0)).numpy()
    pooled = ((pristine["covariance"] + torch.cov(whole.T)) / 2).numpy()
    cutoff = len(gap) * np.finfo(float).eps  # MATLAB's pinv
    return float(np.sqrt(gap @ np.linalg.pinv(pooled, rcond=cutoff) @ gap))


@functools.cache
def _pristine() -> dict[str, Tensor]:
    """Mean and covariance of pristine photographs, of the authors' release (see NOTICE)."""
    return tensorfile.load(_PRISTINE)


PROTOCOLS = {
    "niqe_matlab": Protocol("niqe_matlab", "per_image", niqe_matlab),
    "niqe_pirm": Protocol("niqe_pirm", "per_image", niqe_pirm),
}
