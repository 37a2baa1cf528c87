"""Density, coverage, precision, recall: exact counts, whatever the block, precision or order."""

import numpy as np
import prdc
import pytest
import torch

from latentpapers import metrics
from latentpapers.errors import UserError
from latentpapers.metrics import density
from latentpapers.metrics.density import density_coverage

NAMES = ("density", "coverage", "precision", "recall")


def gaussians(n, m, width, seed=0, dtype=torch.float64, shift=0.1, scale=0.95):
    g = torch.Generator().manual_seed(seed)
    real = torch.randn(n, width, generator=g, dtype=torch.float64)
    fake = torch.randn(m, width, generator=g, dtype=torch.float64) * scale + shift
    return real.to(dtype), fake.to(dtype)


def by_hand(real, fake, k):
    """The definition, pair by pair, by subtraction in float64."""
    a, b = (x.double().numpy() for x in (real, fake))

    def squared(x, y):
        return np.square(x[:, None] - y[None]).sum(2)

    def radii(x):
        own = squared(x, x)
        np.fill_diagonal(own, np.inf)
        return np.sort(own, 1)[:, k - 1]

    between = squared(a, b)
    inside = between < radii(a)[:, None]
    recalled = (between < radii(b)[None]).any(1)
    return {
        "density": inside.sum() / (k * len(b)),
        "coverage": inside.any(1).mean(),
        "precision": inside.any(0).mean(),
        "recall": recalled.mean(),
    }


def agrees(found, expected):
    # counts are integers; 1e-12 is the rounding of one division
    assert {n: getattr(found, n) for n in NAMES} == pytest.approx(expected, abs=1e-12)


# --- against the reference ---------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize(("n", "m", "width"), [(130, 90, 3), (80, 120, 40)])
def test_equal_to_prdc_in_float64(n, m, width, k, capsys):
    real, fake = gaussians(n, m, width)
    theirs = prdc.compute_prdc(real.numpy(), fake.numpy(), k)
    for dtype in (torch.float32, torch.float64):
        agrees(density_coverage(real, fake, k, recall=True, dtype=dtype, block=50), theirs)
    swapped = prdc.compute_prdc(fake.numpy(), real.numpy(), k)
    assert swapped["density"] != theirs["density"]  # control: the order of arguments matters


def test_equal_to_prdc_in_float32_features(capsys):
    real, fake = gaussians(300, 280, 64, dtype=torch.float32)
    theirs = prdc.compute_prdc(real.numpy(), fake.numpy(), 5)
    found = density_coverage(real, fake, 5, recall=True)
    # prdc rounds distances to float32, which can turn a comparison; 1e-3 is the promise
    assert {n: getattr(found, n) for n in NAMES} == pytest.approx(theirs, abs=1e-3)


def test_the_package_offers_it():
    real, fake = gaussians(20, 20, 3)
    assert metrics.density_coverage(real, fake, k=5).coverage > 0


# --- exactness ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [7, 64])
def test_ties_and_repeated_rows(dtype, block):
    g = torch.Generator().manual_seed(1)
    real = torch.randint(0, 4, (90, 3), generator=g).float()  # whole numbers: distances tie often
    fake = torch.cat([real[:40], torch.randint(0, 4, (30, 3), generator=g).float()])
    for k in (1, 3, 5):
        found = density_coverage(real, fake, k, recall=True, dtype=dtype, block=block)
        agrees(found, by_hand(real, fake, k))


def test_a_copy_of_the_kth_neighbour_lies_on_the_ball():
    real = torch.randn(12, 30, generator=torch.Generator().manual_seed(0))
    found = density_coverage(real, real.clone(), 4)
    # inside each ball: the point itself and its 3 nearer neighbours; the 4th lies on it
    assert found.real_hits.tolist() == [4] * 12
    assert (found.density, found.coverage) == (1.0, 1.0)
    assert density_coverage(real, real * (1 + 1e-6), 4).real_hits.tolist() != [3] * 12  # control


def far_from_zero(n, m, width):
    real, fake = gaussians(n, m, width)
    return (real + 3000).float(), (fake + 3000).float()


def tight(n, m, width):
    """Generated points in one spot, relative noise 1e-5: float32 products cannot rank them."""
    real, fake = gaussians(n, m, width)
    return real, fake[:1] + 1e-5 * fake


def tighter(n, m, width):
    """Relative noise 1e-9: nor can float64 products."""
    real, fake = gaussians(n, m, width)
    return real, fake[:1] + 1e-9 * fake


def outlier(n, m, width):
    real, fake = gaussians(n, m, width)
    real[3] *= 1e5
    return real.float(), fake.float()


@pytest.mark.parametrize("make", [far_from_zero, tight, tighter, outlier])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hard_cases_are_exact(make, dtype):
    real, fake = make(70, 60, 24)
    found = density_coverage(real, fake, 5, recall=True, dtype=dtype, block=32)
    agrees(found, by_hand(real, fake, 5))


def test_control_plain_float32_products_are_wrong():
    real, fake = far_from_zero(70, 60, 24)

    def products(x, y):
        return x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T

    own = products(real, real).fill_diagonal_(torch.inf)
    inside = products(real, fake) < own.kthvalue(5, 1).values[:, None]
    assert inside.sum() / (5 * 60) != pytest.approx(by_hand(real, fake, 5)["density"], abs=0.01)


def test_a_huge_and_a_tiny_scale():
    real, fake = gaussians(60, 50, 8)
    expected = by_hand(real, fake, 5)
    for scale in (1e25, 1e-25):  # squares leave float32
        scaled = (x.float().double() * scale for x in (real, fake))
        agrees(density_coverage(*(x.float() for x in scaled), 5, recall=True), expected)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_taken_as_they_are(half):
    real, fake = (x.to(half) for x in gaussians(60, 50, 8))
    agrees(density_coverage(real, fake, recall=True), by_hand(real, fake, 5))


def test_independent_of_order_and_block():
    real, fake = gaussians(150, 130, 6, dtype=torch.float32)
    first = density_coverage(real, fake, recall=True)
    a, b = (
        torch.randperm(len(x), generator=torch.Generator().manual_seed(2)) for x in (real, fake)
    )
    other = density_coverage(real[a], fake[b], recall=True, block=31)
    assert torch.equal(other.real_hits, first.real_hits[a])
    assert torch.equal(other.fake_hits, first.fake_hits[b])
    assert other.recall == first.recall


def test_reduced_matmul_precision_of_the_caller_does_not_matter():
    real, fake = gaussians(100, 100, 32, dtype=torch.float32)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = density_coverage(real, fake, recall=True)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    agrees(found, by_hand(real, fake, 5))


def test_never_a_matrix_of_all_pairs(monkeypatch):
    real, fake = gaussians(500, 400, 8, dtype=torch.float32)
    sizes = []

    def seen(*args):
        sizes.append(products(*args))
        return sizes[-1]

    products = density._lows
    monkeypatch.setattr(density, "_lows", seen)
    density_coverage(real, fake, recall=True, block=64, resamples=10)
    assert max(x.numel() for x in sizes) == 64 * 64
    # each pair of real and of generated points once, each pair between them once
    pairs = sum(x.numel() for x in sizes)
    assert 500 * 400 + (500**2 + 400**2) / 2 <= pairs < 1.25 * (500 * 400 + (500**2 + 400**2) / 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gpu_gives_the_same_counts(dtype):
    real, fake = gaussians(500, 400, 64, dtype=torch.float32)
    here = density_coverage(real, fake, recall=True)
    there = density_coverage(real.cuda(), fake.cuda(), recall=True, dtype=dtype)
    assert torch.equal(here.real_hits, there.real_hits)
    assert here.recall == there.recall


# --- what it measures --------------------------------------------------------------------------


def test_precision_is_not_recall():
    real, fake = gaussians(200, 200, 6, scale=0.4)
    forth, back = (density_coverage(*pair, recall=True) for pair in ((real, fake), (fake, real)))
    assert (forth.precision, forth.recall) == (back.recall, back.precision)
    assert forth.precision > forth.recall + 0.2  # narrow: faithful, not varied
    assert density_coverage(real, fake).recall is None


def test_mode_collapse_and_noise():
    real, fake = gaussians(300, 300, 6, shift=0, scale=1)
    good = density_coverage(real, fake)
    collapsed = density_coverage(real, real[:1] + 0.01 * fake)
    assert collapsed.coverage < 0.1 < 0.9 < good.coverage
    assert collapsed.precision == 1  # each of them looks real
    assert density_coverage(real, fake + 50).coverage == 0
    doubled = density_coverage(real, fake.repeat(2, 1))  # the same pictures twice
    assert (doubled.density, doubled.coverage) == (good.density, good.coverage)


# --- intervals ---------------------------------------------------------------------------------


def test_interval_covers_what_fresh_samples_give():
    def measure(seed, resamples=100):
        return density_coverage(*gaussians(150, 150, 4, seed=seed), resamples=resamples)

    truth = {n: np.mean([getattr(measure(s, 0), n) for s in range(100, 200)]) for n in NAMES[:2]}
    found = [density.scores(measure(s)) for s in range(40)]
    for name in NAMES[:2]:
        hits = sum(f[name].low <= truth[name] <= f[name].high for f in found)
        # 95 % promised: 33 or fewer of 40 happen once in 200 times
        assert hits >= 34, (name, hits)
    widths = [f["coverage"].high - f["coverage"].low for f in found]
    assert max(widths) < 0.25  # control: it says something


def test_interval_is_repeatable_and_says_how():
    real, fake = gaussians(100, 80, 4)
    a, b = (density.scores(density_coverage(real, fake, resamples=50)) for _ in range(2))
    assert a == b
    assert a["density"].n == 80
    assert "bootstrap" in a["density"].method
    other = density.scores(density_coverage(real, fake, resamples=50, seed=1))
    assert other["density"].low != a["density"].low
    assert 0 <= a["coverage"].low <= a["coverage"].value <= a["coverage"].high <= 1
    with pytest.raises(UserError, match="resamples"):
        density.scores(density_coverage(real, fake))


def test_resamples_of_repeated_rows_count_rows():
    real, fake = gaussians(60, 40, 4)
    twice = fake.repeat(2, 1)
    draws = density_coverage(real, twice, resamples=300).draws
    value = density_coverage(real, fake).density
    spread = draws[0].std() / np.sqrt(300)
    assert abs(draws[0].mean() - value) < 5 * spread  # density is linear in the weights


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 10}, "k = 10 with n = 10"),
        ({"k": 0}, "k = 0"),
        ({"real": torch.ones(10, 3, dtype=torch.long)}, "floats"),
        ({"real": torch.ones(10)}, "floats"),
        ({"real": np.ones((10, 3))}, "ndarray"),
        ({"fake": torch.full((10, 3), torch.nan)}, "NaN"),
        ({"fake": torch.ones(10, 4)}, "cannot be compared"),
        ({"fake": torch.ones(10, 3).double()}, "cannot be compared"),
        ({"fake": torch.ones(0, 3)}, "floats"),
        ({"fake": torch.ones(4, 3), "recall": True}, "k = 5 with n = 4"),
        ({"dtype": torch.float16}, "float32 or float64"),
        ({"block": 0}, "at least one row"),
    ],
)
def test_bad_input_is_refused(change, words):
    given = {"real": torch.rand(10, 3), "fake": torch.rand(10, 3), "k": 5} | change
    with pytest.raises(UserError, match=words):
        density_coverage(given.pop("real"), given.pop("fake"), **given)


def test_one_generated_image_is_enough_for_the_plain_counts():
    real = torch.arange(6.0)[:, None]
    found = density_coverage(real, torch.tensor([[2.1]]), 1)
    assert found.real_hits.tolist() == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_features_are_left_as_they_were(dtype):
    real, fake = gaussians(30, 30, 5, dtype=dtype)
    before = real.clone(), fake.clone()
    density_coverage(real, fake, recall=True, resamples=5)
    assert torch.equal(real, before[0])
    assert torch.equal(fake, before[1])
