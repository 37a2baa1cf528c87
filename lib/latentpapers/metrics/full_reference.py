"""Super-resolution against the ground truth: PSNR, SSIM, L1, low-resolution consistency.

The protocol of LSRGAN's test script, with its choices in the names: brightness in bytes (`y`,
`u8`), 4 px cut from every side (`b4`), the SSIM window of scikit-image (`7x7`) or of MATLAB
(`11x11`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from latentpapers.errors import UserError
from latentpapers.metrics import colour, intervals
from latentpapers.metrics.protocol import Protocol
from latentpapers.shapes import Bytes, Images, PerImage

BORDER = 4


def psnr_y_b4_u8(images: Bytes, reference: Bytes) -> PerImage:
    """Peak signal-to-noise ratio 20 log10(255 / rmse) of rounded Y, in dB.

    Args:
        images, reference: (N, C, H, W) uint8.

    Returns:
        (N,) float64; infinite for equal images.

    Raises:
        UserError: images of 8 px or fewer.
    """
    gap = _cut_luma(images).double() - _cut_luma(reference).double()
    return 20 * torch.log10(255 / gap.square().flatten(1).mean(1).sqrt())


def ssim_y_7x7_b4(images: Bytes, reference: Bytes) -> PerImage:
    """SSIM of rounded Y with scikit-image's defaults: uniform 7 x 7 window, sample covariance.

    Args, returns: as `psnr_y_b4_u8`; at most 1.

    Raises:
        UserError: images below 15 px a side.
    """
    return ssim(_cut_luma(images), _cut_luma(reference), gaussian=False)


def ssim_y_11x11_b4(images: Bytes, reference: Bytes) -> PerImage:
    """SSIM of rounded Y as in MATLAB and in Wang et al. 2004: 11 x 11 Gaussian window of width 1.5,
    population covariance. Higher than `ssim_y_7x7_b4` by hundredths: never mix them.

    Args, returns: as `psnr_y_b4_u8`; at most 1.

    Raises:
        UserError: images below 19 px a side.
    """
    return ssim(_cut_luma(images), _cut_luma(reference), gaussian=True)


def l1_y(images: Bytes, reference: Bytes) -> PerImage:
    """mean |SR - GT| / 255 of rounded Y: what LSRGAN's Table 3 says it shows.

    Args, returns, errors: as `psnr_y_b4_u8`.
    """
    gap = _cut_luma(images).double() - _cut_luma(reference).double()
    return gap.abs().flatten(1).mean(1) / 255


def l1_y_uint8wrap(images: Bytes, reference: Bytes) -> PerImage:
    """What LSRGAN's Table 3 really shows: bytes are subtracted in bytes, so -1 becomes 255.

    Equal to (256 f + m) / 255 with f the share of pixels below the target and m the mean signed
    difference in grey levels: it measures the sign of the error, not its size (erratum).

    Args, returns, errors: as `psnr_y_b4_u8`.
    """
    wrapped = _cut_luma(images) - _cut_luma(reference)
    return wrapped.double().flatten(1).mean(1) / 255


def lr_rmse(images: Images, low_resolution: Images, *, kernel: str = "bicubic") -> PerImage:
    """Root mean square difference between reduced outputs and their inputs, in grey levels of 255.

    Args:
        images: (N, C, H, W) in [0, 1].
        low_resolution: (N, C, H/f, W/f) in [0, 1], f an integer.
        kernel: bicubic (MATLAB's, antialiased) or average.

    Returns:
        (N,) float64. An input stored in bytes leaves 0.29 of its own rounding.

    Raises:
        UserError: sizes without one integer factor.
    """
    from latentpapers.data.degrade import downscale

    factor = images.shape[2] // low_resolution.shape[2]
    if tuple(images.shape[2:]) != tuple(factor * side for side in low_resolution.shape[2:]):
        sizes = tuple(images.shape[2:]), tuple(low_resolution.shape[2:])
        raise UserError(f"images of {sizes[0]} px are no integer multiple of {sizes[1]} px.")
    reduced = downscale(images.double(), factor, kernel=kernel)
    gap = 255 * (reduced - low_resolution.double())
    return gap.square().flatten(1).mean(1).sqrt()


def _cut_luma(images: Bytes) -> Bytes:
    if min(images.shape[2:]) <= 2 * BORDER:
        raise UserError(f"nothing is left of {tuple(images.shape[2:])} px after cutting {BORDER}.")
    return colour.luma(images)[..., BORDER:-BORDER, BORDER:-BORDER]


def ssim(x: Bytes, y: Bytes, *, gaussian: bool) -> PerImage:
    """SSIM of single-channel bytes, border and all, by scikit-image.

    Args:
        x, y: (N, 1, H, W) uint8.
        gaussian: 11 x 11 Gaussian window and population covariance, else 7 x 7 uniform window and
            sample covariance.

    Raises:
        UserError: images smaller than the window, or more than one channel.
    """
    from skimage.metrics import structural_similarity

    window = 11 if gaussian else 7
    if x.shape[1] != 1 or min(x.shape[2:]) < window:
        raise UserError(f"SSIM needs one channel of {window} px a side, not {tuple(x.shape[1:])}.")
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(x[:, 0].cpu().numpy(), y[:, 0].cpu().numpy(), strict=True)
    scores = [
        structural_similarity(a, b, data_range=255, **(options if gaussian else {}))
        for a, b in pairs
    ]
    return torch.from_numpy(np.array(scores, np.float64))


def _paired(function: Callable[..., PerImage], **options: Any) -> Protocol:
    return Protocol(function.__name__, "paired", function, **options)


PROTOCOLS = {
    protocol.id: protocol
    for protocol in (
        _paired(psnr_y_b4_u8),
        Protocol("psnr_std_y_b4_u8", "paired", psnr_y_b4_u8, summary=intervals.bootstrap_std),
        _paired(ssim_y_7x7_b4),
        _paired(ssim_y_11x11_b4),
        _paired(l1_y),
        _paired(l1_y_uint8wrap),
        _paired(lr_rmse, form="float", same_size=False),
    )
}
