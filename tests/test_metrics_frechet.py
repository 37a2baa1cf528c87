"""The Frechet distance: closed forms, references in float64, few images, bias and interval."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from latentpapers.errors import UserError
from latentpapers.metrics import frechet
from latentpapers.metrics.frechet import frechet_distance


def sample(n, width, seed=0, shift=0.0, mix=True):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, generator=g, dtype=torch.float64)
    if mix:
        x = x @ torch.randn(width, width, generator=g, dtype=torch.float64) / math.sqrt(width)
    return x + shift


def by_matrix_root(x, y):
    """The textbook formula with SciPy's root of a matrix."""
    s, t = (np.cov(v.numpy(), rowvar=False) for v in (x, y))
    mean = ((x.mean(0) - y.mean(0)) ** 2).sum().item()
    return mean + np.trace(s + t - 2 * scipy.linalg.sqrtm(s @ t).real)


def by_eigenvalues(x, y):
    """The same with the eigenvalues of S1 S2, for singular covariances."""
    s, t = (np.cov(v.numpy(), rowvar=False) for v in (x, y))
    roots = np.sqrt(np.clip(np.linalg.eigvals(s @ t).real, 0, None)).sum()
    return ((x.mean(0) - y.mean(0)) ** 2).sum().item() + np.trace(s + t) - 2 * roots


# --- the value ---------------------------------------------------------------------------------


def test_closed_form_of_independent_gaussians():
    a, b = torch.tensor([1.0, 4, 9, 0]), torch.tensor([4.0, 4, 1, 2])
    one = frechet.from_covariance(torch.zeros(4), torch.diag(a))
    two = frechet.from_covariance(torch.arange(4.0), torch.diag(b))
    expected = 14 + float((a.sqrt() - b.sqrt()).square().sum())
    assert frechet.distance(one, two) == pytest.approx(expected, rel=1e-12)  # float64
    without_roots = 14 + float((a - b).abs().sum())
    assert frechet.distance(one, two) != pytest.approx(without_roots, rel=0.1)  # control


def test_equal_to_scipy_and_torch_fidelity():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    x, y = sample(300, 24), sample(260, 24, seed=1, shift=0.3)
    ours = frechet_distance(x, y)
    assert ours == pytest.approx(by_matrix_root(x, y), rel=1e-9)  # a root costs half the digits
    stats = (fid_features_to_statistics(v) for v in (x, y))
    theirs = fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(ours, rel=1e-12)  # the order of sums


@pytest.mark.parametrize(("n", "m"), [(20, 30), (20, 200), (200, 20), (2, 3), (50, 50)])
def test_fewer_images_than_features(n, m):
    x, y = sample(n, 50), sample(m, 50, seed=1, shift=0.2)
    # zero eigenvalues come out near 1e-16 and their roots near 1e-8, 50 of them, on a value of 50
    assert frechet_distance(x, y) == pytest.approx(by_eigenvalues(x, y), rel=1e-6)


def test_both_ways_to_a_root_agree():
    x, y = sample(40, 30), sample(60, 30, seed=1)
    cov = [torch.from_numpy(np.cov(v.numpy(), rowvar=False)) for v in (x, y)]
    published = [frechet.from_covariance(v.mean(0), c) for v, c in zip((x, y), cov)]
    assert frechet.distance(*published) == pytest.approx(frechet_distance(x, y), rel=1e-10)


@pytest.mark.parametrize("n", [10, 40, 400])
def test_equal_sets_are_at_zero_and_never_below(n):
    x = sample(n, 40)
    x = torch.cat([x, x[:, :5], torch.zeros(n, 3), torch.ones(n, 2)], 1)  # singular covariance
    for y in (x, x.flip(0), x + 1e-12):
        # the root of rounding: 50 eigenvalues of 1e-16 of the largest, on a trace of 45
        assert 0 <= frechet_distance(x, y) < 1e-5
    assert frechet_distance(x, x + 0.1) == pytest.approx(50 * 0.01, rel=1e-4)


def test_singular_features_with_many_images():
    x, y = sample(300, 10), sample(300, 10, seed=1, shift=0.5)
    wide = [torch.cat([v, v[:, :4], torch.zeros(300, 2)], 1) for v in (x, y)]
    assert frechet_distance(*wide) == pytest.approx(by_eigenvalues(*wide), rel=1e-6)


def test_how_it_transforms():
    x, y = sample(100, 12), sample(90, 12, seed=1)
    value = frechet_distance(x, y)
    turn = torch.linalg.qr(sample(12, 12, seed=2)).Q
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(value, rel=1e-10)
    assert frechet_distance(3 * x, 3 * y) == pytest.approx(9 * value, rel=1e-10)
    assert frechet_distance(x.flip(0), y.roll(7, 0)) == pytest.approx(value, rel=1e-12)
    assert frechet_distance(x + 5, y + 5) == pytest.approx(value, rel=1e-10)


def test_float32_features_far_from_zero():
    x, y = (v.float() + 1000 for v in (sample(200, 8), sample(200, 8, seed=1)))
    assert frechet_distance(x, y) == pytest.approx(by_matrix_root(x.double(), y.double()), rel=1e-8)
    single = [np.mean(v.numpy().astype(np.float32) ** 2, 0, dtype=np.float32) - 1e6 for v in (x, y)]
    assert np.abs(single[0] - x.double().var(0).numpy()).max() > 0.01  # control: single is lost


def test_blocks_of_images_do_not_matter(monkeypatch):
    x, y = sample(100, 12), sample(90, 12, seed=1)
    whole = frechet_distance(x, y)
    monkeypatch.setattr(frechet, "_BLOCK", 7)
    assert frechet_distance(x, y) == pytest.approx(whole, rel=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_gpu_agrees():
    x, y = sample(100, 12), sample(90, 12, seed=1)
    assert frechet_distance(x.cuda(), y.cuda()) == pytest.approx(frechet_distance(x, y), rel=1e-9)


# --- bias and interval -------------------------------------------------------------------------


def test_few_images_make_it_too_large_and_extrapolation_mends_it():
    shift = 0.2
    truth = 16 * shift**2
    plain, mended = [], []
    for seed in range(8):
        x = sample(320, 16, seed=2 * seed, mix=False)
        y = sample(320, 16, seed=2 * seed + 1, shift=shift, mix=False)
        plain.append(frechet_distance(x, y))
        mended.append(frechet.frechet_infinity(x, y).value)
        assert frechet_distance(x[:80], y[:80]) > plain[-1]
    assert np.mean(plain) - truth > 0.1
    # noise of the mean of 8: about 0.03
    assert np.mean(mended) == pytest.approx(truth, abs=0.1)


def test_interval_covers_its_own_expectation():
    def draw(seed):
        return sample(150, 4, seed=2 * seed, mix=False), sample(
            150, 4, 2 * seed + 1, 0.5, mix=False
        )

    truth = np.mean([frechet_distance(*draw(s)) for s in range(100, 300)])
    found = [frechet.frechet_score(*draw(s)) for s in range(40)]
    # 95 % promised: 38 of 40; 33 or fewer happen once in 200 times
    assert sum(f.low <= truth <= f.high for f in found) >= 34
    assert np.mean([f.high - f.low for f in found]) < truth  # control: it says something
    assert "biased upwards" in found[0].method
    assert found[0] == frechet.frechet_score(*draw(0))


def test_moments_without_a_group_are_those_of_the_rest():
    x = sample(61, 5, shift=30)
    index = list(torch.randperm(61, generator=torch.Generator().manual_seed(0)).split(20))[:3]
    for group, found in zip(index, frechet._downdated(x, index), strict=True):
        rest = torch.ones(61, dtype=torch.bool).index_fill(0, group, False)
        expected = frechet.moments(x[rest])
        assert found.n == expected.n
        assert torch.allclose(found.mean, expected.mean, rtol=1e-12)
        assert torch.allclose(found.root, expected.root, rtol=1e-9, atol=1e-12)
        whole = frechet.moments(x)
        assert not torch.allclose(found.root, whole.root, rtol=1e-3)  # control


def test_outputs_for_one_input_stay_together():
    g = torch.Generator().manual_seed(0)
    real = sample(200, 4, mix=False)
    widths = {1: 0.0, 5: 0.0}
    for _ in range(4):  # a jackknife's own error over 20 groups is a sixth
        centres = torch.randn(40, 1, 4, generator=g, dtype=torch.float64)
        noise = torch.randn(40, 5, 4, generator=g, dtype=torch.float64)
        fake = (centres + 0.05 * noise).flatten(0, 1)
        for together in widths:
            found = frechet.frechet_score(real, fake, parts=20, together=together)
            widths[together] += found.high - found.value
    assert widths[5] > 1.3 * widths[1]  # five outputs count as one draw: up to sqrt(5) on this part


def test_published_statistics_are_taken_as_exact():
    x, y = sample(200, 6), sample(180, 6, seed=1, shift=0.3)
    published = frechet.from_covariance(x.mean(0), torch.from_numpy(np.cov(x.numpy().T)), 200)
    given, measured = frechet.frechet_score(published, y), frechet.frechet_score(x, y)
    assert given.value == pytest.approx(measured.value, rel=1e-10)
    assert given.n == 180
    assert frechet.frechet_infinity(published, y).value < given.value


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.ones(1, 3), "at least 2"),
        (torch.ones(5), "float features"),
        (torch.ones(5, 3, dtype=torch.long), "float features"),
        (np.ones((5, 3)), "float features"),
        (torch.full((5, 3), torch.inf), "infinity"),
        (torch.rand(5, 4), "4 features"),
    ],
)
def test_bad_features_are_refused(x, words):
    with pytest.raises(UserError, match=words):
        frechet_distance(x, torch.rand(5, 3))


@pytest.mark.parametrize(
    ("mean", "covariance", "words"),
    [
        (torch.zeros(3), torch.eye(2), "belong together"),
        (torch.zeros(2), torch.tensor([[1.0, 0.5], [0.2, 1]]), "symmetric"),
        (torch.zeros(2), torch.tensor([[1.0, 2], [2, 1]]), "negative variance"),
        (torch.full((2,), torch.nan), torch.eye(2), "NaN"),
    ],
)
def test_bad_statistics_are_refused(mean, covariance, words):
    with pytest.raises(UserError, match=words):
        frechet.from_covariance(mean, covariance)


def test_too_few_images_for_an_interval():
    with pytest.raises(UserError, match="groups of 2"):
        frechet.frechet_score(sample(19, 3), sample(19, 3))
    with pytest.raises(UserError, match="groups of 2"):
        frechet.frechet_score(sample(50, 3), sample(50, 3), together=3)
    with pytest.raises(UserError, match="2 sample sizes"):
        frechet.frechet_infinity(sample(50, 3), sample(50, 3), fractions=(2,))
