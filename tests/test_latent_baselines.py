"""Truncation and the supervised boundary, against scipy and constructed cases."""

import math

import numpy as np
import pytest
import torch
from latent_bed import codes
from scipy import stats

from latentpapers.errors import UnknownName, UserError
from latentpapers.latent import boundary, truncation


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("threshold", [1.0, 0.25])
def test_truncated_codes_follow_scipys_truncated_normal(threshold):
    z = truncation.truncated(40, 500, threshold, stream()).flatten().double().numpy()
    law = stats.truncnorm(-threshold, threshold)
    assert np.abs(z).max() <= threshold
    assert stats.kstest(z, law.cdf).pvalue > 1e-3  # fixed seed
    assert stats.kstest(z, stats.norm.cdf).pvalue < 1e-9  # control


def test_truncated_codes_are_shorter_than_the_sphere():
    for t in truncation.THRESHOLDS:
        law = stats.truncnorm(-t, t)
        assert truncation.expected_norm(512, t) == pytest.approx(
            math.sqrt(512 * law.var()), rel=1e-6
        )
        norms = truncation.truncated(400, 512, t, stream()).norm(dim=1)
        # the norm's spread is below 1/sqrt(2); 400 samples and the bias of a root of a mean
        assert float(norms.mean()) == pytest.approx(truncation.expected_norm(512, t), abs=0.2)
        assert float(norms.max()) < math.sqrt(512)


def test_resampling_keeps_what_fits():
    z = codes(50).float()
    cut = truncation.truncate_again(z, 0.5, stream())
    fits = z.abs() <= 0.5
    assert torch.equal(cut[fits], z[fits])
    assert cut.abs().max() <= 0.5
    assert (cut[~fits] != z[~fits]).all()


def test_the_authors_truncate_again_and_the_paper_afresh():
    z = codes(50).float()
    again = truncation.sequence(z, (1.0, 0.5), stream())
    same = again[1.0].abs() <= 0.5
    assert torch.equal(again[0.5][same], again[1.0][same])
    fresh = truncation.sequence(z, (1.0, 0.5), stream(), reading="paper")
    assert (fresh[0.5] == fresh[1.0]).float().mean() < 0.01
    assert fresh[1.0].shape == z.shape


def test_a_threshold_is_positive():
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="positive"):
            truncation.truncated(2, 3, bad, stream())
        with pytest.raises(UserError, match="positive"):
            truncation.expected_norm(512, bad)
    for huge in (1e3, 1e200, float("inf")):  # cuts nothing
        assert truncation.expected_norm(512, huge) == pytest.approx(math.sqrt(512))
    assert truncation.expected_norm(512, 1.0) < 0.6 * math.sqrt(512)  # control


def test_an_unknown_reading_is_not_taken_for_the_papers():
    with pytest.raises(UnknownName, match="authors"):
        truncation.sequence(codes(4), (1.0,), stream(), reading="authors")


def labelled(n=400, seed=0):
    z = codes(n, seed)
    true = codes(1, 99)[0] / math.sqrt(24)
    return z, true, z @ true > 0


def test_the_boundary_finds_the_direction_that_was_put_in():
    z, true, good = labelled()
    found = boundary.normal(z, good)
    assert float(found.norm()) == pytest.approx(1, rel=1e-9)
    assert float(found @ true) > 0.95
    held_out, _, labels = labelled(seed=5)
    assert boundary.accuracy(held_out, labels, found) > 0.98
    assert boundary.accuracy(held_out, labels, -found) < 0.02


def test_control_labels_without_meaning_give_chance():
    z, _, good = labelled()
    shuffled = good[torch.randperm(len(good), generator=stream())]
    found = boundary.normal(z, shuffled)
    held_out, _, labels = labelled(seed=5)
    assert abs(boundary.accuracy(held_out, labels, found) - 0.5) < 0.25


def test_accuracy_is_the_area_under_the_curve():
    from sklearn.metrics import roc_auc_score

    z, true, good = labelled(80)
    noisy = true + 0.2 * codes(1, 7)[0] / math.sqrt(24)
    expected = roc_auc_score(good.numpy(), (z @ noisy).numpy())
    assert boundary.accuracy(z, good, noisy) == pytest.approx(expected, abs=1e-12)


def test_pushing_moves_towards_the_good_side_on_the_sphere():
    z, true, _ = labelled()
    there = boundary.pushed(z, true, 2.0)
    np.testing.assert_allclose(there.norm(dim=1), math.sqrt(24), rtol=1e-12)
    assert ((there @ true) > (z @ true)).all()
    np.testing.assert_allclose(boundary.pushed(z, true, 0.0), z, rtol=1e-12)


@pytest.mark.parametrize(
    "labels", [torch.ones(6, dtype=torch.bool), torch.ones(6), torch.zeros(2) > 1]
)
def test_a_boundary_needs_two_sides(labels):
    with pytest.raises(UserError, match="boundary needs"):
        boundary.normal(codes(6), labels)
