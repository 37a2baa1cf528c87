"""Intervals: what they cover, where they come from, what they refuse."""

import numpy as np
import pytest
import torch
from scipy import stats

from latentpapers.errors import UserError
from latentpapers.metrics import intervals
from latentpapers.metrics.inception_score import inception_score
from latentpapers.metrics.protocol import Score


def test_bootstrap_of_a_deviation_is_scipys():
    x = np.random.default_rng(0).normal(30, 3, 80)
    ours = intervals.bootstrap_std(x, resamples=4000)
    theirs = stats.bootstrap(
        (x,), np.std, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # both are quantiles of 4000 draws: 5 % of the spread each, 5 standard errors
    spread = 3 / np.sqrt(2 * 80)
    assert [ours.low, ours.high] == pytest.approx(list(theirs), abs=5 * 0.05 * spread)
    assert ours.value == pytest.approx(x.std())


# --- pairs -----------------------------------------------------------------------------------


def test_paired_difference_is_a_bootstrap_of_the_differences():
    rng = np.random.default_rng(0)
    easy = rng.normal(27, 4, 60)  # what an image has in common for both methods
    a, b = easy + rng.normal(0.3, 0.2, 60), easy + rng.normal(0, 0.2, 60)
    found = intervals.paired_difference(torch.from_numpy(a), b)
    plain = intervals.bootstrap_mean(a - b)
    assert (found.value, found.low, found.high) == (plain.value, plain.low, plain.high)
    assert found.method == "paired bootstrap over images, 95 %"
    assert found.value == pytest.approx(a.mean() - b.mean(), abs=1e-12)
    assert found.low > 0
    # control: unpaired intervals overlap widely
    one, other = intervals.bootstrap_mean(a), intervals.bootstrap_mean(b)
    assert one.low < other.high - 1
    swapped = intervals.paired_difference(b, a)
    assert swapped.value == -found.value
    assert swapped.high < 0


def test_paired_difference_refuses_other_images():
    with pytest.raises(UserError, match="same images"):
        intervals.paired_difference(np.ones(4), np.ones(5))
    for bad in (np.ones(1), np.array([1, np.nan]), np.ones((2, 2))):
        with pytest.raises(UserError, match="finite values"):
            intervals.paired_difference(bad, bad)


def test_crops_of_one_photograph_count_as_one_draw():
    """Copies of a value add no evidence: the interval is that of the values themselves."""
    x = np.random.default_rng(0).normal(0.2, 1, 40)
    names = [f"photo {i}" for i in range(40)]
    copies, of = np.tile(x, 9), names * 9
    once = intervals.bootstrap_mean(x, resamples=4000)
    ours = intervals.bootstrap_mean(copies, groups=of, resamples=4000)
    # quantiles of 4000 draws each: 0.05 of the spread 1 / sqrt(40), 5 standard errors
    near = 5 * 0.05 / np.sqrt(40)
    assert [ours.low, ours.high] == pytest.approx([once.low, once.high], abs=near)
    assert ours.method == "bootstrap over 40 photographs, 95 %"
    naive = intervals.bootstrap_mean(copies, resamples=4000)  # the control: three times too narrow
    assert naive.high - naive.low < 0.4 * (ours.high - ours.low)
    spread = intervals.bootstrap_std(copies, groups=of, resamples=4000)
    alone = intervals.bootstrap_std(x, resamples=4000)
    assert [spread.low, spread.high] == pytest.approx([alone.low, alone.high], abs=near)
    assert spread.value == pytest.approx(x.std())


def test_groups_are_drawn_whole_and_weigh_by_their_size():
    of = ["a", "a", "a", "b", "c"]
    weights = intervals.drawn(of, 5, 500, np.random.default_rng(0))
    assert np.allclose(weights.sum(1), 1)
    assert np.array_equal(weights[:, 0], weights[:, 1])
    assert np.array_equal(weights[:, 1], weights[:, 2])
    x = np.array([1.0, 2, 3, 10, 20])
    slow = [np.sqrt(np.average((x - np.average(x, weights=w)) ** 2, weights=w)) for w in weights]
    assert np.allclose(intervals.weighted_std(x, weights), slow)
    for bad in (["a"] * 5, ["a", "b"]):
        with pytest.raises(UserError, match="2 or more groups"):
            intervals.drawn(bad, 5, 10, np.random.default_rng(0))


# --- seeds -----------------------------------------------------------------------------------


def test_over_seeds_is_students_interval():
    x = [24.1, 24.6, 24.3, 24.9]
    found = intervals.over_seeds(x)
    theirs = stats.t.interval(0.95, 3, np.mean(x), stats.sem(x))
    assert [found.low, found.high] == pytest.approx(list(theirs), rel=1e-9)
    assert (found.n, found.method) == (4, "t over seeds, 95 %")
    normal = stats.norm.interval(0.95, np.mean(x), stats.sem(x))
    assert found.high - found.low > 1.5 * (normal[1] - normal[0])  # control


def test_fewer_than_three_seeds_have_no_interval():
    two = intervals.over_seeds([1.0, 2.0])
    assert (two.value, two.low, two.high, two.n) == (1.5, None, None, 2)
    assert two.method.startswith("none:")
    assert intervals.over_seeds([1.0]).low is None
    for bad in ([], [1.0, float("nan"), 2.0]):
        with pytest.raises(UserError, match="over seeds"):
            intervals.over_seeds(bad)


def drawn_seeds(rng, of_seed=0.5, of_image=1.0):
    """Three seeds on twenty images, true mean 0: an effect of each seed, of each image, noise."""
    return (of_seed * rng.normal(size=(3, 1)) + of_image * rng.normal(size=20)
            + 0.3 * rng.normal(size=(3, 20)))  # fmt: skip


def test_seeds_and_images_cover_both():
    rng, inside, alone, count = np.random.default_rng(3), 0, 0, 400
    for _ in range(count):
        x = drawn_seeds(rng, of_seed=0.05)
        found = intervals.seeds_and_images(list(x), resamples=200)
        runs = intervals.over_seeds(x.mean(1).tolist())
        inside += found.low <= 0 <= found.high
        alone += runs.low <= 0 <= runs.high
    # nominal 0.95; a bootstrap of 20 images covers 0.93, and 400 draws scatter by 0.013
    assert inside / count >= 0.90
    assert alone / count < 0.75  # the control: seeds alone know nothing of the images


def test_seeds_and_images_are_their_two_parts_in_squares():
    x = drawn_seeds(np.random.default_rng(4))
    of = [f"photo {i // 4}" for i in range(20)]
    found = intervals.seeds_and_images([torch.from_numpy(r) for r in x], groups=of)
    runs = intervals.over_seeds(x.mean(1).tolist())
    images = intervals.bootstrap_mean(x.mean(0), groups=of)
    assert found.value == pytest.approx(x.mean())
    for end in ("low", "high"):
        parts = [getattr(s, end) - s.value for s in (found, runs, images)]
        assert parts[0] ** 2 == pytest.approx(parts[1] ** 2 + parts[2] ** 2)
    assert (found.n, "5 photographs" in found.method) == (3, True)
    none = intervals.seeds_and_images(list(x[:2]))
    assert (none.low, none.high) == (None, None)  # two seeds tell no interval
    with pytest.raises(UserError, match="the same images"):
        intervals.seeds_and_images([x[0], x[1], x[2, :5]])


# --- samples as a whole ----------------------------------------------------------------------


def test_half_samples_cover_a_mean():
    """n = 60 normal values; nominal 0.95. 300 simulations: 4 binomial standard errors are 0.05;
    the standard deviation of 20 halves scatters, which Student's quantile pays for."""
    rng = np.random.default_rng(0)
    hits, halved = [], []
    for s in range(300):
        x = rng.normal(0.3, 1, 60)
        i = intervals.half_samples(lambda part, x=x: x[part].mean(), 60, seed=s)
        hits.append(i.low <= 0.3 <= i.high)
        halved.append(abs(i.value - 0.3) <= (i.high - i.low) / 4)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.05)
    assert np.mean(halved) < 0.85  # control


def test_half_samples_state_a_bias():
    """E[mean^2] is m^2 + 1 / n, so the bias at n is 1 / n; its estimate from 400 halves of one
    sample has a standard error of about 10 %."""
    x = np.random.default_rng(1).normal(0, 1, 500)
    x = (x - x.mean()) / x.std()  # so that the halves vary about 0 and 1 exactly
    found = intervals.half_samples(lambda part: x[part].mean() ** 2, 500, halves=400)
    text = found.method.split("about ")[1].split(",")[0]
    assert float(text) == pytest.approx(1 / 500, rel=0.4)
    assert found.method.startswith("400 half samples, 95 %")


def test_extrapolation_removes_a_bias_of_one_over_m():
    found = intervals.subset_extrapolation(lambda part: 3 + 40 / len(part), 400)
    assert found.value == pytest.approx(3, abs=1e-9)  # the fit of exact points
    assert found.high - found.low < 1e-6
    assert found.method == "extrapolated over 1/m from subsets of 100 to 400 images, 95 %"
    curved = intervals.subset_extrapolation(lambda part: 3 + 40 / len(part) ** 0.5, 400)
    assert abs(curved.value - 3) > 0.5  # control: another law stays biased


def frechet(x):
    """Between a sample and the standard normal distribution it comes from."""
    own = np.cov(x.T)
    roots = np.sqrt(np.linalg.eigvalsh(own))
    return float((x.mean(0) ** 2).sum() + ((roots - 1) ** 2).sum())


def sharp(rng, n):
    """Class probabilities of random sharpness."""
    return torch.from_numpy(rng.normal(0, 3, (n, 50))).softmax(1)


def inception(p):
    return inception_score(p, resamples=1).value


@pytest.mark.parametrize(
    ("measure", "draw", "truth"),
    [
        (frechet, lambda rng, n: rng.normal(0, 1, (n, 6)), 0.0),
        (inception, sharp, inception(sharp(np.random.default_rng(1), 100_000))),
    ],
)
def test_extrapolation_removes_the_bias_of_fid_and_inception_score(measure, draw, truth):
    """120 samples of 300: the mean error loses at least three quarters; the interval covers the
    truth nearly always (nominal 0.95; 4 binomial standard errors are 0.08)."""
    rng = np.random.default_rng(0)
    raw, found = [], []
    for seed in range(120):
        x = draw(rng, 300)
        raw.append(measure(x) - truth)
        found.append(intervals.subset_extrapolation(lambda part, x=x: measure(x[part]), 300,
                                                    seed=seed))  # fmt: skip
    errors = np.array([f.value for f in found]) - truth
    assert abs(np.mean(raw)) > 5 * np.std(raw) / 120**0.5  # there is a bias to remove
    assert abs(errors.mean()) < abs(np.mean(raw)) / 4
    assert np.mean([f.low <= truth <= f.high for f in found]) > 0.95 - 0.08


@pytest.mark.parametrize("seed", [0, 1])
def test_subsets_are_a_function_of_the_seed(seed):
    x = np.random.default_rng(0).gamma(2, size=100)

    def measure(part):
        assert len(set(part.tolist())) == len(part)
        return x[part].var()

    for tool in (intervals.half_samples, intervals.subset_extrapolation):
        assert tool(measure, 100, seed=seed) == tool(measure, 100, seed=seed)
        assert tool(measure, 100, seed=seed) != tool(measure, 100, seed=2)


def test_what_has_too_few_subsets_is_refused():
    def ones(part):
        return 1.0

    for call in (
        lambda: intervals.half_samples(ones, 3),
        lambda: intervals.half_samples(ones, 10, halves=2),
        lambda: intervals.subset_extrapolation(ones, 100, sizes=2),
        lambda: intervals.subset_extrapolation(ones, 100, smallest=0),
        lambda: intervals.subset_extrapolation(ones, 100, smallest=1.0),
        lambda: intervals.subset_extrapolation(ones, 100, repeats=1),
        lambda: intervals.subset_extrapolation(ones, 3, smallest=0.7),
        lambda: intervals.half_samples(lambda part: float("nan"), 10),
        lambda: intervals.subset_extrapolation(lambda part: float("inf"), 100),
    ):
        with pytest.raises(UserError):
            call()


# --- a verdict under another reading ---------------------------------------------------------


def score(value, low, high):
    return Score(value, low, high, 9, "by hand")


def test_half_widths_of_a_number_and_its_change_add_in_squares():
    moved = intervals.added(score(2.0, -1.0, 6.0), score(-1.0, -5.0, 2.0))
    assert (moved.value, moved.low, moved.high) == (1.0, 1 - 5.0, 1 + 5.0)  # 3, 4 and 4, 3
    one = score(2.0, 1.0, 3.0)
    assert intervals.added(one, score(0.0, 0.0, 0.0)) == one  # control: nothing changes


def test_the_side_of_an_interval_is_that_of_all_of_it():
    one = score(-5.0, -6.0, -3.0)
    assert [intervals.side(one, limit) for limit in (0.0, -4.0, -9.0)] == [-1, 0, 1]
    assert [intervals.side(one, high=limit) for limit in (0.0, -4.0, -9.0)] == [1, 0, -1]
    assert intervals.side(one) == 1


def test_a_verdict_carried_to_another_reading_by_hand():
    inside, elsewhere = score(2.0, 1.0, 3.0), score(-2.0, -3.0, -1.0)
    assert intervals.carried(inside, inside, 0) == "same"
    assert intervals.carried(elsewhere, elsewhere, 0) == "same"
    assert intervals.carried(inside, score(0.5, -1.0, 2.0), 0) == "open"
    assert intervals.carried(inside, elsewhere, 0) == "other"
    assert intervals.carried(elsewhere, inside, 0) == "other"
    assert intervals.carried(score(0.5, -1.0, 2.0), inside, 0) == "undecided"
    # a claim that a number lies between two limits is contradicted on either side
    assert intervals.carried(inside, score(5.0, 4.5, 5.5), 0, 4) == "other"
    assert intervals.carried(score(5.0, 4.5, 5.5), elsewhere, 0, 4) == "same"
    assert intervals.carried(inside, score(3.5, 2.5, 4.5), 0, 4) == "open"
    # 3-4-5: upper half widths 3 and 4, so the sum's upper end is its value plus 5
    wide = score(0.0, -1.0, 4.0)
    for value, verdict in ((-5.1, "same"), (-4.9, "open")):
        found = score(value, -6.0, value + 3)
        assert intervals.carried(found, intervals.added(found, wide), 0) == verdict
