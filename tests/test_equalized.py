"""Equalised layers, pixel normalisation, minibatch standard deviation, against plain formulas."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from latentpapers.errors import UserError
from latentpapers.nets.equalized import (
    EqualizedConv2d,
    EqualizedLinear,
    he_gain,
    minibatch_stddev,
    pixel_norm,
)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("slope", "gain"), [(0.0, math.sqrt(2)), (1.0, 1.0), (0.2, 1.3867504906)])
def test_gain_of_he(slope, gain):
    assert math.isclose(he_gain(slope), gain, rel_tol=1e-9)


@pytest.mark.parametrize("scale_bias", [True, False])
def test_layers_are_the_plain_ones_with_scaled_weights(scale_bias):
    conv = EqualizedConv2d(5, 7, scale_bias=scale_bias).double()
    dense = EqualizedLinear(5, 7, gain=1.0, scale_bias=scale_bias).double()
    with torch.no_grad():
        conv.bias.copy_(draw(7))
        dense.bias.copy_(draw(7))
    x = draw(2, 5, 6, 6)
    c = math.sqrt(2 / 45)
    there = F.conv2d(x, conv.weight * c, conv.bias * (c if scale_bias else 1), padding=1)
    # rounding alone, in float64
    torch.testing.assert_close(conv(x), there, rtol=1e-12, atol=1e-12)
    c, flat = math.sqrt(1 / 5), x[:, :, 0, 0]
    there = flat @ (dense.weight.T * c) + dense.bias * (c if scale_bias else 1)
    torch.testing.assert_close(dense(flat), there, rtol=1e-12, atol=1e-12)


def test_control_bias_readings_differ():
    layers = [EqualizedLinear(5, 7, scale_bias=s) for s in (True, False)]
    layers[1].load_state_dict(layers[0].state_dict())
    for layer in layers:
        torch.nn.init.ones_(layer.bias)
    x = torch.zeros(1, 5)
    assert torch.allclose(layers[1](x), torch.ones(1, 7))
    assert not torch.allclose(layers[0](x), layers[1](x))


def test_variance_is_kept_whatever_the_width():
    for width in (16, 256):
        torch.manual_seed(0)
        with torch.no_grad():
            y = EqualizedLinear(width, 500)(draw(4000, width, dtype=torch.float32).relu())
        # relu halves the second moment, the gain doubles it; 500 x width weights and 4000 x width
        # inputs: the estimate's own deviation is about 2 % for width 16
        assert abs(y.var().item() - 1) < 0.08


def test_one_learning_rate_for_all_layers():
    """Adam's first step is lr in every weight; the function's change is lr * scale."""
    layer = EqualizedLinear(50, 3)
    before = layer.weight.clone()
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.01)
    layer(torch.randn(8, 50)).square().sum().backward()
    optimiser.step()
    # Adam's eps 1e-8 against gradients of about 1
    assert torch.allclose((layer.weight - before).abs(), torch.full_like(before, 0.01), rtol=1e-3)


@pytest.mark.parametrize("shape", [(3, 8), (3, 8, 4, 4)])
def test_pixel_norm(shape):
    x = draw(*shape)
    y = pixel_norm(x)
    # eps 1e-8 beside a mean square of about 1
    torch.testing.assert_close(
        y.square().sum(1), torch.full_like(y.square().sum(1), 8.0), rtol=1e-6, atol=0
    )
    cosine = F.cosine_similarity(
        x.flatten(2) if x.ndim > 2 else x, y.flatten(2) if x.ndim > 2 else y
    )
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    assert torch.equal(pixel_norm(torch.zeros(1, 8)), torch.zeros(1, 8))
    assert pixel_norm(x.bfloat16()).dtype is torch.bfloat16


def numpy_stddev(x, group, reading):
    """The same with loops over images."""
    n = len(x)
    size = group if n % group == 0 else n
    out = np.zeros(n)
    for i in range(n):
        if reading == "zoo":
            members = [j for j in range(n) if j // size == i // size]
        else:
            members = [j for j in range(n) if j % (n // size) == i % (n // size)]
        stack = x[members]
        if len(members) > 1:
            out[i] = np.sqrt(stack.var(0, ddof=int(reading == "zoo")) + 1e-8).mean()
    return out


@pytest.mark.parametrize("reading", ["zoo", "nvidia"])
@pytest.mark.parametrize(("n", "group"), [(8, 4), (12, 4), (6, 4), (2, 4), (1, 4), (5, 5), (3, 1)])
def test_minibatch_stddev(n, group, reading):
    x = draw(n, 3, 4, 4)
    ours = minibatch_stddev(x, group, reading)
    assert ours.shape == (n, 1, 1, 1)
    np.testing.assert_allclose(ours.flatten().numpy(), numpy_stddev(x.numpy(), group, reading))


def test_identical_images_have_the_floor_and_varied_ones_more():
    one = draw(1, 3, 4, 4)
    same = minibatch_stddev(one.expand(8, -1, -1, -1))
    # sqrt(1e-8); the sum of squares of equal numbers rounds to 1e-16 at most
    torch.testing.assert_close(same, torch.full_like(same, 1e-4), rtol=1e-4, atol=0)
    assert (minibatch_stddev(draw(8, 3, 4, 4)) > 0.5).all()


def test_control_the_readings_group_differently():
    x = draw(8, 3, 4, 4)
    x[4:] *= 10
    zoo, nvidia = minibatch_stddev(x), minibatch_stddev(x, reading="nvidia")
    assert float(zoo[4] / zoo[0]) > 5  # four small ones, four large ones
    assert torch.allclose(nvidia[0], nvidia[4], rtol=0.3)  # every group has both


def test_stddev_has_second_derivatives():
    x = draw(4, 2, 2, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda t: minibatch_stddev(t, 2), (x,))


def test_stddev_refuses_empty_groups():
    with pytest.raises(UserError, match="at least 1"):
        minibatch_stddev(draw(4, 2, 2, 2), 0)
