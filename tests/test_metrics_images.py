"""Colour, PSNR, SSIM, L1, low-resolution consistency and the typed entry."""

import csv

import numpy as np
import pytest
import torch
from skimage import color
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import latentpapers as lp
from latentpapers import paths
from latentpapers.errors import UnknownName, UserError
from latentpapers.metrics import colour, entry, full_reference, intervals, protocol

DOUBLE = 1e-12  # float64, sums of a few thousand terms
PAIRED = ["psnr_y_b4_u8", "ssim_y_7x7_b4", "ssim_y_11x11_b4", "l1_y", "l1_y_uint8wrap"]


def pair(n=3, height=40, width=33, seed=0):
    """(n, H, W, 3) bytes: smooth pictures and noisy copies of them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 12
    waves = rng.uniform(0.5, 2, (n, 1, 1, 3))
    clean = 128 + 90 * np.sin(waves * y[None, ..., None] + waves[..., ::-1] * x[None, ..., None])
    noisy = clean + rng.normal(0, 12, clean.shape)
    return tuple(np.clip(np.rint(v), 0, 255).astype(np.uint8) for v in (noisy, clean))


def nchw(x):
    return torch.from_numpy(x).movedim(3, 1)


def cut(x):
    return x[:, 4:-4, 4:-4]


# --- colour ----------------------------------------------------------------------------------


def every_colour():
    """All combinations of 52 levels a channel, as one image."""
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, 52, -1, 3)


def test_luma_is_that_of_rgb2ycbcr_rounded():
    x = every_colour()
    exact = color.rgb2ycbcr(x)[..., 0]  # scikit-image: the same matrix, floats 16..235
    ours = colour.luma(nchw(x))[:, 0].numpy().astype(float)
    clear = np.abs(exact % 1 - 0.5) > 1e-9  # halves may round either way in floats
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(ours[clear], np.rint(exact)[clear])
    assert np.abs(ours - exact).max() <= 0.5 + 1e-9
    floats = colour.luma_float(nchw(x).double() / 255)[:, 0].numpy()
    np.testing.assert_allclose(255 * floats, exact, rtol=DOUBLE)
    # control: full-swing grey is another quantity
    assert np.abs(colour.grey(nchw(x))[:, 0].numpy() - ours).max() > 10


def test_luma_of_known_colours():
    known = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    y = colour.luma(known.to(torch.uint8).view(5, 3, 1, 1)).flatten()
    assert y.tolist() == [16, 235, 81, 145, 41]  # BT.601 tables of colour bars


def test_grey_is_rgb2gray_of_matlab():
    x = every_colour()
    ntsc = np.linalg.inv([[1, 0.956, 0.621], [1, -0.272, -0.647], [1, -1.106, 1.703]])[0]
    exact = x @ ntsc
    ours = colour.grey(nchw(x))[:, 0].numpy()
    assert np.abs(ours - exact).max() <= 0.5 + 1e-9
    assert np.abs(ours - np.floor(exact)).max() == 1  # control: not cut off


def test_one_channel_is_brightness_already():
    x = torch.randint(0, 256, (2, 1, 5, 5), dtype=torch.uint8)
    assert torch.equal(colour.luma(x), x)
    assert torch.equal(colour.grey(x), x)
    assert torch.equal(colour.luma_float(x.float()), x.float())


@pytest.mark.parametrize("function", [colour.luma, colour.grey, colour.luma_float])
@pytest.mark.parametrize(
    "bad", [torch.zeros(1, 2, 4, 4), torch.zeros(3, 4, 4), torch.zeros(1, 3, 4, 4).int()]
)
def test_colour_refuses(function, bad):
    with pytest.raises(UserError, match="colour takes"):
        function(bad)
    if function is colour.luma:
        with pytest.raises(UserError, match="colour takes"):
            function(torch.zeros(1, 3, 4, 4))


# --- against scikit-image --------------------------------------------------------------------


def test_psnr_is_scikit_images():
    a, b = pair()
    ours = entry.values("psnr_y_b4_u8", a, b)
    ya, yb = (colour.luma(nchw(x))[:, 0].numpy() for x in (a, b))
    for i in range(3):
        theirs = peak_signal_noise_ratio(cut(yb)[i], cut(ya)[i], data_range=255)
        assert ours[i].item() == pytest.approx(theirs, rel=DOUBLE)
        whole = peak_signal_noise_ratio(yb[i], ya[i], data_range=255)
        assert ours[i].item() != pytest.approx(whole, abs=1e-3)  # control: no border cut


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        ("ssim_y_7x7_b4", {}),
        ("ssim_y_11x11_b4",
         {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}),
    ],
)  # fmt: skip
def test_ssim_is_scikit_images_and_the_formula(metric, options):
    a, b = pair()
    ours = entry.values(metric, a, b)
    ya, yb = (cut(colour.luma(nchw(x))[:, 0].numpy()) for x in (a, b))
    theirs = [structural_similarity(x, y, data_range=255, **options) for x, y in zip(ya, yb)]
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=DOUBLE)
    np.testing.assert_allclose(ours.numpy(), [formula(metric, x, y) for x, y in zip(ya, yb)],
                               rtol=1e-9)  # fmt: skip
    other = {"ssim_y_7x7_b4": "ssim_y_11x11_b4"}.get(metric, "ssim_y_7x7_b4")
    assert (ours - entry.values(other, a, b)).abs().min() > 1e-3  # control: two metrics


def formula(metric, x, y):
    """SSIM by Wang et al., eq 13, one window after the other."""
    size, bessel = (7, 49 / 48) if "7x7" in metric else (11, 1.0)
    taps = np.exp(-0.5 * ((np.arange(size) - size // 2) / 1.5) ** 2) if size == 11 else np.ones(7)
    w = np.outer(taps, taps) / taps.sum() ** 2
    views = [np.lib.stride_tricks.sliding_window_view(v.astype(float), (size, size))
             for v in (x, y)]  # fmt: skip
    mx, my = ((v * w).sum((2, 3)) for v in views)
    vx, vy = ((v**2 * w).sum((2, 3)) - m**2 for v, m in zip(views, (mx, my)))
    cov = (views[0] * views[1] * w).sum((2, 3)) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mx * my + c1) * (2 * bessel * cov + c2)
    return (top / ((mx**2 + my**2 + c1) * (bessel * (vx + vy) + c2))).mean()


def test_l1_and_its_wrapped_form():
    a, b = pair()
    ya, yb = (cut(colour.luma(nchw(x))[:, 0].numpy()).astype(int) for x in (a, b))
    gap = (ya - yb).reshape(3, -1)
    true = np.abs(gap).mean(1) / 255
    np.testing.assert_allclose(entry.values("l1_y", a, b), true, rtol=DOUBLE)
    wrapped = entry.values("l1_y_uint8wrap", a, b).numpy()
    share, mean = (gap < 0).mean(1), gap.mean(1)
    np.testing.assert_allclose(wrapped, (256 * share + mean) / 255, rtol=DOUBLE)
    assert (wrapped > 5 * true).all()  # the erratum: another quantity altogether
    # measures the sign: one level too dark everywhere scores 1, one too bright 1 / 255
    grey = np.full((1, 20, 20, 1), 100, np.uint8)
    assert entry.values("l1_y_uint8wrap", grey - 1, grey).item() == pytest.approx(1)
    assert entry.values("l1_y_uint8wrap", grey + 1, grey).item() == pytest.approx(1 / 255)
    assert entry.values("l1_y", grey - 1, grey).item() == pytest.approx(1 / 255)


def test_spread_of_psnr_is_the_population_deviation():
    a, b = pair(n=8)
    psnr = entry.values("psnr_y_b4_u8", a, b).numpy()
    found = lp.metrics.score("psnr_std_y_b4_u8", a, b)
    assert found.value == pytest.approx(psnr.std(ddof=0), rel=DOUBLE)
    assert found.value != pytest.approx(psnr.std(ddof=1), rel=1e-3)  # control
    assert found.n == 8


def test_equal_images():
    a, _ = pair()
    assert torch.isinf(entry.values("psnr_y_b4_u8", a, a)).all()
    assert entry.values("ssim_y_7x7_b4", a, a).tolist() == [1, 1, 1]
    assert lp.metrics.score("l1_y", a, a).value == 0
    with pytest.raises(UserError, match="finite"):
        lp.metrics.score("psnr_y_b4_u8", a, a)


def published():
    """(name, distorted, reference, published values) of the three pairs of TID2013."""
    folder = next((p / "iqa_calibration" for p in paths.data_dirs()
                   if (p / "iqa_calibration" / "values.csv").is_file()), None)  # fmt: skip
    if folder is None:
        pytest.skip("the calibration pairs iqa_calibration/ are in none of the data folders")
    from skimage.io import imread

    rows = {r["metric"]: r for r in csv.DictReader((folder / "values.csv").open())}
    for name in ("I03", "I04", "I06"):
        images = (nchw(imread(folder / f"{name}_{kind}.png")[None]) for kind in ("dist", "ref"))
        yield name, *images, {m: float(r[name]) for m, r in rows.items()}


def test_ssim_core_gives_the_published_matlab_values():
    """The published values are of MATLAB's grey level on whole images, printed to 4 digits."""
    apart = []
    for _, a, b, known in published():
        x, y = colour.grey(a), colour.grey(b)
        assert full_reference.ssim(x, y, gaussian=True).item() == pytest.approx(
            known["ssim"], abs=5e-5
        )
        apart.append(abs(full_reference.ssim(x, y, gaussian=False).item() - known["ssim"]))
    assert max(apart) > 0.01  # control: the other window


# --- consistency with the small input --------------------------------------------------------


def test_lr_rmse_of_averages():
    big = torch.rand(2, 3, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    small = torch.nn.functional.avg_pool2d(big, 4)
    noise = torch.zeros_like(small)
    noise[0] += 3 / 255
    noise[1, :, 0] += 4 / 255  # one of two rows
    ours = entry.values("lr_rmse", big, (small - noise).clamp(0, 1), kernel="average")
    expected = [3, 4 / np.sqrt(2)]
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-6)
    with pytest.raises(UserError, match="multiple"):
        lp.metrics.score("lr_rmse", big, small[..., :2])


def test_lr_rmse_of_its_own_bicubic_reduction_is_the_rounding():
    """Rounding to bytes leaves a uniform error of 1 / sqrt(12) levels; 5 % over 3,000 numbers."""
    big = nchw(pair(1, 128, 128)[0]).float() / 255
    small = lp.data.downscale(big, 4)
    exact = lp.metrics.score("lr_rmse", big, small.clamp(0, 1))
    assert exact.value < 1e-3
    stored = (small.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, 3)
    assert lp.metrics.score("lr_rmse", big, stored).value == pytest.approx(12**-0.5, rel=0.05)
    other = lp.metrics.score("lr_rmse", big, small.clamp(0, 1), kernel="average")
    assert other.value > 0.5  # control: another kernel


# --- one score -------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", PAIRED)
def test_batches_lists_types_and_order_do_not_matter(metric):
    a, b = pair()
    whole = entry.values(metric, a, b)
    listed = entry.values(metric, list(a), [torch.from_numpy(x) for x in b])
    floats = entry.values(metric, nchw(a).double() / 255, nchw(b).float() / 255)
    mixed = entry.values(metric, list(a), b)
    declared = entry.values(metric, nchw(a), nchw(b), layout="NCHW")
    backwards = entry.values(metric, a[::-1].copy(), b[::-1].copy()).flip(0)
    for other in (listed, floats, mixed, declared, backwards):
        assert torch.equal(whole, other)
    found = lp.metrics.score(metric, a, b)
    assert found == intervals.bootstrap_mean(whole)
    assert found.low < found.value < found.high


def test_images_of_several_sizes():
    (a, b), (c, d) = pair(1), pair(1, 50, 60)
    both = entry.values("psnr_y_b4_u8", [a[0], c[0]], [b[0], d[0]])
    apart = [entry.values("psnr_y_b4_u8", *p).item() for p in ((a, b), (c, d))]
    assert both.tolist() == apart
    with pytest.raises(UserError, match="against reference"):
        lp.metrics.score("psnr_y_b4_u8", [a[0], c[0]], [d[0], b[0]])


def test_a_single_image_has_no_interval():
    a, b = pair(1)
    found = lp.metrics.score("ssim_y_7x7_b4", a, b)
    assert (found.low, found.high, found.n, found.method) == (None, None, 1, "none: one image")


def test_gradients_stop_at_the_entry():
    a, b = (nchw(x).float().div(255).requires_grad_() for x in pair())
    assert not entry.values("l1_y", a, b).requires_grad


GOOD = pair(2)[0]
BAD = [
    (GOOD.astype(np.int64), "uint8 or float"),
    (nchw(GOOD).float(), r"\[0, 1\]"),
    (nchw(GOOD).float() / 127.5 - 1, r"\[0, 1\]"),
    (nchw(GOOD).float() / 255 * float("nan"), "NaN"),
    (torch.full((2, 3, 40, 33), float("inf")), "NaN or infinity"),
    (GOOD / 255, "layout='NHWC'"),
    (nchw(GOOD), "layout='NCHW'"),
    (GOOD[..., :2], "1 or 3 channels"),
    (GOOD[0], "1 or 3 channels"),
    (GOOD[:0], "empty"),
    ([], "empty"),
    ([GOOD], "single images"),
    ("images", "array or tensor"),
    (None, "array or tensor"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_what_is_no_image_is_refused_on_both_sides(bad, message):
    with pytest.raises(UserError, match=message):
        lp.metrics.score("psnr_y_b4_u8", bad, GOOD)
    if bad is not None:
        with pytest.raises(UserError, match=message):
            lp.metrics.score("psnr_y_b4_u8", GOOD, bad)


def test_wrong_calls_are_refused():
    small = GOOD[:, :8, :8]
    with pytest.raises(UserError, match="reference"):
        lp.metrics.score("psnr_y_b4_u8", GOOD)
    with pytest.raises(UserError, match="takes no reference"):
        lp.metrics.score("niqe_matlab", GOOD, GOOD)
    with pytest.raises(UserError, match="against"):
        lp.metrics.score("psnr_y_b4_u8", GOOD, GOOD[:1])
    with pytest.raises(UserError, match="after cutting"):
        lp.metrics.score("psnr_y_b4_u8", small, small)
    with pytest.raises(UserError, match="SSIM needs"):
        lp.metrics.score("ssim_y_7x7_b4", GOOD[:, :14], GOOD[:, :14])
    with pytest.raises(UserError, match="layout 'CHW'"):
        lp.metrics.score("psnr_y_b4_u8", GOOD, GOOD, layout="CHW")
    with pytest.raises(UnknownName, match="psnr_y_b4_u8"):
        lp.metrics.score("psnr", GOOD, GOOD)
    assert callable(lp.metrics.values)
    with pytest.raises(AttributeError):
        lp.metrics.nothing  # noqa: B018


# --- metrics of distributions and groups, with made-up functions -----------------------------


@pytest.fixture
def made_up(monkeypatch):
    def mean_gap(images, reference, k=3):
        gap = float(images.float().mean() - reference.float().mean())
        return protocol.Score(gap, None, None, len(images), "none: made up")

    def spread(images):
        return images.float().std()

    ours = {
        "gap_n4": protocol.Protocol("gap_n4", "distribution", mean_gap, n=4, k=3),
        "free": protocol.Protocol("free", "distribution", mean_gap, form="float"),
        "spread": protocol.Protocol("spread", "groups", spread, form="float"),
    }
    monkeypatch.setattr(entry, "protocols", lambda: ours)


@pytest.mark.usefixtures("made_up")
def test_a_metric_of_distributions():
    a, b = pair(5)
    found = lp.metrics.score("gap_n4", a[:4], b)
    assert found.value == pytest.approx(float(a[:4].mean() - b.mean()), abs=1e-3)
    assert lp.metrics.score("free", list(a), b).n == 5
    for images, reference, message in (
        (a[:1], b, "1 of images"),
        (a[:4], b[:1], "1 of reference"),
        (a, b, "defined on 4 images, not 5"),
        (a[:4], b[:3], "k < n"),
        ([a[0], a[1, :20]], b, "several sizes"),
    ):
        with pytest.raises(UserError, match=message):
            lp.metrics.score("gap_n4", images, reference)
    with pytest.raises(UserError, match="k < n"):
        lp.metrics.score("free", a, b, k=5)
    with pytest.raises(UserError, match="k < n"):
        lp.metrics.score("free", a, b, k=0)
    with pytest.raises(UserError, match="no value per image"):
        lp.metrics.values("free", a, b)


@pytest.mark.usefixtures("made_up")
def test_a_metric_of_groups():
    groups = np.stack([pair(4, seed=s)[0] for s in range(3)])
    found = lp.metrics.values("spread", groups)
    expected = [g.astype(np.float32).std(ddof=1) / 255 for g in groups]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)  # float32
    assert torch.equal(found, lp.metrics.values("spread", list(groups)))
    assert lp.metrics.score("spread", groups).n == 3
    assert lp.metrics.score("spread", groups[:1]).method == "none: one group"
    for bad, message in ((groups[:, :1], "at least 2"), ([], "no group"), (groups[0], "channels")):
        with pytest.raises(UserError, match=message):
            lp.metrics.score("spread", bad)


def test_the_ledger_names_these_functions():
    from latentpapers import ledger
    from latentpapers.metrics import niqe

    for module in (full_reference, niqe):
        for metric_id, found in module.PROTOCOLS.items():
            assert found.id == metric_id
            listed = ledger.metrics()[metric_id].implementation
            assert listed == f"{module.__name__}:{found.function.__name__}", metric_id
            assert entry.find(metric_id) is found
