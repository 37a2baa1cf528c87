"""Distortions of known strength, to see what a metric sees.

Those of pictures take float images in [0, 1] and give images in [0, 1]; strength 0 changes nothing
and more strength is further away. Those of sets take a set of images and give another set: what a
generator does that forgets (`mode_collapse`) or copies (`memorisation`).
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latentpapers import seeds
from latentpapers.errors import UnknownName, UserError
from latentpapers.metrics import colour
from latentpapers.shapes import Images

# Annex K of ITU-T T.81 (JPEG): steps of the 64 coefficients for brightness and colour.
_LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99), (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)  # fmt: skip
# JFIF: full-swing brightness and two colour differences, the latter around 0 here.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def noise(x: Images, strength: float, *, seed: int) -> Images:
    """White Gaussian noise, clipped to [0, 1].

    Args:
        x: (N, C, H, W) in [0, 1].
        strength: standard deviation, in units of the range.
        seed: of the noise; the same noise at every strength.

    Raises:
        UserError: another type or range, or a negative strength.
    """
    x = _checked(x, strength)
    drawn = torch.randn(x.shape, generator=seeds.generator(seed, "distortions", "noise"))
    return (x + strength * drawn.to(x)).clamp(0, 1)


def blur(x: Images, strength: float) -> Images:
    """Gaussian blur; edge pixels are repeated, the window ends at 4 standard deviations.

    Args:
        strength: standard deviation in pixels.

    Raises:
        UserError: as `noise`.
    """
    x = _checked(x, strength)
    if strength == 0:
        return x.clone()
    reach = int(4 * strength + 0.5)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=x.dtype) / strength) ** 2)
    taps = (taps / taps.sum()).to(x.device)
    planes = F.pad(x.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    across = F.conv2d(planes, taps[None, None, None])
    return F.conv2d(across, taps[None, None, :, None]).reshape(x.shape).clamp(0, 1)


def shift(x: Images, strength: float) -> Images:
    """Moved to the right and down; what enters repeats the edge.

    Args:
        strength: pixels, a whole number.

    Raises:
        UserError: as `noise`, or a fraction of a pixel (which would blur as well).
    """
    x = _checked(x, strength)
    if strength != int(strength):
        raise UserError(f"a shift is a whole number of pixels, not {strength}.")
    rows, columns = ((torch.arange(n) - int(strength)).clamp(min=0) for n in x.shape[2:])
    return x[:, :, rows.to(x.device)][..., columns.to(x.device)]


def jpeg(x: Images, strength: float) -> Images:
    """The losses of JPEG alone: 8 x 8 cosine transforms rounded to steps. All colours are kept at
    full resolution (4:4:4).

    Args:
        strength: multiplies the steps of the standard's Annex K; 1 is quality 50 of the usual
            encoders, 5 is quality 10.

    Raises:
        UserError: as `noise`.
    """
    x = _checked(x, strength)
    if strength == 0:
        return x.clone()
    grey = x.shape[1] == 1
    matrix = torch.tensor(_TO_YCC, dtype=x.dtype, device=x.device)
    planes = 255 * (x if grey else torch.einsum("ij,njhw->nihw", matrix, x))
    planes = planes - planes.new_tensor([128.0, 0, 0][: x.shape[1]]).view(-1, 1, 1)
    steps = torch.stack([_steps(_LUMA_STEPS, x), *[_steps(_CHROMA_STEPS, x)] * (x.shape[1] - 1)])
    planes = _rounded(planes, (strength * steps).round().clamp(1, 255))
    planes = planes + planes.new_tensor([128.0, 0, 0][: x.shape[1]]).view(-1, 1, 1)
    back = planes if grey else torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix), planes)
    return (back / 255).clamp(0, 1)


def contrast(x: Images, strength: float) -> Images:
    """Drawn towards each image's own mean level.

    Args:
        strength: share of the contrast that is lost; 1 leaves a flat grey.

    Raises:
        UserError: as `noise`, or a strength above 1.
    """
    x = _checked(x, strength, most=1)
    return torch.lerp(x, x.mean((1, 2, 3), keepdim=True).expand_as(x), float(strength))


def colour_loss(x: Images, strength: float) -> Images:
    """Drawn towards grey of the same brightness Y (BT.601): metrics of Y cannot see it.

    Args:
        strength: share of the colour that is lost; 1 leaves a grey image.

    Raises:
        UserError: as `noise`, or a strength above 1.
    """
    x = _checked(x, strength, most=1)
    # Y in [0, 1] of the studio-swing Y in [16, 235] / 255
    grey = (255 * colour.luma_float(x) - 16) / 219 if x.shape[1] == 3 else x
    return torch.lerp(x, grey.expand_as(x).clamp(0, 1), float(strength))


def mode_collapse(x: Images, strength: float, *, seed: int) -> Images:
    """A set of the same size that shows fewer different images, each about equally often.

    Args:
        x: (N, C, H, W) in [0, 1].
        strength: share of the images that is lost, 0 to 1; at least one image stays.
        seed: which images stay; those of a stronger collapse are among those of a weaker one.

    Returns:
        (N, C, H, W); strength 0 gives the same images in another order.

    Raises:
        UserError: as `noise`, or a strength above 1.
    """
    x = _checked(x, strength, most=1)
    return x[collapse_index(len(x), strength, seed=seed).to(x.device)]


def collapse_index(n: int, strength: float, *, seed: int) -> Tensor:
    """Which images a collapsed set shows, (n,): `mode_collapse` without the images, for features
    that are known already."""
    stay = max(1, round((1 - strength) * n))
    kept = _order(n, seed, "collapse")[:stay]
    return kept[torch.arange(n) % stay]


def memorisation(x: Images, training: Images, strength: float, *, seed: int) -> Images:
    """A set in which some images are copies of training images.

    Args:
        x, training: (N, C, H, W) and (M, C, H, W) in [0, 1], M >= N.
        strength: share of copies, 0 to 1.
        seed: which places are taken; those of a weaker memorisation stay taken in a stronger one.

    Raises:
        UserError: as `noise`, a strength above 1, or training images of another size or too few.
    """
    x, training = _checked(x, strength, most=1), _checked(training, 0)
    if x.shape[1:] != training.shape[1:] or len(training) < len(x):
        raise UserError(f"{tuple(training.shape)} training images cannot fill {tuple(x.shape)}.")
    taken = copied_index(len(x), strength, seed=seed).to(x.device)
    out = x.clone()
    out[taken] = training[taken].to(x)
    return out


def copied_index(n: int, strength: float, *, seed: int) -> Tensor:
    """Which places of a set hold copies: image i of the training set at place i."""
    return _order(n, seed, "memorisation")[: round(strength * n)]


# --- by name ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Distortion:
    """A distortion of pictures and the strengths at which the calibration looks at it.

    Attributes:
        function: (images, strength) -> images.
        levels: three strengths, weak to strong.
        unit: what the strength is, in words.
    """

    function: Callable[..., Images]
    levels: tuple[float, float, float]
    unit: str


PICTURES = {
    "noise": Distortion(noise, (0.02, 0.06, 0.15), "standard deviation, of the range"),
    "blur": Distortion(blur, (0.6, 1.2, 2.4), "standard deviation, pixels"),
    "shift": Distortion(shift, (1, 2, 4), "pixels"),
    "jpeg": Distortion(jpeg, (1, 3, 8), "times the standard's steps"),
    "contrast": Distortion(contrast, (0.15, 0.35, 0.7), "share lost"),
    "colour": Distortion(colour_loss, (0.3, 0.6, 1.0), "share lost"),
}
"""Distortions of pictures by name."""


def distorted(x: Images, name: str, level: int, *, seed: int = 0) -> Images:
    """Images under a named distortion at one of its three levels.

    Args:
        x: (N, C, H, W) in [0, 1].
        level: 0 (weak), 1 or 2 (strong).
        seed: of the distortions that draw something.

    Raises:
        UnknownName: no such distortion. UserError: no such level; as the distortion itself.
    """
    if name not in PICTURES:
        raise UnknownName("distortion", name, PICTURES)
    if level not in (0, 1, 2):
        raise UserError(f"a distortion has levels 0, 1 and 2, not {level}.")
    found = PICTURES[name]
    more = {"seed": seed} if found.function is noise else {}
    return found.function(x, found.levels[level], **more)


# --- parts -----------------------------------------------------------------------------------


def _rounded(
    planes: Float[Tensor, "N C H W"], steps: Float[Tensor, "C 8 8"]
) -> Float[Tensor, "N C H W"]:
    """Every 8 x 8 block rounded in the cosine domain; incomplete blocks repeat the edge."""
    height, width = planes.shape[2:]
    padded = F.pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate")
    n, c, high, wide = padded.shape
    blocks = padded.reshape(n, c, high // 8, 8, wide // 8, 8).transpose(3, 4)
    cosine = _cosine().to(planes)
    steps = steps[None, :, None, None]
    coefficients = (cosine @ blocks @ cosine.T / steps).round() * steps
    back = (cosine.T @ coefficients @ cosine).transpose(3, 4).reshape(n, c, high, wide)
    return back[..., :height, :width]


@functools.cache
def _cosine() -> Float[Tensor, "8 8"]:
    """The orthonormal cosine transform of 8 samples."""
    k, i = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    matrix = torch.cos(math.pi / 8 * (i + 0.5) * k) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _steps(table: tuple[tuple[int, ...], ...], like: Tensor) -> Float[Tensor, "8 8"]:
    return torch.tensor(table, dtype=like.dtype, device=like.device)


def _order(n: int, seed: int, purpose: str) -> Tensor:
    return torch.from_numpy(seeds.numpy(seed, "distortions", purpose).permutation(n))


def _checked(x: Images, strength: float, most: float = math.inf) -> Images:
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point() or not x.numel():
        raise UserError(f"distortions take float images (N, 1 or 3, H, W), not {tuple(x.shape)}.")
    if not bool(((x >= 0) & (x <= 1)).all()):  # NaN too
        raise UserError("distortions take images in [0, 1]; map [-1, 1] with (x + 1) / 2.")
    if not 0 <= strength <= most:
        raise UserError(f"a strength lies between 0 and {most:g}, not {strength}.")
    return x
