"""The score of Ma, Yang, Yang and Yang (2017), "NRQM", and the perceptual index of PIRM 2018.

Three families of features, a random forest for each, a line through the three forests:

* 18 of the discrete cosine transform of 7 x 7 windows, at three sizes;
* 45 of a steerable pyramid whose bands are divided by their local energy;
* 75 singular values of all 5 x 5 patches, at three sizes.

The forests are the published `model.mat` (chaoma99/sr-metric, MIT licence), which does not ship:
put it into a data folder as `sr-metric/model.mat`. The features follow the published MATLAB files
step by step. Without the file this is not calibrated: a test compares the score with the
published ones as soon as it is there.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from latentpapers import paths
from latentpapers.errors import Corrupt, Missing, UserError
from latentpapers.metrics import niqe, steerable
from latentpapers.metrics.niqe import smooth
from latentpapers.metrics.protocol import Protocol
from latentpapers.shapes import Bytes, PerImage

MODEL = "sr-metric/model.mat"
FEATURES = (18, 45, 75)
_GUARD = 16  # px at full size that the filters' borders reach into
# Coefficients (row, column) of a 7 x 7 transform around the horizontal frequencies, the diagonal,
# and the vertical ones, which are the first mirrored.
_FLAT = tuple((r, c) for r, start in ((0, 1), (1, 2), (2, 4), (3, 5)) for c in range(start, 7))
_DIAGONAL = tuple(
    (r, c)
    for r, start, end in ((1, 1, 2), (2, 2, 4), (3, 2, 5), (4, 3, 7), (5, 4, 7), (6, 4, 7))
    for c in range(start, end)
)
_STEEP = tuple((c, r) for r, c in _FLAT)


def ma_pirm(images: Bytes) -> PerImage:
    """Ma et al.'s score as the PIRM 2018 script calls it: Y in bytes, 4 px cut. Higher is better.

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        (N,) float64, 0 to 10.

    Raises:
        Missing: no `sr-metric/model.mat` in any data folder.
        UserError: images below 98 px a side, or without structure.
    """
    return ma_score(niqe.pirm_luma(images))


def pi_pirm(images: Bytes) -> PerImage:
    """Perceptual index of PIRM 2018: ((10 - Ma) + NIQE) / 2, both on the 4 px cut Y.

    The script takes the means of both first; it is linear, so this is the same. Lower is better.

    Args, returns, errors: as `ma_pirm` and `metrics.niqe.niqe_pirm`.
    """
    return (10 - ma_pirm(images) + niqe.niqe_pirm(images)) / 2


def ma_score(brightness: Bytes, model: "Model | None" = None) -> PerImage:
    """The score of single-channel bytes, border and all.

    Args:
        brightness: (N, 1, H, W) uint8.
        model: forests; None loads the published ones.

    Returns:
        (N,) float64.

    Raises:
        Missing, UserError: as `ma_pirm`.
    """
    model = model or published()
    rows = [features(x[0].cpu()) for x in brightness]
    return torch.tensor([model(*row) for row in rows], dtype=torch.float64)


def features(brightness: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The 18, 45 and 75 numbers of one image.

    Args:
        brightness: (H, W) uint8.

    Raises:
        UserError: an image below 90 px a side, or without structure.
    """
    if min(brightness.shape) < 90:
        raise UserError(f"Ma's score needs 90 px a side, not {tuple(brightness.shape)}.")
    x = brightness.double()
    sizes = [x / 255]
    for _ in range(2):
        sizes.append(_half(sizes[-1]))
    cosine = torch.cat([cosine_features(y) for y in sizes])
    patches = torch.cat([patch_features(y) for y in sizes])
    return cosine, pyramid_features(x), patches


def _half(x: Float[Tensor, "H W"]) -> Float[Tensor, "h w"]:
    """Every second pixel after a 3 x 3 Gaussian of width 1/2; zeros outside."""
    taps = torch.tensor([math.exp(-2), 1.0, math.exp(-2)], dtype=x.dtype)
    return smooth(x, taps / taps.sum(), outside="constant")[1::2, 1::2]


# --- cosine transform ------------------------------------------------------------------------


def cosine_features(x: Float[Tensor, "H W"]) -> Float[Tensor, "6"]:
    """Shape, variation and orientation of the coefficients of 7 x 7 windows, 3 px apart.

    Args:
        x: brightness in [0, 1], float64; zeros surround it.

    Returns:
        of each statistic over all windows the mean of its extreme tenth (the lowest shapes, the
        highest others) and the mean of all.
    """
    down, right = (-side % 3 + 2 for side in x.shape)
    windows = F.unfold(F.pad(x, (2, right, 2, down))[None, None], 7, stride=3)[0].T
    matrix = _cosine_matrix()
    blocks = windows.view(-1, 7, 7)
    coefficients = matrix @ blocks @ matrix.T
    others = coefficients.transpose(1, 2).flatten(1)[:, 1:]
    oriented = torch.stack(
        [_variation(coefficients[:, *_indices(which)], 1e-8)
         for which in (_FLAT, _DIAGONAL, _STEEP)], 1)  # fmt: skip
    shape = gaussian_shape(others).sort().values
    variation, orientation = _variation(others, 1e-7).sort().values, oriented.var(1).sort().values
    first, last = math.ceil(len(shape) * 0.1), int(len(shape) * 0.9) - 1
    tenths = shape[:first], shape, variation[last:], variation, orientation[last:], orientation
    return torch.stack([t.mean() for t in tenths])


def _cosine_matrix() -> Tensor:
    """The orthonormal transform of 7 numbers."""
    place, wave = torch.arange(7, dtype=torch.float64) + 0.5, torch.arange(7, dtype=torch.float64)
    matrix = torch.cos(math.pi / 7 * torch.outer(wave, place)) * math.sqrt(2 / 7)
    matrix[0] /= math.sqrt(2)
    return matrix


def _indices(which: tuple[tuple[int, int], ...]) -> tuple[Tensor, Tensor]:
    rows, columns = zip(*which, strict=True)
    return torch.tensor(rows), torch.tensor(columns)


def _variation(x: Tensor, floor: float) -> Tensor:
    """Standard deviation over mean of magnitudes, row by row."""
    size = x.abs()
    return size.std(1) / (size.mean(1) + floor)


def gaussian_shape(x: Float[Tensor, "B P"]) -> Float[Tensor, "B"]:
    """Shape of the generalised Gaussian with the variance-to-magnitude ratio of each row.

    Returns:
        the nearest of 0.03, 0.031, … 10.
    """
    centred = x - x.mean(1, keepdim=True)
    ratio = x.var(1) / (centred.abs().mean(1).square() + 1e-7)
    shapes, ratios = _shape_table()
    upper = torch.searchsorted(ratios, ratio).clamp(1, len(ratios) - 1)
    nearer = (ratio - ratios[upper - 1]) < (ratios[upper] - ratio)  # ties: the smaller shape
    return shapes[torch.where(nearer, upper - 1, upper)]


@functools.cache
def _shape_table() -> tuple[Tensor, Tensor]:
    """(shapes, G(1/g) G(3/g) / G(2/g)^2), from shape 10 down to 0.03, so that the ratio rises."""
    shapes = (torch.arange(9971, dtype=torch.float64) / 1000 + 0.03).flip(0)
    one, two, three = (torch.lgamma(i / shapes) for i in (1, 2, 3))
    return shapes, torch.exp(one + three - 2 * two)


# --- patches ---------------------------------------------------------------------------------


def patch_features(x: Float[Tensor, "H W"]) -> Float[Tensor, "25"]:
    """Singular values of all 5 x 5 patches side by side, zeros filling the last ones.

    Args:
        x: brightness in [0, 1], float64.
    """
    down, right = (-side % 5 for side in x.shape)
    columns = F.unfold(F.pad(x, (0, right, 0, down))[None, None], 5, stride=5)[0]
    return torch.linalg.svdvals(columns)


# --- steerable pyramid -----------------------------------------------------------------------


def pyramid_features(x: Float[Tensor, "H W"]) -> Float[Tensor, "45"]:
    """Shapes of 12 normalised bands, of 6 pairs across scales; likeness of the 12 bands to the
    high-pass rest, and of 15 pairs of orientations.

    Args:
        x: grey levels 0..255, float64.

    Raises:
        UserError: an image without structure.
    """
    if x.min() == x.max():  # its bands would be nothing but rounding errors
        raise UserError("Ma's score is undefined: the image has no structure.")
    pyramid = steerable.pyramid(x)
    normal = [_normalised(pyramid, s, b) for s, b in _each()]
    fine, coarse = normal[: steerable.ORIENTATIONS], normal[steerable.ORIENTATIONS :]
    across = [torch.cat([a.flatten(), b.flatten()]) for a, b in zip(fine, coarse, strict=True)]
    shapes = [gaussian_shape(v.reshape(1, -1)) for v in (*normal, *across)]
    size = tuple(pyramid.high.shape)
    likeness = [_likeness(_resized(pyramid.bands[s][b], size), pyramid.high) for s, b in _each()]
    pairs = [_likeness(a, b) for i, a in enumerate(fine) for b in fine[i + 1 :]]
    return torch.cat([*shapes, torch.stack([*likeness, *pairs])])


def _each() -> Iterator[tuple[int, int]]:
    return ((s, b) for s in range(steerable.SCALES) for b in range(steerable.ORIENTATIONS))


def _normalised(pyramid: steerable.Pyramid, scale: int, which: int) -> Tensor:
    """A band divided by the energy of its neighbourhood: 3 x 3 in the band, its parent (but the
    last orientation's, which the release leaves out), the other orientations.

    Raises:
        UserError: energy 0 somewhere.
    """
    bands = pyramid.bands[scale]
    height, width = bands[which].shape
    columns = [bands[which][r : r + height - 2, c : c + width - 2]
               for r in range(3) for c in range(3)]  # fmt: skip
    if scale == 0 and which < steerable.ORIENTATIONS - 1:
        parent = pyramid.bands[1][which]
        grown = _resized(parent, (2 * parent.shape[0], 2 * parent.shape[1]))
        columns.append(grown[1 : height - 1, 1 : width - 1])
    count = len(columns)  # the other orientations do not count in the release's divisor
    columns += [b[1:-1, 1:-1] for i, b in enumerate(bands) if i != which]
    around = torch.stack([c.flatten() for c in columns], 1)
    inverse = torch.linalg.pinv(
        _covariance(around), hermitian=True, rtol=around.shape[1] * 2.0**-52
    )
    energy = ((around @ inverse) * around / count).sum(1).sqrt()
    if not bool((energy > 0).all()):
        raise UserError("Ma's score is undefined: a part of the image has no structure.")
    centre = columns[4] - columns[4].mean()
    guard = _GUARD >> scale
    inside = (centre / energy.view_as(centre))[guard:-guard, guard:-guard]
    return inside - inside.mean()


def _covariance(around: Tensor) -> Tensor:
    """Second moments, with negative eigenvalues (rounding) cut off and the trace kept."""
    values, vectors = torch.linalg.eigh(around.T @ around / len(around))
    positive = values.clamp(min=0)
    scaled = positive * values.sum() / positive.sum().clamp(min=2.0**-1000)
    return vectors @ torch.diag(scaled) @ vectors.T


def _resized(band: Tensor, size: tuple[int, int]) -> Tensor:
    """MATLAB's bicubic imresize; bands are grey levels, so / 255 makes them small numbers."""
    from latentpapers.data.degrade import imresize

    return imresize(band[None, None] / 255, size, "bicubic_symmetric")[0, 0] * 255


def _likeness(a: Float[Tensor, "H W"], b: Float[Tensor, "H W"]) -> Tensor:
    """The contrast-structure factor of SSIM, 11 x 11 Gaussian window of width 1.5, range 255."""
    taps = torch.exp(-0.5 * (torch.arange(-5, 6, dtype=a.dtype) / 1.5) ** 2)
    taps = taps / taps.sum()
    products = (a, b, a * a, b * b, a * b)
    mean_a, mean_b, square_a, square_b, product = (smooth(x, taps)[5:-5, 5:-5] for x in products)
    floor = (0.03 * 255) ** 2
    top = 2 * (product - mean_a * mean_b) + floor
    return (top / (square_a - mean_a**2 + square_b - mean_b**2 + floor)).mean()


# --- forests ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forest:
    """Regression trees as columns; node 0 is the root.

    Attributes:
        left, right: (nodes, trees) child, -1 at a leaf.
        feature: (nodes, trees) which number is compared.
        threshold: (nodes, trees); up to it, go left.
        value: (nodes, trees), a leaf's answer.
    """

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    value: np.ndarray

    def __call__(self, row: np.ndarray) -> float:
        """Mean answer of the trees for one row of features."""
        trees = np.arange(self.left.shape[1])
        node = np.zeros_like(trees)
        while (inner := self.left[node, trees] >= 0).any():
            lower = row[self.feature[node, trees]] <= self.threshold[node, trees]
            child = np.where(lower, self.left[node, trees], self.right[node, trees])
            node = np.where(inner, child, node)
        return float(self.value[node, trees].mean())


@dataclass(frozen=True)
class Model:
    """Three forests and the line [1, s1, s2, s3] . weights."""

    forests: tuple[Forest, Forest, Forest]
    weights: np.ndarray

    def __call__(self, *rows: Tensor) -> float:
        """The score of one image's three rows of features."""
        answers = [f(np.asarray(r)) for f, r in zip(self.forests, rows, strict=True)]
        return float(np.array([1.0, *answers]) @ self.weights)


def load(path: Path) -> Model:
    """Reads `model.mat`: a struct `model` with `linear` (4) and `rf`, a cell of three forests.

    A forest is what MATLAB's port of R's randomForest writes: `lDau`, `rDau`, `mbest` (from 1),
    `upper`, `avnode`, `nodestatus` (-1 at a leaf), each (nodes, trees).

    Raises:
        Missing: no such file.
        Corrupt: not a MATLAB file, or one of another layout.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise Missing(f"{path} does not exist.")
    try:
        model = loadmat(path, simplify_cells=True)["model"]
        weights = np.asarray(model["linear"], np.float64).reshape(4)
        raw = list(model["rf"])
        forests = [_forest(f, n) for f, n in zip(raw, FEATURES, strict=True)]
    except Exception as error:  # scipy raises a dozen kinds for a damaged file
        raise Corrupt(
            f"{path} is not the model.mat of sr-metric ({error}); fetch it anew."
        ) from None
    return Model(tuple(forests), weights)  # type: ignore[arg-type]


def _forest(raw: dict[str, Any], features: int) -> Forest:
    names = ("lDau", "rDau", "mbest", "upper", "avnode", "nodestatus")
    left, right, feature, threshold, value, status = (np.atleast_2d(raw[n]) for n in names)
    if raw.get("coef") is not None and np.any(raw["coef"]):
        raise ValueError("bias-corrected forest")
    leaf = status == -1
    left, right = (np.where(leaf, -1, child.astype(np.int64) - 1) for child in (left, right))
    feature = np.where(leaf, 1, feature).astype(np.int64) - 1
    own = np.arange(len(left))[:, None]
    grown = status != 0  # unused rows at the end of a tree are 0
    children = np.where(grown & ~leaf, np.minimum(left, right), own + 1)
    if (children <= own).any() or max(left.max(), right.max()) >= len(left):
        raise ValueError("a child before its parent")
    if (np.where(grown, feature, 0) < 0).any() or feature.max() >= features:
        raise ValueError(f"more than {features} features")
    return Forest(left, right, feature, threshold.astype(float), value.astype(float))


def published() -> Model:
    """The published forests, from the first data folder that has them.

    Raises:
        Missing: none has; names the file.
    """
    for folder in paths.data_dirs():
        if (folder / MODEL).is_file():
            return _cached(folder / MODEL)
    raise Missing(
        "Ma's score needs its published forests: put model.mat of github.com/chaoma99/sr-metric "
        f"(MIT) into a folder named by LATENTPAPERS_DATA as {MODEL}."
    )


@functools.lru_cache(maxsize=2)
def _cached(path: Path) -> Model:
    return load(path)


PROTOCOLS = {
    "ma_pirm": Protocol("ma_pirm", "per_image", ma_pirm, needs=(MODEL,)),
    "pi_pirm": Protocol("pi_pirm", "per_image", pi_pirm, needs=(MODEL,)),
}
