"""LRC-I2I's networks: the authors' parameter counts, blocks against references, the norms' care."""

import copy

import numpy as np
import pytest
import torch
from identity_bed import draw
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from latentpapers.errors import UnknownName, UserError
from latentpapers.nets import lrc_i2i, pono, spadain
from latentpapers.nets import spectral as sn

EXACT = 1e-12  # float64: a few hundred additions round to about 1e-14


def count(net):
    return sum(p.numel() for p in net.parameters())


def on_meta(kind, *args, **options):
    """Shapes without numbers: nothing is allocated or initialised."""
    with torch.device("meta"):
        return kind(*args, **{"spectral": False, **options})


def small(size=32, low=8, **options):
    torch.manual_seed(0)
    return lrc_i2i.Generator(size, low, **{"width": 4, "cap": 12, **options}).double().eval()


def judge(size=32, low=8, **options):
    torch.manual_seed(1)
    made = lrc_i2i.Discriminator(size, low, **{"width": 4, "cap": 12, **options})
    return made.double().eval()


# --- counts and shapes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "low", "parameters"),
    [
        (128, 8, 21_575_999), (256, 16, 21_575_999), (256, 8, 26_372_619), (128, 4, 26_372_619),
        (128, 16, 16_779_379), (64, 8, 16_779_379),
    ],
)  # fmt: skip
def test_generators_of_the_authors_code(size, low, parameters):
    net = on_meta(lrc_i2i.Generator, size, low)
    assert count(net) == parameters
    x, y = (torch.empty(2, 3, side, side, device="meta") for side in (size, low))
    features = net.encode(x)
    assert features.maps.shape == (2, 512, low, low)
    assert net.decode(features, y).shape == x.shape


@pytest.mark.parametrize(("cap", "parameters"), [(256, 4_115_495), (128, 1_316_263)])
def test_two_halvings_where_the_authors_code_runs(cap, parameters):
    assert count(on_meta(lrc_i2i.Generator, 128, 32, cap=cap)) == parameters


def test_two_halvings_mended():
    """lrc_i2i-e18: at the published cap the network is that of cap 256, its own last width."""
    net = on_meta(lrc_i2i.Generator, 128, 32)
    assert count(net) == 4_115_495
    x, y = (torch.empty(2, 3, side, side, device="meta") for side in (128, 32))
    assert net(x, y).shape == x.shape


@pytest.mark.parametrize(
    ("size", "low", "parameters", "side"),
    [
        (128, 8, 23_224_321, 5), (128, 16, 23_224_321, 5), (128, 32, 23_224_321, 5),
        (128, 4, 27_943_937, 1), (256, 8, 23_452_161, 5), (256, 32, 23_452_161, 5),
        (64, 8, 22_309_889, 5),
    ],
)  # fmt: skip
def test_discriminators_of_the_authors_code(size, low, parameters, side):
    net = on_meta(lrc_i2i.Discriminator, size, low)
    assert count(net) == parameters
    x, d = (torch.empty(2, 3, s, s, device="meta") for s in (size, low))
    assert net(x, d).shape == (2, 1, side, side)


def test_one_channel_more_changes_the_count():
    assert count(on_meta(lrc_i2i.Generator, 128, 8, width=65)) != 21_575_999
    assert count(on_meta(lrc_i2i.Discriminator, 128, 8, width=129)) != 23_224_321


def test_every_size_runs():
    for size, low in ((8, 4), (16, 8), (16, 4), (32, 4), (64, 32)):
        x, y = draw(1, 3, size, size).float(), draw(1, 3, low, low).float()
        assert small(size, low).float()(x, y).shape == x.shape
        assert judge(size, low).float()(x, y).shape[:2] == (1, 1)


@pytest.mark.parametrize(("size", "low"), [(48, 8), (64, 12), (8, 8), (8, 16), (16, 2), (0, 0)])
def test_other_sizes_are_refused(size, low):
    for kind in (lrc_i2i.Generator, lrc_i2i.Discriminator):
        with pytest.raises(UserError, match="powers of two"):
            kind(size, low)


def test_an_unknown_shortcut_is_refused():
    with pytest.raises(UnknownName, match="dynamic"):
        lrc_i2i.Generator(16, 4, shortcut="skip")


# --- blocks against references -------------------------------------------------------------------


def test_pono_takes_mean_and_unbiased_deviation_over_channels():
    x = draw(2, 7, 4, 4) * 3 + 1
    residue, moments = pono.pono(x)
    values = x.numpy()
    mean = values.mean(1, keepdims=True)
    std = np.sqrt(values.var(1, ddof=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(moments.mean, mean, rtol=EXACT, atol=EXACT)
    np.testing.assert_allclose(moments.std, std, rtol=EXACT)
    np.testing.assert_allclose(residue, (values - mean) / std, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(pono.restore(residue, moments), x)
    with pytest.raises(AssertionError):  # control: the biased deviation is another number
        np.testing.assert_allclose(moments.std, np.sqrt(values.var(1, keepdims=True) + 1e-5),
                                   rtol=1e-3)  # fmt: skip


def test_pono_in_fp16_takes_deviations_whose_squares_fp16_cannot_hold():
    x = 300 * draw(2, 64, 4, 4)
    with torch.autocast("cpu", torch.float16):
        residue, moments = pono.pono(x.half())
    exact, wanted = pono.pono(x.double())
    assert moments.std.dtype is residue.dtype is torch.float16
    # half a unit in the last of 11 bits, and a few more from the mean
    torch.testing.assert_close(moments.std.double(), wanted.std, rtol=1e-3, atol=0)
    torch.testing.assert_close(residue.double(), exact, rtol=0, atol=4e-3)
    assert not (x.half() - moments.mean).square().isfinite().all()  # control: it would overflow


def test_a_dynamic_shortcut_with_an_identity_kernel_is_the_plain_one():
    x = draw(2, 5, 4, 4)
    moments = pono.Moments(draw(2, 1, 4, 4, seed=1), draw(2, 1, 4, 4, seed=2))
    dynamic = pono.DynamicMoments(lambda a, b, k: nn.Conv2d(a, b, k, padding=1)).double()
    with torch.no_grad():
        dynamic.conv.weight.zero_()
        dynamic.conv.bias.zero_()
        for channel in (0, 1):
            dynamic.conv.weight[channel, channel, 1, 1] = 1
    torch.testing.assert_close(dynamic(x, moments), pono.restore(x, moments))


def test_spadain_is_a_scale_and_shift_of_each_position():
    layer = spadain.SPAdaIN(5).double()
    x, low = draw(2, 5, 8, 8), draw(2, 3, 8, 8, seed=1)
    values = x.numpy()
    mean, std = values.mean((2, 3), keepdims=True), values.std((2, 3), keepdims=True)
    normal = (values - mean) / np.sqrt(std**2 + 1e-5)
    scale, shift = (
        np.einsum("oc,nchw->nohw", p.weight.detach().numpy()[..., 0, 0], low.numpy())
        for p in (layer.weight, layer.bias)
    )
    np.testing.assert_allclose(layer(x, low).detach(), scale * normal + shift, rtol=1e-9, atol=1e-9)
    # one target for all images is that target for each
    torch.testing.assert_close(layer(x, low[:1]), layer(x, low[:1].expand(2, -1, -1, -1)))
    # a constant target is AdaIN: one scale and shift a channel
    flat = low[:1, :, :1, :1].expand(1, 3, 8, 8)
    out = (layer(x, flat).detach() - layer.bias(flat).detach()) / layer.weight(flat).detach()
    np.testing.assert_allclose(out, normal, rtol=1e-9, atol=1e-9)


class WideShortcut(nn.Module):
    """The authors' order: the 1x1 convolution before pooling or enlarging."""

    def __init__(self, block, change):
        super().__init__()
        self.block, self.change = block, change

    def forward(self, x):
        return self.change(self.block.shortcut(x))


def test_the_cheap_order_of_shortcuts_is_the_authors_order():
    net, x = small(), draw(2, 3, 32, 32)
    maps = net.from_rgb(x)
    block = net.encoder[0]
    wide = WideShortcut(block, lambda v: F.avg_pool2d(v, 2))(maps)
    torch.testing.assert_close(block.shortcut(F.avg_pool2d(maps, 2)), wide)
    block = net.decoder[1]
    y = draw(2, 12, 8, 8)
    wide = WideShortcut(block, lambda v: lrc_i2i.enlarge(v, 16))
    before = lrc_i2i.enlarge(block.shortcut(y), 16)
    torch.testing.assert_close(wide(y), before)
    torch.testing.assert_close(block.shortcut(lrc_i2i.enlarge(y, 16)), before)


def test_source_and_target_both_steer_and_moments_carry_the_source():
    net, x, y = small(), draw(2, 3, 32, 32), draw(2, 3, 8, 8, seed=1)
    base = net(x, y)
    assert not torch.allclose(net(x.flip(0), y), base)
    assert not torch.allclose(net(x, y.flip(0)), base)
    features = net.encode(x)
    swapped = lrc_i2i.Features(features.maps, net.encode(x.flip(0)).moments)
    assert not torch.allclose(net.decode(swapped, y), base)
    bare = small(shortcut="none")
    features = bare.encode(x)
    swapped = lrc_i2i.Features(features.maps, bare.encode(x.flip(0)).moments)
    torch.testing.assert_close(bare.decode(swapped, y), bare.decode(features, y))


def test_a_source_encoded_once_serves_every_target():
    net, x, y = small(), draw(3, 3, 32, 32), draw(4, 3, 8, 8, seed=1)
    features = net.encode(x)
    for low in y:
        one = low.unsqueeze(0)
        torch.testing.assert_close(net.decode(features, one), net(x, one.expand(3, -1, -1, -1)))


def test_the_difference_enters_the_discriminator():
    net, x, d = judge(), draw(2, 3, 32, 32), draw(2, 3, 8, 8, seed=1)
    assert not torch.allclose(net(x, d), net(x, 0 * d))


# --- spectral norms -------------------------------------------------------------------------------


def norms(net):
    return [torch.linalg.matrix_norm(m.weight.flatten(1), ord=2)
            for m in net.modules() if parametrize.is_parametrized(m, "weight")]  # fmt: skip


def test_all_convolutions_but_spadains_have_norm_one():
    for net in (small(), judge()):
        for _ in range(30):
            sn.iterate(net)
        # an iteration shrinks the error by the squared ratio of the two largest singular values
        assert all(abs(float(n.detach()) - 1) < 1e-3 for n in norms(net))
        plain = [m for m in net.modules() if isinstance(m, nn.Conv2d)
                 and not parametrize.is_parametrized(m, "weight")]  # fmt: skip
        inside = [c for m in net.modules() if isinstance(m, spadain.SPAdaIN)
                  for c in (m.weight, m.bias)]  # fmt: skip
        assert plain == inside


def test_everywhere_means_spadain_too():
    """lrc_i2i-e11, `paper`: no plain convolution is left, and files fold into the same network."""
    net, x, y = small(everywhere=True), draw(2, 3, 32, 32), draw(2, 3, 8, 8, seed=1)
    for _ in range(40):
        sn.iterate(net)
    assert all(abs(float(n.detach()) - 1) < 1e-3 for n in norms(net))
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(norms(net)) == len(convolutions) > len(norms(small()))
    assert count(net) == count(small())  # a norm is no weight
    plain = small(spectral=False, everywhere=True)
    plain.load_state_dict(sn.folded(net.state_dict()))
    torch.testing.assert_close(plain(x, y), net(x, y), rtol=1e-4, atol=1e-4)
    first = net.decoder[0].norm1.weight
    loud = copy.deepcopy(net)
    with torch.no_grad():
        loud.decoder[0].norm1.weight.parametrizations.weight.original.mul_(7.0)
    sn.iterate(loud)
    torch.testing.assert_close(loud.decoder[0].norm1.weight.weight, first.weight)
    free = small()  # control: without it the scale of SPAdaIN's weights counts
    with torch.no_grad():
        free.decoder[0].norm1.weight.weight.mul_(7.0)
    assert not torch.allclose(free(x, y), small()(x, y), rtol=1e-2)


def test_iterating_is_torchs_own_power_method():
    torch.manual_seed(0)
    ours = sn.conv(6, 5, 3).eval()
    theirs = copy.deepcopy(ours).train()
    with torch.no_grad():
        for conv in (ours, theirs):  # a trained weight has left its vectors
            conv.parametrizations.weight.original.mul_(
                torch.rand(5, 1, 1, 1, generator=torch.Generator().manual_seed(1))
            )
    sn.iterate(ours)
    torch.testing.assert_close(ours.weight, theirs.weight)
    assert not ours.parametrizations.training
    before = ours.weight.clone()
    torch.testing.assert_close(ours.weight, before, rtol=0, atol=0)  # held between iterations


def test_held_weights_are_computed_once_and_their_gradients_are_whole():
    net, x, y = small(), draw(2, 3, 32, 32), draw(2, 3, 8, 8, seed=1)
    params = list(net.parameters())
    plain = torch.autograd.grad((net(net(x, y), y)).square().sum(), params)
    with sn.held(net):
        out = net(net(x, y), y)
        assert net.from_rgb.weight is net.from_rgb.weight
    found = torch.autograd.grad(out.square().sum(), params)
    for a, b in zip(found, plain, strict=True):
        torch.testing.assert_close(a, b)
    assert net.from_rgb.weight is not net.from_rgb.weight


def test_folded_weights_give_the_network_without_its_norms():
    net, x, y = small(), draw(2, 3, 32, 32), draw(2, 3, 8, 8, seed=1)
    for _ in range(40):
        sn.iterate(net)
    plain = small(spectral=False)
    plain.load_state_dict(sn.folded(net.state_dict()))
    torch.testing.assert_close(plain(x, y), net(x, y), rtol=1e-4, atol=1e-4)
    # averaged singular vectors are too short; what is folded does not depend on their length
    state = net.state_dict()
    short = {k: v / 2 if k.endswith(("_u", "_v")) else v for k, v in state.items()}
    for key, value in sn.folded(short).items():
        torch.testing.assert_close(value, sn.folded(state)[key])
    shrunk = copy.deepcopy(net)
    shrunk.load_state_dict(short)
    assert not torch.allclose(shrunk(x, y), net(x, y), rtol=1e-2)


def test_the_radius_is_the_largest_singular_value():
    weight = draw(6, 4, 3, 3)
    exact = torch.linalg.matrix_norm(weight.flatten(1), ord=2)
    found = sn.spectral_radius(weight, draw(36, seed=1), 500)
    torch.testing.assert_close(found, exact)
    theirs = parametrizations.spectral_norm(nn.Conv2d(4, 6, 3).double(), n_power_iterations=500)
    with torch.no_grad():
        theirs.parametrizations.weight.original.copy_(weight)
    torch.testing.assert_close(theirs.weight, weight / exact)
