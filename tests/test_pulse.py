"""PULSE: the batched search beside a plain loop over images, its terms beside closed forms."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from latentpapers.errors import UserError
from latentpapers.latent import pulse

REDUCE = torch.nn.AvgPool2d(4)


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def space(rows=3, latent=6, **options):
    """A toy of StyleGAN's form: one row a layer, noise maps added, a nonlinearity between."""
    layers = [draw(3 * 64, latent, seed=10 + i) / 4 for i in range(rows)]

    def generate(w, noise):
        x = sum(torch.tanh(w[:, i] @ layer.T) for i, layer in enumerate(layers)) / rows
        x = x.view(-1, 3, 8, 8)
        for i, n in enumerate(noise):
            x = x + 0.1 * (i + 1) * F.interpolate(n, size=8)
        return x

    return pulse.Space(generate, latent, rows, **options)


def begun(one, count, seed=0):
    made = pulse.start(one, count, torch.Generator().manual_seed(seed))
    return pulse.Start(made.rows.double(), tuple(n.double() for n in made.noise))


def plain(one, target, plan, begin):
    """The authors' loop for one image, with torch's own optimiser and scheduler."""
    latent = begin.rows.clone().requires_grad_()
    noise = [n.clone().requires_grad_(i < one.trained) for i, n in enumerate(begin.noise)]
    moved = [latent, *noise[: one.trained]]
    lengths = [v.detach().flatten(2).norm(dim=2) for v in moved]
    optimizer = torch.optim.Adam(moved, lr=plan.rate)
    knots = [0, 0.45 * plan.steps, 0.9 * plan.steps, plan.steps]
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: float(np.interp(k, knots, [0.1, 1.0, 0.1, 0.001]))
    )
    history = []
    for _ in range(plan.steps):
        w = F.leaky_relu(latent * one.std + one.mean, 0.2) if one.mean is not None else latent
        image = one.generate(w, noise)
        l2 = ((REDUCE(image) + 1) / 2 - (target + 1) / 2).pow(2).mean()
        angles = [
            2 * torch.atan2((a - b).norm(), (a + b).norm())
            for i, a in enumerate(w[0]) for j, b in enumerate(w[0]) if i != j
        ]  # fmt: skip
        crossing = sum(a**2 for a in angles) / len(w[0]) ** 2 * one.latent / 8
        total = 100 * torch.clamp(l2, min=plan.floor) + 0.05 * crossing
        history.append((total.item(), image.detach(), l2.item()))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        scheduler.step()
        with torch.no_grad():
            for v, length in zip(moved, lengths, strict=True):
                v.mul_((length / v.flatten(2).norm(dim=2)).view(*length.shape, *[1] * (v.ndim - 2)))
    return history


@pytest.mark.parametrize("returned", ["last", "best"])
def test_many_at_once_are_one_after_the_other(returned):
    """Rows, two searched noise maps of three, the mapped statistics: all of it."""
    stats = {"mean": draw(6, seed=30) / 4, "std": 1 + draw(6, seed=31) ** 2 / 8}
    one = space(noise=(4, 4, 8), trained=2, **stats)
    targets, plan = draw(3, 3, 2, 2, seed=5).tanh() / 2, pulse.Plan(steps=30, returned=returned)
    begin = begun(one, 3)
    found = pulse.search(one, targets, REDUCE, plan, begin, chunk=2)
    for i in range(3):
        history = plain(one, targets[i : i + 1], plan, begin.part(slice(i, i + 1)))
        last = history[-1] if returned == "last" else min(history, key=lambda h: h[0])
        # 1e-9 under the roots of length and angle, in 30 steps of a rate up to 0.4
        torch.testing.assert_close(found.images[i], last[1][0].clamp(-1, 1), rtol=1e-5, atol=1e-6)
        assert float(found.distance[i]) == pytest.approx(last[2], rel=1e-4)
        assert float(found.best[i]) == pytest.approx(min(h[2] for h in history), rel=1e-4)
    whole = pulse.search(one, targets, REDUCE, plan, begin)
    torch.testing.assert_close(whole.rows, found.rows, rtol=1e-8, atol=1e-8)
    # control: with the neighbour's target an image differs
    other = pulse.search(one, targets.roll(1, 0), REDUCE, plan, begin)
    assert (other.images - found.images).abs().max() > 0.05


def test_rows_and_maps_keep_their_lengths():
    one = space(noise=(4, 8), trained=1)
    begin = begun(one, 2)
    found = pulse.search(one, draw(2, 3, 2, 2), REDUCE, pulse.Plan(steps=5), begin)
    # 1e-9 under both roots
    torch.testing.assert_close(found.rows.norm(dim=2), begin.rows.norm(dim=2), rtol=1e-7, atol=0)
    assert (found.rows - begin.rows).abs().max() > 0.1


def test_it_finds_what_is_there_and_not_what_is_not():
    one, plan = space(rows=1, latent=24), pulse.Plan(steps=60)
    hidden = F.normalize(draw(4, 24, seed=9)) * math.sqrt(24)
    targets = REDUCE(one.generate(hidden[:, None], ()))
    begin = begun(one, 4)
    found = pulse.search(one, targets, REDUCE, plan, begin)
    assert found.success.all()
    torch.testing.assert_close(pulse.distance(REDUCE(found.images), targets), found.distance)
    beyond = torch.full((4, 3, 2, 2), 0.99, dtype=torch.float64)  # brighter than any image
    assert not pulse.search(one, beyond, REDUCE, plan, begin).success.any()


def test_the_best_step_is_no_worse_than_the_last():
    one, targets = space(), draw(4, 3, 2, 2).tanh()
    plans = [pulse.Plan(steps=20, returned=r) for r in ("last", "best")]
    last, best = (pulse.search(one, targets, REDUCE, p, begun(one, 4)) for p in plans)
    assert (best.distance <= last.distance + 1e-3).all()
    assert torch.equal(last.best, best.best)
    assert (last.best <= last.distance).all()


def test_below_the_floor_nothing_pulls():
    one = space(rows=1)
    begin = begun(one, 2)
    reached = REDUCE(one.generate(begin.rows, ()))
    found = pulse.search(one, reached, REDUCE, pulse.Plan(steps=10), begin)
    torch.testing.assert_close(found.rows, begin.rows, rtol=1e-7, atol=0)
    tight = pulse.search(one, reached + 0.2, REDUCE, pulse.Plan(steps=10), begin)
    assert (tight.rows - begin.rows).abs().max() > 0.01  # control: 0.1^2 on [0, 1] is above it


# --- terms ------------------------------------------------------------------------------------


def test_distance_is_measured_on_the_unit_interval():
    a, b = torch.full((2, 3, 4, 4), -1.0), torch.full((2, 3, 4, 4), 1.0)
    assert pulse.distance(a, b).tolist() == [1.0, 1.0]
    x, y = draw(3, 3, 4, 4), draw(3, 3, 4, 4, seed=2)
    want = torch.stack([F.mse_loss((u + 1) / 2, (v + 1) / 2) for u, v in zip(x, y, strict=True)])
    torch.testing.assert_close(pulse.distance(x, y), want)


def test_cross_of_orthogonal_rows():
    """R rows at right angles: (R^2 - R) pairs of (pi / 2)^2 in a mean over R^2, times Z / 8."""
    for r in (2, 5):
        rows = torch.eye(8, dtype=torch.float64)[None, :r]
        want = (r * r - r) / r**2 * (math.pi / 2) ** 2 * 8 / 8
        # a row's angle with itself is sqrt(1e-9), not 0
        torch.testing.assert_close(
            pulse.cross(rows), torch.tensor([want]).double(), rtol=1e-6, atol=0
        )
    one = draw(2, 1, 8)
    assert pulse.cross(one).tolist() == [0, 0]
    assert pulse.cross(one.expand(2, 5, 8)).max() < 1e-6


def test_cross_of_equally_long_rows_is_in_angles():
    rows = F.normalize(draw(3, 4, 16), dim=2)
    angle = torch.arccos((rows @ rows.transpose(1, 2)).clamp(-1, 1))
    angle = angle * (1 - torch.eye(4))  # arccos of a number near 1 is rough
    torch.testing.assert_close(
        pulse.cross(rows), angle.square().mean((1, 2)) * 2, rtol=1e-6, atol=0
    )
    stretched = rows * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1)  # control: no longer angles
    assert (pulse.cross(stretched) - pulse.cross(rows)).abs().min() > 0.01


def test_the_schedule_s_corners():
    got = [pulse.schedule(k, 100) for k in (0, 45, 90, 100)]
    assert got == pytest.approx([0.1, 1.0, 0.1, 0.001])
    knots = [0, 45, 90, 100]
    for k in range(100):
        want = np.interp(k, knots, [0.1, 1, 0.1, 0.001])
        assert pulse.schedule(k, 100) == pytest.approx(float(want))


def test_starts():
    one = dataclasses.replace(space(), noise=(4, 4, 8), zeroed=(2,))
    first, again = (pulse.start(one, 5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.rows.shape == (5, 3, 6)
    assert [n.shape for n in first.noise] == [(5, 1, 4, 4), (5, 1, 4, 4), (5, 1, 8, 8)]
    assert not first.noise[2].any()
    assert first.noise[1].any()
    assert torch.equal(first.rows, again.rows)


def test_what_cannot_be_searched():
    one, begin = space(), begun(space(), 2)
    with pytest.raises(UserError, match="as many starts"):
        pulse.search(one, draw(3, 3, 2, 2), REDUCE, pulse.Plan(), begin)
    with pytest.raises(UserError, match="last or best"):
        pulse.search(one, draw(2, 3, 2, 2), REDUCE, pulse.Plan(returned="first"), begin)


def test_statistics_of_mapped_latent_vectors():
    """A mapping whose last activation is undone exactly: mean and spread are its own."""
    mean, std = torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.3, 1.0, 2.0])
    count = 20_000
    got = pulse.fitted(
        lambda z: F.leaky_relu(z * std + mean, 0.2), 3, torch.Generator().manual_seed(0),
        count=count, block=3_000,
    )  # fmt: skip
    # standard errors of mean and spread of n normal numbers, five of them
    assert ((got[0] - mean).abs() < 5 * std / math.sqrt(count)).all()
    assert ((got[1] - std).abs() < 5 * std / math.sqrt(2 * count)).all()


def test_any_generator_of_codes():
    """The small protocol: a callable z -> image; here a network of the project."""
    from latentpapers.nets import pgan

    torch.manual_seed(0)
    net = pgan.Generator(16, fmap_base=64, fmap_max=16).requires_grad_(False)
    one = pulse.of_codes(net, 16)
    begin = pulse.start(one, 2, torch.Generator().manual_seed(1))
    target = F.avg_pool2d(net(torch.randn(2, 16)), 8)
    found = pulse.search(one, target, torch.nn.AvgPool2d(8), pulse.Plan(steps=8), begin)
    assert found.images.shape == (2, 3, 16, 16)
    assert (found.best <= pulse.distance(F.avg_pool2d(net(begin.rows[:, 0]), 8), target)).all()
