"""LAG's equations 5 to 11: each against an independent reference, each with a control that fails.

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
from latentpapers.losses import centre as Z
from latentpapers.losses import logistic as L
from latentpapers.losses import low_resolution as R
from latentpapers.losses import relativistic as A
from latentpapers.losses import wgan as W

FINITE = 1e-6  # central differences with h = 1e-5 are good to h^2 = 1e-10, of values up to 1e3


def images(seed):
    return (draw(3, 2, 4, 4, seed=seed) / 2).clamp(-1, 1)


def test_the_library_marks_exactly_these():
    marked = {int(eq) for paper, eq in registered() if paper == "lag"}
    assert marked == {5, 6, 7, 8, 9, 10, 11}


# --- eq 5: gradient penalty ------------------------------------------------------------------


class Quadratic(nn.Module):
    """C(x) = sum_i a_i x_i^2 / 2 + b_i x_i: its slope a x + b is known in closed form."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(draw(2, 4, 4, seed=11))
        self.b = nn.Parameter(draw(2, 4, 4, seed=12))

    def forward(self, x):
        return (self.a * x.square() / 2 + self.b * x).flatten(1).sum(1)


def closed_form(critic, real, fake, mix, norm, target, eps):
    rho = mix.numpy().reshape(-1, 1, 1, 1)
    x = rho * real.numpy() + (1 - rho) * fake.numpy()
    slope = critic.a.detach().numpy() * x + critic.b.detach().numpy()
    squares = (slope**2).reshape(len(x), -1)
    length = np.sqrt((squares.sum(1) if norm == "l2" else squares.mean(1)) + eps)
    return ((length - target) ** 2).mean()


def compare_eq_5(penalty):
    critic, real, fake = Quadratic(), images(1), images(2)
    mix = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    for norm in ("l2", "rms"):
        for target in (1.0, 0.3):
            value = penalty(critic, real, fake, mix, norm=norm, target=target)
            equal(value, closed_form(critic, real, fake, mix, norm, target, 1e-8))
    # the penalty is differentiable by the critic's parameters: finite differences
    value = penalty(critic, real, fake, mix, norm="rms")
    (found,) = torch.autograd.grad(value, critic.a)

    def at(a):
        other = Quadratic()
        other.a.data = a
        return penalty(other, real, fake, mix, norm="rms").detach()

    equal(found, central_difference(at, critic.a.detach()), FINITE)


def test_eq_5():
    compare_eq_5(W.gradient_penalty)


def mutant_5(**fixed):
    def penalty(critic, real, fake, mix, **options):
        return W.gradient_penalty(critic, real, fake, mix, **(options | fixed))

    return penalty


def constant_slope(critic, real, fake, mix, *, norm="l2", target=1.0):
    x = W.mixture(real, fake, mix).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x)  # no graph: nothing for the critic to learn
    return (W.slope_norm(slope, norm) - target).square().mean() + 0 * critic(x).sum()


def test_eq_5_control():
    refused(
        compare_eq_5,
        mutant_5(norm="l2"),
        mutant_5(target=0.0),
        lambda c, r, f, m, **o: W.gradient_penalty(c, f, r, m, **o),
        constant_slope,
        lambda c, r, f, m, **o: 10 * W.gradient_penalty(c, r, f, m, **o),
    )


def test_penalty_of_a_unit_slope_is_zero_and_both_norms_differ_by_the_root_of_the_size():
    direction = torch.nn.functional.normalize(draw(32, seed=3), dim=0)
    x, mix = images(1), torch.rand(3)

    def slope_one(x):
        return x.flatten(1) @ direction

    # eps = 1e-8 under the root moves a length of 1 by 5e-9
    equal(W.gradient_penalty(slope_one, x, -x, mix), 0, 1e-15)
    rms = W.gradient_penalty(slope_one, x, -x, mix, norm="rms", eps=0)
    equal(rms, (1 / math.sqrt(32) - 1) ** 2)


def test_penalty_leaves_its_inputs_alone_and_stays_wide_under_autocast():
    critic = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 1))
    real, fake = images(1).float().requires_grad_(), images(2).float().requires_grad_()
    seen = []

    def watched(x):
        out = critic(x)[:, 0]
        seen.append(out.dtype)
        return out

    with torch.autocast("cpu", torch.bfloat16):
        low = W.gradient_penalty(watched, real.bfloat16(), fake.bfloat16(), torch.rand(3))
    assert low.dtype == seen[0] == torch.float32
    inputs = torch.autograd.grad(
        W.gradient_penalty(watched, real, fake, torch.rand(3)), [real, fake], allow_unused=True
    )
    assert inputs == (None, None)
    with torch.no_grad():
        assert W.gradient_penalty(watched, real, fake, torch.rand(3)) > 0


def test_penalty_of_a_flat_critic_has_a_finite_gradient():
    flat = nn.Parameter(torch.zeros(32, dtype=torch.float64))
    value = W.gradient_penalty(lambda x: x.flatten(1) @ flat, images(1), images(2), torch.rand(3))
    (found,) = torch.autograd.grad(value, flat)
    assert bool(found.isfinite().all())


def test_penalty_refuses_another_norm():
    with pytest.raises(UnknownName, match="norm 'l1'"):
        W.gradient_penalty(lambda x: x.flatten(1).sum(1), images(1), images(2), torch.rand(3),
                           norm="l1")  # fmt: skip


@pytest.mark.parametrize("change", ["fake", "mix", "column"])
def test_a_mixture_of_shapes_that_do_not_fit_is_refused(change):
    """torch would stretch one image, or one weight, over the batch in silence."""
    real, fake, mix = images(1), images(2), torch.rand(3)
    fake = fake[:1] if change == "fake" else fake
    mix = {"mix": mix[:1], "column": mix[:, None]}.get(change, mix)
    with pytest.raises(UserError, match="one shape"):
        W.gradient_penalty(lambda x: x.flatten(1).sum(1), real, fake, mix)


def test_codes_of_two_shapes_and_a_batch_of_one_are_refused():
    with pytest.raises(UserError, match="one shape"):
        Z.centre_loss(images(1), images(2)[:1])
    with pytest.raises(UserError, match="2 images"):
        Z.prior_moments(images(1)[:1])


def test_the_mixture_is_uniform_on_the_line():
    real, fake = torch.ones(20_000, 1, 1, 1), torch.zeros(20_000, 1, 1, 1)
    rho = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    x = W.mixture(real, fake, rho).flatten()
    # 20,000 uniform numbers: 5 standard errors of the mean are 5 / sqrt(12 * 20000) = 0.0102
    assert abs(float(x.mean()) - 0.5) < 0.0102
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1


# --- eq 6: centre loss -----------------------------------------------------------------------


def compare_eq_6(centre_loss):
    real, centre = images(1), images(2)
    squares = (real.numpy() - centre.numpy()) ** 2
    equal(centre_loss(real, centre), squares.mean())
    equal(centre_loss(real, centre, reading="sum"), squares.reshape(3, -1).sum(1).mean())
    found = gradient(lambda c: centre_loss(real, c), centre)[0]
    equal(found, central_difference(lambda c: centre_loss(real, c), centre), FINITE)
    equal(centre_loss(real, real), 0)


def test_eq_6():
    compare_eq_6(Z.centre_loss)


def test_eq_6_control():
    refused(
        compare_eq_6,
        lambda r, c, reading="mean": (r - c).abs().mean(),
        lambda r, c, reading="mean": Z.centre_loss(r, c, reading="sum"),
        lambda r, c, reading="mean": (r.mean() - c.mean()).square(),
        lambda r, c, reading="mean": Z.centre_loss(r, c.detach(), reading=reading) + 0 * c.sum(),
    )


def test_the_two_readings_of_eq_6_differ_by_the_size_of_the_code():
    real, centre = images(1), images(2)
    ratio = Z.centre_loss(real, centre, reading="sum") / Z.centre_loss(real, centre)
    equal(ratio, real[0].numel())
    with pytest.raises(UnknownName):
        Z.centre_loss(real, centre, reading="max")


# --- eqs 7 and 8: objectives -----------------------------------------------------------------


def linear(function, expected, seed=7):
    """`function` of scalars is exactly the linear form with these coefficients."""
    for s in (seed, seed + 1):
        terms = list(draw(len(expected), seed=s))
        equal(function(*terms), sum(c * float(t) for c, t in zip(expected, terms)))
        for found, coefficient in zip(gradient(function, *terms), expected, strict=True):
            equal(found, coefficient)


def compare_eq_7(objective):
    for weight in (1.0, 10.0):
        linear(lambda a, c, w=weight: objective(a, c, weight=w), (1, weight))
    linear(objective, (1, 10))  # the authors' weight is the default


def test_eq_7():
    compare_eq_7(Z.generator_objective)


def test_eq_7_control():
    refused(
        compare_eq_7,
        lambda a, c, weight=10: a - weight * c,
        lambda a, c, weight=10: a + c,
        lambda a, c, weight=10: a,
        lambda a, c, weight=1: a + weight * c,
    )


def compare_eq_8(objective):
    real, fake = draw(5, seed=1), draw(5, seed=2)
    penalty = torch.tensor(0.7, dtype=torch.float64)
    for weight in (1.0, 10.0):
        value = objective(real, fake, penalty, weight=weight)
        equal(value, np.mean(fake.numpy()) - np.mean(real.numpy()) + weight * 0.7)
    found = gradient(lambda r, f, p: objective(r, f, p), real, fake, penalty)
    equal(found[0], [-0.2] * 5)
    equal(found[1], [0.2] * 5)
    equal(found[2], 10)


def test_eq_8():
    compare_eq_8(W.penalised_critic_loss)


def test_eq_8_control():
    refused(
        compare_eq_8,
        lambda r, f, p, weight=10: W.penalised_critic_loss(f, r, p, weight=weight),
        lambda r, f, p, weight=10: W.penalised_critic_loss(r, f, -p, weight=weight),
        lambda r, f, p, weight=1: W.penalised_critic_loss(r, f, p, weight=weight),
        lambda r, f, p, weight=10: f.sum() - r.sum() + weight * p,
    )


def test_eq_4_the_critic_maximises_what_the_generator_minimises():
    real, fake = draw(5, seed=1), draw(5, seed=2)
    value = real.mean() - fake.mean()
    equal(-W.critic_loss(real, fake), value)
    by_fake = gradient(lambda f: W.generator_loss(f), fake)[0]
    equal(by_fake, gradient(lambda f: real.mean() - f.mean(), fake)[0])


# --- eq 9: the conditional GAN ---------------------------------------------------------------


def compare_eq_9(objective):
    real, fake = draw(6, seed=1), draw(6, seed=2)

    def sigmoid(v):
        return 1 / (1 + np.exp(-v.numpy()))

    equal(objective(real, fake), np.log(sigmoid(real)).mean() + np.log(1 - sigmoid(fake)).mean())
    large = torch.full((2,), 300.0, dtype=torch.float64)  # where log(1 - sigmoid) would be -inf
    equal(objective(large, large), -300)
    # at D = 1/2 the value is -2 ln 2, and D = real / (real + fake) is where it is largest
    equal(objective(torch.zeros(2).double(), torch.zeros(2).double()), -2 * math.log(2))


def test_eq_9():
    compare_eq_9(L.objective)


def test_eq_9_control():
    refused(
        compare_eq_9,
        lambda r, f: L.objective(f, r),
        lambda r, f: -L.objective(r, f),
        lambda r, f: torch.sigmoid(r).log().mean() + (1 - torch.sigmoid(f)).log().mean(),
    )


def test_the_best_discriminator_is_the_share_of_real_mass():
    share = 0.3  # of real among all images at one point: D* = 0.3
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    value = share * nn.functional.logsigmoid(grid) + (1 - share) * nn.functional.logsigmoid(-grid)
    best = grid[value.argmax()]
    assert abs(float(best) - math.log(share / (1 - share))) < 1e-3  # the grid's spacing


# --- eq 10: the difference map ---------------------------------------------------------------


def compare_eq_10(difference_map):
    target, reduced = images(1), images(2)
    y, h = target.numpy(), reduced.numpy()
    s, r = 8 / 255, 2 / 255
    equal(difference_map(target, reduced), s * np.rint(np.abs(y - h) / s))
    equal(difference_map(target, reduced, reading="paper"), np.abs(y - r * np.rint(h / r)) / r)
    equal(difference_map(target, reduced, reading="literal"), np.abs(y) / r)
    # the gradient of eq 10 by its surrogate: the same expression without rounding
    weights = draw(3, 2, 4, 4, seed=5)
    found = gradient(lambda h: (weights * difference_map(target, h)).sum(), reduced)[0]

    def smooth(h):
        return (weights * (target - h).abs()).sum()

    equal(found, central_difference(smooth, reduced), FINITE)


def test_eq_10():
    compare_eq_10(R.difference_map)


def test_eq_10_control():
    def hard(target, reduced, *, reading="code"):
        value = R.difference_map(target, reduced, reading=reading)
        return value.detach() + 0 * reduced  # a rounding without the straight-through gradient

    def sign(target, reduced, *, reading="code"):
        return R.difference_map(reduced, target, reading=reading).neg()

    def two_levels(target, reduced, *, reading="code"):
        step = 2 / 255
        return R.difference_map(target, reduced, reading=reading, step=step)

    refused(compare_eq_10, hard, sign, two_levels)


def test_eq_10_at_known_values():
    """Facts 7.8: an error of 0.1 is 3.19 steps of 8/255, so 3 steps; the sign comes through."""
    y, h = torch.tensor([[[[0.1, 0.0, 0.01]]]]), torch.zeros(1, 1, 1, 3, requires_grad=True)
    value = R.difference_map(y, h)
    equal(value, [[[[3 * 8 / 255, 0, 0]]]], 1e-6)  # float32
    (found,) = torch.autograd.grad(value.sum(), h)
    equal(found, [[[[-1, 0, -1]]]])


def test_the_literal_print_does_not_see_the_output():
    y = images(1)
    equal(R.difference_map(y, images(2), reading="literal"), R.difference_map(y, images(3),
          reading="literal"))  # fmt: skip
    equal(R.no_difference(y), np.zeros(y.shape))
    with pytest.raises(UnknownName):
        R.difference_map(y, y, reading="print")


def test_small_errors_vanish_in_the_code_reading():
    """Half a step is 4/255 on [-1, 1], two grey levels: the critic cannot measure less."""
    y = images(1)
    assert float(R.difference_map(y, y + 3.9 / 255).abs().max()) == 0
    assert float(R.difference_map(y, y + 4.1 / 255).min()) > 0


# --- eq 11: straight-through rounding --------------------------------------------------------


def compare_eq_11(estimator):
    x = 5 * draw(40, seed=4)
    equal(estimator(x), np.rint(x.numpy()))
    weights = draw(40, seed=5)
    equal(gradient(lambda v: (weights * estimator(v)).sum(), x)[0], weights)


def test_eq_11():
    compare_eq_11(R.straight_through)


def test_eq_11_control():
    refused(
        compare_eq_11,
        torch.round,
        lambda x: x,
        lambda x: x.floor().detach() + x - x.detach(),
        lambda x: (x.round() - x) + x,
        lambda x: (x.round() - x).detach() + 2 * x,
    )


# --- section 3.1: the relativistic alternative; section 2.1: extensions ------------------------


def test_relativistic_average_against_its_definition():
    real, fake = draw(6, seed=1), draw(6, seed=2)

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    a = np.log(sigmoid(real.numpy() - fake.numpy().mean())).mean()
    b = np.log(1 - sigmoid(fake.numpy() - real.numpy().mean())).mean()
    equal(A.critic_loss(real, fake), -(a + b) / 2)
    c = np.log(sigmoid(fake.numpy() - real.numpy().mean())).mean()
    d = np.log(1 - sigmoid(real.numpy() - fake.numpy().mean())).mean()
    equal(A.generator_loss(real, fake), -(c + d) / 2)


def test_relativistic_losses_are_ln_2_at_a_tie_and_see_only_differences():
    tie = torch.full((4,), 1.7, dtype=torch.float64)
    equal(A.critic_loss(tie, tie), math.log(2))
    equal(A.generator_loss(tie, tie), math.log(2))
    real, fake = draw(6, seed=1), draw(6, seed=2)
    equal(A.critic_loss(real + 3, fake + 3), A.critic_loss(real, fake))
    with pytest.raises(AssertionError):
        equal(A.critic_loss(real + 3, fake), A.critic_loss(real, fake))


def test_prior_moments_are_zero_exactly_at_the_moments_of_the_prior():
    z = draw(4000, 3, 1, 1, seed=1)
    z = (z - z.mean(0)) / z.std(0, correction=0)
    equal(Z.prior_moments(z), 0, 1e-12)
    assert float(Z.prior_moments(z + 0.1)) == pytest.approx(0.5 * 0.01, rel=1e-6)
    assert float(Z.prior_moments(2 * z)) == pytest.approx(0.25 * math.log(4) ** 2, rel=1e-6)
    # second order of KL(N(m, v) || N(0, 1)) = (m^2 + v - log v - 1) / 2
    for m, v in ((0.05, 1.0), (0.0, 1.05)):
        kl = 0.5 * (m**2 + v - math.log(v) - 1)
        got = float(Z.prior_moments(z * math.sqrt(v) + m))
        assert got == pytest.approx(kl, rel=0.05)  # the next order is v^3 / 6: 3 % at 0.05
