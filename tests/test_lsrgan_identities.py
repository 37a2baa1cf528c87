"""LSRGAN's losses (eqs 1, 8 to 11, 13, 14) and its two propositions, numerically.

Every comparison is a function of the implementation under test, so that the control puts a mutant
(a flipped sign, a weight on the wrong term) through the same comparison. Eq 12 is checked in
tests/test_contextual.py.
"""

import numpy as np
import pytest
import torch
from identity_bed import draw, equal, refused

from latentpapers.errors import UserError
from latentpapers.latent import lipschitz as K
from latentpapers.losses import latent_regularisation as R

LAM, ETA, MU = 5e-3, 1e-2, 1e-3  # section 4.1


def weights_of(objective, *terms, **weights):
    """The objective's slope in each of its terms, by autograd: it must be linear in them."""
    leaves = [t.clone().requires_grad_() for t in terms]
    found = torch.autograd.grad(objective(*leaves, **weights), leaves, allow_unused=True)
    return [0.0 if g is None else float(g) for g in found]


TERMS = draw(4, seed=3)


def compare_objective(objective, expected, **weights):
    """Value by the printed sum, and slopes 1, lambda, eta, -mu; at two points."""
    for terms in (TERMS, draw(4, seed=4)):
        percep, adversarial, pixel, latent = terms.tolist()
        printed = percep + LAM * adversarial + ETA * pixel - expected * latent
        equal(objective(*terms, **weights), printed)
        equal(weights_of(objective, *terms, **weights), [1.0, LAM, ETA, -expected])


def wrong_sign(percep, adversarial, pixel, latent=0.0, *, lam=LAM, eta=ETA, mu=0.0):
    return percep + lam * adversarial + eta * pixel + mu * latent


def swapped(percep, adversarial, pixel, latent=0.0, *, lam=LAM, eta=ETA, mu=0.0):
    return percep + eta * adversarial + lam * pixel - mu * latent


def test_eq_1():
    compare_objective(R.generator_objective, 0.0)


def test_eq_1_control():
    def leaves_the_latent_term(*terms, mu=MU, **weights):
        return R.generator_objective(*terms, mu=mu, **weights)

    refused(lambda f: compare_objective(f, 0.0), swapped, leaves_the_latent_term)


def test_eq_11():
    compare_objective(R.generator_objective, MU, mu=MU)


def test_eq_11_control():
    refused(lambda f: compare_objective(f, MU, mu=MU), wrong_sign, swapped)


def test_eq_13():
    """The contextual loss stands where the perceptual term stood; nothing else changes."""
    from latentpapers.losses.contextual import contextual

    maps = [draw(2, 5, 4, 4, seed=s) for s in (1, 2)]
    ccx = contextual(*maps)
    _, adversarial, pixel, latent = TERMS
    found = R.generator_objective(ccx, adversarial, pixel, latent)
    equal(found, float(ccx) + LAM * float(adversarial) + ETA * float(pixel))


def test_eq_13_control():
    refused(lambda f: compare_objective(f, 0.0), swapped)


def test_eq_14():
    compare_objective(R.generator_objective, MU, mu=MU)
    both = [R.generator_objective(*TERMS, mu=mu) for mu in (0.0, MU)]
    equal(both[0] - both[1], MU * TERMS[3])  # eq 13 less eq 14 is the latent term


def test_eq_14_control():
    refused(lambda f: compare_objective(f, MU, mu=MU), wrong_sign)


def compare_eq_10(distance):
    real, fake = draw(3, 4, 5, 5, seed=5), draw(3, 4, 5, 5, seed=6)
    equal(distance(real, fake), np.abs(real.numpy() - fake.numpy()).mean())
    leaf = fake.clone().requires_grad_()
    (slope,) = torch.autograd.grad(distance(real, leaf), leaf)
    equal(slope, np.sign(fake.numpy() - real.numpy()) / fake.numel())


def test_eq_10():
    compare_eq_10(R.latent_distance)


def test_eq_10_control():
    refused(
        compare_eq_10,
        lambda a, b: (a - b).abs().sum() / len(a),
        lambda a, b: (a - b).square().mean(),
        lambda a, b: (a - b).mean().abs(),
    )


@pytest.mark.parametrize("shape", [(1, 4, 5, 5), (3, 1, 5, 5), (3, 4, 5, 4), (0,)])
def test_codes_of_two_shapes_have_no_distance(shape):
    real = torch.zeros(shape if shape == (0,) else (3, 4, 5, 5))
    with pytest.raises(UserError, match="have no distance"):
        R.latent_distance(real, torch.zeros(shape))


def compare_eq_8(lagrangian):
    """At a solution of min f s.t. pixel <= K latent the gradient vanishes, with eta >= 0.

    f = (g - 2)^2, pixel = |g|, latent = |g| / 2 + 1/2, K = 1: the constraint reads |g| <= 1, so the
    solution is g = 1. There f' = -2 and the constraint's slope is 1/2, so eta = 4.
    """
    g = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    value = lagrangian((g - 2) ** 2, g.abs(), g.abs() / 2 + 0.5, 4.0, 1.0)
    equal(value.item(), 1.0)  # the constraint is tight, so only f is left
    equal(torch.autograd.grad(value, g)[0], 0.0)


def test_eq_8():
    compare_eq_8(R.lagrangian)


def test_eq_8_control():
    refused(
        compare_eq_8,
        lambda f, p, h, eta, k: f + eta * (p + k * h),
        lambda f, p, h, eta, k: f - eta * (p - k * h),
        lambda f, p, h, eta, k: f + eta * p - k * h,
    )


def compare_eq_9(regularised):
    """Eq 9 is eq 8 under mu = eta K; and K is free once mu is a weight of its own."""
    f, pixel, latent = TERMS[:3]
    for eta, k in ((0.3, 2.0), (1e-2, 0.1)):
        equal(regularised(f, pixel, latent, eta, eta * k), R.lagrangian(f, pixel, latent, eta, k))


def test_eq_9():
    compare_eq_9(R.regularised)


def test_eq_9_control():
    refused(
        compare_eq_9,
        lambda f, p, h, eta, mu: f + eta * p + mu * h,
        lambda f, p, h, eta, mu: f + mu * p - eta * h,
        lambda f, p, h, eta, mu: f + eta * (p - mu * h),
    )


# --- appendix A: approximation by piecewise linear functions --------------------------------------

NODES = torch.linspace(-1, 2, 301, dtype=torch.float64)


def polynomial(x):
    return 0.3 * x**3 - 0.7 * x**2 + 0.2 * x


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.01])
def test_proposition_a_holds_with_the_nodes_of_eq_23(epsilon):
    """f is within epsilon / 3 of a polynomial with constant K; eq 23 then promises epsilon."""
    dense = torch.linspace(-1, 2, 20_001, dtype=torch.float64)
    wiggle = epsilon / 3.01 * torch.sin(200 * dense)
    slope = float((0.9 * dense**2 - 1.4 * dense + 0.2).abs().max())
    count = K.node_count(3.0, slope, epsilon)
    nodes = torch.linspace(-1, 2, count + 1, dtype=torch.float64)
    f = polynomial(dense) + wiggle
    at_nodes = polynomial(nodes) + epsilon / 3.01 * torch.sin(200 * nodes)
    gap = (f - K.piecewise_linear(dense, nodes, at_nodes)).abs().max()
    assert float(gap) < epsilon


def test_proposition_a_needs_its_nodes():
    """Control: a tenth of the nodes of eq 23 may miss a steep function by more than epsilon."""
    dense = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    f = torch.sin(40 * dense)
    epsilon = 0.05
    few = K.node_count(1.0, 40.0, epsilon) // 200
    nodes = torch.linspace(0, 1, few + 1, dtype=torch.float64)
    gap = (f - K.piecewise_linear(dense, nodes, torch.sin(40 * nodes))).abs().max()
    assert float(gap) > epsilon


def test_eq_18_is_an_identity():
    x = draw(50, seed=8).clamp(-0.99, 0.99)
    left, right = -1.0, 1.0
    f = polynomial
    ends = torch.tensor([left, right], dtype=torch.float64)
    gap = f(x) - K.piecewise_linear(x, ends, f(ends))
    both = (right - x) / 2 * (f(x) - f(ends[0])) + (x - left) / 2 * (f(x) - f(ends[1]))
    equal(gap, both)


def test_piecewise_linear_is_numpy_s_interpolation_and_refuses_bad_nodes():
    nodes, values = torch.cumsum(draw(9, seed=9).abs() + 0.1, 0), draw(9, seed=10)
    x = torch.rand(100, dtype=torch.float64) * (nodes[-1] - nodes[0]) + nodes[0]
    equal(K.piecewise_linear(x, nodes, values), np.interp(x, nodes, values))
    equal(K.piecewise_linear(nodes, nodes, values), values)
    for bad in (nodes.flip(0), nodes[:1], nodes[:4]):
        with pytest.raises(UserError, match="nodes must increase"):
            K.piecewise_linear(x, bad, values)
    with pytest.raises(UserError, match="between its first and last"):
        K.piecewise_linear(nodes + 1, nodes, values)


def test_node_count_is_eq_23_from_both_sides():
    for length, slope, epsilon in ((3.0, 7.0, 0.1), (1.0, 0.01, 5.0), (2.0, 1.5, 1.0)):
        n = K.node_count(length, slope, epsilon)
        assert length / n <= epsilon / (3 * slope) * (1 + 1e-12)
        assert n == 1 or length / (n - 1) > epsilon / (3 * slope)
    with pytest.raises(UserError, match="positive"):
        K.node_count(1.0, 0.0, 0.1)


# --- appendix B: piecewise linear functions are Lipschitz -----------------------------------------


def worst_ratio(nodes, values, seed=11):
    """max |f(x) - f(y)| / |x - y| over many pairs."""
    g = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, 200_000, generator=g, dtype=torch.float64)
    x, y = ((nodes[-1] - nodes[0]) * p + nodes[0] for p in (x, y))
    apart = (x - y).abs() > 1e-9
    f, h = K.piecewise_linear(x, nodes, values), K.piecewise_linear(y, nodes, values)
    return float(((f - h).abs() / (x - y).abs())[apart].max())


def test_proposition_b_with_both_constants():
    nodes, values = torch.cumsum(draw(9, seed=12).abs() + 0.1, 0), draw(9, seed=13)
    measured = worst_ratio(nodes, values)
    best, whole = K.largest_slope(nodes, values), K.sum_of_slopes(nodes, values)
    assert 0.99 * best < measured <= best * (1 + 1e-9)  # the largest slope is the smallest constant
    assert whole > 1.5 * best  # eq 29's constant holds as well, with room to spare


def test_proposition_b_control():
    """A constant below the largest slope does not do."""
    nodes, values = torch.cumsum(draw(9, seed=12).abs() + 0.1, 0), draw(9, seed=13)
    assert worst_ratio(nodes, values) > 0.9 * K.largest_slope(nodes, values)
    assert worst_ratio(nodes, values) > K.sum_of_slopes(nodes, values) / 9  # the mean slope fails


def test_e28_the_printed_index_is_off_by_one():
    """f has a kink at x_l: |f(x) - f(x_l)| is s_{l-1} |x - x_l|, not the printed s_l."""
    nodes = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    values = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    x = torch.tensor([0.25], dtype=torch.float64)
    s = K.slopes(nodes, values)
    change = (K.piecewise_linear(x, nodes, values) - values[1]).abs()
    equal(change, s[0] * 0.75)
    with pytest.raises(AssertionError):
        equal(change, s[1] * 0.75)


# --- local constants ----------------------------------------------------------------------------


def test_local_constant_is_the_largest_singular_value():
    matrix = draw(6, 4, seed=14)
    x = draw(3, 4, seed=15)
    found = K.local_constant(lambda v: v @ matrix.T, x, iterations=200)
    equal(found, [float(torch.linalg.matrix_norm(matrix, 2))] * 3, 1e-6)  # converged to rounding
    few = K.local_constant(lambda v: v @ matrix.T, x, iterations=1)
    assert bool((few <= found + 1e-9).all())  # approached from below


def test_local_constant_of_a_network_by_its_jacobian():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.LeakyReLU(0.2), torch.nn.Conv2d(4, 1, 3)
    ).double()
    x = draw(2, 2, 5, 5, seed=16)
    found = K.local_constant(net, x, iterations=300)
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda v: net(v)[0].flatten(), x[i : i + 1])
        equal(found[i], torch.linalg.matrix_norm(jacobian.flatten(1), 2), 1e-5)
    with pytest.raises(UserError, match="at least one round"):
        K.local_constant(net, x, iterations=0)


def bends(net, first, second, steps=400):
    """Second differences of a network's outputs along the straight way between two inputs."""
    t = torch.linspace(0, 1, steps, dtype=torch.float64).view(-1, 1, 1, 1)
    with torch.no_grad():
        return net((1 - t) * first + t * second).flatten(1).diff(dim=0).diff(dim=0).abs()


def test_a_leaky_network_is_piecewise_linear():
    """Straight but for kinks, and continuous; a network of tanh is straight nowhere (control)."""
    torch.manual_seed(1)
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 1, 3)
    ends = draw(2, 1, 3, 7, 7, seed=17)
    net = torch.nn.Sequential(layers[0], torch.nn.LeakyReLU(0.2), layers[1]).double()
    found = bends(net, *ends)
    straight = found < 1e-13  # float64: rounding of numbers near 1
    assert float(straight.double().mean()) > 0.6
    assert float(found.max()) > 1e-6
    # every bend is a kink of one of the 100 rectifiers, each crossed once: two differences at most
    assert int((~straight).any(1).sum()) <= 2 * 100
    smooth = bends(torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1]).double(), *ends)
    assert float((smooth < 1e-13).double().mean()) < 0.01
