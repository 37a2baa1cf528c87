"""PGAN and the DCGAN of WGAN-GP: counts of the public code, growth, readings, what critics see."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latentpapers.errors import UnknownName, UserError
from latentpapers.nets import pgan, wgan_gp
from latentpapers.nets.inverter import Inverter

TINY = {"fmap_base": 64, "fmap_max": 16}


def count(net):
    return sum(p.numel() for p in net.parameters())


def on_meta(kind, *args, **options):
    with torch.device("meta"):
        return kind(*args, **options)


def tiny(kind=pgan.Generator, size=16, seed=0, **options):
    torch.manual_seed(seed)
    return kind(size, **TINY, **options).double()


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- counts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "generator", "critic"),
    [
        (128, 22_941_074, 22_941_313),
        (256, 23_051_989, 23_052_353),
        (512, 23_079_800, 23_080_225),
        (1024, 23_086_795, 23_087_249),
    ],
)
def test_counts_of_the_public_code(size, generator, critic):
    for reading in pgan.READINGS:
        assert count(on_meta(pgan.Generator, size, reading=reading)) == generator
        assert count(on_meta(pgan.Critic, size, reading=reading)) == critic
    assert pgan.count(size, 8192, 512, 512) == (generator, critic)


@pytest.mark.parametrize(
    ("size", "base", "most", "latent"),
    [(64, 4096, 256, 512), (64, 8192, 256, 512), (32, 1024, 64, 512), (16, 64, 16, 16)],
)
def test_counts_of_reduced_networks_by_arithmetic(size, base, most, latent):
    options = {"fmap_base": base, "fmap_max": most}
    nets = [on_meta(pgan.Generator, size, latent=latent, **options),
            on_meta(pgan.Critic, size, **options)]  # fmt: skip
    assert tuple(count(n) for n in nets) == pgan.count(size, base, most, latent)


def test_count_of_the_gpu_network():
    """fmap_max 256 at 64 px: written out once by hand, level by level.

    Channels 256 (4, 8, 16 px), 256 (32 px), 128 (64 px) for fmap_base 8192 / 2.
    """
    assert pgan.widths(64, 4096, 256) == (256, 256, 256, 256, 128)
    blocks = 3 * 2 * (9 * 256 * 256 + 256) + 9 * 256 * 128 + 128 + 9 * 128 * 128 + 128
    rgb = 4 * (3 * 256 + 3) + 3 * 128 + 3
    first = 512 * 4096 + 4096 + 9 * 256 * 256 + 256
    assert count(on_meta(pgan.Generator, 64, fmap_base=4096, fmap_max=256, latent=512)) == (
        first + blocks + rgb
    )


def test_widths_of_the_public_code():
    assert pgan.widths(1024) == (512, 512, 512, 512, 256, 128, 64, 32, 16)
    assert pgan.widths(128) == (512, 512, 512, 512, 256, 128)


@pytest.mark.parametrize("size", [4, 7, 12, 100, 0])
def test_sizes_that_cannot_be(size):
    with pytest.raises(UserError, match="power of two"):
        pgan.Generator(size)


def test_widths_need_channels():
    with pytest.raises(UserError, match="no channels"):
        pgan.widths(1024, 64, 16)


@pytest.mark.parametrize(
    ("size", "generator", "critic"), [(64, 6_951_808, 2_765_568), (128, 19_536_768, 11_164_416)]
)
def test_counts_of_wgan_gp(size, generator, critic):
    assert count(on_meta(wgan_gp.Generator, size)) == generator
    assert count(on_meta(wgan_gp.Critic, size)) == critic
    assert count(on_meta(wgan_gp.Generator, 64, latent=100)) == 3_576_704  # the zoo's DCGAN


def test_docstrings_say_these_counts():
    for kind, numbers in {
        pgan.Generator: ("22,941,074", "23,086,795"), pgan.Critic: ("22,941,313", "23,087,249"),
        wgan_gp.Generator: ("6,951,808", "19,536,768"),
        wgan_gp.Critic: ("2,765,568", "11,164,416"),
    }.items():  # fmt: skip
        assert all(number in kind.__doc__ for number in numbers), kind


# --- the generator ----------------------------------------------------------------------------


def test_only_the_direction_of_a_latent_counts():
    net, z = tiny(latent=32), draw(3, 32)
    # the eps of pixel norm beside mean squares of 1 and 49
    torch.testing.assert_close(net(z), net(7 * z), rtol=1e-6, atol=1e-7)
    assert net.latent == 32
    assert tiny().latent == 16
    assert not torch.allclose(net(z), net(-z))


def plain_generator(net, z):
    """The zoo's generator written out with plain convolutions, without growth."""

    def normed(x):
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    def conv(layer, x, pad=1):
        c = math.sqrt(2 / layer.weight[0].numel())
        return F.conv2d(x, layer.weight, layer.bias, padding=pad) * c  # the bias is scaled as well

    def act(x):
        return torch.where(x > 0, x, 0.2 * x)

    c = math.sqrt(2 / z.shape[1])
    x = act((normed(z) @ net.first.weight.T + net.first.bias) * c).reshape(len(z), -1, 4, 4)
    x = normed(act(conv(net.base, normed(x))))
    for first, second in net.blocks:
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = normed(act(conv(second, normed(act(conv(first, x))))))
    return conv(net.to_rgb[-1], x, 0)


def test_generator_is_the_zoo_s():
    net, z = tiny(), draw(3, 16)
    for p in net.parameters():
        if p.ndim == 1:
            nn.init.normal_(p)  # biases of zero would hide how they are scaled
    torch.testing.assert_close(net(z), plain_generator(net, z))


def test_control_the_other_reading_is_another_network():
    zoo, nvidia = tiny(), tiny(reading="nvidia")
    nvidia.load_state_dict(zoo.state_dict())
    assert not torch.allclose(zoo(draw(3, 16)), nvidia(draw(3, 16)), rtol=0.1)
    with pytest.raises(UnknownName, match="nvidia, zoo"):
        pgan.Generator(16, reading="keras")


@pytest.mark.parametrize("level", [2, 3])
def test_fade_mixes_the_two_levels(level):
    net, z = tiny(), draw(2, 16)
    net.grow(level - 1)
    old = net(z).repeat_interleave(2, 2).repeat_interleave(2, 3)
    net.grow(level)
    new = net(z)
    assert new.shape[-1] == 4 << (level - 1)
    for blend in (0.0, 0.25, 1.0):
        net.grow(level, blend)
        torch.testing.assert_close(net(z), (1 - blend) * old + blend * new)


@pytest.mark.parametrize("kind", [pgan.Generator, pgan.Critic])
def test_growth_refuses_what_is_not_there(kind):
    net = tiny(kind)
    for level, blend in ((0, 1.0), (4, 1.0), (2, -0.1), (2, 1.1)):
        with pytest.raises(UserError, match="levels 1 to 3"):
            net.grow(level, blend)


def test_parts_that_do_not_take_part_get_no_gradient():
    net = tiny()
    net.grow(2, 0.5)
    net(draw(2, 16)).sum().backward()
    idle = {n for n, p in net.named_parameters() if p.grad is None}
    assert idle == {f"blocks.1.{i}.{w}" for i in (0, 1) for w in ("weight", "bias")} | {
        "to_rgb.2.weight", "to_rgb.2.bias",
    }  # fmt: skip


# --- the critic -------------------------------------------------------------------------------


def plain_critic(net, x, pool_first):
    def conv(layer, x, pad=1):
        c = math.sqrt(2 / layer.weight[0].numel())
        bias = layer.bias * (1 if pool_first else c)
        return F.conv2d(x, layer.weight * c, bias, padding=pad)

    def act(x):
        return torch.where(x > 0, x, 0.2 * x)

    def down(x):
        return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4

    x = act(conv(net.from_rgb[-1], x, 0))
    for first, second in reversed(list(net.blocks)):
        x = conv(second, act(conv(first, x)))
        x = act(down(x)) if pool_first else down(act(x))
    groups = x.unflatten(0, (4, -1) if pool_first else (-1, 4))
    spread = (groups.var(0 if pool_first else 1, correction=int(not pool_first)) + 1e-8).sqrt()
    spread = spread.mean((1, 2, 3))
    plane = spread.repeat(4) if pool_first else spread.repeat_interleave(4)
    x = torch.cat((x, plane.view(-1, 1, 1, 1).expand(-1, 1, 4, 4)), 1)
    flat = act(conv(net.base, x)).flatten(1)
    c, d = math.sqrt(2 / flat.shape[1]), math.sqrt((1 if pool_first else 2) / net.widths[0])
    bias = [layer.bias * (1 if pool_first else s) for layer, s in ((net.dense, c), (net.score, d))]
    features = act(flat @ (net.dense.weight.T * c) + bias[0])
    return features, (features @ (net.score.weight.T * d) + bias[1]).flatten()


@pytest.mark.parametrize("reading", ["zoo", "nvidia"])
def test_critic_is_that_of_its_reading(reading):
    net, x = tiny(pgan.Critic, reading=reading), draw(8, 3, 16, 16)
    for p in net.parameters():
        if p.ndim == 1:
            nn.init.normal_(p)
    features, score = plain_critic(net, x, reading == "nvidia")
    torch.testing.assert_close(net(x), score)
    torch.testing.assert_close(net.features(x), features)
    assert net.features(x, layer="map").shape == (8, 256)


def test_memory_format_does_not_change_the_critic():
    net, x = tiny(pgan.Critic), draw(4, 3, 16, 16)
    lasting = copy.deepcopy(net).to(memory_format=torch.channels_last)
    turned = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net(x), lasting(turned))
    torch.testing.assert_close(net.features(x, layer="map"), lasting.features(turned, layer="map"))


def test_critic_in_a_fade_mixes_the_two_inputs():
    net, x = tiny(pgan.Critic), draw(4, 3, 16, 16)
    net.grow(3, 1e-9)
    small = copy.deepcopy(net)
    small.grow(2)
    # weight 1e-9 of the new level
    torch.testing.assert_close(net(x), small(F.avg_pool2d(x, 2)), rtol=1e-6, atol=1e-8)


def test_score_depends_on_the_group_unless_the_spread_is_given():
    net, x = tiny(pgan.Critic), draw(8, 3, 16, 16)
    other = torch.cat((x[:1], draw(3, 3, 16, 16, seed=5) * 4, x[4:]))
    assert net(x)[0] != net(other)[0]
    assert torch.equal(net(x)[4:], net(other)[4:])  # another group
    spread = net.spread_of(x)
    assert torch.equal(net(x, spread=spread), net(x))
    assert torch.equal(net(x, spread=spread)[0], net(other, spread=spread)[0])


def test_critic_layers():
    with pytest.raises(UnknownName, match="dense, map"):
        tiny(pgan.Critic).features(draw(4, 3, 16, 16), layer="fc")


def test_penalty_goes_through_the_critic_twice():
    """The gradient penalty needs second derivatives by the parameters, spread included."""
    net, x = tiny(pgan.Critic, size=8), draw(4, 3, 8, 8).requires_grad_()
    weight = net.base.weight
    (g,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    (analytic,) = torch.autograd.grad(g.square().sum(), weight)
    direction, h = draw(*weight.shape, seed=9), 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * h * direction
        (g,) = torch.autograd.grad(net(x).sum(), x)
        values.append(g.square().sum())
        with torch.no_grad():
            weight -= sign * h * direction
    numeric = (values[0] - values[1]) / (2 * h)
    # a central difference of step 1e-5 in fp64; a kink of the leaky ReLU may lie on the way
    torch.testing.assert_close((analytic * direction).sum(), numeric, rtol=1e-4, atol=1e-8)


# --- WGAN-GP ----------------------------------------------------------------------------------


def small_dcgan(statistics="running", **options):
    torch.manual_seed(0)
    return wgan_gp.Generator(16, width=8, latent=12, statistics=statistics, **options).eval()


def test_images_depend_on_their_batch_only_under_batch_statistics():
    z = torch.randn(6, 12)
    for statistics, alike in (("running", True), ("batch", False)):
        net = small_dcgan(statistics)
        same = torch.allclose(net(z)[:3], net(z[:3]), atol=1e-6)  # fp32 sums in another order
        assert same is alike


def test_batch_statistics_move_nothing_in_evaluation():
    net = small_dcgan("batch")
    before = copy.deepcopy(net.state_dict())
    first = net(torch.randn(6, 12))
    assert first.shape == (6, 3, 16, 16)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    assert not torch.equal(first, wgan_gp.running(net, "running")(torch.randn(6, 12)))
    with pytest.raises(UnknownName, match="statistics"):
        wgan_gp.running(net, "median")


def test_squash_is_a_tanh():
    z, plain = torch.randn(3, 12), small_dcgan()
    assert torch.equal(small_dcgan(squash=True)(z), plain(z).tanh())


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_wgan_gp_critic(norm):
    net = wgan_gp.Critic(32, width=8, norm=norm).eval()
    x = torch.randn(5, 3, 32, 32)
    assert net(x).shape == (5,)
    assert net.features(x).shape == (5, 16 * 8 * 4)
    torch.testing.assert_close(
        net(x), net.features(x) @ net.score.weight.flatten(), rtol=1e-4, atol=1e-6
    )
    kinds = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(kinds) is (norm == "batch")


def test_wgan_gp_refuses():
    with pytest.raises(UserError, match="power of two"):
        wgan_gp.Generator(24)
    with pytest.raises(UnknownName, match="norm"):
        wgan_gp.Critic(32, norm="layer")
    with pytest.raises(UnknownName, match="critic layer"):
        wgan_gp.Critic(16, width=4).features(torch.zeros(1, 3, 16, 16), layer="dense")


# --- the encoder ------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "trunk"), [(16, "plain"), (64, "plain")])
def test_encoder_ends_on_the_sphere(size, trunk):
    net = Inverter(size, latent=24, width=8, trunk=trunk).eval()
    z = net(torch.randn(3, 3, size, size))
    # eps 1e-8 beside mean squares of 1, in fp32
    torch.testing.assert_close(z.norm(dim=1), torch.full((3,), math.sqrt(24)), rtol=1e-4, atol=0)


def test_encoder_of_the_paper():
    """256 px, ResNet-18: 8x8 maps of 512, then blocks to a latent of 512."""
    net = on_meta(Inverter, 256, trunk="resnet18")
    assert net(torch.empty(2, 3, 256, 256, device="meta")).shape == (2, 512)
    assert net.trunk(torch.empty(2, 3, 256, 256, device="meta")).shape == (2, 512, 8, 8)
    trunk = 11_176_512 + 512 * 512 + 512  # ResNet-18 without its 1000 classes
    pairs = 3 * 2 * (9 * 512 * 512 + 512 + 2 * 512) + 2 * (512 * 512 + 512)
    last = 16 * 512 * 512 + 512 + 2 * 512 + 512 * 512 + 512
    assert count(net) == trunk + pairs + last


def test_encoder_refuses():
    with pytest.raises(UnknownName, match="trunk"):
        Inverter(64, trunk="vit")
    with pytest.raises(UserError, match="at least 256"):
        Inverter(64, trunk="resnet18")
    with pytest.raises(UserError, match="power of two"):
        Inverter(48)
