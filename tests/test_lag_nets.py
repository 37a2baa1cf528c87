"""LAG's networks: parameter counts of the authors' code, shapes, growing, the fixed head."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latentpapers.errors import UserError
from latentpapers.nets import edsr, lag, srgan

EXACT = 1e-6  # float32 sums over a few hundred terms


def count(net):
    return sum(p.numel() for p in net.parameters())


def on_meta(kind, *args, **options):
    """Shapes without numbers: nothing is allocated or initialised."""
    with torch.device("meta"):
        return kind(*args, **options)


def small(factor=4, **options):
    torch.manual_seed(0)
    return lag.Generator(factor, **({"width": 8, "floor": 4, "blocks": 2, "noise": 3} | options))


def small_critic(factor=4, **options):
    torch.manual_seed(1)
    return lag.Critic(factor, **({"width": 8, "floor": 4, "blocks": 2} | options))


# --- counts and shapes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "generator", "critic"),
    [
        (4, 10_154_438, 6_392_384),
        (8, 10_230_025, 6_578_624),
        (16, 10_305_612, 6_764_864),
        (32, 10_381_199, 6_951_104),
    ],
)
def test_counts_and_shapes_of_the_authors_code_at_128_px(factor, generator, critic):
    g, c = on_meta(lag.Generator, factor), on_meta(lag.Critic, factor)
    assert count(g) == generator
    assert count(c) == critic
    y = torch.empty(2, 3, 128 // factor, 128 // factor, device="meta")
    assert g.zeros(y).shape == (2, 64, 128 // factor, 128 // factor)
    x = g(y, g.zeros(y))
    assert x.shape == (2, 3, 128, 128)
    code = c(x, y)
    assert code.shape == (2, 256, 128 // factor, 128 // factor)
    assert lag.value(code).shape == (2,)


def test_one_channel_more_changes_the_count():
    assert count(on_meta(lag.Generator, 8, noise=65)) - 10_230_025 == 9 * 256


def test_every_size_that_is_a_power_of_two():
    g, c = small(8), small_critic(8)
    for side in (1, 2, 4, 8):
        y = torch.zeros(1, 3, side, side)
        x = g(y, g.zeros(y))
        assert x.shape[-1] == 8 * side
        assert c(x, y).shape == (1, 8, side, side)


@pytest.mark.parametrize("factor", [0, 1, 3, 12, -2])
def test_other_factors_are_refused(factor):
    for kind in (lag.Generator, lag.Critic, srgan.Generator):
        with pytest.raises(UserError, match="power of two"):
            kind(factor)


@pytest.mark.parametrize("level", [0, -1, 4])
def test_a_level_that_is_not_there_is_refused(level):
    y = torch.zeros(1, 3, 2, 2)
    with pytest.raises(UserError, match="1 to 3"):
        small(8)(y, torch.zeros(1, 3, 2, 2), level=level)
    with pytest.raises(UserError, match="1 to 3"):
        small_critic(8)(torch.zeros(1, 3, 16, 16), y, level=level)


@pytest.mark.parametrize("size", [0, 4, 48])
def test_other_sizes_of_srgans_images_are_refused(size):
    with pytest.raises(UserError, match="power of two"):
        srgan.Discriminator(size)


def test_filters_halve_down_to_the_floor():
    assert lag.filters(32) == [256, 128, 64, 64, 64, 64]
    assert lag.filters(8, 64, 16) == [64, 32, 16, 16]


def test_baselines_have_the_published_sizes():
    # EDSR: (3*9+1)*256 in, 16 blocks of 2 (9*256+1)*256, (9*256+1)*3*16 out
    assert count(on_meta(edsr.EDSR, 4)) == 7168 + 32 * 590_080 + 2305 * 48
    for factor in (4, 8):
        y = torch.zeros(2, 3, 8, 8)
        for net in (edsr.EDSR(factor, width=8, blocks=2), srgan.Generator(factor, width=8,
                    blocks=2)):  # fmt: skip
            assert net(y).shape == (2, 3, 8 * factor, 8 * factor)
    critic = srgan.Discriminator(32, width=4)
    assert critic.positions(torch.zeros(2, 3, 32, 32)).shape == (2, 1, 4, 4)
    assert critic(torch.zeros(2, 3, 32, 32)).shape == (2,)


def test_edsr_starts_near_the_nearest_enlargement():
    net = edsr.EDSR(4, width=8, blocks=2)
    for p in net.last.parameters():
        nn.init.zeros_(p)
    y = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(net(y), F.interpolate(y, scale_factor=4))


# --- the generator ---------------------------------------------------------------------------


def by_hand(net, y, z, level, fade):
    """The generator written out with plain convolutions and the He factors of the facts."""

    def conv(layer, x, slope):
        factor = math.sqrt(2 / ((1 + slope**2) * 9 * layer.weight.shape[1]))
        return F.conv2d(x, layer.weight * factor, layer.bias, padding=1)

    h = conv(net.first, torch.cat([y, z], 1), 1)
    for block in net.blocks:
        h = h + conv(block.second, F.relu(conv(block.first, h, 0)), 1) / len(net.blocks)
    image = 0
    for k, stage in enumerate(net.stages[:level], 1):
        h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
        for layer in (stage.first, stage.second):
            h = F.leaky_relu(conv(layer, h, 0.2), 0.2)
        own = conv(stage.to_rgb, h, 1) * (fade if k == level and k > 1 else 1)
        if k > 1:
            image = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
        image = image + own
    return image


@pytest.mark.parametrize(("level", "fade"), [(3, 1.0), (2, 1.0), (3, 0.3), (1, 1.0)])
def test_generator_against_plain_convolutions(level, fade):
    net = small(8).double()
    for p in net.parameters():
        p.data += 0.1  # biases too
    y, z = torch.randn(2, 3, 2, 2).double(), torch.randn(2, 3, 2, 2).double()
    found = net(y, z, level=level, fade=fade)
    torch.testing.assert_close(found, by_hand(net, y, z, level, fade))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(found, by_hand(net, y, z + 0.01, level, fade))


def test_equal_inputs_give_equal_images_and_other_noise_another():
    """lag-c6: a pair (y, z) determines the image; in eval and in train mode alike."""
    net = small()
    y, z = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.equal(net(y, z), net.train()(y, z))
    assert not torch.equal(net(y, z), net(y, -z))


def test_a_fade_of_0_is_the_enlarged_stage_below_and_1_the_new_stage():
    net = small(8)
    y, z = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    below, above = net(y, z, level=2), net(y, z, level=3)
    torch.testing.assert_close(net(y, z, level=3, fade=0.0), lag.nearest_up(below))
    half = net(y, z, level=3, fade=0.5)
    torch.testing.assert_close(half, (lag.nearest_up(below) + above) / 2)


def test_real_images_fade_in_alike():
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(lag.blended(x, 1.0), x)
    coarse = lag.blended(x, 0.0)
    torch.testing.assert_close(coarse, lag.nearest_up(lag.box_down(x, 2)))
    torch.testing.assert_close(lag.blended(x, 0.25), 0.75 * coarse + 0.25 * x)


# --- the critic ------------------------------------------------------------------------------


def test_the_head_alternates_from_minus_one_and_learns_nothing():
    head = lag.SignedHead(6)
    found = head(torch.ones(1, 6, 2, 2))[0, :, 0, 0]
    assert found.tolist() == [-1, 1, -1, 1, -1, 1]
    assert list(head.parameters()) == []
    assert "signs" not in head.state_dict()


def test_value_is_the_mean_and_the_penalised_scalar_h_w_times_it():
    code = torch.randn(3, 8, 4, 5)
    np.testing.assert_allclose(lag.value(code), code.numpy().mean((1, 2, 3)), atol=EXACT)
    torch.testing.assert_close(lag.position_sum(code), 20 * lag.value(code))
    torch.testing.assert_close(lag.logits(code).mean(), 8 * lag.value(code).mean())


def test_the_critic_sees_the_image_at_every_stage_and_the_difference_map():
    critic = small_critic(8)
    x, d = torch.randn(1, 3, 16, 16), torch.rand(1, 3, 2, 2)
    base = critic(x, d)
    assert not torch.equal(critic(x, 0 * d), base)
    for k, stage in enumerate(critic.trunk.stages):
        seen = []
        hook = stage.from_rgb.register_forward_pre_hook(lambda m, a, s=seen: s.append(a[0]))
        critic(x, d)
        hook.remove()
        torch.testing.assert_close(seen[0], F.avg_pool2d(x, 4 >> k))


def test_critic_in_a_fade_weighs_the_new_stage_and_ignores_it_at_0():
    critic = small_critic(8)
    x, d = torch.randn(1, 3, 16, 16), torch.rand(1, 3, 2, 2)
    at_zero = critic(x, d, level=3, fade=0.0)
    torch.testing.assert_close(at_zero, critic(x, d, level=2))
    assert not torch.allclose(critic(x, d, level=3, fade=0.5), at_zero)


def test_unshuffle_takes_channels_first():
    """Space to channels of the authors' code: channel c of the map fills 4 neighbours."""
    x = torch.arange(2 * 4 * 4.0).view(1, 2, 4, 4)
    out = F.pixel_unshuffle(x, 2)
    np.testing.assert_array_equal(out[0, :4, 0, 0], x[0, 0, :2, :2].reshape(-1))


def test_spectral_critic_has_convolutions_of_norm_one():
    critic = small_critic(4, conv="spectral")
    x, d = torch.randn(2, 3, 8, 8), torch.rand(2, 3, 2, 2)
    for _ in range(60):  # power iterations
        critic(x, d)
    for layer in critic.blocks:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        assert abs(float(norm.detach()) - 1) < 0.02  # what 60 power iterations leave
    assert not any(isinstance(m, nn.Conv2d) and hasattr(m, "parametrizations")
                   for m in small_critic(4).modules())  # fmt: skip


# --- the extensions --------------------------------------------------------------------------


def test_encoder_gives_the_generators_noise_map():
    encoder, net = lag.Encoder(4, width=8, floor=4, noise=3), small()
    x = torch.randn(2, 3, 16, 16)
    assert encoder(x).shape == net.zeros(lag.box_down(x, 4)).shape


def test_embedding_trains_only_the_maps_of_the_batch():
    table = lag.Embedding(5, 3, 2)
    table(torch.tensor([1, 3])).square().sum().backward()
    touched = table.maps.grad.flatten(1).abs().sum(1) > 0
    assert touched.tolist() == [False, True, False, True, False]
