"""Measures of translations against loops, another route to the same number, and controls."""

import itertools

import pytest
import torch
from torch import nn

from latentpapers.errors import UserError
from latentpapers.losses import subspace
from latentpapers.metrics import density, frechet, intervals, walks
from latentpapers.metrics import translation as T

ROWS = torch.arange(16)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_sources_are_others_and_differ():
    g = torch.Generator().manual_seed(0)
    chosen = T.drawn_sources(8, 5, 12, g)
    assert chosen.shape == (8, 5)
    assert all(len(set(row.tolist()) | {i}) == 6 for i, row in enumerate(chosen))
    assert set(chosen.flatten().tolist()) <= set(range(12))
    assert max(chosen.flatten().tolist()) >= 8  # control: those that are no target serve too
    for n, k, pool in ((8, 5, 7), (4, 6, 6)):
        with pytest.raises(UserError, match="cannot give"):
            T.drawn_sources(n, k, pool, g)


def test_pooled_is_the_network_on_the_unit_interval():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = draw(5, 3, 8, 8)
    with torch.no_grad():
        by_hand = net((x.clamp(-1, 1) + 1) / 2)
        other = net(x)
    found = T.pooled(net, x, block=2)
    assert torch.allclose(found, by_hand, atol=1e-6)  # float32, other batches
    assert not torch.allclose(found, other, atol=1e-3)


def test_the_reference_is_the_library_s_distance_on_its_axes():
    real, made = draw(60, 6), 1.3 * draw(16, 4, 6, seed=1) + 0.2
    whole = T.Reference.of(real)
    # translated features have the same distance; float64 sums of float32 numbers
    assert whole.fd(made, ROWS) == pytest.approx(
        frechet.frechet_distance(real, made.flatten(0, 1)), rel=1e-4
    )
    two = T.Reference.of(real, 2)
    values, axes = torch.linalg.eigh(torch.cov(real.T))
    top = axes[:, values.argsort(descending=True)[:2]]
    by_hand = frechet.frechet_distance(real @ top, made.flatten(0, 1) @ top)
    assert two.fd(made, ROWS) == pytest.approx(by_hand, rel=1e-4)
    assert two.fd(made, ROWS) < whole.fd(made, ROWS)
    found = whole.numbers(made, ROWS[:9])
    balls = density.density_coverage(real, made[:9].flatten(0, 1))
    assert found.tolist() == pytest.approx([whole.fd(made, ROWS[:9]), balls.density,
                                            balls.coverage])  # fmt: skip
    assert whole.fd(made, ROWS[:9]) != whole.fd(made, ROWS)  # the rows matter


def test_diversity_is_the_mean_over_all_pairs():
    made = draw(3, 5, 7)
    unit = made / made.norm(dim=2, keepdim=True)
    by_hand = [
        sum(float((a - b).norm()) for a, b in itertools.combinations(group, 2)) / 10
        for group in unit
    ]
    assert T.diversity(made).tolist() == pytest.approx(by_hand, rel=1e-5)
    assert T.diversity(made[:, :1].expand(-1, 5, -1)).abs().max() < 1e-6  # one output five times


def test_own_less_others_by_loops_and_zero_where_the_source_is_ignored():
    outputs, sources, centre = draw(4, 3, 6), draw(4, 6, seed=1), draw(6, seed=2)
    found = T.similarities(outputs, sources, centre)
    cosine = torch.nn.functional.cosine_similarity
    for s, t, o in itertools.product(range(4), range(3), range(4)):
        expected = cosine(outputs[s, t] - centre, sources[o] - centre, dim=0)
        assert float(found[s, t, o]) == pytest.approx(float(expected), abs=1e-6)
    by_hand = []
    for s in range(4):
        parts = [
            found[s, t, s] - sum(found[o, t, s] for o in range(4) if o != s) / 3 for t in range(3)
        ]
        by_hand.append(float(sum(parts)) / 3)
    assert T.own_less_others(found).tolist() == pytest.approx(by_hand, abs=1e-6)
    deaf = T.similarities(outputs[:1].expand(4, -1, -1), sources, centre)
    assert T.own_less_others(deaf).abs().max() < 1e-6
    copies = T.similarities(sources[:, None].expand(-1, 3, -1), sources, centre)
    assert (T.own_less_others(copies) > 0.1).all()


def test_layout_sees_no_colours_and_does_see_places():
    images = draw(3, 3, 16, 16).clamp(-1, 1)
    lows = subspace.reduce(images, 4)
    assert torch.allclose(T.layout(images, lows), torch.ones(3), atol=2e-3)  # eps of the norm
    tinted = images * torch.tensor([0.5, 1.5, 1.0]).view(1, 3, 1, 1) + 0.3
    assert torch.allclose(T.layout(tinted, lows), T.layout(images, lows), atol=2e-3)
    assert (T.layout(images.flip(3), lows) < 0.9).all()
    assert torch.allclose(T.layout(-images, lows), -T.layout(images, lows), atol=1e-5)


def test_kept_numbers_give_the_paired_interval():
    real = draw(60, 6)
    a, b = draw(16, 4, 6, seed=1), 0.7 * draw(16, 4, 6, seed=2)
    ref = T.Reference.of(real)

    def gap(rows):
        return torch.tensor([ref.fd(a, rows) - ref.fd(b, rows)], dtype=torch.float64)

    direct = walks.jackknife(16, gap)[0]
    kept = []
    for v in (a, b):
        parts = walks.left_out(16, lambda r, v=v: ref.numbers(v, r)[:1])
        kept.append(parts[:, 0].tolist())
    found = T.kept_difference(*kept, 16)
    # the same sums in another order
    assert found.value == pytest.approx(direct.value, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((direct.low, direct.high), rel=1e-9)
    alone = T.kept_difference(kept[0], [0.0] * 9, 16)
    assert alone.value == pytest.approx(ref.fd(a, ROWS), rel=1e-9)
    assert abs(alone.value - direct.value) > 0.5  # control: b matters


def test_the_jackknife_of_a_mean_is_its_standard_error():
    """Delete-a-group with groups of one image: half width = t * s / sqrt(n)."""
    x = draw(12).double()
    score = walks.jackknife(12, lambda rows: x[rows].mean()[None], groups=6)[0]
    assert score.value == pytest.approx(float(x.mean()))
    parts = walks.left_out(12, lambda rows: x[rows].mean()[None], groups=6)
    assert parts.shape == (7, 1)
    assert parts[1:].mean() == pytest.approx(float(x.mean()))  # groups of equal size
    boot = intervals.bootstrap_mean(x)
    # 6 groups: the jackknife's t has 5 degrees of freedom, and both are estimates
    assert 0.3 < (score.high - score.low) / (boot.high - boot.low) < 3
    with pytest.raises(UserError, match="too small"):
        walks.left_out(11, lambda rows: x[rows].mean()[None], groups=6)
