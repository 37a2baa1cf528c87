"""Ma et al.'s score: features against plain versions, forests against scikit-learn's."""

import csv
import math

import numpy as np
import pytest
import torch
from scipy import fft, io, special, stats
from sklearn.ensemble import RandomForestRegressor

import latentpapers as lp
from latentpapers import paths
from latentpapers.errors import Corrupt, Missing, UserError
from latentpapers.metrics import colour, ma, niqe, steerable

EXACT = {"rtol": 1e-9, "atol": 1e-10}  # float64 sums of thousands of terms


def photo(height=110, width=131):
    """Bytes of a natural photograph (a cat, from scikit-image); odd sizes on purpose."""
    from skimage import data

    return torch.from_numpy(data.chelsea()[:height, 40 : 40 + width].copy()).movedim(2, 0)[None]


def brightness(**size):
    return colour.luma(photo(**size))[0, 0].double()


# --- steerable pyramid -----------------------------------------------------------------------


def wave(side, across, down):
    y, x = np.mgrid[:side, :side] * 2 * math.pi / side
    return torch.from_numpy(np.cos(across * x + down * y))


@pytest.mark.parametrize(("across", "down"), [(20, 0), (12, 16), (-15, 14), (0, 9), (5, 3)])
def test_a_plane_wave_meets_each_filter_at_its_own_gain(across, down):
    """Amplitudes are products of the filters' closed forms; tables with linear interpolation are
    off by 1e-5 at 256 and 1,024 steps a turn."""
    side = 64
    pyramid = steerable.pyramid(wave(side, across, down))
    octave = math.log2(math.hypot(across, down) / (side / 2))

    def rise(middle):
        """Root of a raised cosine over the octave around `middle`."""
        return math.sin(math.pi / 2 * min(1, max(0, octave - middle + 0.5)))

    def fall(middle):
        return math.sqrt(1 - rise(middle) ** 2)

    def amplitude(band):
        return math.sqrt(2 * float(band.square().mean()))

    assert amplitude(pyramid.high) == pytest.approx(rise(-0.5), abs=1e-4)
    gain = math.sqrt(2**10 / (6 * math.comb(10, 5)))
    direction = math.atan2(down, across)
    for scale, through in enumerate((fall(-0.5) * rise(-1.5),
                                     fall(-0.5) * fall(-1.5) * rise(-2.5))):  # fmt: skip
        for b, band in enumerate(pyramid.bands[scale]):
            # half as many pixels a side keep the spectrum's values: amplitude times four
            expected = 4**scale * through * gain * abs(math.cos(direction - math.pi * b / 6)) ** 5
            assert amplitude(band) == pytest.approx(expected, abs=4**scale * 1e-4)


def test_filters_share_the_energy_out():
    """Above two octaves below the Nyquist frequency nothing is left for the low-pass rest, so the
    high-pass rest and twelve bands hold all energy. Odd sizes: at an even size's Nyquist
    frequency an odd filter has no real part. Tables are off by 1e-5."""
    x = brightness(height=111)
    y, z = (np.fft.fftfreq(n) * n / (n / 2) for n in x.shape)
    kept = np.hypot(y[:, None], z[None]) >= 0.25
    x = torch.from_numpy(np.fft.ifft2(np.fft.fft2(x.numpy()) * kept).real)
    pyramid = steerable.pyramid(x)
    assert {tuple(b.shape) for b in pyramid.bands[1]} == {(56, 66)}

    def energy(*bands):  # a quarter of the pixels, the same spectrum: amplitudes times four
        return sum(float(b.square().sum()) * b.numel() / x.numel() for b in bands)

    parts = energy(pyramid.high, *pyramid.bands[0], *pyramid.bands[1])
    assert parts == pytest.approx(float(x.square().sum()), rel=1e-4)
    without = energy(*pyramid.bands[0], *pyramid.bands[1])
    assert without != pytest.approx(float(x.square().sum()), rel=1e-2)  # control
    with pytest.raises(UserError, match="16 px"):
        steerable.pyramid(x[:15])


# --- cosine transform ------------------------------------------------------------------------


def plain_cosine(x):
    """Window by window, coefficient lists written out row by row."""
    padded = np.pad(x, ((2, 6), (2, 6)))
    lists = (
        [(0, range(1, 7)), (1, range(2, 7)), (2, range(4, 7)), (3, range(5, 7))],
        [(1, [1]), (2, [2, 3]), (3, [2, 3, 4]), (4, [3, 4, 5, 6]), (5, [4, 5, 6]), (6, [4, 5, 6])],
    )
    shapes, variations, orientations = [], [], []
    for i in range(0, x.shape[0], 3):
        for j in range(0, x.shape[1], 3):
            block = fft.dctn(padded[i : i + 7, j : j + 7], norm="ortho")
            others = block.ravel()[1:]
            shapes.append(plain_shape(others))
            size = np.abs(others)
            variations.append(size.std(ddof=1) / (size.mean() + 1e-7))
            three = [
                [abs(b[r, c]) for r, cs in rows for c in cs]
                for b, rows in ((block, lists[0]), (block, lists[1]), (block.T, lists[0]))
            ]
            assert [len(t) for t in three] == [16, 16, 16]
            ratios = [np.std(t, ddof=1) / (np.mean(t) + 1e-8) for t in three]
            orientations.append(np.var(ratios, ddof=1))
    out = []
    n = len(shapes)
    for values, tenth in ((shapes, slice(0, math.ceil(n * 0.1))),
                          (variations, slice(int(n * 0.9) - 1, None)),
                          (orientations, slice(int(n * 0.9) - 1, None))):  # fmt: skip
        out += [np.sort(values)[tenth].mean(), np.mean(values)]
    return out


def plain_shape(v):
    table = 0.03 + np.arange(9971) / 1000
    log = special.gammaln(1 / table) + special.gammaln(3 / table) - 2 * special.gammaln(2 / table)
    ratio = v.var(ddof=1) / (np.abs(v - v.mean()).mean() ** 2 + 1e-7)
    return table[np.argmin(np.abs(np.exp(log) - ratio))]


def test_cosine_features_are_those_of_the_plain_way():
    x = brightness()[:41, :50] / 255
    ours = ma.cosine_features(x).numpy()
    np.testing.assert_allclose(ours, plain_cosine(x.numpy()), **EXACT)
    turned = ma.cosine_features(x.T).numpy()
    np.testing.assert_allclose(turned, ours, **EXACT)  # the lists are symmetric
    assert np.abs(ma.cosine_features(x.sqrt()).numpy() - ours).max() > 0.01  # control


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0, 5.0])
def test_shape_of_draws(shape):
    """200,000 draws: within 3 % (5 standard errors at shape 5)."""
    draws = stats.gennorm.rvs(shape, size=(1, 200_000), random_state=np.random.default_rng(0))
    assert ma.gaussian_shape(torch.from_numpy(draws)).item() == pytest.approx(shape, rel=0.03)


def test_shape_takes_the_nearest_entry_of_the_table():
    rows = np.random.default_rng(0).standard_t(3, (50, 30))
    rows[0] = 0  # no spread: ratio 0, the largest shape
    rows[1] = [1e6] + [0] * 29
    ours = ma.gaussian_shape(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(ours, [plain_shape(r) for r in rows], rtol=1e-12)
    assert ours[0] == pytest.approx(10)


def test_reduced_images():
    x = brightness()[:9, :8]
    taps = np.exp(-2.0 * np.arange(-1, 2) ** 2)
    window = np.outer(taps, taps) / taps.sum() ** 2
    padded = np.pad(x.numpy(), 1)
    expected = [[(padded[r : r + 3, c : c + 3] * window).sum() for c in range(1, 8, 2)]
                for r in range(1, 9, 2)]  # fmt: skip
    np.testing.assert_allclose(ma._half(x).numpy(), expected, **EXACT)


# --- patches ---------------------------------------------------------------------------------


def test_patch_features_are_singular_values_of_distinct_patches():
    x = brightness()[:32, :33] / 255
    padded = np.pad(x.numpy(), ((0, 3), (0, 2)))
    columns = [padded[i : i + 5, j : j + 5].ravel(order="F")
               for i in range(0, 35, 5) for j in range(0, 35, 5)]  # fmt: skip
    expected = np.linalg.svd(np.array(columns).T, compute_uv=False)
    np.testing.assert_allclose(ma.patch_features(x).numpy(), expected, **EXACT)


# --- pyramid features ------------------------------------------------------------------------


def plain_normalised(pyramid, scale, which):
    """Pixel shifts, MATLAB's divisor, numpy's pseudo-inverse."""
    bands = [b.numpy() for b in pyramid.bands[scale]]
    height, width = bands[which].shape
    rows = [np.roll(bands[which], (dy, dx), (0, 1))[1:-1, 1:-1].ravel()
            for dy in (-1, 0, 1) for dx in (-1, 0, 1)]  # fmt: skip
    if scale == 0 and which < 5:
        small = pyramid.bands[1][which]
        size = (2 * small.shape[0], 2 * small.shape[1])
        grown = lp.data.degrade.imresize(small[None, None] / 255, size, "bicubic_symmetric")
        rows.append((255 * grown[0, 0].numpy())[:height, :width][1:-1, 1:-1].ravel())
    divisor = len(rows)
    rows += [b[1:-1, 1:-1].ravel() for i, b in enumerate(bands) if i != which]
    y = np.array(rows).T
    inverse = np.linalg.pinv(y.T @ y / len(y))
    z = np.sqrt(np.einsum("ni,ij,nj->n", y, inverse, y) / divisor)
    centre = bands[which][1:-1, 1:-1]
    out = (centre - centre.mean()) / z.reshape(centre.shape)
    guard = 16 // 2**scale
    out = out[guard:-guard, guard:-guard]
    return out - out.mean()


@pytest.mark.parametrize(("scale", "which"), [(0, 0), (0, 5), (1, 2)])
def test_normalised_bands_are_those_of_the_plain_way(scale, which):
    pyramid = steerable.pyramid(brightness())
    ours = ma._normalised(pyramid, scale, which).numpy()
    np.testing.assert_allclose(ours, plain_normalised(pyramid, scale, which), rtol=1e-6, atol=1e-8)
    assert abs(ours.mean()) < 1e-12


def test_likeness_is_the_contrast_and_structure_of_ssim():
    a, b = brightness()[:30, :40], brightness()[20:50, 10:50]
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    w = np.outer(taps, taps) / taps.sum() ** 2
    views = [np.lib.stride_tricks.sliding_window_view(v.numpy(), (11, 11)) for v in (a, b)]
    means = [(v * w).sum((2, 3)) for v in views]
    variances = [(v**2 * w).sum((2, 3)) - m**2 for v, m in zip(views, means)]
    covariance = (views[0] * views[1] * w).sum((2, 3)) - means[0] * means[1]
    c2 = (0.03 * 255) ** 2
    expected = ((2 * covariance + c2) / (variances[0] + variances[1] + c2)).mean()
    assert ma._likeness(a, b).item() == pytest.approx(expected, rel=1e-9)
    assert ma._likeness(a, a).item() == pytest.approx(1)
    assert ma._likeness(a, a + 50).item() == pytest.approx(1)  # blind to the mean


def test_order_of_the_pyramid_features():
    pyramid = steerable.pyramid(brightness())
    f = ma.pyramid_features(brightness())
    bands = [ma._normalised(pyramid, s, b) for s in (0, 1) for b in range(6)]
    assert f[3].item() == pytest.approx(plain_shape(bands[3].numpy().ravel()))
    both = np.concatenate([bands[1].numpy().ravel(), bands[7].numpy().ravel()])
    assert f[13].item() == pytest.approx(plain_shape(both))
    assert f[18].item() == pytest.approx(ma._likeness(pyramid.bands[0][0], pyramid.high).item())
    assert f[30].item() == pytest.approx(ma._likeness(bands[0], bands[1]).item())
    assert f[35].item() == pytest.approx(ma._likeness(bands[1], bands[2]).item())
    assert f[44].item() == pytest.approx(ma._likeness(bands[4], bands[5]).item())


# --- forests in the published layout ---------------------------------------------------------


def exported(forest):
    """A scikit-learn forest as MATLAB's port of R's randomForest stores one."""
    trees = [e.tree_ for e in forest.estimators_]
    rows = max(t.node_count for t in trees) + 3  # unused rows at the end
    names = ("lDau", "rDau", "mbest", "nodestatus")
    out = {n: np.zeros((rows, len(trees)), np.int32) for n in names}
    out |= {n: np.zeros((rows, len(trees))) for n in ("upper", "avnode")}
    for i, tree in enumerate(trees):
        # children after their parents, both at once, as R numbers them
        order = [0]
        for node in order:
            if tree.children_left[node] >= 0:
                order += [tree.children_left[node], tree.children_right[node]]
        place = {node: k + 1 for k, node in enumerate(order)}
        for node, k in place.items():
            leaf = tree.children_left[node] < 0
            out["nodestatus"][k - 1, i] = -1 if leaf else -3
            out["avnode"][k - 1, i] = tree.value[node, 0, 0]
            if not leaf:
                out["lDau"][k - 1, i] = place[tree.children_left[node]]
                out["rDau"][k - 1, i] = place[tree.children_right[node]]
                out["mbest"][k - 1, i] = tree.feature[node] + 1
                out["upper"][k - 1, i] = tree.threshold[node]
    return out | {"ntree": len(trees), "coef": np.zeros((0, 0))}


def trained(seed=0):
    rng = np.random.default_rng(seed)
    forests = []
    for count in ma.FEATURES:
        x = rng.normal(0, 1, (80, count)).astype(np.float32)
        y = 5 + x[:, 0] - x[:, count // 2] * x[:, -1]
        forests.append(RandomForestRegressor(12, random_state=seed).fit(x, y))
    return forests


def write(path, forests, change=lambda raw: raw):
    raw = np.empty((3, 1), object)
    for i, forest in enumerate(forests):
        raw[i, 0] = change(exported(forest))
    path.parent.mkdir(parents=True, exist_ok=True)
    io.savemat(path, {"model": {"rf": raw, "linear": np.array([[-1.0], [0.5], [0.3], [0.4]])}})
    return path


def test_forests_answer_as_those_they_were_written_from(tmp_path):
    forests = trained()
    model = ma.load(write(tmp_path / "model.mat", forests))
    rng = np.random.default_rng(1)
    for _ in range(20):
        rows = [rng.normal(0, 1, n).astype(np.float32) for n in ma.FEATURES]
        answers = [f.predict(r[None])[0] for f, r in zip(forests, rows)]
        for ours, theirs, row in zip(model.forests, answers, rows):
            assert ours(row) == pytest.approx(theirs, rel=1e-12)
        expected = -1 + 0.5 * answers[0] + 0.3 * answers[1] + 0.4 * answers[2]
        assert model(*map(torch.from_numpy, rows)) == pytest.approx(expected, rel=1e-12)
        mixed = model(*(torch.from_numpy(-r) for r in rows))
        assert mixed != pytest.approx(expected, rel=1e-6)  # control


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTPAPERS_DATA", str(tmp_path))
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_whole_way_with_a_model_of_the_published_layout(data_folder):
    forests = trained()
    write(data_folder / ma.MODEL, forests)
    x = photo()
    found = lp.metrics.score("ma_pirm", x.movedim(1, 3))
    rows = ma.features(niqe.pirm_luma(x)[0, 0])
    assert [len(r) for r in rows] == list(ma.FEATURES)
    answers = [f.predict(r.numpy()[None].astype(np.float32))[0] for f, r in zip(forests, rows)]
    assert found.value == pytest.approx(np.dot([-1, 0.5, 0.3, 0.4], [1, *answers]), abs=1e-6)
    assert (found.low, found.n) == (None, 1)


def test_perceptual_index_is_half_of_both(data_folder):
    write(data_folder / ma.MODEL, trained())
    x = photo(200, 208)
    three = [lp.metrics.score(m, x, layout="NCHW").value
             for m in ("pi_pirm", "ma_pirm", "niqe_pirm")]  # fmt: skip
    assert three[0] == pytest.approx((10 - three[1] + three[2]) / 2, rel=1e-12)


def test_published_values_of_the_release():
    """Runs as soon as both the pairs and the published model.mat lie in a data folder. 1 %: no
    tolerance is known before the first run; the best public port reports 0.7 %."""
    folder = next((p / "iqa_calibration" for p in paths.data_dirs()
                   if (p / "iqa_calibration" / "values.csv").is_file()), None)  # fmt: skip
    if folder is None or not any((p / ma.MODEL).is_file() for p in paths.data_dirs()):
        pytest.skip("the pairs iqa_calibration/ or the forests sr-metric/model.mat are not there")
    from skimage.io import imread

    rows = {r["metric"]: r for r in csv.DictReader((folder / "values.csv").open())}
    for name in ("I03", "I04", "I06"):
        image = torch.from_numpy(imread(folder / f"{name}_dist.png")).movedim(2, 0)[None]
        ours = ma.ma_score(colour.grey(image)).item()
        assert ours == pytest.approx(float(rows["nrqm"][name]), rel=0.01)
        index = lp.metrics.score("pi_pirm", image, layout="NCHW").value
        assert index == pytest.approx(float(rows["pi"][name]), rel=0.01)


# --- bad input -------------------------------------------------------------------------------


def test_a_missing_model_is_named(data_folder):
    with pytest.raises(Missing, match=r"model\.mat of github.com/chaoma99/sr-metric"):
        lp.metrics.score("ma_pirm", photo().movedim(1, 3))
    with pytest.raises(Missing, match="does not exist"):
        ma.load(data_folder / "none.mat")


def swapped(raw):
    raw["lDau"][raw["lDau"] > 0] = 1
    return raw


def beyond(raw):
    raw["rDau"][0] = 9999
    return raw


def unknown_feature(raw):
    raw["mbest"][0] = 80
    return raw


def without_leaves(raw):
    del raw["nodestatus"]
    return raw


def corrected(raw):
    return raw | {"coef": np.array([1.0, 2.0])}


@pytest.mark.parametrize(
    "damage",
    [swapped, beyond, unknown_feature, without_leaves, corrected],
    ids=lambda f: f.__name__,
)
def test_a_damaged_model_is_refused(tmp_path, damage):
    path = write(tmp_path / "model.mat", trained(), damage)
    with pytest.raises(Corrupt, match=r"not the model\.mat"):
        ma.load(path)


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "model.mat"
    forests = trained()
    for content in (b"", b"MATLAB 5.0 MAT-file" + bytes(300)):
        path.write_bytes(content)
        with pytest.raises(Corrupt):
            ma.load(path)
    whole = write(path, forests).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Corrupt):
        ma.load(path)
    io.savemat(path, {"other": 1})
    with pytest.raises(Corrupt):
        ma.load(path)


def test_images_without_a_score_are_refused():
    with pytest.raises(UserError, match="90 px"):
        ma.features(torch.zeros(89, 200, dtype=torch.uint8))
    with pytest.raises(UserError, match="no structure"):
        ma.features(torch.full((100, 100), 7, dtype=torch.uint8))
