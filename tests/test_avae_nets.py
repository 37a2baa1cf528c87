"""The BEGAN backbone: parameter counts of the public reading, shapes, padding, composition."""

import numpy as np
import pytest
import torch
from torch import nn

from latentpapers.errors import UserError
from latentpapers.nets.began import Decoder, Downsample, Encoder, levels, seeded
from latentpapers.nets.digitsnet import DigitsNet
from latentpapers.papers.avae import METHODS, Networks, Training


def count(*nets):
    return sum(p.numel() for net in nets for p in net.parameters())


def on_meta(kind, *args, **options):
    """Shapes without numbers: nothing is allocated or initialised."""
    with torch.device("meta"):
        return kind(*args, **options)


def whole(size, width, latent, *, heads):
    """Generator and discriminator: two encoders, two decoders."""
    return [
        on_meta(Encoder, size, width, latent, heads=heads),
        on_meta(Encoder, size, width, latent),
        *(on_meta(Decoder, size, width, latent) for _ in range(2)),
    ]


@pytest.mark.parametrize(
    ("size", "width", "encoder", "decoder"),
    [
        (32, 128, 5_707_200, 1_421_443),
        (64, 128, 11_688_768, 1_716_611),
        (128, 128, 21_209_664, 2_011_779),
        (64, 64, 3_448_256, 563_395),
    ],
)
def test_counts_of_the_public_reading(size, width, encoder, decoder):
    assert count(on_meta(Encoder, size, width, 64)) == encoder
    assert count(on_meta(Decoder, size, width, 64)) == decoder


@pytest.mark.parametrize(("size", "extra"), [(32, 1_572_928), (64, 2_097_216), (128, 2_621_504)])
def test_second_head_adds_one_linear_map(size, extra):
    one, two = (count(on_meta(Encoder, size, 128, 64, heads=h)) for h in (1, 2))
    assert two - one == extra


@pytest.mark.parametrize(("size", "total"), [(32, 15_830_214), (64, 28_907_974)])
def test_count_of_the_whole_model(size, total):
    assert count(*whole(size, 128, 64, heads=2)) == total


def test_count_of_began_discriminator():
    parts = on_meta(Encoder, 64, 128, 64), on_meta(Decoder, 64, 128, 64)
    assert count(*parts) == 13_405_379


@pytest.mark.parametrize(("width", "total"), [(16, 47_002), (24, 101_602)])
def test_count_of_digitsnet(width, total):
    """Three blocks of convolution and normalisation, a convolution, a linear map."""
    w = width
    blocks = sum(9 * a * b + 2 * b for a, b in ((1, w), (w, 2 * w), (2 * w, 4 * w)))
    head = 9 * 4 * w * 2 * w + 2 * w + 16 * 2 * w * 10 + 10
    assert count(on_meta(DigitsNet, width)) == total == blocks + head
    assert DigitsNet(width).eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


def test_digitsnet_says_its_count():
    assert f"{count(on_meta(DigitsNet)):,} parameters" in DigitsNet.__doc__


def test_control_another_reading_has_another_count():
    """BEGAN-pytorch lets the stride-2 convolution replace the second one: fewer parameters."""
    net = on_meta(Encoder, 64, 128, 64)
    strided = sum(count(m) for m in net.modules() if isinstance(m, Downsample))
    assert count(net) - strided != 11_688_768


@pytest.mark.parametrize(("size", "number"), [(16, 2), (32, 3), (64, 4), (128, 5), (256, 6)])
def test_levels(size, number):
    assert levels(size) == number


@pytest.mark.parametrize("size", [-32, 0, 1, 8, 24, 33, 48, 100])
def test_sizes_without_an_eight_by_eight_end_are_refused(size):
    with pytest.raises(UserError, match="power of two"):
        levels(size)
    with pytest.raises(UserError, match="power of two"):
        on_meta(Encoder, size, 4, 4)
    with pytest.raises(UserError, match="power of two"):
        on_meta(Decoder, size, 4, 4)


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(size, channels):
    x = torch.zeros(2, channels, size, size)
    encoder = Encoder(size, 4, 5, channels=channels, heads=2)
    mean, log_variance = encoder.moments(x)
    assert mean.shape == log_variance.shape == (2, 5)
    assert torch.equal(torch.cat([mean, log_variance], 1), encoder(x))
    assert encoder.features(x).shape == (2, levels(size) * 4, 8, 8)
    assert Decoder(size, 4, 5, channels=channels)(mean).shape == x.shape


def convolutions(net):
    return [(m.in_channels, m.out_channels, m.stride[0]) for m in convolution_modules(net)]


def convolution_modules(net):
    return [m for m in net.modules() if isinstance(m, nn.Conv2d)]


def test_order_of_the_layers():
    """The list of the public reading at 64 px, width n: i * n channels at level i."""
    n = 4
    expected = [(3, n, 1)]
    for i in (1, 2, 3, 4):
        expected += [(max(i - 1, 1) * n, i * n, 1), (i * n, i * n, 1)]
        expected += [(i * n, i * n, 2)] * (i < 4)
    encoder, decoder = on_meta(Encoder, 64, n, 5), on_meta(Decoder, 64, n, 5)
    assert convolutions(encoder) == expected
    assert convolutions(decoder) == [(n, n, 1)] * 8 + [(n, 3, 1)]
    assert all(m.kernel_size == (3, 3) for m in convolution_modules(nn.ModuleList([encoder])))
    # ELU after every convolution but the last of the decoder; none on the code
    kinds = [type(m) for m in encoder.features]
    assert kinds[1::2] == [nn.ELU] * len(expected)
    assert [type(m) for m in decoder.layers].count(nn.Upsample) == 3
    assert isinstance(decoder.layers[-1], nn.Conv2d)
    assert isinstance(encoder.code, nn.Linear)
    assert isinstance(decoder.code, nn.Linear)


def test_nothing_but_convolution_elu_linear_and_nearest_upsampling():
    allowed = (Encoder, Decoder, nn.Sequential, nn.Conv2d, nn.ELU, nn.Linear, nn.Upsample)
    for net in whole(64, 4, 5, heads=2):
        for module in net.modules():
            assert type(module) in (*allowed, Downsample)
            assert not isinstance(module, nn.ConvTranspose2d)
            if isinstance(module, nn.Upsample):
                assert (module.mode, module.scale_factor) == ("nearest", 2.0)


def test_biases_start_at_zero_and_weights_within_xavier_bounds():
    net = Encoder(16, 4, 5)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert not module.bias.any()
            area = module.weight[0][0].numel()
            bound = (6 / (area * sum(module.weight.shape[:2]))) ** 0.5
            assert bound / 2 < float(module.weight.detach().abs().max()) <= bound


def same_padded(x, weight, bias, *, before=None):
    """Output i of TensorFlow's 'same' convolution of stride 2, by explicit indices."""
    channels, n, _ = x.shape
    size = -(-n // 2)
    total = max((size - 1) * 2 + 3 - n, 0)
    before = total // 2 if before is None else before
    out = np.zeros((weight.shape[0], size, size))
    for (o, i, j), (c, u, v) in (
        (place, tap) for place in np.ndindex(*out.shape) for tap in np.ndindex(channels, 3, 3)
    ):
        row, column = 2 * i + u - before, 2 * j + v - before
        if 0 <= row < n and 0 <= column < n:
            out[o, i, j] += weight[o, c, u, v] * x[c, row, column]
    return out + bias[:, None, None]


def test_stride_two_pads_as_tensorflow_does():
    layer = Downsample(2).double()
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    ours = layer(x).detach().numpy()[0]
    assert ours.shape == (2, 4, 4)
    np.testing.assert_allclose(ours, same_padded(x[0].numpy(), weight, bias), atol=1e-12)
    # control: torch's symmetric padding samples another grid
    shifted = same_padded(x[0].numpy(), weight, bias, before=1)
    assert np.abs(ours - shifted).max() > 0.1


def test_types_widen_out_of_bf16_and_stay_otherwise():
    encoder, decoder = Encoder(16, 4, 5), Decoder(16, 4, 5)
    x = torch.zeros(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        code = encoder(x)
        assert code.dtype is decoder(code).dtype is torch.float32
    code = encoder.double()(x.double())
    assert code.dtype is decoder.double()(code).dtype is torch.float64


def test_seeded_draws_from_its_generator_alone():
    def make(seed):
        return seeded(lambda: Encoder(16, 4, 5), torch.Generator().manual_seed(seed)).state_dict()

    before = torch.random.get_rng_state()
    first, again, other = make(0), make(0), make(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["code.weight"], other["code.weight"])


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_the_networks_of_its_row(method):
    job = Training(method, data="none", size=16, images=1, width=4, latent=5, steps=1)
    nets = Networks(job, seed=0).all
    row = METHODS[method]
    critic = {"critic_encoder", "critic_decoder"} if row.critic else set()
    assert set(nets) == {"decoder"} | ({"encoder"} if row.encoder else set()) | critic
    if row.encoder and row.critic:
        assert count(*nets.values()) == count(*whole(16, 4, 5, heads=2))
        assert not torch.equal(
            nets["decoder"].code.weight, nets["critic_decoder"].code.weight
        )  # each has numbers of its own
