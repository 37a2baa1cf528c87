"""Distortions: each against another implementation, no change at strength 0, and refusals."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import fft, ndimage

from latentpapers.errors import UnknownName, UserError
from latentpapers.metrics import colour, distortions
from latentpapers.metrics.distortions import PICTURES, distorted

SINGLE = 2e-6  # float32 sums of some tens of numbers up to 1


def pictures(n=3, height=40, width=48, dtype=torch.float32):
    """Smooth coloured pictures with an edge in each."""
    g = torch.Generator().manual_seed(0)
    small = torch.rand(n, 3, 5, 6, generator=g, dtype=dtype)
    x = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")
    x[:, :, height // 3 : height // 2, width // 4 : width // 2] *= 0.3
    return x


def apply(name, x, strength):
    more = {"seed": 0} if name == "noise" else {}
    return PICTURES[name].function(x, strength, **more)


@pytest.mark.parametrize("name", PICTURES)
def test_strength_zero_changes_nothing_and_more_is_further(name):
    x = pictures()
    before = x.clone()
    assert torch.equal(apply(name, x, 0), x)
    gaps = [(distorted(x, name, i) - x).square().mean().item() for i in range(3)]
    assert 0 < gaps[0] < gaps[1] < gaps[2]
    assert list(PICTURES[name].levels) == sorted(PICTURES[name].levels)
    assert torch.equal(x, before)  # the input is left alone


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("channels", [1, 3])
def test_results_are_images_of_the_same_form(name, channels):
    x = pictures(dtype=torch.float64)[:, :channels]
    out = distorted(x, name, 2)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize("name", PICTURES)
def test_an_image_does_not_depend_on_the_others(name):
    x = pictures(4)
    if name == "noise":  # drawn for the whole batch: other images get other noise
        together = distorted(x, name, 1) - x
        assert not torch.allclose(together[0], together[1])
        return
    torch.testing.assert_close(distorted(x, name, 1)[1:3], distorted(x[1:3], name, 1), atol=SINGLE,
                               rtol=0)  # fmt: skip


def test_noise_has_its_deviation_and_its_seed():
    x = torch.full((4, 3, 64, 64), 0.5)
    gap = distortions.noise(x, 0.05, seed=1) - x
    # 5 standard errors of a deviation from 49,152 draws
    assert gap.std().item() == pytest.approx(0.05, rel=5 / np.sqrt(2 * gap.numel()))
    assert torch.equal(distortions.noise(x, 0.05, seed=1), x + gap)
    assert not torch.equal(distortions.noise(x, 0.05, seed=2), x + gap)
    torch.testing.assert_close(distortions.noise(x, 0.1, seed=1) - x, 2 * gap, atol=SINGLE, rtol=0)


@pytest.mark.parametrize("sigma", [0.6, 1.2, 3.0])
def test_blur_is_that_of_scipy(sigma):
    x = pictures(dtype=torch.float64)
    expected = ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4)
    ours = distortions.blur(x, sigma).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-12)  # float64
    black = ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="constant", truncate=4)
    assert np.abs(ours - black).max() > 1e-2  # control: another border


def test_shift_moves_and_repeats_the_edge():
    x = pictures()
    out = distortions.shift(x, 3)
    assert torch.equal(out[:, :, 3:, 3:], x[:, :, :-3, :-3])
    assert torch.equal(out[:, :, :, 0], out[:, :, :, 3])
    assert torch.equal(out[:, :, 0], out[:, :, 3])
    with pytest.raises(UserError, match="whole number"):
        distortions.shift(x, 0.5)


def test_jpeg_is_rounding_of_scipys_cosine_transform():
    x = pictures(1, 16, 24, dtype=torch.float64)[:, :1]
    steps = np.array(distortions._LUMA_STEPS) * 2
    plane = 255 * x[0, 0].numpy() - 128
    expected = np.empty_like(plane)
    for i in range(0, 16, 8):
        for j in range(0, 24, 8):
            block = fft.dctn(plane[i : i + 8, j : j + 8], norm="ortho")
            expected[i : i + 8, j : j + 8] = fft.idctn(np.rint(block / steps) * steps, norm="ortho")
    expected = np.clip((expected + 128) / 255, 0, 1)
    # the transform's matrix is kept in single precision
    np.testing.assert_allclose(distortions.jpeg(x, 2)[0, 0].numpy(), expected, atol=SINGLE)


@pytest.mark.parametrize(("strength", "quality"), [(1, 50), (5, 10)])
def test_jpeg_is_close_to_an_encoder(strength, quality):
    """libjpeg rounds brightness and colours to bytes, before and after: about half a grey level a
    pixel, and a coefficient near the middle of two steps now and then tips to the other."""
    x = pictures(1, 64, 64)
    pixels = (255 * x[0].movedim(0, 2)).round().to(torch.uint8).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    theirs = np.asarray(Image.open(file)).astype(float)
    ours = 255 * distortions.jpeg(torch.from_numpy(pixels).movedim(2, 0)[None] / 255, strength)
    gap = ours[0].movedim(0, 2).numpy() - theirs
    lost = theirs - pixels
    assert np.median(np.abs(gap)) < 1
    assert np.median(np.abs(lost)) > 1.5  # control: what the encoder itself changes
    assert np.corrcoef((lost + gap).ravel(), lost.ravel())[0, 1] > 0.8


def test_incomplete_blocks_of_jpeg_keep_the_size():
    x = pictures(2, 21, 13)
    assert distortions.jpeg(x, 2).shape == x.shape
    whole = torch.nn.functional.pad(x, (0, 3, 0, 3), mode="replicate")
    assert torch.equal(distortions.jpeg(x, 2), distortions.jpeg(whole, 2)[..., :21, :13])


def test_contrast_keeps_the_mean_and_scales_the_spread():
    x = pictures(dtype=torch.float64)
    out = distortions.contrast(x, 0.35)
    torch.testing.assert_close(out.mean((1, 2, 3)), x.mean((1, 2, 3)))
    torch.testing.assert_close(out.flatten(1).std(1), 0.65 * x.flatten(1).std(1))
    assert distortions.contrast(x, 1).flatten(1).std(1).max() < 1e-12


def test_colour_loss_keeps_brightness():
    x = pictures(dtype=torch.float64)
    out = distortions.colour_loss(x, 1.0)
    # BT.601's weights are printed in thousandths of a grey level: they sum to 219.000
    torch.testing.assert_close(colour.luma_float(out), colour.luma_float(x), atol=1e-6, rtol=0)
    assert (out - out.mean(1, keepdim=True)).abs().max() < 1e-12
    assert (out - x).abs().max() > 0.05
    # control: the plain mean of the channels is another brightness
    plain = x.mean(1, keepdim=True).expand_as(x)
    assert (colour.luma_float(plain) - colour.luma_float(x)).abs().max() > 0.01


def different(x):
    return len(torch.unique(x.flatten(1), dim=0))


def test_mode_collapse_counts():
    x = pictures(20)
    counts = [different(distortions.mode_collapse(x, s, seed=0)) for s in (0, 0.5, 0.9, 1)]
    assert counts == [20, 10, 2, 1]
    index = distortions.collapse_index(20, 0.5, seed=0)
    assert torch.bincount(index).max() == 2
    assert set(distortions.collapse_index(20, 0.9, seed=0).tolist()) <= set(index.tolist())
    assert not torch.equal(index, distortions.collapse_index(20, 0.5, seed=1))


def test_memorisation_copies_a_share():
    x, training = pictures(20), pictures(25).flip(3)
    for strength, copies in ((0, 0), (0.3, 6), (1, 20)):
        out = distortions.memorisation(x, training, strength, seed=0)
        same = (out == training[:20]).flatten(1).all(1)
        assert int(same.sum()) == copies
        assert torch.equal(out[~same], x[~same])
    few, many = (set(distortions.copied_index(20, s, seed=0).tolist()) for s in (0.3, 0.6))
    assert few < many


@pytest.mark.parametrize(
    "bad", [pictures() * 2 - 1, pictures() * 255, pictures()[0], (pictures() * 255).byte(),
            pictures() + torch.nan, pictures()[:, :2], pictures()[:0]]
)  # fmt: skip
def test_other_images_are_refused(bad):
    for name in PICTURES:
        with pytest.raises(UserError):
            distorted(bad, name, 0)
    with pytest.raises(UserError):
        distortions.mode_collapse(bad, 0.5, seed=0)


def test_other_strengths_and_names_are_refused():
    x = pictures()
    for name in PICTURES:
        for strength in (-0.1, float("nan")):
            with pytest.raises(UserError, match="strength"):
                apply(name, x, strength)
    for name in ("contrast", "colour"):
        with pytest.raises(UserError, match="strength"):
            apply(name, x, 1.1)
    with pytest.raises(UserError, match="strength"):
        distortions.mode_collapse(x, 1.1, seed=0)
    with pytest.raises(UserError, match="fill"):
        distortions.memorisation(x, x[:2], 0.5, seed=0)
    with pytest.raises(UserError, match="fill"):
        distortions.memorisation(x, x[..., 1:], 0.5, seed=0)
    with pytest.raises(UnknownName):
        distorted(x, "blurr", 0)
    with pytest.raises(UserError, match="levels"):
        distorted(x, "blur", 3)
