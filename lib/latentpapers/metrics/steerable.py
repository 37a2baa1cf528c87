"""The steerable pyramid in the frequency domain (Simoncelli and Freeman 1995), as matlabPyrTools
builds it for DIIVINE and for Ma et al.: two scales of six orientations and a high-pass rest.

Masks are read off tables with linear interpolation, as in that toolbox: a pyramid with exact
cosines differs by 1e-5, which the random forests behind it may turn into another leaf.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latentpapers.errors import UserError

ORIENTATIONS = 6
SCALES = 2


@dataclass(frozen=True)
class Pyramid:
    """Sub-bands in the units of the image.

    Attributes:
        high: (H, W), what lies above the first scale.
        bands: SCALES tuples of ORIENTATIONS maps; (H, W), then (ceil(H / 2), ceil(W / 2)).
    """

    high: Float[Tensor, "H W"]
    bands: tuple[tuple[Tensor, ...], ...]


def pyramid(image: Float[Tensor, "H W"]) -> Pyramid:
    """The steerable pyramid of one image.

    Args:
        image: float64, any range.

    Raises:
        UserError: an image below 16 px a side.
    """
    if image.ndim != 2 or min(image.shape) < 2 ** (SCALES + 2):
        raise UserError(f"a steerable pyramid needs 16 px a side, not {tuple(image.shape)}.")
    octaves, angle = _polar(*image.shape)
    places, rise = _raised_cosine()
    fall = np.sqrt(1 - rise**2)
    spectrum = np.fft.fftshift(np.fft.fft2(image.numpy()))
    high = _back(spectrum * np.interp(octaves, places, rise))
    low = spectrum * np.interp(octaves, places, fall)
    bands = []
    for scale in range(SCALES):
        if scale:
            low, octaves, angle = (_inner(x) for x in (low, octaves, angle))
            low = low * np.interp(octaves, places, fall)
        places = places - 1  # an octave down
        bands.append(_oriented(low * np.interp(octaves, places, rise), angle))
    return Pyramid(high, tuple(bands))


def _polar(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """log2 of the frequency (1 at the Nyquist frequency) and its direction, zero in the middle."""
    y, x = ((np.arange(n) - n // 2) / (n / 2) for n in (height, width))
    radius = np.hypot(*np.meshgrid(y, x, indexing="ij"))
    middle = height // 2, width // 2
    radius[middle] = radius[middle[0], middle[1] - 1]  # so that its logarithm exists
    return np.log2(radius), np.arctan2(y[:, None], x[None])


def _raised_cosine() -> tuple[np.ndarray, np.ndarray]:
    """(octaves, root of a raised cosine that rises from 0 to 1 between -1 and 0)."""
    phase = math.pi * np.arange(-257, 2) / 512
    rise = np.abs(np.cos(phase))
    rise[0], rise[-1] = rise[1], rise[-2]
    return -0.5 + 2 / math.pi * (phase + math.pi / 4), rise


def _oriented(spectrum: np.ndarray, angle: np.ndarray) -> tuple[Tensor, ...]:
    """The bands of one scale: cos^5 of the direction, and a phase that makes them real."""
    order = ORIENTATIONS - 1
    grid = math.pi * np.arange(-2049, 1026) / 1024
    gain = 2**order * math.factorial(order) / math.sqrt(
        ORIENTATIONS * math.factorial(2 * order)
    )  # fmt: skip
    table = gain * np.cos(grid) ** order
    turned = (np.interp(angle, grid + math.pi * b / ORIENTATIONS, table)
              for b in range(ORIENTATIONS))  # fmt: skip
    return tuple(_back((-1j) ** order * spectrum * mask) for mask in turned)


def _inner(x: np.ndarray) -> np.ndarray:
    """The lower half of the frequencies of a centred spectrum."""
    height, width = x.shape
    rows, columns = math.ceil((height - 0.5) / 2), math.ceil((width - 0.5) / 2)
    top, left = height // 2 - rows // 2, width // 2 - columns // 2
    return x[top : top + rows, left : left + columns]


def _back(spectrum: np.ndarray) -> Tensor:
    return torch.from_numpy(np.fft.ifft2(np.fft.ifftshift(spectrum)).real.copy())
