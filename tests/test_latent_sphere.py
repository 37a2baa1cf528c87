"""The sphere and its great circles, against closed forms, scipy and sampling."""

import math

import numpy as np
import pytest
import torch
from latent_bed import codes
from scipy import stats
from scipy.spatial import geometric_slerp

from latentpapers.errors import UserError
from latentpapers.latent import sphere


def test_projection_reaches_the_radius_and_keeps_the_direction():
    z = 3.7 * codes(5)
    on = sphere.project(z)
    np.testing.assert_allclose(on.norm(dim=1), math.sqrt(24), rtol=1e-12)  # float64
    np.testing.assert_allclose(sphere.cosine(z, on), 1, rtol=1e-12)
    np.testing.assert_allclose(sphere.project(on), on, rtol=1e-12)
    assert sphere.project(torch.zeros(2, 6)).abs().max() == 0


def test_eq_7():
    a, b = codes(6, 1), 2.5 * codes(6, 2)
    pairs = zip(a.numpy(), b.numpy())
    expected = [np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y) for x, y in pairs]
    np.testing.assert_allclose(sphere.cosine(a, b), expected, rtol=1e-12)
    np.testing.assert_allclose(sphere.cosine(a, a), 1, rtol=1e-12)
    np.testing.assert_allclose(sphere.cosine(a, -3 * a), -1, rtol=1e-12)


def test_eq_7_control():
    a, b = codes(6, 1), 2.5 * codes(6, 2)
    dot = (a * b).sum(1)  # without the norms
    assert not np.allclose(sphere.cosine(a, b), dot, rtol=1e-3)


@pytest.mark.parametrize("wanted", [1e-7, 0.5, 67.0, 90.0, 179.9999999])
def test_angles_are_exact_where_arccos_is_not(wanted):
    t = math.radians(wanted)
    a = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[math.cos(t), math.sin(t)]], dtype=torch.float64)
    assert float(sphere.angle(a, b)) == pytest.approx(wanted, rel=1e-8)  # float64 near 180


def test_great_circle_is_scipys_slerp_continued():
    z0, z1 = codes(4, 1), codes(4, 2)
    first = sphere.angle(z0, z1)
    for i in range(4):
        degrees = torch.linspace(0, float(first[i]), 7, dtype=torch.float64)
        unit = [v / np.linalg.norm(v) for v in (z0[i].numpy(), z1[i].numpy())]
        expected = geometric_slerp(*unit, np.linspace(0, 1, 7)) * math.sqrt(24)
        found = sphere.great_circle(z0[i : i + 1], z1[i : i + 1], degrees)[:, 0]
        np.testing.assert_allclose(found, expected, atol=1e-10)
    each = sphere.great_circle(z0, z1, torch.stack([first, 2 * first]))
    np.testing.assert_allclose(each[0], z1, atol=1e-10)  # one angle a code
    np.testing.assert_allclose(sphere.angle(each[1], z1), first, rtol=1e-9)
    half = sphere.great_circle(z0, z1, torch.tensor([180.0, 360.0]))
    np.testing.assert_allclose(half[0], -z0, atol=1e-9)
    np.testing.assert_allclose(half[1], z0, atol=1e-9)


def test_position_is_the_inverse_of_the_great_circle():
    z0, z1 = codes(4, 1), codes(4, 2)
    degrees = torch.tensor([[-179.0, -30.0, 0.0, 135.0], [45.0, 90.0, 180.0, -90.0]]).double()
    on = sphere.great_circle(z0, z1, degrees)
    for row, z in zip(degrees, on, strict=True):
        # atan2 is exact to rounding; 180 may come back as -180
        turned = (sphere.position(z0, z1, z) - row + 180) % 360 - 180
        np.testing.assert_allclose(turned, 0, atol=1e-9)
    np.testing.assert_allclose(sphere.position(z0, z1, z1), sphere.angle(z0, z1), rtol=1e-9)
    # what sticks out of the plane is ignored; control: what does not is seen
    aside = sphere.tangent(z0, torch.Generator().manual_seed(0))
    basis = torch.stack([z0, z1], 1)
    aside = aside - (torch.linalg.pinv(basis) @ (basis @ aside[..., None]))[..., 0]
    np.testing.assert_allclose(sphere.position(z0, z1, z1 + aside), sphere.angle(z0, z1), rtol=1e-9)
    assert (sphere.position(z0, z1, z1 + z0) - sphere.angle(z0, z1)).abs().min() > 1


def test_parallel_vectors_are_refused():
    with pytest.raises(UserError, match="great circle"):
        sphere.great_circle(codes(3), -2 * codes(3), torch.tensor([10.0]))


def test_displaced_codes_have_the_distance_and_lie_on_the_sphere():
    z, g = codes(50), torch.Generator().manual_seed(1)
    wanted = torch.linspace(0.1, 2 * math.sqrt(24) - 0.1, 50, dtype=torch.float64)
    there = sphere.displaced(z, wanted, g)
    np.testing.assert_allclose((there - z).norm(dim=1), wanted, rtol=1e-9)
    np.testing.assert_allclose(there.norm(dim=1), math.sqrt(24), rtol=1e-9)
    again = sphere.displaced(z, wanted, g)
    assert (again - there).norm(dim=1).min() > 1e-3  # another direction each time
    with pytest.raises(UserError, match="apart"):
        sphere.displaced(z, wanted + 1, g)


def test_the_distance_of_25_is_an_angle_of_67_degrees():
    z, g = codes(1, z=512), torch.Generator().manual_seed(1)
    there = sphere.displaced(z, torch.tensor([25.0], dtype=torch.float64), g)
    assert float(sphere.angle(z, there)) == pytest.approx(67.06, abs=0.01)  # 2 asin(25 / 45.25)


@pytest.mark.parametrize("n", [2, 8, 128, 512])
def test_appendix_a_chi_mean_and_variance(n):
    assert sphere.chi_mean(n) == pytest.approx(stats.chi.mean(n), rel=1e-10)
    # n minus a square near n: ten digits of the mean leave eight of the variance at n = 512
    assert sphere.chi_variance(n) == pytest.approx(stats.chi.var(n), rel=1e-7)
    g = torch.Generator().manual_seed(n)
    norms = torch.randn(4000, n, generator=g, dtype=torch.float64).norm(dim=1)
    error = 5 * stats.chi.std(n) / 4000**0.5
    assert float(norms.mean()) == pytest.approx(sphere.chi_mean(n), abs=error)


def test_appendix_a_limits():
    assert sphere.chi_variance(512) == pytest.approx(0.5, abs=1e-3)
    assert sphere.chi_mean(512) == pytest.approx(math.sqrt(511.5), abs=1e-3)
    # control: in two dimensions the shell is not thin
    assert abs(sphere.chi_mean(2) - math.sqrt(2)) / math.sqrt(2) > 0.1


def test_walk_angles_are_those_of_the_erratum():
    # diamond-e13: 67, 29.8, 23.7, 20.3, 18.1, 16.5, 15.3
    expected = [67, 29.8, 23.7, 20.3, 18.1, 16.5, 15.3]
    np.testing.assert_allclose(sphere.walk_angles(67, 7), expected, atol=0.05)
    total = np.cumsum(sphere.walk_angles(67, 7))
    assert total[5] < 180 < total[6]


@pytest.mark.parametrize("zero", ["start", "end"])
def test_a_zero_latent_spans_no_great_circle(zero):
    """Its direction is NaN, which compares false with every bound."""
    pair = {"start": codes(3, 1), "end": codes(3, 2)}
    sphere.great_circle(*pair.values(), torch.tensor([10.0]))  # control
    pair[zero][1] = 0
    with pytest.raises(UserError, match="no great circle"):
        sphere.great_circle(*pair.values(), torch.tensor([10.0]))


@pytest.mark.parametrize("bad", [-1.0, float("nan")])
def test_a_displacement_is_a_length(bad):
    distance = torch.tensor([3.0, bad, 3.0], dtype=torch.float64)
    with pytest.raises(UserError, match=r"0 to 9\.8 apart"):  # 2 sqrt(24)
        sphere.displaced(codes(3), distance, torch.Generator())
