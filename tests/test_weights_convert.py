"""Converters, on small files of the published layouts that the tests write themselves, and the RRDB
network that one of them feeds."""

import struct

import h5py
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from latentpapers import weights
from latentpapers.errors import Corrupt, Missing
from latentpapers.nets import features
from latentpapers.nets.rrdb import RRDBNet
from latentpapers.weights import convert_keras, convert_ncnn, convert_state

# odd sizes, so that halves need padding to four bytes
NARROW = {"width": 5, "blocks": 2, "growth": 3}


def seeded(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for value in net.parameters():
        value.data = torch.randn(value.shape, generator=generator) * 0.2
    return net.eval().requires_grad_(False)


# --- RRDB ------------------------------------------------------------------------------------


def test_the_published_size():
    with torch.device("meta"):
        net = RRDBNet()
    assert sum(p.numel() for p in net.parameters()) == 16_697_987
    assert len(net.state_dict()) == 702
    some = {"conv_first.weight", "body.22.rdb3.conv5.bias", "conv_body.weight", "conv_last.bias",
            "conv_up1.weight", "conv_up2.weight", "conv_hr.weight"}  # fmt: skip
    assert some <= set(net.state_dict())
    assert RRDBNet(**NARROW)(torch.zeros(2, 3, 6, 5)).shape == (2, 3, 24, 20)


def reference(state, x, blocks):
    """The network written out from its description, without modules."""

    def conv(name, value):
        return F.conv2d(value, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def double(value):
        return value.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def act(value):
        return torch.where(value > 0, value, 0.2 * value)

    first = trunk = conv("conv_first", x)
    for b in range(blocks):
        start = trunk
        for r in (1, 2, 3):
            seen = trunk
            for c in (1, 2, 3, 4):
                seen = torch.cat([seen, act(conv(f"body.{b}.rdb{r}.conv{c}", seen))], 1)
            trunk = trunk + 0.2 * conv(f"body.{b}.rdb{r}.conv5", seen)
        trunk = start + 0.2 * trunk
    out = first + conv("conv_body", trunk)
    out = act(conv("conv_up2", double(act(conv("conv_up1", double(out))))))
    return conv("conv_last", act(conv("conv_hr", out)))


def test_rrdb_equals_its_description():
    net = seeded(RRDBNet(**NARROW)).double()
    x = torch.rand(2, 3, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    state = net.state_dict()
    # float64: sums of a few hundred terms of order 1
    torch.testing.assert_close(net(x), reference(state, x, 2), rtol=1e-10, atol=1e-10)
    state["body.1.rdb3.conv5.bias"] = state["body.1.rdb3.conv5.bias"] + 0.01
    assert not torch.allclose(net(x), reference(state | {}, x, 1), atol=1e-6)
    changed = RRDBNet(**NARROW).double()
    changed.load_state_dict(state)
    assert not torch.allclose(net(x), changed(x), atol=1e-6)


# --- ncnn ------------------------------------------------------------------------------------


def written(net, path, half=True):
    """`net` as ncnn stores it: the graph's convolutions in the order of the forward pass."""
    order = []
    hooks = [
        m.register_forward_hook(lambda m, *_: order.append(m))
        for m in net.modules()
        if isinstance(m, nn.Conv2d)
    ]
    net(torch.zeros(1, 3, 4, 4))
    for hook in hooks:
        hook.remove()
    lines, content = ["7767517", f"{len(order)} 99", "Input in 0 1 data"], b""
    for k, conv in enumerate(order):
        sizes = f"0={conv.out_channels} 1=3 4=1 5=1 6={conv.weight.numel()}"
        lines += [f"Convolution Conv_{k} 1 1 a b {sizes} 9=2 -23310=1,2.0e-01", "Split s 1 2 b c d"]
        kernel = conv.weight.numpy().astype("<f2" if half else "<f4").tobytes()
        content += struct.pack("<I", 0x01306B47 if half else 0)
        content += kernel + bytes(-len(kernel) % 4) + conv.bias.numpy().astype("<f4").tobytes()
    path.write_bytes(content)
    path.with_suffix(".param").write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("half", [True, False])
def test_an_ncnn_file_gives_back_its_network(half, tmp_path):
    net = seeded(RRDBNet(**NARROW))
    state = convert_ncnn.rrdb(written(net, tmp_path / "x.bin", half))
    assert list(state) == list(net.state_dict())
    for key, value in net.state_dict().items():
        stored = value.half() if half and key.endswith("weight") else value
        assert torch.equal(state[key], stored)


def test_damaged_ncnn_files_are_refused(tmp_path):
    path = written(seeded(RRDBNet(**NARROW)), tmp_path / "x.bin")
    text, content = path.with_suffix(".param").read_text(), path.read_bytes()

    def refused(said, content=content, text=text):
        path.write_bytes(content)
        path.with_suffix(".param").write_text(text)
        with pytest.raises(Corrupt, match=said):
            convert_ncnn.rrdb(path)

    refused("no RRDB network", content[:-2])
    refused("no RRDB network", content[: len(content) // 2])
    refused("no RRDB network", b"")
    refused("4 bytes too many", content + bytes(4))
    refused("numbers of kind 0xd4b38", struct.pack("<I", 0x000D4B38) + content[4:])  # int8
    refused("does not begin", text=text[8:])
    refused("make no RRDB network", content[:-4], "7767517\n1 1\n")
    refused("no RRDB network", text=text.replace(" 6=", " 7="))
    refused("no RRDB network", text=text.replace("0=5 ", "0=9 "))
    path.with_suffix(".param").unlink()
    with pytest.raises(Missing, match=r"x\.param beside it"):
        convert_ncnn.rrdb(path)


def test_convolutions_of_another_network_are_refused(tmp_path):
    """As many numbers, other shapes."""
    net = seeded(RRDBNet(**NARROW))
    net.body[0].rdb1.conv1, net.body[0].rdb1.conv2 = (
        nn.Conv2d(5, 3, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1),
    )  # fmt: skip
    path = written(seeded(net), tmp_path / "x.bin")
    text = path.with_suffix(".param").read_text().splitlines()
    lines = [i for i, line in enumerate(text) if line.startswith("Conv")]
    text[lines[2]], text[lines[3]] = text[lines[3]], text[lines[2]]
    path.with_suffix(".param").write_text("\n".join(text))
    with pytest.raises(Corrupt, match="no RRDB network"):
        convert_ncnn.rrdb(path)


# --- Keras -----------------------------------------------------------------------------------

WIDTHS = (3, 4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8)


@pytest.fixture
def keras(tmp_path):
    """A weights file of Keras 3 in the layout of HED, with few maps; (path, kernels, biases)."""
    rng = np.random.default_rng(0)
    path, kernels, biases, k = tmp_path / "x.weights.h5", [], [], 0
    with h5py.File(path, "w") as file:
        for block, count in enumerate((2, 2, 3, 3, 3), 1):
            for i in range(count):
                kernels.append(rng.normal(size=(3, 3, *WIDTHS[k : k + 2])).astype("f4"))
                biases.append(rng.normal(size=WIDTHS[k + 1]).astype("f4"))
                group = f"block{block}/layers/conv2d{f'_{i}' if i else ''}/vars"
                file[f"{group}/0"], file[f"{group}/1"] = kernels[-1], biases[-1]
                k += 1
            file.create_group(f"block{block}/layers/max_pooling2d/vars")
        file["fuse/vars/0"] = np.ones((1, 1, 5, 1), "f4")
    return path, kernels, biases


def test_kernels_of_keras_convolve_as_in_keras(keras):
    """Keras: rows, columns, in, out; BGR in grey levels minus the mean; zeros outside."""
    path, kernels, biases = keras
    image = np.random.default_rng(1).integers(0, 256, (6, 5, 3)).astype(np.float64)
    blue_first = image[..., ::-1] - np.array([104.00699, 116.66877, 122.67892])
    padded = np.pad(blue_first, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    wanted = np.einsum("hwcij,ijco->ohw", windows, kernels[0]) + biases[0][:, None, None]

    state = convert_keras.vgg16(path)
    net = features.Features(
        {"conv": nn.Conv2d(3, 4, 3, padding=1)}, features.spec_of("vgg16hed")
    ).double()
    weight, bias = state["features.0.weight"].double(), state["features.0.bias"].double()
    net.stages["conv"].load_state_dict({"weight": weight, "bias": bias})
    x = torch.from_numpy(image.transpose(2, 0, 1))[None] / 255
    # kernels are stored in float32: 27 products of up to 150 * 3, six digits each
    torch.testing.assert_close(net(x)[0], torch.from_numpy(wanted), rtol=1e-5, atol=2e-3)
    assert not torch.allclose(net(x.flip(1))[0], torch.from_numpy(wanted), atol=10)
    assert not torch.allclose(net(x.mT)[0].mT, torch.from_numpy(wanted), atol=10)


def test_all_thirteen_convolutions_arrive_under_torchvision_s_keys(keras):
    path, kernels, biases = keras
    state = convert_keras.vgg16(path)
    convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert list(state) == [f"features.{i}.{p}" for i in convolutions for p in ("weight", "bias")]
    for i, kernel, bias in zip(convolutions[1:], kernels[1:], biases[1:]):
        assert np.array_equal(state[f"features.{i}.weight"].permute(2, 3, 1, 0), kernel)
        assert np.array_equal(state[f"features.{i}.bias"], bias)


def test_other_files_of_keras_are_refused(keras, tmp_path):
    path = keras[0]
    with h5py.File(path, "a") as file:
        del file["block5/layers/conv2d_2"]
    with pytest.raises(Corrupt, match="no VGG16 of Keras"):
        convert_keras.vgg16(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(Corrupt, match="no VGG16 of Keras"):
        convert_keras.vgg16(path)
    with pytest.raises(Corrupt, match="no VGG16 of Keras"):
        convert_keras.vgg16(tmp_path / "absent.h5")


def test_narrow_files_do_not_pass_for_the_network(keras):
    with pytest.raises(Corrupt, match=r"shape \(4, 3, 3, 3\), not \(64, 3, 3, 3\)"):
        weights.load("vgg16hed", keras[0])


# --- state dicts -------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", ["", "params_ema", "params", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_usual_wrappings_are_taken_off(wrapper, prefix, tmp_path):
    inner = {f"{prefix}conv_first.weight": torch.ones(2)}
    torch.save({wrapper: inner, "epoch": 3} if wrapper else inner, tmp_path / "x.pth")
    read = convert_state.saved_state(tmp_path / "x.pth")
    assert list(read) == ["conv_first.weight"]


def test_another_layout_is_no_efficientnet(tmp_path):
    torch.save({"_blocks.0._se_reduce.weight": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(Corrupt, match=r"_se_reduce\.weight' is no part of EfficientNet-Lite0"):
        convert_state.efficientnet_lite(tmp_path / "x.pth")
    torch.save({"stem.weight": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(Corrupt, match="no part"):
        convert_state.efficientnet_lite(tmp_path / "x.pth")
