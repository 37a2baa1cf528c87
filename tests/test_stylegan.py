"""StyleGAN's generator: counts of the published network, its layers beside plain ones, PULSE's
file layout, and a search over it."""

import math

import pytest
import torch
from torch.nn import functional as F

from latentpapers import weights
from latentpapers.errors import Corrupt, Missing, UserError
from latentpapers.latent import pulse
from latentpapers.nets import stylegan

TINY = {"latent": 8, "fmap_base": 64, "fmap_max": 8}


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_counts_of_the_published_network():
    """NVIDIA's code counts an image layer of every size; here the last alone is left."""
    with torch.device("meta"):
        synthesis, mapping = stylegan.Synthesis(), stylegan.Mapping()
    left_out = sum(3 * (c + 1) for c in (512, 512, 512, 512, 256, 128, 64, 32))
    assert count(mapping) == 2_101_248
    assert count(synthesis) == 24_110_771
    assert count(synthesis) + count(mapping) + left_out == 26_219_627
    for kind, numbers in ((stylegan.Synthesis, ("24,110,771", "26,219,627")),
                          (stylegan.Mapping, ("2,101,248",))):  # fmt: skip
        assert all(n in kind.__doc__ for n in numbers)
    assert synthesis.rows == 18
    assert synthesis.sides == tuple(2 ** (i // 2 + 2) for i in range(18))  # as PULSE has it


def test_names_of_the_port():
    with torch.device("meta"):
        keys = set(stylegan.Synthesis().state_dict())
        assert set(stylegan.Mapping().state_dict()) == {
            f"dense{i}.{k}" for i in range(8) for k in ("weight", "bias")
        }
    assert {"blocks.4x4.const", "blocks.4x4.conv.weight", "blocks.1024x1024.conv1.bias",
            "blocks.8x8.conv0_up.intermediate.kernel", "blocks.16x16.epi2.noise.weight",
            "blocks.8x8.epi1.style_mod.lin.weight", "torgb.weight"} <= keys  # fmt: skip


@pytest.mark.parametrize("side", [4, 64])
def test_enlarging_convolutions(side):
    """Below 128 px as printed; from there on the fused layer is one with a turned kernel."""
    torch.manual_seed(0)
    conv, x = stylegan.Conv(3, 5, 3, up=True).double(), draw(2, 3, side, side)
    torch.nn.init.normal_(conv.bias)
    weight = conv.weight * math.sqrt(2) / math.sqrt(27)
    weight = weight if 2 * side < 128 else weight.flip(2, 3)
    wide = F.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), weight, padding=1)
    line = torch.tensor([1.0, 2.0, 1.0]).double() / 4
    want = F.conv2d(wide.flatten(0, 1)[:, None], torch.outer(line, line)[None, None], padding=1)
    want = want.view_as(wide) + conv.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(conv(x), want)
    other = F.conv2d(wide, torch.zeros(5, 5, 1, 1).double())  # control
    assert (conv(x) - other).abs().max() > 0.1


def test_an_epilogue_written_out():
    torch.manual_seed(0)
    layer, x, w, noise = (
        stylegan.Epilogue(6, 4).double(),
        draw(2, 4, 8, 8),
        draw(2, 6),
        draw(2, 1, 8, 8),
    )
    torch.nn.init.normal_(layer.noise.weight)
    y = F.leaky_relu(x + layer.noise.weight.view(1, -1, 1, 1) * noise, 0.2)
    y = (y - y.mean((2, 3), keepdim=True)) / (
        y.var((2, 3), correction=0, keepdim=True) + 1e-5
    ).sqrt()
    lin = layer.style_mod.lin
    style = (w @ lin.weight.T / math.sqrt(6) + lin.bias).view(2, 2, 4, 1, 1)
    torch.testing.assert_close(layer(x, w, noise), y * (1 + style[:, 0]) + style[:, 1])


def test_the_mapping_network_sees_directions_alone():
    torch.manual_seed(0)
    net, z = stylegan.Mapping(16).double(), draw(3, 16)
    # the eps of 1e-8 beside mean squares of about 1
    torch.testing.assert_close(net(z), net(5 * z), rtol=1e-6, atol=1e-8)
    assert (net(z) - net(-z)).abs().max() > 0.1


def tiny():
    torch.manual_seed(0)
    return stylegan.Synthesis(16, **TINY).requires_grad_(False)


def test_rows_and_maps_are_counted():
    net = tiny()
    noise = tuple(torch.zeros(2, 1, s, s) for s in net.sides)
    assert net(torch.randn(2, 6, 8), noise).shape == (2, 3, 16, 16)
    for rows, maps in ((torch.randn(2, 5, 8), noise), (torch.randn(2, 6, 8), noise[:5])):
        with pytest.raises(UserError, match="6 rows"):
            net(rows, maps)


def test_pulse_searches_it():
    net, reduce = tiny(), torch.nn.AvgPool2d(4)
    mapping = stylegan.Mapping(8, 2).requires_grad_(False)
    mean, std = pulse.fitted(mapping, 8, torch.Generator().manual_seed(0), count=500, block=200)
    space = pulse.of_styles(net, mean, std, trained=2)
    begin = pulse.start(space, 3, torch.Generator().manual_seed(1))
    assert not begin.noise[-1].any()
    assert begin.noise[-2].any()
    hidden = pulse.start(space, 3, torch.Generator().manual_seed(2))
    target = reduce(net(space.entered(hidden.rows), hidden.noise))
    found = pulse.search(space, target, reduce, pulse.Plan(steps=30, cross_weight=0), begin)
    before = pulse.distance(reduce(net(space.entered(begin.rows), begin.noise)), target)
    assert (found.best < 0.5 * before).all()


def test_pulse_s_files(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("LATENTPAPERS_DATA", raising=False)
    with pytest.raises(Missing, match=r"convert stylegan_ffhq_mapping mapping\.pt"):
        weights.load("stylegan_ffhq_mapping")
    net = stylegan.Mapping()
    torch.save(net.state_dict(), tmp_path / "mapping.pt")
    loaded = weights.network("stylegan_ffhq_mapping", tmp_path / "mapping.pt")
    z = torch.randn(2, 512)
    torch.testing.assert_close(loaded(z), net(z).detach(), rtol=0, atol=0)
    torch.save(stylegan.Mapping(layers=7).state_dict(), tmp_path / "mapping.pt")
    with pytest.raises(Corrupt, match="missing"):  # a shorter one is not the published network
        weights.load("stylegan_ffhq_mapping", tmp_path / "mapping.pt")
