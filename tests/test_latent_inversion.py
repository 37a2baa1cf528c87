"""Inversion (eqs 1 to 5): formulas against NumPy, the batched search against the plain loop."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from latent_bed import Toy, codes

from latentpapers.errors import UnknownName, UserError
from latentpapers.latent import descent, inversion, plain
from latentpapers.latent.descent import Adam, Plan
from latentpapers.latent.inversion import Inversion


def images(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 5, 4, generator=g, dtype=torch.float64)


X, Y = images(6, 1), images(6, 2)


def test_eq_1():
    expected = [np.linalg.norm((x - y).numpy().ravel()) for x, y in zip(X, Y)]
    np.testing.assert_allclose(inversion.frobenius(X, Y), expected, rtol=1e-12)


def test_eq_1_control():
    assert not np.allclose(inversion.frobenius(X, Y), inversion.pixel_distance(X, Y), rtol=0.01)


def test_eq_2():
    gaps = np.abs((X - Y).numpy()).reshape(6, -1)
    np.testing.assert_allclose(inversion.pixel_distance(X, Y), gaps.mean(1), rtol=1e-12)
    found = inversion.pixel_distance(X, Y, reduction="sum")
    np.testing.assert_allclose(found, gaps.sum(1), rtol=1e-12)


def test_eq_2_control():
    squares = ((X - Y) ** 2).flatten(1).mean(1)
    assert not np.allclose(inversion.pixel_distance(X, Y), squares, rtol=0.01)
    with pytest.raises(UnknownName, match="reduction"):
        inversion.pixel_distance(X, Y, reduction="median")


def test_eq_3():
    a, b = X.flatten(1), Y.flatten(1)
    expected = np.abs((a - b).numpy()).mean(1)
    np.testing.assert_allclose(inversion.feature_distance(a, b), expected, rtol=1e-12)


def test_eq_3_control():
    a, b = X.flatten(1), Y.flatten(1)
    euclidean = (a - b).norm(dim=1)
    assert not np.allclose(inversion.feature_distance(a, b), euclidean, rtol=0.01)


def test_eq_4():
    z = 1.3 * codes(4)
    off = 0.3 * math.sqrt(24)
    np.testing.assert_allclose(inversion.shell_distance(z, reading="paper"), off, rtol=1e-12)
    np.testing.assert_allclose(inversion.shell_distance(z, reading="code"), off**2, rtol=1e-12)
    assert float(inversion.shell_distance(codes(4)).max()) < 1e-20  # on the sphere


def test_eq_4_control():
    z = 1.3 * codes(4)
    with_pixels = (z.norm(dim=1) - math.sqrt(3 * 36)).abs()  # diamond-e15: sqrt(d) instead
    assert not np.allclose(inversion.shell_distance(z, reading="paper"), with_pixels, rtol=0.1)


TERMS = (torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0]), torch.tensor([100.0, 0.0]))


def test_eq_5():
    paper = inversion.inversion_loss(*TERMS, alpha=3.0, beta=0.5, reading="paper")
    code = inversion.inversion_loss(*TERMS, alpha=3.0, beta=0.5, reading="code")
    np.testing.assert_allclose(paper, [1 + 30 + 50, 2 + 60])
    np.testing.assert_allclose(code, [10 + 3 + 50, 20 + 6])


def test_eq_5_control():
    # the two readings agree only where alpha is 1
    same = [inversion.inversion_loss(*TERMS, alpha=1.0, beta=0.5, reading=r)
            for r in ("code", "paper")]  # fmt: skip
    np.testing.assert_allclose(*same)
    other = inversion.inversion_loss(*TERMS, alpha=3.0, beta=0.5, reading="code")
    assert not np.allclose(same[0], other)
    with pytest.raises(UnknownName, match="reading"):
        inversion.inversion_loss(*TERMS, alpha=1, beta=1, reading="mine")


# --- the descent -------------------------------------------------------------------------------


def test_adam_is_torchs():
    g = torch.Generator().manual_seed(0)
    start = torch.randn(5, 3, generator=g, dtype=torch.float64)
    theirs = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=0.1)
    ours, adam = start, Adam(start)
    for _ in range(30):
        gradient = torch.randn(5, 3, generator=g, dtype=torch.float64)
        theirs.grad = gradient
        optimizer.step()
        before = ours.clone()
        moved = adam.update(ours, gradient, 0.1)
        assert torch.equal(ours, before)  # its own tensor is left as it was
        ours = moved
    np.testing.assert_allclose(ours, theirs.detach(), atol=1e-12)  # float64


def bowl(variable, centre):
    """Batches of 2 rows; the distance from a centre of their own."""
    each = (variable - centre).square().mean(1)
    losses = each.view(-1, 2).mean(1)
    return losses, losses, (centre,)


def test_batches_do_not_touch_each_other_and_stop_on_their_own():
    centre = torch.arange(8, dtype=torch.float64)[:, None] * torch.ones(8, 3)
    start = torch.zeros(8, 3, dtype=torch.float64)
    start[:2] = centre[:2]  # the first batch begins at its end
    plan = Plan(rate=0.05, steps=400, decay_every=100, tolerance=1e-4)
    together = descent.descend(start, (centre,), bowl, plan, batch=2)
    for unit in range(4):
        rows = slice(2 * unit, 2 * unit + 2)
        alone = descent.descend(start[rows], (centre[rows],), bowl, plan, batch=2)
        np.testing.assert_allclose(together.variable[rows], alone.variable, atol=1e-12)
        assert int(together.steps[unit]) == int(alone.steps[0])
    assert int(together.steps[0]) == 2  # the change of its loss is 0 at once
    assert int(together.steps[1]) < int(together.steps[3])  # the farther, the longer


def test_control_a_shared_stop_gives_another_result():
    centre = torch.arange(8, dtype=torch.float64)[:, None] * torch.ones(8, 3)
    plan = Plan(rate=0.05, steps=400, decay_every=100, tolerance=1e-4)
    separate = descent.descend(torch.zeros_like(centre), (centre,), bowl, plan, batch=2)
    forced = dataclasses.replace(plan, tolerance=0.0)
    through = descent.descend(torch.zeros_like(centre), (centre,), bowl, forced, batch=2)
    assert (separate.variable - through.variable).abs().max() > 1e-3
    assert set(through.steps.tolist()) == {400}


def test_chunks_hold_whole_batches_and_what_remains_is_a_smaller_one():
    def found(*args):
        return [(s.start, s.stop, size) for s, size in descent.chunks(*args)]

    assert found(50, 8, 20) == [(0, 16, 8), (16, 32, 8), (32, 48, 8), (48, 50, 2)]
    assert found(16, 8, 3) == [(0, 8, 8), (8, 16, 8)]  # at least one batch
    assert found(3, 8, 64) == [(0, 3, 3)]
    assert found(16, 4, 64, True) == [(0, 4, 4), (4, 8, 4), (8, 12, 4), (12, 16, 4)]
    with pytest.raises(UserError, match="positive"):
        found(0, 8, 8)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="do not fill batches"):
        descent.per_batch(torch.zeros(7), 2)


# --- inversion ---------------------------------------------------------------------------------

QUICK = Plan(rate=0.1, steps=60, decay_every=20, tolerance=3e-3)


def test_nearest_candidate_is_the_nearest_in_any_blocks():
    g = torch.Generator().manual_seed(0)
    features, judged = torch.randn(9, 5, generator=g), torch.randn(31, 5, generator=g)
    candidates = torch.arange(31.0)[:, None]
    table = np.linalg.norm(features.numpy()[:, None] - judged.numpy()[None], axis=2)
    for block in (1, 4, 100):
        found = inversion.nearest_candidates(features, candidates, judged, block=block)
        np.testing.assert_array_equal(found[:, 0], table.argmin(1))
    with pytest.raises(UserError, match="candidate"):
        inversion.nearest_candidates(features, candidates[:0], judged[:0])


@pytest.mark.parametrize("reading", ["code", "paper"])
@pytest.mark.parametrize("statistic", ["batch", "alone"])
def test_the_batched_inversion_is_the_loop(reading, statistic):
    pair, z0, candidates = Toy().pair(), codes(16, 1), codes(30, 2)
    how = Inversion(reading, statistic=statistic, descent=QUICK)
    x0 = pair.images(z0)
    judged = pair.alone(pair.images(candidates))
    batch = 4 if statistic == "batch" else 1
    together = inversion.invert(pair, x0, candidates, how, batch=batch, chunk=8)
    alone = torch.cat([plain.invert(pair, x, candidates, judged, how) for x in x0.split(batch)])
    np.testing.assert_allclose(together.variable, alone, atol=1e-7)  # float64, 40 steps of 0.1
    assert len(set(together.steps.tolist())) > 1  # they did stop at different steps


def test_the_shell_may_have_a_reading_of_its_own():
    """Erratum e1 without e3, and e3 without e1: the printed terms, put together by hand."""
    pair, z, candidates = Toy().pair(), 1.3 * codes(4, 1), codes(4, 2)
    x = pair.images(candidates)
    features = pair.alone(x)
    pixels = (pair.generate(z) - x).abs().flatten(1).mean(1)
    percep = (pair.features(pair.generate(z), 1) - features).abs().flatten(1).mean(1)
    off = z.norm(dim=1) - math.sqrt(z.shape[1])
    expected = {("paper", "code"): pixels + 2 * percep + off**2,
                ("code", "paper"): percep + 2 * pixels + off.abs(),
                ("paper", None): pixels + 2 * percep + off.abs()}  # fmt: skip
    for (reading, shell), each in expected.items():
        how = Inversion(reading, statistic="alone", shell=shell)
        losses, _, _ = inversion.Objective(pair, how, 1)(z, x, features)
        np.testing.assert_allclose(losses, each, rtol=1e-9)
    # control: here the two distances differ
    assert float((off**2 - off.abs()).abs().min()) > 0.05
    with pytest.raises(UnknownName):
        Inversion(shell="neither")


def test_control_a_shared_statistic_ties_latent_vectors_together():
    pair, z0, candidates = Toy(deviation=5.0).pair(), codes(4, 1), codes(30, 2)
    how = Inversion(statistic="batch", descent=dataclasses.replace(QUICK, tolerance=0.0))
    x0 = pair.images(z0)
    judged = pair.alone(pair.images(candidates))
    together = inversion.invert(pair, x0, candidates, how, batch=4).variable
    alone = torch.cat([plain.invert(pair, x, candidates, judged, how) for x in x0.split(1)])
    assert (together - alone).abs().max() > 1e-2


def test_inversion_finds_the_image_and_the_chunk_changes_nothing():
    pair, z0, candidates = Toy().pair(), codes(12, 1), codes(50, 2)
    x0 = pair.images(z0)
    how = Inversion(statistic="alone", descent=Plan(rate=0.05, steps=300, tolerance=0.0))
    found = [inversion.invert(pair, x0, candidates, how, batch=2, chunk=c) for c in (2, 12)]
    np.testing.assert_allclose(found[0].variable, found[1].variable, atol=1e-9)
    before = inversion.pixel_distance(pair.images(candidates[:12]), x0).mean()
    after = inversion.pixel_distance(pair.images(found[0].variable), x0).mean()
    assert after < 0.1 * before
    np.testing.assert_allclose(found[0].variable.norm(dim=1), math.sqrt(24), rtol=1e-12)


def test_memory_does_not_grow_with_the_number_of_latent_vectors():
    sizes = []
    for n in (8, 40):
        toy = Toy()
        pair, how = toy.pair(), Inversion(descent=dataclasses.replace(QUICK, steps=3))
        inversion.invert(pair, pair.images(codes(n), block=8), codes(30, 2), how, batch=4, chunk=8)
        sizes.append(max(toy.sizes))
    assert sizes == [8, 8]  # the most latent vectors that the generator ever saw at once


def test_a_coupled_pair_sees_one_batch_at_a_time():
    toy = Toy()
    pair, how = toy.pair(coupled=True), Inversion(descent=dataclasses.replace(QUICK, steps=2))
    x0 = pair.images(codes(12), block=4)
    inversion.invert(pair, x0, codes(30, 2), how, batch=4, chunk=64)
    assert toy.sizes[-6:] == [4] * 6


def test_an_encoders_start_takes_the_place_of_candidates():
    toy = Toy()
    pair, z0 = toy.pair(), codes(6, 1)
    x0, near = pair.images(z0), z0 + 0.05 * codes(6, 4)
    how = Inversion(statistic="alone", descent=Plan(rate=0.01, steps=20, tolerance=0.0))
    toy.sizes.clear()
    found = inversion.invert(pair, x0, codes(30, 2), how, batch=2, start=near)
    assert sum(toy.sizes) == 20 * 6  # no candidate was drawn
    away = inversion.invert(pair, x0, codes(30, 2), how, batch=2)  # control
    error = [inversion.pixel_distance(pair.images(f.variable), x0).mean() for f in (found, away)]
    assert error[0] < 0.5 * error[1]


def test_candidates_are_judged_once_for_several_calls_and_in_blocks():
    toy = Toy()
    pair, candidates = toy.pair(), codes(30, 2)
    how = Inversion(descent=dataclasses.replace(QUICK, steps=3))
    x0 = pair.images(codes(8, 1))
    judged = inversion.judge(pair, candidates, block=7)
    np.testing.assert_allclose(judged, pair.alone(pair.images(candidates)), rtol=1e-12)
    own = inversion.invert(pair, x0, candidates, how, batch=4)
    toy.sizes.clear()
    shared = inversion.invert(pair, x0, candidates, how, batch=4, judged=judged)
    assert torch.equal(own.variable, shared.variable)
    assert toy.sizes == [8] * 3  # no candidate was drawn again
    with pytest.raises(UserError, match="at least one candidate"):
        inversion.invert(pair, x0, candidates[:0], how, batch=4)


@pytest.mark.parametrize(
    "make",
    [lambda: Inversion("authors"), lambda: Inversion(reduction="max"),
     lambda: Inversion(statistic="all"), lambda: Plan(stop="never"),
     lambda: inversion.shell_distance(codes(2), reading="authors")],
)  # fmt: skip
def test_an_unknown_name_is_not_taken_for_another(make):
    with pytest.raises(UnknownName, match="known:"):
        make()


@pytest.mark.parametrize("bad", [{"rate": 0.0}, {"rate": float("nan")}, {"steps": -1}])
def test_a_descent_needs_a_rate_and_steps(bad):
    with pytest.raises(UserError, match="rate above 0"):
        Plan(**bad)
