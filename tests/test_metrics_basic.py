"""Per-image measures, the Inception score and their intervals, against independent references."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.neighbors import NearestNeighbors

from latentpapers.errors import UserError
from latentpapers.metrics.images import gradient_energy, nearest_distance
from latentpapers.metrics.inception_score import inception_score
from latentpapers.metrics.intervals import bootstrap_mean, bootstrap_ratio

SINGLE = 1e-5  # float32 results, over sums of a few hundred terms


def images(n, seed=0, side=9, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, side, side - 2, generator=generator) * 2 - 1


# --- gradient energy -------------------------------------------------------------------------


def test_gradient_energy_is_the_mean_of_both_directions():
    x = images(4)
    rows = np.abs(np.diff(x.numpy(), axis=2)).mean((1, 2, 3))
    columns = np.abs(np.diff(x.numpy(), axis=3)).mean((1, 2, 3))
    assert gradient_energy(x).numpy() == pytest.approx((rows + columns) / 2, rel=SINGLE)
    # control: the mean over all differences at once weighs the longer side
    both = np.concatenate([np.diff(x.numpy(), axis=a).reshape(4, -1) for a in (2, 3)], 1)
    assert np.abs(np.abs(both).mean(1) - (rows + columns) / 2).max() > 1e-4


def test_gradient_energy_of_ramps_and_boards():
    ramp = torch.linspace(-1, 1, 11).view(1, 1, 1, 11).expand(2, 3, 5, 11)
    assert gradient_energy(ramp).tolist() == pytest.approx([0.1, 0.1], rel=SINGLE)  # (0 + 0.2) / 2
    assert gradient_energy(torch.full((1, 1, 4, 4), 0.3)).item() == 0
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    assert gradient_energy(board.view(1, 1, 8, 8)).item() == 2


def test_gradient_energy_knows_no_batch():
    x = images(5)
    parts = torch.cat([gradient_energy(x[i : i + 1]) for i in range(5)])
    assert torch.equal(gradient_energy(x), parts)


# --- nearest neighbours ----------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 3, 256])
def test_nearest_distance_is_that_of_an_exact_search(block):
    x, reference = images(7, seed=1), images(30, seed=2)
    flat = [v.flatten(1).double().numpy() for v in (x, reference)]
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(flat[1])
    expected = search.kneighbors(flat[0])[0][:, 0] / np.sqrt(flat[0].shape[1])
    found = nearest_distance(x, reference, block=block)
    assert found.numpy() == pytest.approx(expected, rel=SINGLE)
    farthest = [np.linalg.norm(flat[1] - row, axis=1).max() for row in flat[0]]
    assert found.numpy() != pytest.approx(np.array(farthest) / np.sqrt(flat[0].shape[1]), rel=0.1)


def test_nearest_distance_is_in_units_of_the_image_range():
    x = images(4).clamp(-0.5, 0.5)
    # |a|^2 - 2ab + |b|^2 in float64 cancels to 1e-13, whose root is 3e-7
    assert nearest_distance(x, x.flip(0)).max().item() < 1e-6
    assert nearest_distance(x, x[:1] + 0.25)[0].item() == pytest.approx(0.25, rel=SINGLE)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "floats"),
        (torch.zeros(3, 4, 4), "floats"),
        (torch.zeros(0, 3, 4, 4), "floats"),
        (torch.full((1, 3, 4, 4), 255.0), r"\[-1, 1\]"),
        (torch.full((1, 3, 4, 4), float("nan")), r"\[-1, 1\]"),
    ],
)
def test_what_is_no_image_is_refused(bad, message):
    with pytest.raises(UserError, match=message):
        gradient_energy(bad)
    with pytest.raises(UserError, match=message):
        nearest_distance(bad, torch.zeros(1, 3, 4, 4))
    with pytest.raises(UserError):
        nearest_distance(torch.zeros(1, 3, 4, 4), bad)


def test_images_that_cannot_be_compared_are_refused():
    with pytest.raises(UserError, match="differ"):
        nearest_distance(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 5))
    with pytest.raises(UserError, match="single row"):
        gradient_energy(torch.zeros(1, 3, 1, 4))


# --- bootstrap -------------------------------------------------------------------------------


def test_bootstrap_of_a_mean_is_scipys():
    x = np.random.default_rng(0).gamma(2, size=200)
    ours = bootstrap_mean(x, resamples=4000)
    theirs = stats.bootstrap(
        (x,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # quantiles of 4000 draws scatter by sqrt(.025 * .975 / 4000) / density: 4 % of the spread
    spread = x.std() / np.sqrt(len(x))
    assert [ours.low, ours.high] == pytest.approx(list(theirs), abs=5 * 0.05 * spread)
    assert ours.value == pytest.approx(x.mean())
    assert (ours.n, ours.method) == (200, "bootstrap over images, 95 %")


def covered(interval, truth, n, simulations, draw):
    rng = np.random.default_rng(5)
    hits = [i.low <= truth <= i.high for i in (interval(draw(rng, n)) for _ in range(simulations))]
    return np.mean(hits)


def test_bootstrap_interval_covers_as_theory_says():
    """n = 40 normal values: x +- 1.96 s / sqrt(n) with s^2 over n covers P(|t_39| < 1.935) = 0.940.
    400 simulations: 4 binomial standard errors are 0.048."""
    theory = 1 - 2 * stats.t.sf(1.96 * np.sqrt(39 / 40), 39)
    assert theory == pytest.approx(0.94, abs=1e-3)

    def draw(rng, n):
        return rng.normal(0.3, 1, n)

    def ours(x):
        return bootstrap_mean(x, resamples=400)

    def half(x):
        i = bootstrap_mean(x, resamples=400)
        return type(i)(i.value, (i.low + i.value) / 2, (i.high + i.value) / 2, i.n, i.method)

    tolerance = 4 * np.sqrt(theory * (1 - theory) / 400)
    assert covered(ours, 0.3, 40, 400, draw) == pytest.approx(theory, abs=tolerance)
    assert covered(half, 0.3, 40, 400, draw) < theory - tolerance  # control


def test_bootstrap_ratio_covers():
    """Ratio of means 1.5, 60 values a side; nominal 0.95, of which n = 60 loses 0.01. 300
    simulations: 4 binomial standard errors are 0.054."""

    def interval(pair):
        return bootstrap_ratio(*pair, resamples=300)

    def draw(rng, n):
        return rng.normal(3, 1, n), rng.normal(2, 0.5, n)

    assert covered(interval, 1.5, 60, 300, draw) == pytest.approx(0.94, abs=0.055)
    assert covered(interval, 1.65, 60, 300, draw) < 0.7  # control: another ratio


def test_bootstrap_takes_tensors_and_is_a_function_of_its_seed():
    x = torch.rand(50, generator=torch.Generator().manual_seed(0)) + 1
    one = bootstrap_mean(x.clone().requires_grad_())
    assert one == bootstrap_mean(x.double().numpy())
    assert one != bootstrap_mean(x, seed=1)
    assert one.low < one.value < one.high
    ratio = bootstrap_ratio(x.clone().requires_grad_(), x[:20])
    assert ratio == bootstrap_ratio(x.numpy(), x[:20].numpy())
    assert ratio.value == pytest.approx(float(x.mean() / x[:20].mean()), rel=SINGLE)
    assert ratio.n == 20


@pytest.mark.parametrize("bad", [[1.0], [], [1.0, float("nan")], [1.0, float("inf")], [[1.0, 2.0]]])
def test_bootstrap_refuses_what_has_no_interval(bad):
    good, bad = np.array([1.0, 2.0]), np.array(bad)
    for call in (
        bootstrap_mean,
        lambda v: bootstrap_ratio(v, good),
        lambda v: bootstrap_ratio(good, v),
    ):
        with pytest.raises(UserError, match="at least 2 finite values"):
            call(bad)


def test_bootstrap_ratio_refuses_a_denominator_around_zero():
    with pytest.raises(UserError, match="away from 0"):
        bootstrap_ratio(np.ones(5), np.array([-1.0, 1.0, 0.5, -0.5]))


# --- Inception score -------------------------------------------------------------------------


def softmax(n, classes, seed=0, sharpness=2.0):
    logits = np.random.default_rng(seed).normal(0, sharpness, (n, classes))
    return torch.from_numpy(logits).softmax(1)


def test_inception_score_is_the_mean_divergence_from_the_marginal():
    p = softmax(300, 7)
    q = p.numpy()
    divergences = stats.entropy(q, q.mean(0, keepdims=True), axis=1)
    # rounding: float64 logarithms of a few hundred terms
    assert inception_score(p).value == pytest.approx(np.exp(divergences.mean()), rel=1e-12)
    reversed_ = np.exp(stats.entropy(q.mean(0, keepdims=True), q, axis=1).mean())
    assert inception_score(p).value != pytest.approx(reversed_, rel=0.01)  # control


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_closed_forms(classes):
    uniform = torch.full((50, classes), 1 / classes)
    assert inception_score(uniform).value == pytest.approx(1, abs=1e-5)  # float32 rows
    balanced = torch.eye(classes).repeat(2, 1)
    assert inception_score(balanced, resamples=5).value == pytest.approx(classes, rel=1e-9)
    one = torch.eye(classes)[:1].repeat(20, 1)
    assert inception_score(one).value == pytest.approx(1, abs=1e-12)
    assert inception_score(softmax(9, 4)[:1].repeat(9, 1)).value == pytest.approx(1, abs=1e-12)


def test_sure_but_unbalanced_classes_score_the_entropy_of_the_balance():
    p = torch.eye(3)[[0] * 50 + [1] * 30 + [2] * 20]
    assert inception_score(p).value == pytest.approx(
        np.exp(stats.entropy([0.5, 0.3, 0.2])), rel=1e-9
    )
    # two classes, each mistaken with probability e: log 2 - H(e)
    e = 0.1
    p = torch.tensor([[1 - e, e], [e, 1 - e]], dtype=torch.float64).repeat(10, 1)
    expected = 2 * np.exp(-stats.entropy([e, 1 - e]))
    assert inception_score(p).value == pytest.approx(expected, rel=1e-9)


def test_order_and_type_do_not_matter():
    p = softmax(100, 5)
    shuffled = p[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    assert inception_score(shuffled).value == pytest.approx(inception_score(p).value, rel=1e-12)
    assert inception_score(p.float()).value == pytest.approx(inception_score(p).value, rel=1e-5)
    assert inception_score(p) == inception_score(p)
    assert inception_score(p, seed=1).low != inception_score(p).low


def test_inception_score_interval_covers():
    """The target is the expected score of samples of this size. Nominal 0.95; 100 resamples and
    n = 200 may cost a few hundredths. 200 simulations: 4 binomial standard errors are 0.062."""
    rng = np.random.default_rng(0)

    def draw(rng, n):
        logits = rng.normal(0, 2, (n, 4))
        p = np.exp(logits)
        return torch.from_numpy(p / p.sum(1, keepdims=True))

    truth = np.mean([inception_score(draw(rng, 200), resamples=1).value for _ in range(1000)])

    def ours(p):
        return inception_score(p, resamples=100)

    def half(p):
        s = inception_score(p, resamples=100)
        return type(s)(s.value, (s.low + s.value) / 2, (s.high + s.value) / 2, s.n, s.method)

    assert covered(ours, truth, 200, 200, draw) == pytest.approx(0.94, abs=0.065)
    assert covered(half, truth, 200, 200, draw) < 0.94 - 0.065  # control


def test_interval_surrounds_the_value():
    score = inception_score(softmax(200, 6))
    assert score.low < score.value < score.high
    assert score.n == 200


@pytest.mark.parametrize(
    "bad",
    [
        torch.tensor([[0.5, 0.5]]),
        torch.tensor([0.5, 0.5]),
        torch.tensor([[0.5, 0.6], [0.5, 0.5]]),
        torch.tensor([[1.5, -0.5], [0.5, 0.5]]),
        torch.tensor([[float("nan"), 0.5], [0.5, 0.5]]),
        torch.randn(4, 10),
        torch.zeros(0, 10),
    ],
)
def test_rows_that_are_no_distributions_are_refused(bad):
    with pytest.raises(UserError, match="Inception score needs"):
        inception_score(bad)
