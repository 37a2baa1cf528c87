"""Paths and directions in latent space, against scipy and plain formulas."""

import numpy as np
import pytest
import torch
from scipy.spatial import geometric_slerp

from latentpapers.errors import UserError
from latentpapers.latent.attributes import mean_difference, shifted
from latentpapers.latent.paths import linear, spherical


def codes(n, z=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, z, generator=generator, dtype=torch.float64)


START, END = codes(5, seed=1), codes(5, seed=2)


def test_linear_is_linspace():
    expected = np.linspace(START.numpy(), END.numpy(), 7)
    np.testing.assert_allclose(linear(START, END, 7).numpy(), expected, atol=1e-14)


def test_spherical_is_scipys_slerp_between_unit_vectors():
    a, b = (v / v.norm(dim=1, keepdim=True) for v in (START, END))
    path = spherical(a, b, 9).numpy()
    for i in range(len(a)):
        expected = geometric_slerp(a[i].numpy(), b[i].numpy(), np.linspace(0, 1, 9))
        np.testing.assert_allclose(path[:, i], expected, atol=1e-12)  # float64 sines
    # control: the straight line is another path
    assert np.abs(linear(a, b, 9).numpy() - path).max() > 0.05


def test_spherical_turns_at_constant_speed_while_the_norm_changes_linearly():
    path = spherical(START, END, 11)
    norms = path.norm(dim=2)
    np.testing.assert_allclose(norms, np.linspace(norms[0].numpy(), norms[-1].numpy(), 11))
    unit = path / norms[..., None]
    steps = torch.arccos((unit[1:] * unit[:-1]).sum(2))
    np.testing.assert_allclose(steps, steps[:1].expand_as(steps), rtol=1e-9)
    np.testing.assert_allclose(path[0], START, atol=1e-12)
    np.testing.assert_allclose(path[-1], END, atol=1e-12)


def test_a_straight_line_leaves_the_sphere_and_a_great_circle_does_not():
    a, b = codes(200, 512, seed=3), codes(200, 512, seed=4)
    middle = [path(a, b, 3)[1].norm(dim=1).mean() / 512**0.5 for path in (linear, spherical)]
    # independent normals: 1 / sqrt(2) and 1, each to 1 % at 512 dimensions
    assert float(middle[0]) == pytest.approx(0.5**0.5, abs=0.01)
    assert float(middle[1]) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("factor", [1.0, 2.5, -1.0, 0.0])
def test_vectors_without_one_great_circle_fall_back_to_the_line(factor):
    for dtype in (torch.float64, torch.float32):
        a = START.to(dtype)
        path = spherical(a, factor * a, 5)
        assert path.isfinite().all()
        np.testing.assert_allclose(path, linear(a, factor * a, 5), atol=1e-6)  # float32


def test_nearly_parallel_vectors_stay_near_the_line():
    a = START.float()
    for size in (1e-7, 1e-5, 1e-4, 1e-3, 1e-2):
        b = a + size * END.float()
        gap = (spherical(a, b, 5) - linear(a, b, 5)).abs().max()
        # an arc of angle t leaves its chord by t^2 / 8; float32 adds 1e-6
        assert float(gap) < size**2 + 5e-6


def test_one_step_is_the_start_and_types_are_kept():
    for path in (linear, spherical):
        assert torch.allclose(path(START, END, 1)[0], START)
        assert path(START.float(), END.float(), 4).dtype is torch.float32
        assert path(START, END, 4).shape == (4, 5, 6)


def test_mean_difference():
    z, has = codes(8), torch.tensor([True, False, True, True, False, False, False, True])
    expected = z.numpy()[has.numpy()].mean(0) - z.numpy()[~has.numpy()].mean(0)
    np.testing.assert_allclose(mean_difference(z, has), expected, atol=1e-14)
    np.testing.assert_allclose(mean_difference(z, ~has), -expected, atol=1e-14)


def test_mean_difference_finds_the_direction_that_was_put_in():
    has = torch.arange(4000) % 2 == 0
    direction = torch.tensor([1.0, 0, -2, 0, 0, 0.5]).double()
    z = codes(4000) + has[:, None] * direction
    # 2 x 2000 unit normals: 5 standard errors are 5 sqrt(2 / 2000) = 0.16
    np.testing.assert_allclose(mean_difference(z, has), direction, atol=0.16)


@pytest.mark.parametrize(
    "has",
    [
        torch.ones(5, dtype=torch.bool),
        torch.zeros(5, dtype=torch.bool),
        torch.tensor([1, 0, 1, 0, 1]),  # as indices these would pick rows
        torch.tensor([True, False]),
        torch.tensor([[True], [False], [True], [True], [False]]),
    ],
)
def test_an_attribute_is_one_boolean_an_image_and_divides_them(has):
    with pytest.raises(UserError, match="attribute"):
        mean_difference(START, has)


def test_shifted():
    direction = END[0]
    found = shifted(START, direction, [-1.0, 0.0, 2.5])
    assert found.shape == (3, 5, 6)
    for row, strength in zip(found, (-1.0, 0.0, 2.5), strict=True):
        np.testing.assert_allclose(row, START + strength * direction, atol=1e-14)
    assert shifted(START.float(), direction.float(), [1]).dtype is torch.float32
