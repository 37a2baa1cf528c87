"""Measures of latent walks, against scikit-learn, scipy and constructed cases."""

import numpy as np
import pytest
import torch
from scipy import stats

from latentpapers import tensorfile
from latentpapers.errors import Corrupt, Missing, UserError
from latentpapers.metrics import frechet, projected, walks


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_realism_is_scikit_learns_mean_neighbour_distance():
    from sklearn.neighbors import NearestNeighbors

    x, real = noise(20, 7, seed=1), noise(50, 7, seed=2)
    distance, _ = NearestNeighbors(n_neighbors=5).fit(real.numpy()).kneighbors(x.numpy())
    np.testing.assert_allclose(walks.realism(x, real), distance.mean(1), rtol=1e-9)
    far = walks.realism(x + 3, real)
    assert far.mean() > walks.realism(x, real).mean()  # control
    with pytest.raises(UserError, match="real images"):
        walks.realism(x, real[:4])


def test_similarity_is_1_for_the_same_and_0_for_unrelated_images():
    centre = 4 + noise(300)
    a, b = centre + noise(40, 300, seed=1), centre + noise(40, 300, seed=2)
    np.testing.assert_allclose(walks.similarity(a, a, centre), 1, rtol=1e-9)
    assert walks.similarity(a, b, centre).abs().max() < 5 / 300**0.5
    # control: without the centre everything looks alike
    assert walks.similarity(a, b, torch.zeros(300, dtype=torch.float64)).min() > 0.8


def test_rank_correlation_is_scipys_and_its_interval_covers():
    x = noise(60)
    y = x + noise(60, seed=3)
    found = walks.rank_correlation(x, y)
    assert found.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.low < found.value < found.high
    assert found.low > 0
    none = walks.rank_correlation(x, noise(60, seed=9))
    assert none.low < 0 < none.high
    with pytest.raises(UserError, match="vary"):
        walks.rank_correlation(x, torch.ones(60))


def sets(n=40, settings=6, shift=0.0, seed=0):
    """Settings of equal quality; the last is better by `shift`."""
    base = noise(settings, n, 5, seed=seed) + 1.0
    base[-1] -= shift
    real = frechet.moments(noise(4000, 5, seed=77))
    return walks.Sets(tuple(f"s{i}" for i in range(settings)), base, real)


def test_the_best_of_equals_looks_better_than_it_is_and_held_out_does_not():
    rows, paper, honest, plain = torch.arange(40), [], [], []
    for seed in range(25):
        found = sets(seed=seed)
        halves = [found.distances(h) for h in (rows[::2], rows[1::2])]
        paper.append(float(torch.stack([h.min() for h in halves]).mean()))
        honest.append(walks.held_out(found, rows, splits=2, seed=seed))
        plain.append(float(torch.stack(halves).mean()))
    # all settings are equal: an honest choice costs and gains nothing; 25 tables, 5 standard errors
    error = 5 * np.std(np.subtract(honest, plain), ddof=1) / 5
    assert np.mean(honest) == pytest.approx(np.mean(plain), abs=error)
    assert np.mean(paper) < np.mean(plain) - error


def test_a_setting_that_is_better_is_found():
    found = sets(shift=0.8)
    name, value = walks.best(found, torch.arange(40))
    assert name == "s5"
    assert value == pytest.approx(float(found.distances(torch.arange(40))[-1]))
    assert walks.held_out(found, torch.arange(40)) < walks.held_out(sets(), torch.arange(40))
    assert found.among(["s5", "s0"]).names == ("s5", "s0")
    with pytest.raises(UserError, match="too small"):
        walks.held_out(found, torch.arange(6))


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = noise(400, seed=5)
    found = walks.jackknife(400, lambda rows: x[rows].mean()[None], groups=40)[0]
    assert found.value == pytest.approx(float(x.mean()))
    expected = float(x.std()) / 20 * stats.t.ppf(0.975, 39)
    # a spread from 40 groups is known to 1/sqrt(2 * 39) = 11 %; three of that
    assert found.high - found.value == pytest.approx(expected, rel=0.35)
    with pytest.raises(UserError, match="too small"):
        walks.jackknife(10, lambda rows: x[rows].mean()[None], groups=8)


def test_pairing_narrows_the_interval_of_a_difference():
    a = noise(200, seed=5)
    b = a + 0.1 * noise(200, seed=6) - 0.2
    paired = walks.jackknife(200, lambda r: (a[r].mean() - b[r].mean())[None])[0]
    assert paired.low > 0
    alone = walks.jackknife(200, lambda r: a[r].mean()[None])[0]
    assert paired.high - paired.low < 0.3 * (alone.high - alone.low)


def zeros_and_ones(ones, n):
    return torch.cat([torch.ones(ones), torch.zeros(n - ones)])


@pytest.mark.parametrize(("ones", "n"), [(0, 40), (3, 40), (200, 400), (40, 40)])
def test_the_interval_of_a_share_is_scipys_wilson(ones, n):
    expected = stats.binomtest(ones, n).proportion_ci(0.95, "wilson")
    found = walks.share(zeros_and_ones(ones, n))
    assert found.value == ones / n
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)


def test_the_difference_of_shares_is_newcombes():
    # Newcombe 1998, table II, method 10: 56/70 - 48/80 is 0.0524 to 0.3339, 9/10 - 3/10 0.1705
    # to 0.8090, 0/10 - 0/20 -0.1611 to 0.2775
    for (a, m), (b, n), low, high in (
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((0, 10), (0, 20), -0.1611, 0.2775),
    ):
        found = walks.share_difference(zeros_and_ones(a, m), zeros_and_ones(b, n))
        assert found.low == pytest.approx(low, abs=5e-5)  # printed to four places
        assert found.high == pytest.approx(high, abs=5e-5)


def test_a_difference_of_shares_is_newcombes_and_its_interval_covers():
    a, b = (torch.tensor([1.0] * k + [0.0] * (40 - k)) for k in (30, 12))
    ours, known = walks.difference(walks.share(a), walks.share(b)), walks.share_difference(a, b)
    assert (ours.value, ours.low, ours.high) == (known.value, known.low, known.high)
    hits = 0
    for seed in range(200):
        x, y = noise(30, seed=2 * seed) + 1.5, noise(50, seed=2 * seed + 1)
        parts = [walks.jackknife(len(v), lambda r, v=v: v[r].mean()[None])[0] for v in (x, y)]
        score = walks.difference(*parts)
        hits += score.low < 1.5 < score.high
    assert 180 <= hits <= 200  # 95 % of 200, with four standard deviations of chance
    assert not walks.difference(*parts).low < 0.0  # control: a difference of 1.5 is no 0


def test_principal_components_are_scikit_learns():
    from sklearn.decomposition import PCA

    made, real = noise(3, 20, 10, seed=1), noise(60, 10, seed=2) * torch.arange(1.0, 11.0)
    ours, moments = walks.principal(made, real, width=4)
    pca = PCA(4, svd_solver="full").fit(real.numpy())
    theirs = pca.transform(made.reshape(60, 10).numpy()).reshape(3, 20, 4)
    np.testing.assert_allclose(ours.abs(), np.abs(theirs), rtol=1e-9, atol=1e-9)  # signs are free
    variance = moments.root.square().sum(0)
    np.testing.assert_allclose(variance, pca.explained_variance_, rtol=1e-9)
    whole, _ = walks.principal(made, real, width=10)
    torch.testing.assert_close(torch.pdist(whole[0]), torch.pdist(made[0]))
    assert not torch.allclose(torch.pdist(ours[0]), torch.pdist(made[0]), rtol=0.01)  # control


def test_projected_features_keep_distances_and_come_back(tmp_path):
    x = noise(60, 1280).float()
    rows = projected.project(x)
    assert rows.shape == (60, projected.WIDTH)
    assert torch.equal(rows, projected.project(x))  # no hidden chance
    ratio = torch.pdist(rows) / torch.pdist(x)
    assert abs(float(ratio.mean()) - 1) < 0.02
    # 1 / sqrt(2 * 96) = 7 % each
    assert 0.05 < float(ratio.std()) < 0.1
    assert float((torch.pdist(rows[:, :24]) / torch.pdist(x)).mean()) < 0.6  # control
    path = tmp_path / "real.safetensors"
    projected.save(path, rows, {"data": "noise"})
    back, card = projected.load(path)
    assert card["data"] == "noise"
    step = rows.abs().amax(1, keepdim=True) / 127
    assert bool(((back - rows).abs() <= step / 2 + 1e-6).all())
    assert float((back - rows).norm() / rows.norm()) < 0.01
    assert path.stat().st_size < 60 * 110 + 500


def test_projected_features_refuse_another_file(tmp_path):
    with pytest.raises(Missing):
        projected.load(tmp_path / "nothing.safetensors")
    tensorfile.save(tmp_path / "other.safetensors", {"found": {"z": torch.zeros(2)}})
    with pytest.raises(Corrupt, match="no features"):
        projected.load(tmp_path / "other.safetensors")
