"""Degradations against exact rational arithmetic, MATLAB's own images, and autograd."""

import io
import tarfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from latentpapers import data, paths
from latentpapers.data import degrade
from latentpapers.errors import UnknownName, UserError

PAIRS = "sr_test_set5_set14_bsd100_x4.tar"
PADDING = {"bicubic": "edge", "bicubic_symmetric": "symmetric", "bicubic_lag": "reflect"}

# Keys' kernel at odd eighths, times 1024: what x4 makes of one pixel, from its formula by hand.
# The weight of a pixel is this over 4096.
HALF = [987, 745, 399, 93, -49, -75, -45, -7]
WEIGHTS = HALF[::-1] + HALF


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def random_bytes(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(seed))  # fmt: skip


# --- an independent reference: rational numbers, padding by NumPy, one weight at a time ---------


def keys(t):
    t = abs(Fraction(t))
    if t <= 1:
        return Fraction(3, 2) * t**3 - Fraction(5, 2) * t**2 + 1
    return -Fraction(1, 2) * t**3 + Fraction(5, 2) * t**2 - 4 * t + 2 if t < 2 else Fraction(0)


def matrix(length, size, kernel="bicubic"):
    """The (size, length) matrix, from the definition."""
    scale = Fraction(length, size)
    wide = max(scale, Fraction(1))
    margin = int(2 * wide) + 3
    names = np.pad(np.arange(length), margin, mode=PADDING[kernel])  # which pixel stands where
    out = np.zeros((size, length))
    for i in range(size):
        centre = (i + Fraction(1, 2)) * scale - Fraction(1, 2)
        if kernel == "bicubic_lag":
            centre = i * scale + Fraction(1, 2)
        weight = {j: keys((j - centre) / wide) for j in range(-margin, length + margin)}
        total = sum(weight.values())
        for j, w in weight.items():
            out[i, names[j + margin]] += float(w / total)
    return torch.from_numpy(out)


def matlab_bytes(images, size, vertical_first=True):
    """x4 as MATLAB does it to bytes, in whole numbers: weights / 4096, rounded after each axis."""

    def along(x, axis):
        x = np.moveaxis(x.astype(np.int64), axis, -1)
        padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(6, 6)], mode="edge")
        sums = sum(w * padded[..., k : k + x.shape[-1] : 4] for k, w in enumerate(WEIGHTS))
        return np.moveaxis(((sums + 2048) // 4096).clip(0, 255), -1, axis)

    x = images.numpy()
    for axis in (2, 3) if vertical_first else (3, 2):
        x = along(x, axis)
    assert x.shape[2:] == size
    return torch.from_numpy(x.astype(np.uint8))


# 1e-14: sums of at most 130 terms below 1 in float64
EXACT = {"rtol": 0, "atol": 1e-14}


@pytest.mark.parametrize("kernel", degrade.BICUBIC)
@pytest.mark.parametrize(
    ("height", "width", "factor"),
    [(16, 24, 4), (9, 12, 3), (10, 6, 2), (25, 10, 5), (64, 48, 8), (12, 4, 1)],
)
def test_downscale_is_the_definition_at_every_pixel(kernel, height, width, factor):
    x = noise(2, 3, height, width)
    rows = matrix(height, height // factor, kernel)
    columns = matrix(width, width // factor, kernel)
    ours = data.downscale(x, factor, kernel)
    torch.testing.assert_close(ours, rows @ x @ columns.T, **EXACT)
    if factor > 2 or (kernel == "bicubic_lag" and factor == 1):  # at 2 all windows agree inside
        other = next(k for k in degrade.BICUBIC if k != kernel)
        assert not torch.allclose(ours, data.downscale(x, factor, other), **EXACT)


@pytest.mark.parametrize("kernel", ["bicubic", "bicubic_symmetric"])
@pytest.mark.parametrize("factor", [2, 3, 4, 7])
def test_upscale_is_the_definition_at_every_pixel(kernel, factor):
    x = noise(1, 2, 6, 9)
    rows, columns = matrix(6, 6 * factor, kernel), matrix(9, 9 * factor, kernel)
    ours = data.upscale(x, factor, kernel)
    torch.testing.assert_close(ours, rows @ x @ columns.T, **EXACT)
    assert not torch.allclose(ours, data.upscale(x, factor, "nearest"), **EXACT)


@pytest.mark.parametrize(("old", "new"), [((7, 12), (5, 9)), ((5, 9), (8, 20)), ((8, 6), (3, 11))])
def test_imresize_of_floats_to_any_size(old, new):
    x = noise(1, 3, *old)
    expected = matrix(old[0], new[0]) @ x @ matrix(old[1], new[1]).T
    torch.testing.assert_close(data.imresize(x, new), expected, **EXACT)


def test_the_weights_of_x4_are_known_fractions():
    impulse = torch.zeros(1, 1, 64, 4, dtype=torch.float64)
    impulse[0, 0, 30] = 1
    seen = 4096 * data.downscale(impulse, 4)[0, 0, :, 0]
    expected = torch.zeros(16, dtype=torch.float64)
    for i in range(16):
        if 0 <= 30 - (4 * i - 6) < 16:
            expected[i] = WEIGHTS[30 - (4 * i - 6)]
    assert torch.equal(seen, expected)  # powers of two: no rounding at all
    assert sum(WEIGHTS) == 4096


def test_a_ramp_stays_one_and_shows_where_the_window_is():
    """A linear ramp is kept, so its value is the place that a low resolution pixel looks at."""
    for factor, shift in ((4, 1), (8, 3), (16, 7), (32, 15)):
        ramp = torch.arange(10 * factor).double().view(1, 1, -1, 1).expand(-1, -1, -1, factor)
        ramp = ramp / 1000
        inner = slice(3, 7)
        place = 1000 * data.downscale(ramp, factor)[0, 0, inner, 0]
        centre = factor * torch.arange(3, 7).double() + (factor - 1) / 2
        torch.testing.assert_close(place, centre, rtol=0, atol=1e-11)
        lag = 1000 * data.downscale(ramp, factor, "bicubic_lag")[0, 0, inner, 0]
        torch.testing.assert_close(centre - lag, torch.full_like(lag, shift), rtol=0, atol=1e-11)


@pytest.mark.parametrize("kernel", degrade.DOWN)
def test_a_constant_stays_one_up_to_the_border(kernel):
    x = torch.full((1, 1, 24, 16), 0.7, dtype=torch.float64)
    torch.testing.assert_close(
        data.downscale(x, 4, kernel), torch.full((1, 1, 6, 4), 0.7, dtype=x.dtype), **EXACT
    )


def test_average_is_the_mean_of_each_square_and_agrees_with_resize():
    x = random_bytes(2, 3, 24, 36)
    means = x.double().view(2, 3, 4, 6, 6, 6).mean((3, 5))
    ours = data.downscale(x.double() / 255, 6, "average")
    torch.testing.assert_close(ours, means / 255, **EXACT)
    square = random_bytes(2, 3, 32, 32, seed=1)
    whole = (255 * data.downscale(square.double() / 255, 4, "average")).round().to(torch.uint8)
    # a mean of 16 bytes that lies half way may fall either way after the division by 255
    assert (whole.int() - data.resize(square, 8).int()).abs().max() <= 1
    assert (whole != data.resize(square, 8)).float().mean() < 0.05


def test_nearest_repeats_every_pixel():
    x = noise(1, 3, 4, 5)
    expected = x.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert torch.equal(data.upscale(x, 3, "nearest"), expected)
    back = data.downscale(data.upscale(x, 4, "nearest"), 4, "average")
    torch.testing.assert_close(back, x, **EXACT)


# --- bytes, as MATLAB ---------------------------------------------------------------------------


def test_imresize_of_bytes_is_matlab_in_whole_numbers():
    x = random_bytes(3, 3, 32, 44)
    x[0, :, 8:24, 12:30] = 255  # overshoots and is clipped between the axes
    ours = data.imresize(x, (8, 11))
    assert ours.dtype == torch.uint8
    assert torch.equal(ours, matlab_bytes(x, (8, 11)))
    assert not torch.equal(ours, matlab_bytes(x, (8, 11), vertical_first=False))
    once = 255 * data.downscale(x.double() / 255, 4)
    differ = (once.clamp(0, 255).add(0.5).floor() != ours).double().mean()
    assert differ > 0.05  # rounding once is not what MATLAB does to bytes


def test_the_axis_that_shrinks_more_comes_first():
    x = random_bytes(1, 1, 12, 32)
    across = data.imresize(x, (12, 8))  # one axis alone: no order
    expected = data.imresize(across, (6, 8))
    assert torch.equal(data.imresize(x, (6, 8)), expected)
    other = data.imresize(data.imresize(x, (6, 32)), (6, 8))
    assert not torch.equal(expected, other)


def pairs_of(file: Path, every: int = 1):
    """(name, high, low resolution) of a tar with SET/HR/*.webp and SET/LR_x4/*.webp."""
    with tarfile.open(file) as archive:
        names = [n for n in sorted(archive.getnames()) if "/HR/" in n][::every]
        for name in names:
            parts = (archive.extractfile(n).read() for n in (name, name.replace("HR", "LR_x4")))
            yield name, *(
                torch.from_numpy(np.array(Image.open(io.BytesIO(p)).convert("RGB")))
                .permute(2, 0, 1)[None]
                for p in parts
            )  # fmt: skip


def agreement(file: Path, every: int = 1) -> tuple[int, float]:
    """(largest difference in grey levels, share of equal bytes) of `imresize` with the file."""
    worst, equal, count = 0, 0, 0
    for _, high, low in pairs_of(file, every):
        gap = (data.imresize(high, tuple(low.shape[2:])).int() - low.int()).abs()
        worst, equal, count = max(worst, int(gap.max())), equal + int((gap == 0).sum()), \
            count + gap.numel()  # fmt: skip
    return worst, equal / count


def test_matlab_made_the_low_resolution_images_of_the_test_sets():
    file = next((f / PAIRS for f in paths.data_dirs() if (f / PAIRS).is_file()), None)
    if file is None:
        pytest.skip(f"needs {PAIRS} in a folder of LATENTPAPERS_DATA")
    # required: 1 grey level and 99.5 %; measured on all 119 pairs: every byte equal
    assert agreement(file, every=7) == (0, 1.0)


def test_the_comparison_with_a_pack_sees_a_wrong_byte(tmp_path):
    file, high = tmp_path / "pairs.tar", random_bytes(1, 3, 24, 32)
    low = matlab_bytes(high, (6, 8))
    low[0, 1, 2, 3] ^= 2
    with tarfile.open(file, "w") as archive:
        for name, image in (("Set1/HR/a.webp", high), ("Set1/LR_x4/a.webp", low)):
            buffer = io.BytesIO()
            Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(buffer, "WEBP", lossless=True)
            entry = tarfile.TarInfo(name)
            entry.size = len(buffer.getvalue())
            archive.addfile(entry, io.BytesIO(buffer.getvalue()))
    assert agreement(file) == (2, 1 - 1 / low.numel())


# --- gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", degrade.DOWN)
def test_gradients_of_downscale(kernel):
    x = noise(1, 2, 6, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: data.downscale(x, 2, kernel), x)
    assert torch.autograd.gradgradcheck(lambda x: data.downscale(x, 2, kernel) ** 2, x)


@pytest.mark.parametrize("kernel", degrade.UP)
def test_gradients_of_upscale(kernel):
    x = noise(1, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: data.upscale(x, 3, kernel), x)
    assert torch.autograd.gradgradcheck(lambda x: data.upscale(x, 3, kernel) ** 2, x)


@pytest.mark.parametrize("kernel", degrade.BICUBIC)
def test_the_adjoint_is_the_transposed_matrix_at_borders_and_between_tiles(kernel):
    x = noise(2, 3, 160, 96).requires_grad_()
    weight = noise(2, 3, 40, 24, seed=1)
    (gradient,) = torch.autograd.grad((weight * data.downscale(x, 4, kernel)).sum(), x)
    rows, columns = matrix(160, 40, kernel), matrix(96, 24, kernel)
    torch.testing.assert_close(gradient, rows.T @ weight @ columns, **EXACT)
    # control: an adjoint that forgets what lies beyond the border
    rows[0, 0] /= 2
    assert not torch.allclose(gradient, rows.T @ weight @ columns, **EXACT)


def test_torch_antialias_agrees_inside_and_not_at_the_border():
    """Torch cuts its window off at the border, MATLAB repeats pixels there: not interchangeable."""
    x = noise(1, 3, 64, 64)
    ours = data.downscale(x, 4)
    torchs = F.interpolate(x, scale_factor=0.25, mode="bicubic", antialias=True)
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(ours[inner], torchs[inner], **EXACT)
    assert (ours - torchs).abs().max() > 0.01  # more than two grey levels


# --- one operator, many ways to compute it ------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "size"),
    [(1024, 256), (1000, 250), (129, 43), (64, 2), (5, 1), (32, 128), (37, 111), (100, 71), (1, 8)],
)
def test_tiles_are_the_dense_matrix(length, size):
    kernels = degrade.BICUBIC if size * (length // size) == length else degrade.BICUBIC[:2]
    for kernel in kernels:
        spec = degrade._Axis(kernel, length, size)
        dense = degrade._dense(spec, torch.float64, "cpu")
        for turned, whole in ((False, dense), (True, dense.T)):
            built = torch.zeros_like(whole)
            for start, low, block in degrade._tiles(
                spec._replace(transposed=turned), torch.float64
            ):
                rows, columns = block.shape
                built[start : start + rows, low : low + columns] += block
            assert torch.equal(built, whole)


def test_precision_layout_and_batch_do_not_matter():
    x = noise(3, 3, 64, 96)
    exact = data.downscale(x, 4)
    single = data.downscale(x.float(), 4)
    assert single.dtype == torch.float32
    # 32 products of numbers below 1, in float32
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=4e-7)
    for kernel in degrade.DOWN:
        last = x.to(memory_format=torch.channels_last)
        expected = data.downscale(x, 4, kernel)
        torch.testing.assert_close(data.downscale(last, 4, kernel), expected, **EXACT)
        torch.testing.assert_close(data.downscale(x[1:2], 4, kernel), expected[1:2], **EXACT)
        across = x.transpose(2, 3)  # not contiguous
        turned = data.downscale(across, 4, kernel)
        torch.testing.assert_close(turned, expected.transpose(2, 3), **EXACT)


def test_mixed_precision_leaves_it_alone():
    x = noise(1, 3, 32, 32, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = data.downscale(x, 4)
    assert torch.equal(inside, data.downscale(x, 4))
    half = data.downscale(x.bfloat16(), 4)
    assert half.dtype == torch.float32
    assert torch.equal(half, data.downscale(x.bfloat16().float(), 4))


@pytest.mark.parametrize("kernel", degrade.DOWN)
def test_it_compiles_without_a_break(kernel):
    def objective(x):
        return (data.downscale(x, 4, kernel) ** 2).sum()

    x = noise(1, 3, 16, 24).requires_grad_()
    compiled = torch.compile(objective, backend="eager", fullgraph=True)
    ours, plain = compiled(x), objective(x)
    torch.testing.assert_close(ours, plain, rtol=1e-13, atol=0)
    gradients = (torch.autograd.grad(value, x)[0] for value in (ours, plain))
    torch.testing.assert_close(*gradients, **EXACT)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kernel", degrade.DOWN)
def test_the_same_on_a_gpu(kernel):
    x = noise(2, 3, 64, 96).requires_grad_()
    y = x.detach().cuda().requires_grad_()
    ours, theirs = data.downscale(x, 4, kernel), data.downscale(y, 4, kernel)
    torch.testing.assert_close(theirs.cpu(), ours, **EXACT)
    (a,), (b,) = (torch.autograd.grad((v**2).sum(), i) for v, i in ((ours, x), (theirs, y)))
    torch.testing.assert_close(b.cpu(), a, **EXACT)


# --- colours ------------------------------------------------------------------------------------


def test_round_colours_finds_the_nearest_step():
    x = 2 * noise(1000) - 1
    for reading, step in (("code", 8 / 255), ("paper", 2 / 255)):
        y = data.round_colours(x, reading)
        places = y / step
        torch.testing.assert_close(places, places.round(), rtol=0, atol=1e-12)
        assert (y - x).abs().max() <= step / 2 + 1e-15
        assert (y - x).abs().max() > 0.49 * step  # control: it does move
        half = data.round_colours((x + 1) / 2, reading, span=1)
        assert (half - (x + 1) / 2).abs().max() <= step / 4 + 1e-15
    assert data.round_colours(torch.tensor([4.0, 12.0]).double() / 255).tolist() == [0.0, 16 / 255]


def test_round_colours_gives_the_authors_numbers_and_not_the_print():
    """LAG rounds by round(127.5/4 x) / (127.5/4); the print, round(x r) / r, always gives 0."""
    x = noise(100)
    assert torch.equal(data.round_colours(x), (x * 31.875).round() / 31.875)
    r = 2 / 255
    assert torch.equal((x * r).round(), torch.zeros_like(x))
    torch.testing.assert_close(data.round_colours(x, "paper"), r * (x / r).round(), **EXACT)


def test_its_gradient_is_the_identity_and_its_value_has_none():
    x = noise(50).requires_grad_()
    weight = noise(50, seed=1)
    for reading in degrade.READINGS:
        (gradient,) = torch.autograd.grad((weight * data.round_colours(x, reading)).sum(), x)
        assert torch.equal(gradient, weight)
    # finite differences see the staircase: flat, or a jump
    with torch.no_grad():
        change = data.round_colours(x + 1e-6) - data.round_colours(x)
    assert ((change == 0) | (change > 0.03)).all()
    assert (change == 0).double().mean() > 0.9
    plain = (x * 31.875).round() / 31.875
    assert not torch.autograd.grad(plain.sum(), x)[0].any()  # control: what it would be otherwise


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: data.downscale(random_bytes(1, 3, 8, 8), 4), "uint8"),
        (lambda: data.downscale(noise(3, 8, 8), 4), "N, C, H, W"),
        (lambda: data.downscale(noise(0, 3, 8, 8), 4), "empty"),
        (lambda: data.downscale(noise(1, 3, 9, 8), 4), "crop to 8 x 8"),
        (lambda: data.downscale(noise(1, 3, 8, 8), 0), "at least 1"),
        (lambda: data.downscale(noise(1, 3, 8, 8), 2.0), "whole number"),
        (lambda: data.downscale(noise(1, 3, 8, 8), True), "whole number"),
        (lambda: data.downscale(255 * noise(1, 3, 8, 8), 4), "divide bytes by 255"),
        (lambda: data.upscale(255 * noise(1, 3, 8, 8), 4), "divide bytes by 255"),
        (lambda: data.upscale(noise(1, 3, 8), 4), "N, C, H, W"),
        (lambda: data.imresize(noise(1, 3, 8, 8), (0, 4)), "at least 1"),
        (lambda: data.imresize(noise(1, 3, 8, 8), (4, 2.5)), "whole pixels"),
        (lambda: data.imresize(random_bytes(3, 8, 8), (4, 4)), "N, C, H, W"),
        (lambda: data.round_colours(torch.arange(3)), "floats"),
        (lambda: data.round_colours(noise(3), span=0), "span > 0"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(call, what):
    with pytest.raises(UserError, match=what):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: data.downscale(noise(1, 3, 8, 8), 4, "lanczos"),
        lambda: data.upscale(noise(1, 3, 8, 8), 4, "average"),
        lambda: data.imresize(noise(1, 3, 8, 8), (4, 4), "bicubic_lag"),
        lambda: data.round_colours(noise(3), "print"),
    ],
)
def test_unknown_names_are_refused(call):
    with pytest.raises(UnknownName, match="known"):
        call()


def test_a_network_output_is_no_image_and_is_not_checked():
    x = (1000 * noise(1, 3, 8, 8)).requires_grad_()
    assert data.downscale(x, 4).max() > 64
