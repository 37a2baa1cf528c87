"""Degradations: what makes a low resolution image of a high resolution one. All differentiable.

`downscale` and `upscale` take float images in [0, 1] by an integer factor: linear, nothing is
rounded or clipped. `imresize` is MATLAB's function of that name, to any size: floats stay floats,
bytes are rounded after each axis as MATLAB does it, which is how the public test sets of super
resolution were made. `round_colours` rounds to colour steps and lets gradients pass.
(`latentpapers.data.resize` is another thing: it makes a data set smaller before anything starts.)

Bicubic means Keys' cubic kernel with a = -0.5, widened by the factor when an image shrinks
(antialiasing), centred on the output pixel. It comes with three borders:

* `bicubic`: the edge pixel is repeated, as by the MATLAB release that made the x4 images of Set5,
  Set14, BSD100 and Urban100 (`imresize` gives every byte of them);
* `bicubic_symmetric`: the image is mirrored about its edge, as by newer MATLAB releases;
* `bicubic_lag`: LAG's code (libml/layers.py, bicubic_downscale2d). Its window starts at a fixed
  place, so it lies (factor - 2) / 2 pixels off the output pixel's centre; the image is mirrored
  about the centre of its edge pixel. A compatibility switch.

An axis is a banded matrix. On the CPU it is multiplied tile by tile (a tile's band fits into the
cache), on a GPU and inside `torch.compile` as one dense matrix, where that is the faster way.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentpapers.errors import UnknownName, UserError
from latentpapers.shapes import Bytes, Images

BICUBIC = ("bicubic", "bicubic_symmetric", "bicubic_lag")
DOWN = (*BICUBIC, "average")
UP = ("bicubic", "bicubic_symmetric", "nearest")
READINGS = ("code", "paper")
_BRIGHTEST = 64.0  # no image in [0, 1] or [-1, 1] reaches it, hardly any of bytes stays below
_TILE = 64  # pixels of the longer side that a tile stands for


def downscale(x: Images, factor: int, kernel: str = "bicubic") -> Images:
    """The image `factor` times smaller: y = V x H^T, the low resolution operator of the papers.

    Every weight sum is 1, so it serves images in [-1, 1] as well.

    Args:
        x: float images in [0, 1], height and width multiples of `factor`. Half precision is
            computed and returned in float32.
        factor: a positive integer.
        kernel: `bicubic`, `bicubic_symmetric`, `bicubic_lag` (see this module) or `average`, the
            mean of every factor x factor square.

    Returns:
        (N, C, H / factor, W / factor), neither rounded nor clipped: bicubic overshoots at edges.

    Raises:
        UserError: another shape, type or factor; on the CPU also values that look like 0..255.
        UnknownName: not a kernel.
    """
    x, factor = _checked(x), _checked_factor(factor)
    if kernel not in DOWN:
        raise UnknownName("kernel", kernel, DOWN)
    height, width = x.shape[2:]
    if height % factor or width % factor:
        fit = f"{height - height % factor} x {width - width % factor}"
        raise UserError(
            f"images of {height} x {width} px cannot be reduced {factor} times; crop to {fit}."
        )
    if kernel == "average":
        return _plausible(F.avg_pool2d(x, factor))
    return _plausible(_resampled(x, (height // factor, width // factor), kernel))


def upscale(x: Images, factor: int, kernel: str = "bicubic") -> Images:
    """The image `factor` times larger.

    Args:
        x: float images in [0, 1].
        factor: a positive integer.
        kernel: `bicubic` (MATLAB's), `bicubic_symmetric` or `nearest` (every pixel repeated).

    Returns:
        (N, C, factor H, factor W), neither rounded nor clipped.

    Raises:
        UserError: another shape, type or factor; on the CPU also values that look like 0..255.
        UnknownName: not a kernel.
    """
    x, factor = _plausible(_checked(x)), _checked_factor(factor)
    if kernel not in UP:
        raise UnknownName("kernel", kernel, UP)
    if kernel == "nearest":
        return F.interpolate(x, scale_factor=factor, mode="nearest")
    return _resampled(x, (factor * x.shape[2], factor * x.shape[3]), kernel)


def imresize(x: Images | Bytes, size: tuple[int, int], kernel: str = "bicubic") -> Images | Bytes:
    """MATLAB's `imresize(x, size)`, bicubic with antialiasing, to any size.

    The axis that shrinks most comes first, the vertical one if both shrink alike. Bytes are
    rounded (halves away from zero) and clipped after each axis, as in MATLAB: rounding once at
    the end changes a tenth of all bytes.

    Args:
        x: bytes, or float images in [0, 1].
        size: height and width of the result.
        kernel: `bicubic` or `bicubic_symmetric` (see this module).

    Returns:
        Images of the given size, of the type of `x`.

    Raises:
        UserError: another shape or type, or a size below 1.
        UnknownName: not a kernel.
    """
    if kernel not in BICUBIC[:2]:
        raise UnknownName("kernel", kernel, BICUBIC[:2])
    if len(size) != 2 or any(not isinstance(n, int) or n < 1 for n in size):
        raise UserError(f"a size is (height, width) in whole pixels, at least 1, not {size}.")
    if x.dtype != torch.uint8:
        return _resampled(_plausible(_checked(x)), size, kernel)
    y = _checked(x.double())
    for axis in _order(y, size):
        y = (_along(y, axis, size[axis - 2], kernel).clamp(0, 255) + 0.5).floor()
    return y.to(torch.uint8)


def round_colours(x: Tensor, reading: str = "code", *, span: float = 2.0) -> Tensor:
    """The nearest colour step, halves to the even one; its gradient is the identity's.

    The papers' networks must not tell images apart by less than a colour step, since a low
    resolution image is stored in bytes (LAG section 3.1, LRC-I2I eq 5). Readings, on [-1, 1]:

    * `code`: round(r x) / r with r = 127.5 / 4, steps of 8/255. Both authors' codes round the
      difference |y - H(x)| with it.
    * `paper`: r round(x / r) with r = 2/255, one grey level. The formulas are meant to round H(x)
      with it; as printed they multiply by r twice and always give 0.

    Args:
        x: any floating-point tensor, on [-1, 1].
        reading: `code` or `paper`.
        span: white minus black; give 1 for images in [0, 1].

    Returns:
        The shape of `x`, exactly on the steps, not clipped.

    Raises:
        UnknownName: not a reading. UserError: whole numbers, or a span that is not positive.
    """
    if reading not in READINGS:
        raise UnknownName("reading", reading, READINGS)
    if not x.is_floating_point() or not span > 0:
        raise UserError(f"colours are rounded in floats with a span > 0, not {x.dtype}, {span}.")
    steps = 255 / span / (4 if reading == "code" else 1)
    # x - x.detach() is 0, so the value is the step itself and not x + (step - x)
    return ((x * steps).round() / steps).detach() + (x - x.detach())


# --- checks -------------------------------------------------------------------------------------


def _checked(x: Tensor) -> Tensor:
    if not x.is_floating_point() or x.ndim != 4 or not x.numel():
        raise UserError(
            f"images must be floats in [0, 1], (N, C, H, W) and not empty, not {x.dtype} "
            f"{tuple(x.shape)}; divide bytes by 255."
        )
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _checked_factor(factor: int) -> int:
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        raise UserError(f"a factor is a whole number of at least 1, not {factor!r}.")
    return factor


def _plausible(x: Tensor) -> Tensor:
    """Refuses bytes that were only cast to float. On a GPU it would wait for the device."""
    if x.device.type == "cpu" and not x.requires_grad and not torch.compiler.is_compiling():
        most = float(x.abs().amax())
        if most > _BRIGHTEST:
            raise UserError(f"values up to {most:.0f} are no image in [0, 1]; divide bytes by 255.")
    return x


# --- resampling ---------------------------------------------------------------------------------


class _Axis(NamedTuple):
    """The matrix (size, length) that resamples one axis, or its transpose."""

    kernel: str
    length: int
    size: int
    transposed: bool = False


def _resampled(x: Tensor, size: tuple[int, int], kernel: str) -> Tensor:
    for axis in _order(x, size):
        x = _along(x, axis, size[axis - 2], kernel)
    return x


def _order(x: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    """MATLAB's order of axes, which is also the cheap one: the smaller scale first."""
    return (2, 3) if size[0] * x.shape[3] <= size[1] * x.shape[2] else (3, 2)


def _along(x: Tensor, axis: int, size: int, kernel: str) -> Tensor:
    """Resamples rows (axis 2) or columns (axis 3) to `size`."""
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        return _Banded.apply(x, axis, _Axis(kernel, x.shape[axis], size))
    matrix = _matrix(kernel, x.shape[axis], size, x.dtype, str(x.device))
    with torch.autocast(x.device.type, enabled=False):
        return matrix @ x if axis == 2 else x @ matrix.T


class _Banded(torch.autograd.Function):
    """The product with a banded matrix; its gradient is the product with the transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int, spec: _Axis) -> Tensor:
        ctx.axis, ctx.spec = axis, spec
        return _product(x, axis, spec)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        turned = ctx.spec._replace(transposed=not ctx.spec.transposed)
        return _Banded.apply(gradient, ctx.axis, turned), None, None


def _product(x: Tensor, axis: int, spec: _Axis) -> Tensor:
    """Tile by tile; `out=` writes in place and is not subject to autocast."""
    size = spec.length if spec.transposed else spec.size
    count, channels, height, width = x.shape
    if axis == 2 and x.is_contiguous(memory_format=torch.channels_last):
        planes = x.permute(0, 2, 3, 1).reshape(count, height, -1)
        out = x.new_empty(count, size, planes.shape[2])
        result = out.view(count, size, width, channels).permute(0, 3, 1, 2)
    elif axis == 2:
        planes = x.reshape(-1, height, width)
        out = x.new_empty(len(planes), size, width)
        result = out.view(count, channels, size, width)
    else:
        planes = x.reshape(-1, height, width).transpose(1, 2)
        flat = x.new_empty(len(planes), height, size)
        out, result = flat.transpose(1, 2), flat.view(count, channels, height, size)
    for start, low, block in _tiles(spec, x.dtype):
        rows, columns = block.shape
        tile = block.expand(len(planes), rows, columns)
        torch.bmm(tile, planes[:, low : low + columns], out=out[:, start : start + rows])
    return result


@lru_cache(maxsize=256)
def _tiles(spec: _Axis, dtype: torch.dtype) -> tuple[tuple[int, int, Tensor], ...]:
    """(first row, first column, block) for every tile of rows."""
    rows, columns, weights = _entries(spec)
    many, across = (spec.length, spec.size) if spec.transposed else (spec.size, spec.length)
    step = max(4, _TILE * many // max(many, across))
    tiles = []
    for start in range(0, many, step):
        inside = (rows >= start) & (rows < start + step)
        low, high = columns[inside].min(initial=across - 1), columns[inside].max(initial=0)
        block = np.zeros((min(step, many - start), max(1, high + 1 - low)))
        np.add.at(block, (rows[inside] - start, columns[inside] - low), weights[inside])
        tiles.append((start, int(low), torch.from_numpy(block).to(dtype)))
    return tuple(tiles)


def _matrix(kernel: str, length: int, size: int, dtype: torch.dtype, device: str) -> Tensor:
    """The dense matrix (size, length): a constant of a compiled graph."""
    return _dense(_Axis(kernel, length, size), dtype, device)


# What torch.compiler.assume_constant_result sets; calling it would import torch._dynamo (seconds).
_matrix._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=64)
def _dense(spec: _Axis, dtype: torch.dtype, device: str) -> Tensor:
    rows, columns, weights = _entries(spec)
    dense = np.zeros((spec.size, spec.length))
    np.add.at(dense, (rows, columns), weights)
    return torch.from_numpy(dense).to(device, dtype)


def _entries(spec: _Axis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, column, weight) of the matrix; what falls beyond a border comes back inside."""
    scale = spec.length / spec.size
    stretch = max(scale, 1.0)
    place = np.arange(spec.size)[:, None]
    centre = place * scale + 0.5 if spec.kernel == "bicubic_lag" else (place + 0.5) * scale - 0.5
    columns = np.floor(centre - 2 * stretch) + np.arange(int(np.ceil(4 * stretch)) + 2)
    weights = _cubic((columns - centre) / stretch)
    weights /= weights.sum(1, keepdims=True)
    rows = np.broadcast_to(place, columns.shape)
    columns = _inside(columns.astype(np.int64), spec.length, spec.kernel)
    used = weights != 0
    found = rows[used], columns[used], weights[used]
    return (found[1], found[0], found[2]) if spec.transposed else found


def _cubic(t: np.ndarray) -> np.ndarray:
    """Keys' kernel, a = -0.5: 1 at 0, 0 at every other whole number and from 2 on."""
    t = np.abs(t)
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def _inside(index: np.ndarray, length: int, kernel: str) -> np.ndarray:
    """Which pixel stands for a place beyond the border."""
    if kernel == "bicubic":
        return np.clip(index, 0, length - 1)
    if kernel == "bicubic_symmetric":
        index = index % (2 * length)
        return np.minimum(index, 2 * length - 1 - index)
    period = max(2 * length - 2, 1)
    index = index % period
    return np.minimum(index, period - index) if length > 1 else 0 * index
