"""AVAE's equations 1 to 15: each against an independent reference, each with a control that fails.

Every comparison is a function of the implementation under test, so that the control puts a mutant
(a flipped sign, another reading, a slip of the paper) through exactly the same comparison.
"""

import math

import numpy as np
import pytest
import torch
from identity_bed import central_difference, draw, equal, gradient, refused
from scipy import integrate, stats

from latentpapers.ledger.implements import registered
from latentpapers.losses import energy as E
from latentpapers.losses import equilibrium as Q
from latentpapers.losses import variational as V

FINITE = 1e-7  # central differences with h = 1e-5 are good to h^2 = 1e-10, over values of about 1


def images(seed):
    return draw(3, 2, 4, 5, seed=seed).clamp(-1, 1)


def linear(function, expected, seed=7):
    """`function` of scalars is exactly the linear form with these coefficients."""
    for s in (seed, seed + 1):
        terms = list(draw(len(expected), seed=s).abs() + 0.1)
        equal(function(*terms), sum(c * float(t) for c, t in zip(expected, terms)))
        for found, coefficient in zip(gradient(function, *terms), expected, strict=True):
            equal(found, coefficient)
    zero = torch.zeros((), dtype=torch.float64)
    equal(function(*[zero] * len(expected)), 0)


def test_the_library_marks_exactly_these_fifteen():
    marked = {int(eq) for paper, eq in registered() if paper == "avae"}
    assert marked == set(range(1, 16))


# --- eq 1: log-likelihood --------------------------------------------------------------------


def compare_eq_1(log_likelihood):
    x, decoded = images(1), images(2)
    for scale in (1.0, 0.3):
        density = stats.laplace(loc=decoded.numpy(), scale=scale)
        equal(log_likelihood(x, decoded, scale=scale), density.logpdf(x.numpy()).sum((1, 2, 3)))
    # a density: it integrates to 1 over one pixel
    pixel = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    mass, _ = integrate.quad(
        lambda v: math.exp(float(log_likelihood(pixel + v, pixel + 0.2, scale=0.5))), -40, 40,
        points=[0.2],
    )  # fmt: skip
    assert mass == pytest.approx(1, abs=1e-7)  # quad's own error estimate is below 1e-8


def test_eq_1():
    compare_eq_1(V.log_likelihood)


def test_eq_1_control():
    refused(
        compare_eq_1,
        lambda x, d, scale: -V.log_likelihood(x, d, scale=scale),
        lambda x, d, scale: -((x - d).abs().flatten(1) / scale).sum(1),  # no normaliser
        lambda x, d, scale: -((x - d).square().flatten(1) / scale + math.log(2 * scale)).sum(1),
        lambda x, d, scale: V.log_likelihood(x, d, scale=1.0),
    )


# --- eq 2: reconstruction --------------------------------------------------------------------


def compare_eq_2(reconstruction):
    x, recovered = images(1), images(2)
    equal(reconstruction(x, recovered), np.abs(x.numpy() - recovered.numpy()).mean())
    found = gradient(lambda r: reconstruction(x, r), recovered)[0]
    equal(found, central_difference(lambda r: reconstruction(x, r), recovered), FINITE)
    # the likelihood of eq 1 with b = 1: -log p = |x| L_e + |x| log 2
    size = x[0].numel()
    nats = -V.log_likelihood(x, recovered).mean()
    equal(size * reconstruction(x, recovered) + size * math.log(2), nats)


def test_eq_2():
    compare_eq_2(V.reconstruction)


def test_eq_2_control():
    refused(
        compare_eq_2,
        lambda x, r: (x - r).square().mean(),
        lambda x, r: (x - r).abs().sum() / 64,  # |x| read as the latent size
        lambda x, r: (x - r).mean(),
        lambda x, r: -V.reconstruction(x, r),
    )


# --- eq 3: divergence ------------------------------------------------------------------------

MEAN, LOG_VARIANCE = draw(3, 4, seed=3), 0.7 * draw(3, 4, seed=4)


def divergence_by_quadrature(mean, deviation):
    q, p = stats.norm(mean, deviation), stats.norm(0, 1)
    low, high = mean - 12 * deviation, mean + 12 * deviation
    return integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), low, high)[0]


def compare_eq_3(kl):
    deviations = np.exp(0.5 * LOG_VARIANCE.numpy())
    exact = np.vectorize(divergence_by_quadrature)(MEAN.numpy(), deviations)
    # quad reports errors below 1e-8
    equal(kl(MEAN, LOG_VARIANCE, reduction="sum"), exact.sum(1).mean(), 1e-7)
    equal(kl(MEAN, LOG_VARIANCE, reduction="mean"), exact.mean(), 1e-7)
    pixels = kl(MEAN, LOG_VARIANCE, reduction="pixels", pixels=768)
    equal(pixels, exact.sum(1).mean() / 768, 1e-7)
    compare_monte_carlo(kl)
    zero = torch.zeros(2, 4, dtype=torch.float64)
    equal(kl(zero, zero, reduction="sum"), 0)


def compare_monte_carlo(kl):
    """E_q[log q - log p] over 40,000 draws. 5 standard errors: one seed in two million fails."""
    mean, deviation = MEAN.numpy(), np.exp(0.5 * LOG_VARIANCE.numpy())
    z = mean + deviation * np.random.default_rng(0).standard_normal((40_000, *mean.shape))
    logs = stats.norm.logpdf(z, mean, deviation) - stats.norm.logpdf(z)
    per_draw = logs.sum(2).mean(1)
    error = per_draw.std(ddof=1) / math.sqrt(len(per_draw))
    assert abs(float(kl(MEAN, LOG_VARIANCE, reduction="sum")) - per_draw.mean()) <= 5 * error


def test_eq_3():
    compare_eq_3(V.kl_to_standard_normal)


def test_eq_3_control():
    def mutant(terms):
        divisors = {"sum": 1, "mean": MEAN.shape[1], "pixels": 768}
        return lambda m, s, reduction, pixels=1: terms(m, s).sum(1).mean() / divisors[reduction]

    right = mutant(lambda m, s: 0.5 * (m.square() + s.exp() - s - 1))
    compare_eq_3(right)  # the mutants differ from this in one place each
    refused(
        compare_eq_3,
        mutant(lambda m, s: 0.5 * (m.square() + s.exp() + s - 1)),
        mutant(lambda m, s: 0.5 * (m.square() + (2 * s).exp() - 2 * s - 1)),  # s as log sigma
        mutant(lambda m, s: 0.5 * ((1 + m.square()) / s.exp() + s - 1)),  # the other direction
        lambda m, s, reduction, pixels=1: V.kl_to_standard_normal(m, s, reduction="sum"),
    )
    with pytest.raises(AssertionError):
        compare_monte_carlo(mutant(lambda m, s: 0.5 * ((1 + m.square()) / s.exp() + s - 1)))


# --- eq 4: reparameterisation ----------------------------------------------------------------


def compare_eq_4(reparameterise):
    """Values, moments and pathwise gradients over 200,000 draws, to 5 standard errors."""
    mean, log_variance = (torch.full((1, 1), v, dtype=torch.float64) for v in (0.7, -0.9))
    noise = draw(200_000, 1, seed=5)
    sigma = math.exp(-0.45)
    z = reparameterise(mean, log_variance, noise)
    equal(z, 0.7 + sigma * noise.numpy())
    root = math.sqrt(len(z))
    assert abs(float(z.mean()) - 0.7) <= 5 * sigma / root
    # the variance of a sample variance of normals is 2 sigma^4 / n
    assert abs(float(z.var()) - sigma**2) <= 5 * math.sqrt(2) * sigma**2 / root
    by_mean, by_spread = gradient(
        lambda m, s: reparameterise(m, s, noise).square().mean(), mean, log_variance
    )
    # E z^2 = mu^2 + sigma^2, so d/dmu = 2 mu and d/d log sigma^2 = sigma^2
    assert abs(float(by_mean) - 1.4) <= 5 * 2 * sigma / root
    eps = noise.numpy()
    spread = (sigma * eps * (0.7 + sigma * eps)).std() / root
    assert abs(float(by_spread) - sigma**2) <= 5 * spread


def test_eq_4():
    compare_eq_4(V.reparameterise)


def test_eq_4_control():
    refused(
        compare_eq_4,
        lambda m, s, e: m + e * s.exp(),  # sigma read as the variance, as the paper's text says
        lambda m, s, e: m + e * (-0.5 * s).exp(),
        lambda m, s, e: m + e,
        lambda m, s, e: m + e * (0.5 * s.detach()).exp() + 0 * s,  # no gradient through sigma
    )


# --- eqs 5 and 6: adversarial objectives without the controller ------------------------------


def compare_eq_5(adversarial_discriminator):
    linear(lambda d, g, v: adversarial_discriminator(d, g, v, 0.3), (1, -1, -0.3))
    linear(lambda d, g, v: adversarial_discriminator(d, g, v, 0.0), (1, -1, 0))


def test_eq_5():
    compare_eq_5(E.adversarial_discriminator)


def test_eq_5_control():
    refused(
        compare_eq_5,
        lambda d, g, v, a: d - g + a * v,  # the brackets of eq 11's slip
        lambda d, g, v, a: d + g + a * v,
        lambda d, g, v, a: d - (a * g + v),
    )


def compare_eq_6(adversarial_generator):
    linear(lambda g, v: adversarial_generator(g, v, 0.3), (1, 0.3))


def test_eq_6():
    compare_eq_6(E.adversarial_generator)


def test_eq_6_control():
    refused(
        compare_eq_6,
        lambda g, v, a: g - a * v,
        lambda g, v, a: a * g + v,
        lambda g, v, a: -E.adversarial_generator(g, v, a),
    )


# --- eq 7: energy ----------------------------------------------------------------------------


def compare_eq_7(energy):
    x, reproduced = images(1), images(2)
    equal(energy(x, reproduced), np.abs(x.numpy() - reproduced.numpy()).mean())
    # the gradient of a fake's energy runs through the image and through its reproduction
    weight = draw(20, 20, seed=6) / 10

    def of_fake(x):
        flat = x.flatten(2)
        return energy(x, torch.tanh(flat @ weight).view_as(x))

    equal(gradient(of_fake, x)[0], central_difference(of_fake, x), FINITE)


def test_eq_7():
    compare_eq_7(E.energy)
    x, reproduced = images(1), images(2)
    equal(E.energy_per_image(x, reproduced), (x - reproduced).abs().numpy().mean((1, 2, 3)))
    equal(E.energy_per_image(x, reproduced).mean(), E.energy(x, reproduced))


def test_eq_7_control():
    refused(
        compare_eq_7,
        lambda x, r: (images(9) - r).abs().mean(),  # as printed: a real image in L_g
        lambda x, r: (x - r.detach()).abs().mean(),
        lambda x, r: (x.detach() - r).abs().mean(),
        lambda x, r: (x - r).square().mean(),
    )


# --- eq 8: the discriminator's auto-encoder --------------------------------------------------


def compare_eq_8(autoencode):
    encode, decode, x = draw(40, 6, seed=1), draw(6, 40, seed=2), images(3)
    reproduced, code = autoencode(
        lambda v: v.flatten(1) @ encode, lambda z: (z @ decode).view(-1, 2, 4, 5), x
    )
    flat = x.flatten(1).numpy()
    equal(code, flat @ encode.numpy())
    equal(reproduced.flatten(1), flat @ (encode.numpy() @ decode.numpy()))


def test_eq_8():
    compare_eq_8(E.autoencode)


def test_eq_8_control():
    refused(
        compare_eq_8,
        lambda e, d, x: (d(e(x)), e(d(e(x)))),  # the code of the reproduction
        lambda e, d, x: (d(e(d(e(x)))), e(x)),
        lambda e, d, x: (x, e(x)),
    )


# --- eq 9: learned similarity ----------------------------------------------------------------


def compare_eq_9(latent_similarity):
    real, recovered = draw(5, 7, seed=1), draw(5, 7, seed=2)
    equal(latent_similarity(real, recovered), np.abs(real.numpy() - recovered.numpy()).mean())
    found = gradient(lambda z: latent_similarity(real, z), recovered)[0]
    equal(found, np.sign(recovered.numpy() - real.numpy()) / 35)
    equal(latent_similarity(real, real), 0)


def test_eq_9():
    compare_eq_9(E.latent_similarity)


def test_eq_9_control():
    refused(
        compare_eq_9,
        lambda a, b: (a - b[torch.arange(4, -1, -1)]).abs().mean(),  # pairs torn apart
        E.unpaired_latent_similarity,
        lambda a, b: (a - b).abs().sum(1).mean(),
        lambda a, b: (a - b).square().mean(),
    )


def test_unpaired_similarity_compares_batch_means_in_any_order():
    real, fake = draw(5, 7, seed=1), draw(5, 7, seed=2)
    expected = np.abs(real.numpy().mean(0) - fake.numpy().mean(0)).mean()
    equal(E.unpaired_latent_similarity(real, fake), expected)
    equal(E.unpaired_latent_similarity(real, fake[[4, 2, 0, 1, 3]]), expected)


# --- eqs 10 and 11: balance and error --------------------------------------------------------


def compare_eq_10(balance):
    for fake, recovered, real in ((0.1, 0.2, 0.4), (0.3, 0.05, 0.9)):
        equal(balance(fake, recovered, real, 0.3), (fake + 0.3 * recovered) / real)
    # at the target ratio, and only there, eq 11's error vanishes
    real, recovered = 0.8, 0.1
    fake = 0.5 * real - 0.3 * recovered
    equal(balance(fake, recovered, real, 0.3), 0.5)
    equal(Q.error_signal(real, fake, recovered, eta=0.5, alpha=0.3), 0)


def test_eq_10():
    compare_eq_10(Q.balance)


def test_eq_10_control():
    refused(
        compare_eq_10,
        lambda g, v, d, a: (g - a * v) / d,
        lambda g, v, d, a: d / (g + a * v),
        lambda g, v, d, a: (g + v) / d,
    )


def compare_eq_11(error_signal):
    def e(d, g, v):
        return error_signal(d, g, v, eta=0.5, alpha=0.3)

    linear(e, (0.5, -1, -0.3))
    # the bracket of eq 5 and of the convergence measure, with eta
    terms = list(draw(3, seed=4).abs())
    measure = Q.convergence_measure(*terms, eta=0.5, alpha=0.3)
    equal(measure, float(terms[0]) + abs(float(e(*terms))))


def test_eq_11():
    compare_eq_11(Q.error_signal)


def test_eq_11_control():
    def printed(d, g, v, eta, alpha):
        return Q.error_signal(d, g, v, eta=eta, alpha=alpha, reading="printed")

    refused(compare_eq_11, printed, lambda d, g, v, eta, alpha: d - eta * (g + alpha * v))
    linear(lambda d, g, v: printed(d, g, v, 0.5, 0.3), (0.5, -1, 0.3))  # the slip, as printed


# --- eq 12: the controller's increment -------------------------------------------------------


def compare_eq_12(gain_update):
    """The increments sum to the position form k = Kp e + Ki sum e + Kd diff e of a PID controller,
    from rest (k_0 = e_0 = e_{-1} = 0)."""
    integral, proportional, derivative = 0.03, 0.2, 0.07
    errors = [0.0, 0.0, *np.random.default_rng(1).standard_normal(30)]
    k = 0.0
    for t in range(2, len(errors)):
        gains = (integral, proportional, derivative)
        k = gain_update(k, errors[t], errors[t - 1], errors[t - 2], gains)
        position = (
            proportional * errors[t]
            + integral * sum(errors[: t + 1])
            + derivative * (errors[t] - errors[t - 1])
        )
        equal(k, position)


def test_eq_12():
    compare_eq_12(Q.gain_update)
    # BEGAN's update k + lambda (eta L_d - L_g) is the first gain alone
    equal(Q.gain_update(0.2, 0.5, 9.0, -9.0, (1e-3, 0, 0)), 0.2 + 1e-3 * 0.5)


def test_eq_12_control():
    refused(
        compare_eq_12,
        # the names as the text uses them for BEGAN: lambda_1 as the proportional gain
        lambda k, e, p, r, g: Q.gain_update(k, e, p, r, (g[1], g[0], g[2])),
        lambda k, e, p, r, g: k + g[0] * e + g[1] * (e - p) + g[2] * (e + 2 * p + r),
        lambda k, e, p, r, g: k + g[0] * e + g[1] * (e + p) + g[2] * (e - 2 * p + r),
        lambda k, e, p, r, g: k - (Q.gain_update(k, e, p, r, g) - k),
    )


# --- eqs 13 to 15: objectives ----------------------------------------------------------------


def compare_eq_13(discriminator_objective):
    for k in (0.0, 0.4, torch.tensor(0.4, dtype=torch.float64)):
        weight = float(k)
        linear(
            lambda d, g, v, k=k: discriminator_objective(d, g, v, k, 0.3),
            (1, -weight, -weight * 0.3),
        )
    terms = draw(3, seed=2)  # k = 1 is eq 5
    equal(discriminator_objective(*terms, 1.0, 0.3), E.adversarial_discriminator(*terms, 0.3))


def test_eq_13():
    compare_eq_13(E.discriminator_objective)


def test_eq_13_control():
    refused(
        compare_eq_13,
        lambda d, g, v, k, a: d - k * g + a * v,
        lambda d, g, v, k, a: d + k * (g + a * v),
        lambda d, g, v, k, a: k * d - (g + a * v),
        lambda d, g, v, k, a: d - (g + a * v),
    )


WEIGHTS = {"alpha": 0.3, "beta": 0.2, "gamma": 0.1}


def compare_eq_14(generator_objective):
    linear(lambda g, v, s, e: generator_objective(g, v, s, e, **WEIGHTS), (1, 0.3, 0.2, 0.1))


def test_eq_14():
    compare_eq_14(E.generator_objective)


def test_eq_14_control():
    refused(
        compare_eq_14,
        lambda g, v, s, e, alpha, beta, gamma: g + alpha * v + gamma * s + beta * e,
        lambda g, v, s, e, alpha, beta, gamma: g - alpha * v + beta * s + gamma * e,
        lambda g, v, s, e, alpha, beta, gamma: g + alpha * v + beta * s,
    )


def compare_eq_15(encoder_objective):
    linear(lambda n, s, e: encoder_objective(n, s, e, beta=0.2, gamma=0.1), (1, 0.2, 0.1))


def test_eq_15():
    compare_eq_15(E.encoder_objective)


def test_eq_15_control():
    refused(
        compare_eq_15,
        lambda n, s, e, beta, gamma: n + gamma * s + beta * e,
        lambda n, s, e, beta, gamma: -n + beta * s + gamma * e,
        lambda n, s, e, beta, gamma: gamma * n + beta * s + e,
    )


# --- the bound behind eqs 1 to 4 -------------------------------------------------------------


def test_elbo_is_a_lower_bound_that_a_linear_model_attains():
    """x = z + Laplace noise, z ~ N(0, 1): log p(x) by quadrature bounds every ELBO from above."""
    x = torch.tensor([[[[0.8]]]], dtype=torch.float64)
    density, _ = integrate.quad(
        lambda z: stats.norm.pdf(z) * stats.laplace.pdf(0.8, z), -12, 12, points=[0.8]
    )
    nodes, weights = np.polynomial.hermite_e.hermegauss(201)
    weights = torch.from_numpy(weights / weights.sum())
    best = -math.inf
    for mean in np.linspace(-0.5, 1.5, 41):
        for log_variance in np.linspace(-3, 1, 41):
            mu, s = (torch.full((1, 1), v, dtype=torch.float64) for v in (mean, log_variance))
            z = V.reparameterise(mu, s, torch.from_numpy(nodes)[:, None]).view(-1, 1, 1, 1)
            fit = (weights * V.log_likelihood(x.expand_as(z), z)).sum()
            best = max(best, float(fit - V.kl_to_standard_normal(mu, s, reduction="sum")))
    gap = math.log(density) - best
    # the true posterior is no normal: the best one of a 41 x 41 grid leaves a gap of 0.02 nats
    assert 0 < gap < 0.05
    mu, s = (torch.full((1, 1), v, dtype=torch.float64) for v in (0.4, -0.5))
    expected = V.log_likelihood(x, x + 0.3) - V.kl_to_standard_normal(mu, s, reduction="sum")
    equal(V.elbo(x, x + 0.3, mu, s), float(expected))
