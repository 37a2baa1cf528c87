"""LSRGAN's networks: counts, tiled inference, the three key layouts, initialisation."""

import math

import pytest
import torch
from torch import nn

from latentpapers import data, weights
from latentpapers.errors import Corrupt, UnknownName, UserError
from latentpapers.nets.latent_encoder import RRDBEncoder, VGGEncoder
from latentpapers.nets.random_features import RandomFeatures
from latentpapers.nets.rrdb import HALO, RRDBNet, initialise, tiled
from latentpapers.nets.vgg_critic import VGGCritic
from latentpapers.weights import rrdb

SMALL = {"width": 6, "blocks": 2, "growth": 3}


def count(net):
    return sum(p.numel() for p in net.parameters())


def seeded(net, seed=0):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g) / math.sqrt(max(1, p[0].numel())))
    return net.eval()


def rrdb_by_hand(width, blocks, growth):
    """Weights and biases of every 3 x 3 convolution, counted one by one."""

    def conv(a, b):
        return 9 * a * b + b

    dense = sum(conv(width + k * growth, growth) for k in range(4))
    dense += conv(width + 4 * growth, width)
    return conv(3, width) + 3 * blocks * dense + 4 * conv(width, width) + conv(width, 3)


def test_published_sizes():
    with torch.device("meta"):
        net = RRDBNet()
        assert count(net) == 16_697_987 == rrdb_by_hand(64, 23, 32)
        assert len(net.state_dict()) == 702
        assert count(VGGCritic()) == 14_499_401
    assert count(RRDBNet(**SMALL)) == rrdb_by_hand(6, 2, 3)


@pytest.mark.parametrize("make", [lambda: VGGEncoder(8), lambda: RRDBEncoder(8, 1, 4)])
def test_both_encoders_give_the_low_resolution_shape(make):
    encoder = initialise(make(), torch.Generator().manual_seed(0))  # a narrow one may be born dead
    assert encoder(torch.rand(2, 3, 32, 48)).shape == (2, 3, 8, 12)
    g = torch.Generator().manual_seed(1)
    x = torch.rand(1, 3, 32, 32, generator=g, requires_grad=True)
    (slope,) = torch.autograd.grad(encoder(x).sum(), x)
    assert float(slope.abs().max()) > 0


@pytest.mark.parametrize(("make", "side"), [(VGGEncoder, 36), (VGGEncoder, 4), (RRDBEncoder, 38)])
def test_encoders_refuse_sides_whose_quarter_they_would_miss(make, side):
    with pytest.raises(UserError, match="divisible by"):
        make(4)(torch.zeros(1, 3, side, 32))


# --- tiles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [1, 3, 7, 64])
@pytest.mark.parametrize("size", [(11, 5), (7, 16)])
def test_a_tiled_upsampler_is_the_whole_network(tile, size):
    net = seeded(RRDBNet(**SMALL)).double()
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        whole = net(x)
    # float64: the same sums, perhaps in another order
    torch.testing.assert_close(tiled(net, x, tile=tile), whole, rtol=1e-12, atol=1e-12)


def test_the_halo_is_exact_and_smallest(monkeypatch):
    """Control: one pixel less changes the picture."""
    net = seeded(RRDBNet(**SMALL)).double()
    x = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert HALO == 2
    monkeypatch.setattr("latentpapers.nets.rrdb.HALO", 1)
    with torch.no_grad():
        assert float((tiled(net, x, tile=4) - net(x)).abs().max()) > 1e-4


def test_a_tiled_trunk_is_approximate_and_exact_with_its_whole_halo():
    net = seeded(RRDBNet(**SMALL)).double()
    x = torch.rand(1, 3, 40, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        whole = net(x)
    seen = (
        15 * SMALL["blocks"] + 2
    )  # pixels that reach through 15 convolutions a block and two more
    exact = tiled(net, x, trunk_tile=4, trunk_halo=seen)
    torch.testing.assert_close(exact, whole, rtol=1e-12, atol=1e-12)
    assert float((tiled(net, x, trunk_tile=4, trunk_halo=1) - whole).abs().max()) > 1e-6


def test_23_blocks_in_tiles():
    """The published size, where its public weights are: the upsampler's tiles are exact, the
    trunk's are wrong by more than a grey level (`ci/benchmark_lsrgan.py` prints by how much)."""
    if not weights.available("realsr_df2k"):
        pytest.skip("the 23-block weights realsr_df2k are not on this machine")
    net = rrdb.network(weights.load("realsr_df2k"))
    x = data.photos()["china"][None, :, 100:244:4, 100:244:4].float() / 255
    with torch.no_grad():
        whole = net(x)
    torch.testing.assert_close(tiled(net, x, tile=16), whole, rtol=0, atol=1e-5)
    errors = [float((tiled(net, x, trunk_tile=18, trunk_halo=h) - whole).abs().max())
              for h in (0, 8)]  # fmt: skip
    assert errors[0] > errors[1] > 1 / 255


@pytest.mark.parametrize("options", [{"tile": 0}, {"trunk_tile": -1}, {"trunk_halo": -1}])
def test_tiles_that_cannot_be(options):
    with pytest.raises(ValueError, match="tile"):
        tiled(RRDBNet(**SMALL), torch.rand(1, 3, 4, 4), **options)


# --- key layouts ----------------------------------------------------------------------------------

# where one convolution of each part stands, written by hand from the files' own key lists
PLACES = {
    "conv_first": ("model.0", "conv_first"),
    "body.1.rdb3.conv5": ("model.1.sub.1.RDB3.conv5.0", "RRDB_trunk.1.RDB3.conv5"),
    "conv_body": ("model.1.sub.2", "trunk_conv"),
    "conv_up1": ("model.3", "upconv1"),
    "conv_up2": ("model.6", "upconv2"),
    "conv_hr": ("model.8", "HRconv"),
    "conv_last": ("model.10", "conv_last"),
}


def small_state():
    return seeded(RRDBNet(**SMALL)).state_dict()


def test_layouts_are_told_apart_and_convert_into_each_other():
    ours = small_state()
    for source in rrdb.LAYOUTS:
        given = rrdb.convert(ours, source)
        assert rrdb.layout_of(given) == source
        for target in rrdb.LAYOUTS:
            again = rrdb.canonical(rrdb.convert(given, target))
            assert again.keys() == ours.keys()
            assert all(torch.equal(again[k], ours[k]) for k in ours)


def test_keys_are_those_of_the_published_files():
    old, esrgan = (rrdb.convert(small_state(), name) for name in ("old", "esrgan"))
    for ours, (in_old, in_esrgan) in PLACES.items():
        value = small_state()[f"{ours}.weight"]
        assert torch.equal(old[f"{in_old}.weight"], value)
        assert torch.equal(esrgan[f"{in_esrgan}.weight"], value)


def test_a_file_of_each_layout_gives_one_network(tmp_path):
    x = torch.rand(1, 3, 6, 6)
    with torch.no_grad():
        wanted = seeded(RRDBNet(**SMALL))(x)
    for layout in rrdb.LAYOUTS:
        state = rrdb.convert(small_state(), layout)
        content = {"params_ema": {f"module.{k}": v for k, v in state.items()}}
        torch.save(content if layout == "basicsr" else state, tmp_path / "net.pth")
        net = rrdb.network(rrdb.read(tmp_path / "net.pth"))
        assert not net.training
        assert not any(p.requires_grad for p in net.parameters())
        assert torch.equal(net(x), wanted)


def test_half_precision_files_become_float32():
    net = rrdb.network({k: v.half() for k, v in small_state().items()})
    assert {p.dtype for p in net.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("conv_hr.weight"),
        lambda s: s.update({"conv_more.weight": torch.zeros(1)}),
        lambda s: s.update({"conv_hr.weight": torch.zeros(6, 6, 1, 1)}),
        lambda s: s.pop("conv_first.weight"),
        lambda s: s.clear(),
    ],
)
def test_other_networks_are_refused(change):
    state = dict(small_state())
    change(state)
    with pytest.raises(Corrupt):
        rrdb.canonical(state)


def test_unknown_layouts_are_refused():
    with pytest.raises(UnknownName, match="layout"):
        rrdb.convert(small_state(), "keras")
    with pytest.raises(Corrupt, match="no RRDB network"):
        rrdb.layout_of(["features.0.weight"])


# --- initialisation, random features --------------------------------------------------------------


def test_initialise_is_kaiming_s_fan_in():
    """std = scale sqrt(2 / fan_in), within 5 standard errors of an estimate from n values."""
    conv = nn.Conv2d(16, 64, 3)
    for scale in (1.0, 0.1):
        initialise(conv, torch.Generator().manual_seed(1), scale)
        n, wanted = conv.weight.numel(), scale * math.sqrt(2 / (9 * 16))
        assert abs(float(conv.weight.detach().std()) / wanted - 1) < 5 / math.sqrt(2 * n)
        assert not conv.bias.any()


@pytest.mark.parametrize(("layer", "shape"), [("middle", (2, 16, 8, 8)), ("deep", (2, 32, 4, 4))])
def test_random_features_are_fixed_and_differentiable(layer, shape):
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    found = RandomFeatures(layer)(x)
    assert found.shape == shape
    assert torch.equal(found, RandomFeatures(layer)(x))
    (slope,) = torch.autograd.grad(found.square().sum(), x)
    assert bool(slope.flatten(1).any(1).all())
    with pytest.raises(UnknownName, match="layer"):
        RandomFeatures("relu1_1")


def test_the_critic_takes_its_own_size_alone():
    critic = VGGCritic(16, width=2)
    assert critic(torch.rand(3, 3, 16, 16)).shape == (3,)
    with pytest.raises(UserError, match="16 x 16"):
        critic(torch.rand(3, 3, 32, 32))
    for bad in (8, 48):
        with pytest.raises(UserError, match="takes sizes"):
            VGGCritic(bad)
