"""LRC-I2I's equations 1, 2 and 4 to 8: each against an independent reference, each with a control.

Every comparison is a function of the implementation under test, so that the control puts a mutant
(a flipped sign, another reading, a slip of the paper) through exactly the same comparison.
"""

import math

import numpy as np
import pytest
import torch
from identity_bed import central_difference, draw, equal, gradient, refused
from torch import nn

from latentpapers.errors import UnknownName, UserError
from latentpapers.ledger.implements import registered
from latentpapers.losses import cycle as C
from latentpapers.losses import subspace as S

FINITE = 1e-6  # central differences with h = 1e-5 are good to h^2 = 1e-10, of values up to 1e3


def images(seed, side=8, n=3):
    return (draw(n, 3, side, side, seed=seed) / 2).clamp(-1, 1)


def test_the_library_marks_exactly_these():
    marked = {int(eq) for paper, eq in registered() if paper == "lrc_i2i"}
    assert marked == {1, 2, 4, 5, 6, 7, 8}


# --- eq 1: the low resolution subspace ------------------------------------------------------------


def compare_eq_1(inside):
    """Images at a known distance from the target, just inside and just outside, in three norms."""
    target = images(1, 4)
    direction = draw(3, 3, 4, 4, seed=2).numpy().reshape(3, -1)
    for p in (1.0, 2.0, math.inf):
        length = np.linalg.norm(direction, ord=p, axis=1) / direction.shape[1] ** (1 / p)
        unit = torch.from_numpy(direction / length[:, None]).reshape(target.shape)
        radii = torch.tensor([0.1, 0.1 * (1 + 1e-9), 0.0999999], dtype=torch.float64)
        found = inside(target + radii.view(-1, 1, 1, 1) * unit, target, 0.1 * (1 + 1e-10), p=p)
        assert found.tolist() == [True, False, True], p
    # with epsilon = 0 only the target itself (section 4.1)
    one = target.clone()
    one[1, 0, 0, 0] += 1e-12
    assert inside(one, target, 0.0).tolist() == [True, False, True]


def test_eq_1():
    compare_eq_1(S.in_low_subspace)


def test_eq_1_control():
    refused(
        compare_eq_1,
        lambda a, b, e, p=1.0: S.in_low_subspace(a, b, e),  # always p = 1
        lambda a, b, e, p=1.0: S.distance(a, b, p) < e,  # an open ball: empty at 0
        lambda a, b, e, p=1.0: S.distance(a, b, p) ** 2 <= e,
        lambda a, b, e, p=1.0: (a - b).abs().flatten(1).sum(1) <= e,
    )


# --- eq 2: the high resolution subspace -----------------------------------------------------------


def block_means(x, side):
    """By numpy: the mean over equal blocks."""
    n, c, size, _ = x.shape
    k = size // side
    return x.detach().numpy().reshape(n, c, side, k, side, k).mean((3, 5))


def compare_eq_2(inside):
    """Details that vanish in the blocks' means stay in M_x; one shifted block leaves it."""
    image = images(1, 16)
    target = torch.from_numpy(block_means(image, 4))
    checker = torch.tensor([[1.0, -1], [-1, 1]], dtype=torch.float64).repeat(8, 8) / 4
    assert inside(image, target, 1e-12).all()
    assert inside(image + checker, target, 1e-12).all()
    moved = image.clone()
    moved[1, :, :4, :4] += 0.32  # 1 block of 16: a mean distance of 0.02
    assert inside(moved, target, 0.0199).tolist() == [True, False, True]
    assert inside(moved, target, 0.0201).all()


def test_eq_2():
    compare_eq_2(S.in_subspace)


def test_eq_2_control():
    def every_other_pixel(image, target, epsilon, p=1.0):
        return S.in_low_subspace(image[..., ::4, ::4], target, epsilon, p=p)

    refused(
        compare_eq_2,
        every_other_pixel,
        lambda i, t, e: S.in_subspace(i, t, 10 * e),
        lambda i, t, e: S.in_subspace(i, t, e, p=math.inf),
    )


def test_reduction_is_the_mean_of_blocks_and_refuses_other_sides():
    x = images(3, 16)
    for side in (1, 2, 8, 16):
        equal(S.reduce(x, side), block_means(x, side))
    for side in (0, 3, 32):
        with pytest.raises(UserError, match="do not divide"):
            S.reduce(x, side)
    grey = S.reduce(x, 4, grey=True)
    expected = np.einsum("nchw,c->nhw", block_means(x, 4), [0.3, 0.59, 0.11])
    for channel in range(3):
        equal(grey[:, channel], expected)


# --- eq 4: the whole objective --------------------------------------------------------------------


def compare_eq_4(objective):
    """min over G of (max over D of L_adv) + lambda L_cyc on a toy whose optimum is known.

    L_adv = g d - d^2 / 2 has its maximum g^2 / 2 at d = g; L_cyc = |g - 2|. With lambda = 1 the sum
    g^2 / 2 + |g - 2| is least at g = 1; with lambda = 0.1 at g = 0.1.
    """
    for weight, best in ((1.0, 1.0), (0.1, 0.1)):

        def whole(g, d, weight=weight):
            return objective(g * d - d**2 / 2, (g - 2).abs(), weight=weight)

        g = torch.tensor(1.5, dtype=torch.float64)
        for _ in range(200):
            d = torch.zeros((), dtype=torch.float64)
            for _ in range(3):  # the inner maximum; d does not occur in the cycle loss
                d = d + gradient(whole, g, d)[1]
            g = g - 0.1 * gradient(whole, g, d)[0]
        equal(g, best, 1e-8)  # 0.9^200 is 7e-10 of the way left


def test_eq_4():
    compare_eq_4(C.full_objective)


def test_eq_4_control():
    refused(
        compare_eq_4,
        lambda a, c, weight: a + c,
        lambda a, c, weight: weight * a + c,
        lambda a, c, weight: a - weight * c,
        lambda a, c, weight: a + weight**2 * c,
    )


# --- eq 5: the difference map ---------------------------------------------------------------------


def reference_5(y, low, reading, s):
    y, low = y.numpy(), low.numpy()
    if reading == "code":
        return np.rint(np.abs(y - low) / s) * s
    if reading == "paper":
        return np.abs(y - s * np.rint(low / s)) / s
    return np.abs(y - np.floor(s * low)) / s


def compare_eq_5(difference):
    y, low = images(1, 4), images(2, 4)
    for reading, s in (("code", 8 / 255), ("paper", 2 / 255), ("literal", 2 / 255)):
        equal(difference(y, low, reading=reading), reference_5(y, low, reading, s))
    equal(difference(y, low), reference_5(y, low, "code", 8 / 255))
    equal(difference(y, low, step=0.1), reference_5(y, low, "code", 0.1))
    # straight through: the slope of |y - low| by low, without rounding
    (found,) = gradient(lambda v: difference(y, v).sum(), low)
    equal(found, -torch.sign(y - low))
    # what counts as none: half a step (lrc_i2i-e3)
    near = y + 3.99 / 255
    assert float(difference(y, near).abs().max()) == 0
    assert float(difference(y, y + 4.01 / 255).min()) > 0


def test_eq_5():
    compare_eq_5(S.difference)


def test_eq_5_control():
    def mutant(**fixed):
        return lambda y, low, **options: S.difference(y, low, **(options | fixed))

    def unrounded(y, low, reading="code", step=None):
        return (y - low).abs()

    def blocked(y, low, reading="code", step=None):
        d = S.difference(y, low, reading=reading, step=step)
        return d.detach() + 0 * low

    refused(
        compare_eq_5, mutant(reading="code"), mutant(reading="paper"), mutant(step=2 / 255),
        mutant(tolerance=1e-3), mutant(epsilon=1e-3), unrounded, blocked,
    )  # fmt: skip


def test_the_printed_form_hardly_sees_the_output():
    """lrc_i2i-e1: two outputs of equal sign give one map, however far they are from the target."""
    y = images(1, 4)
    one, two = (S.difference(y, v.abs() + 0.01, reading="literal") for v in (y, images(2, 4)))
    equal(one, two)
    assert not torch.equal(*(S.difference(y, v.abs() + 0.01) for v in (y, images(2, 4))))


def test_epsilon_forgives_a_ball_and_tolerance_a_dead_zone():
    y, low = images(1, 4), images(2, 4)
    gap = (low - y).numpy()
    length = np.abs(gap).mean((1, 2, 3))
    fine = 1e-9  # a step that hides the rounding
    for epsilon in (0.0, 0.05, float(length[1])):
        found = S.difference(y, low, step=fine, epsilon=epsilon)
        shrink = np.maximum(1 - epsilon / length, 0).reshape(-1, 1, 1, 1)
        equal(found, np.abs(gap) * shrink, fine)
        # the map is as long as the way to the ball (eq 1 with p = 1)
        equal(S.distance(found, 0 * found), np.maximum(length - epsilon, 0), fine)
    equal(S.difference(y, low, step=fine, tolerance=0.1), np.maximum(np.abs(gap) - 0.1, 0), fine)
    inside = y + 0.04 * torch.sign(draw(3, 3, 4, 4, seed=5))
    found = S.difference(y, inside, epsilon=0.05)
    assert float(found.abs().max()) == 0
    (slope,) = gradient(lambda v: S.difference(y, v, epsilon=0.05).sum(), inside)
    assert float(slope.abs().max()) == 0  # inside the ball nothing pulls
    assert torch.isfinite(gradient(lambda v: S.difference(y, v, epsilon=0.05).sum(), y)[0]).all()


def test_bad_readings_and_radii_are_refused():
    y = images(1, 4)
    with pytest.raises(UnknownName, match="literal"):
        S.difference(y, y, reading="floor")
    for options in ({"epsilon": -0.1}, {"tolerance": -0.1}):
        with pytest.raises(UserError, match="negative"):
            S.difference(y, y, **options)


# --- eq 6: what the discriminator sees ------------------------------------------------------------


def compare_eq_6(seen):
    image, target = images(1, 16), images(2, 4)
    own, zeros = seen(image, target, real=True)
    assert torch.equal(own, image)
    assert zeros.shape == target.shape
    assert float(zeros.abs().max()) == 0
    made, difference = seen(image, target, real=False)
    assert torch.equal(made, image)
    low = torch.from_numpy(block_means(image, 4))
    equal(difference, reference_5(target, low, "code", 8 / 255))
    # both inputs carry a gradient to the generated image
    (found,) = gradient(lambda v: seen(v, target, real=False)[1].sum(), image)
    sign = -torch.sign(target - low) / 16
    equal(found, sign.repeat_interleave(4, 2).repeat_interleave(4, 3))
    options = {"reading": "paper", "step": 0.1}
    equal(seen(image, target, real=False, **options)[1], reference_5(target, low, "paper", 0.1))


def test_eq_6():
    compare_eq_6(S.seen)


def test_eq_6_control():
    refused(
        compare_eq_6,
        lambda i, t, real, **o: S.seen(i, t, real=False, **o),
        lambda i, t, real, **o: S.seen(i, t, real=True, **o),
        lambda i, t, real, **o: S.seen(i, t, real=not real, **o),
        lambda i, t, real, **o: (i, t),  # the target itself, as in eqs 2 and 3 of LAG
        lambda i, t, real, **o: S.seen(i, t, real=real, grey=True, **o),
        lambda i, t, real, **o: S.seen(i, t, real=real),
    )


# --- eq 7: the adversarial loss -------------------------------------------------------------------


def log_sigmoid(v):
    return -np.logaddexp(0, -v.numpy())


def compare_eq_7(objective):
    for shape in ((4,), (4, 1, 5, 5)):
        terms = [draw(*shape, seed=k) for k in range(6)]
        for reals, fakes in ((terms[:2], terms[2:3]), (terms[:2], terms[2:4]),
                             (terms[:2] * 2, terms[2:])):  # fmt: skip
            expected = sum(log_sigmoid(v).mean() for v in reals)
            expected += sum(log_sigmoid(-v).mean() for v in fakes)
            equal(objective(reals, fakes), expected)
    # the best discriminator where densities agree: one logit for all, found by its slope
    for reals, fakes, best in ((2, 1, 2 / 3), (2, 2, 1 / 2), (4, 4, 1 / 2)):  # lrc_i2i-e6
        v = torch.tensor([math.log(best / (1 - best))], dtype=torch.float64)
        (slope,) = gradient(lambda v, r=reals, f=fakes: objective([v] * r, [v] * f), v)
        equal(slope, [0.0])
    # large logits stay finite
    assert torch.isfinite(objective([torch.tensor([-1e4])], [torch.tensor([1e4])]))


def test_eq_7():
    compare_eq_7(C.objective)


def test_eq_7_control():
    def naive(reals, fakes):
        likes = [torch.sigmoid(v).log().mean() for v in reals]
        return torch.stack(likes + [(1 - torch.sigmoid(v)).log().mean() for v in fakes]).sum()

    refused(
        compare_eq_7,
        naive,  # overflows
        lambda r, f: C.objective(f, r),
        lambda r, f: -C.objective(r, f),
        lambda r, f: C.objective(r, f) / (len(r) + len(f)),
        lambda r, f: C.objective(r[:1], f[:1]),
        lambda r, f: C.objective(r, f[:1]),
    )


def test_the_two_players_losses():
    fakes = [draw(4, 1, 5, 5, seed=k) for k in (1, 2)]
    reals = [draw(4, 1, 5, 5, seed=k) for k in (3, 4)]
    equal(C.discriminator_loss(reals, fakes), -C.objective(reals, fakes))
    zero = [torch.zeros(3, 1, 5, 5, dtype=torch.float64)] * 4
    equal(C.discriminator_loss(zero, zero), 8 * math.log(2))
    equal(C.generator_loss(fakes), -sum(log_sigmoid(v).mean() for v in fakes))
    equal(C.generator_loss(fakes, saturating=True), sum(log_sigmoid(-v).mean() for v in fakes))
    # where the discriminator is sure, only the non-saturating form pulls (lrc_i2i-e7)
    sure = torch.full((4,), -12.0, dtype=torch.float64)
    pulls = [gradient(lambda v, s=s: C.generator_loss([v], saturating=s), sure)[0].abs().sum()
             for s in (False, True)]  # fmt: skip
    assert float(pulls[0]) > 0.99
    assert float(pulls[1]) < 1e-4


# --- eq 8: cycle consistency ----------------------------------------------------------------------


def compare_eq_8(loss):
    x, x_back, y, y_back = (images(k) for k in range(4))
    expected = np.abs((x - x_back).numpy()).mean() + np.abs((y - y_back).numpy()).mean()
    equal(loss(x, x_back, y, y_back), expected)
    equal(loss(x, x, y, y), 0)
    (found,) = gradient(lambda v: loss(x, v, y, y_back), x_back)
    equal(found, central_difference(lambda v: loss(x, v, y, y_back), x_back), FINITE)


def test_eq_8():
    compare_eq_8(C.cycle_l1)


def test_eq_8_control():
    refused(
        compare_eq_8,
        lambda x, a, y, b: C.cycle_l1(x, b, y, a),
        lambda x, a, y, b: (x - a).abs().mean(),
        lambda x, a, y, b: (x - a).square().mean() + (y - b).square().mean(),
        lambda x, a, y, b: C.cycle_l1(x, a, y, b) / 2,
        lambda x, a, y, b: (x - a).abs().sum() + (y - b).abs().sum(),
        lambda x, a, y, b: C.cycle_l1(x, a.detach(), y, b) + 0 * a.sum(),
    )


# --- R1 (section 4.1; no equation) ----------------------------------------------------------------


class Quadratic(nn.Module):
    """logit(x) = sum_i a_i x_i^2 / 2 + b_i x_i: its slope a x + b is known in closed form."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(draw(3, 4, 4, seed=11) / 10)
        self.b = nn.Parameter(draw(3, 4, 4, seed=12) / 10)

    def forward(self, x):
        return (self.a * x.square() / 2 + self.b * x).flatten(1).sum(1)


def test_r1_textbook_and_code_in_closed_form():
    critic, x = Quadratic(), images(1, 4)
    slope = critic.a * x + critic.b
    squares = slope.square().flatten(1).sum(1)
    logits = critic(x)
    leaf = x.clone().requires_grad_()
    equal(C.r1(critic(leaf), leaf), squares.mean())
    # the code's: each slope times sigmoid(-D) / N
    factor = (torch.sigmoid(-logits) / 3).square()
    leaf = x.clone().requires_grad_()
    equal(C.r1(critic(leaf), leaf, reading="code"), (factor * squares).mean())
    leaf = x.clone().requires_grad_()
    equal(C.r1(critic(leaf), leaf, reading="code", images=12), (factor * squares).mean() / 16)
    # far weaker: at logit 0 by 4 N^2, the most it can be by N^2
    assert bool((factor * squares).mean() < squares.mean() / 9)
    # differentiable by the discriminator: finite differences
    for reading in C.R1_READINGS:
        leaf = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(C.r1(critic(leaf), leaf, reading=reading), critic.a)

        def at(a, reading=reading):
            other, leaf = Quadratic(), x.clone().requires_grad_()
            other.a.data = a
            return C.r1(other(leaf), leaf, reading=reading).detach()

        equal(found, central_difference(at, critic.a.detach()), FINITE)


def test_r1_of_a_map_of_logits_is_that_of_their_mean():
    x = images(1, 4)
    weights = draw(3, 4, 4, seed=3)

    def both(v):
        one = (weights * v).flatten(1).sum(1)
        return torch.stack([2 * one, 0 * one], 1).view(-1, 1, 1, 2)

    leaf = x.clone().requires_grad_()
    equal(C.r1(both(leaf), leaf), weights.square().sum())
    with pytest.raises(UnknownName, match="textbook"):
        C.r1(both(leaf), leaf, reading="r2")
