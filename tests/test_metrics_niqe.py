"""NIQE against the published MATLAB values, a plain second implementation, and closed forms."""

import csv

import numpy as np
import pytest
import torch
from scipy import ndimage, special, stats

import latentpapers as lp
from latentpapers import paths
from latentpapers.errors import UserError
from latentpapers.metrics import colour, entry, niqe


def photo(height=200, width=300):
    """Bytes of a natural photograph (a cat, from scikit-image)."""
    from skimage import data

    return torch.from_numpy(data.chelsea()[:height, :width].copy()).movedim(2, 0)[None]


# --- published values ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["I03", "I04", "I06"])
def test_published_values_of_the_release(name):
    """0.1 %: what the sign of rounding errors in flat areas is worth (see the docstring); the
    image without flat areas agrees to 1e-10. The bar is 0.5 %."""
    folder = next((p / "iqa_calibration" for p in paths.data_dirs()
                   if (p / "iqa_calibration" / "values.csv").is_file()), None)  # fmt: skip
    if folder is None:
        pytest.skip("the calibration pairs iqa_calibration/ are in none of the data folders")
    from skimage.io import imread

    rows = {r["metric"]: r for r in csv.DictReader((folder / "values.csv").open())}
    image = imread(folder / f"{name}_dist.png")[None]
    ours = lp.metrics.score("niqe_matlab", image).value
    tolerance = 1e-10 if name == "I04" else 1e-3
    assert ours == pytest.approx(float(rows["niqe"][name]), rel=tolerance)
    # control: Y of rgb2ycbcr in place of rgb2gray, as in some ports
    studio = niqe.niqe_matlab(colour.luma(torch.from_numpy(image).movedim(3, 1))).item()
    assert studio != pytest.approx(float(rows["niqe"][name]), rel=5e-3)


# --- a second implementation, block by block, as the paper describes it ------------------------


def plain_features(image):
    """36 features of each block with loops, scipy's filters and a search over the whole table."""
    rows, columns = image.shape[0] // 96, image.shape[1] // 96
    x, out = image[: rows * 96, : columns * 96], []
    for side in (96, 48):
        t = np.arange(-3, 4)
        window = np.exp(-(t[:, None] ** 2 + t[None] ** 2) / (2 * (7 / 6) ** 2))
        window /= window.sum()
        mean = ndimage.correlate(x, window, mode="nearest")
        variance = np.abs(ndimage.correlate(x * x, window, mode="nearest") - mean**2)
        y = (x - mean) / (np.sqrt(variance) + 1)
        out.append([
            plain_block(y[i : i + side, j : j + side])
            for i in range(0, rows * side, side) for j in range(0, columns * side, side)
        ])  # fmt: skip
        x = (
            255
            * lp.data.downscale(torch.from_numpy(x / 255)[None, None], 2, "bicubic_symmetric")[
                0, 0
            ].numpy()
        )
    return np.concatenate(out, 1)


def plain_block(y):
    shape, left, right = plain_fit(y.ravel())
    out = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = plain_fit((y * np.roll(y, shift, (0, 1))).ravel())
        out += [shape, (right - left) * special.gamma(2 / shape) / special.gamma(1 / shape),
                left, right]  # fmt: skip
    return out


def plain_fit(v):
    table = np.arange(0.2, 10.0005, 0.001)
    ratios = special.gamma(2 / table) ** 2 / (special.gamma(1 / table) * special.gamma(3 / table))
    left, right = np.sqrt(np.mean(v[v < 0] ** 2)), np.sqrt(np.mean(v[v > 0] ** 2))
    g = left / right
    r = np.mean(np.abs(v)) ** 2 / np.mean(v**2) * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    shape = table[np.argmin((ratios - r) ** 2)]
    return shape, *(s * np.sqrt(special.gamma(1 / shape) / special.gamma(3 / shape))
                    for s in (left, right))  # fmt: skip


def test_features_are_those_of_the_plain_way():
    """A photograph without flat areas, so that no value is a rounding error."""
    x = colour.grey(photo())[0, 0].double()
    ours = niqe.block_features(x)
    assert ours.shape == (6, 36)
    np.testing.assert_allclose(ours.numpy(), plain_features(x.numpy()), rtol=1e-7, atol=1e-9)
    # control: blocks that do not wrap around in themselves
    turned = niqe.block_features(x.roll(1, 0))
    assert (turned - ours).abs().max() > 1e-3


def test_score_is_the_distance_of_the_features():
    x = photo()
    features = niqe.block_features(colour.grey(x)[0, 0].double()).numpy()
    pristine = {k: v.numpy() for k, v in niqe._pristine().items()}
    gap = pristine["mean"] - features.mean(0)
    pooled = (pristine["covariance"] + np.cov(features.T, ddof=1)) / 2
    expected = np.sqrt(gap @ np.linalg.solve(pooled, gap))
    assert niqe.niqe_matlab(x).item() == pytest.approx(expected, rel=1e-8)
    population = (pristine["covariance"] + np.cov(features.T, ddof=0)) / 2
    assert expected != pytest.approx(np.sqrt(gap @ np.linalg.solve(population, gap)), rel=1e-3)


# --- the asymmetric generalised Gaussian -----------------------------------------------------


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.0, 4.0])
def test_fit_finds_the_distribution_it_drew_from(shape):
    """200,000 draws: the shape within 2 % (5 standard errors), scales within 2 %."""
    draws = stats.gennorm.rvs(shape, size=200_000, random_state=np.random.default_rng(0))
    draws = np.where(draws > 0, 2 * draws, draws)
    keep = np.random.default_rng(1).random(len(draws)) < np.where(draws > 0, 1, 0.5)
    found = niqe.asymmetric_gaussian(torch.from_numpy(draws[keep])[None])
    assert [float(v) for v in found] == pytest.approx([shape, 1, 2], rel=0.02)


def test_table_takes_the_nearest_entry():
    shapes, ratios = niqe._table()
    assert (shapes[0], shapes[-1], len(shapes)) == (0.2, 10, 9801)
    assert bool((ratios.diff() > 0).all())
    wanted = torch.tensor([-1, 0, 0.3, 0.75, 0.7501, 5, float("nan"), float("inf")])
    found = niqe._from_table(wanted.double())
    brute = [shapes[(ratios - w).abs().argmin()].item() for w in wanted[:6].double()]
    assert found[:6].tolist() == brute
    assert found[6:].tolist() == [0.2, 0.2]


def test_one_sided_values_have_one_scale():
    shape, left, right = niqe.asymmetric_gaussian(torch.tensor([[1.0, 2, 3, 0]]).double())
    assert (shape.item(), bool(left.isnan()), bool(right.isnan())) == (0.2, True, False)


def test_contrast_normalisation_ignores_flat_areas_and_sees_edges():
    flat = torch.full((30, 30), 77.0, dtype=torch.float64)
    assert niqe.contrast_normalised(flat).abs().max() == 0
    flat[:, 15:] = 78
    y = niqe.contrast_normalised(flat)
    assert y[:, 15].min() > 0 > y[:, 14].max()
    assert y[:, :11].abs().max() == 0


# --- behaviour -------------------------------------------------------------------------------


def test_worse_images_score_higher_and_batches_do_not_matter():
    x = photo()
    blurred = lp.data.upscale(lp.data.downscale(x.float() / 255, 4), 4).clamp(0, 1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) / 8
    noisy = (x.float() / 255 + noise).clamp(0, 1)
    values = entry.values("niqe_matlab", torch.cat([x.float() / 255, blurred, noisy]))
    assert values.argmin() == 0
    assert values[1] > values[0] + 1
    assert values[2] > values[0] + 1
    one = niqe.niqe_matlab(x)
    assert one[0] == values[0] == entry.values("niqe_matlab", [x[0].movedim(0, 2)])[0]


def test_pirm_cuts_and_takes_studio_y():
    x = photo(104 + 96, 208)
    inside = colour.luma(x)[..., 4:-4, 4:-4]
    assert niqe.niqe_pirm(x).item() == niqe.niqe_matlab(inside).item()
    assert niqe.niqe_pirm(x).item() != pytest.approx(niqe.niqe_matlab(x).item(), rel=1e-3)


def test_what_has_no_niqe_is_refused():
    with pytest.raises(UserError, match="two 96 x 96 blocks"):
        lp.metrics.score("niqe_matlab", photo(96, 191).movedim(1, 3))
    with pytest.raises(UserError, match="structure"):
        lp.metrics.score("niqe_matlab", np.full((1, 200, 200, 3), 9, np.uint8))
    with pytest.raises(UserError, match="after cutting"):
        lp.metrics.score("niqe_pirm", np.zeros((1, 8, 300, 3), np.uint8))
    part = photo().clone()
    part[..., :96] = 30  # a flat block is left out
    assert np.isfinite(lp.metrics.score("niqe_matlab", part.movedim(1, 3)).value)
