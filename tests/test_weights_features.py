"""Feature networks: their layers, what they do to images, and the references that they must equal.
Weights are random here; `test_weights_real.py` holds what trained ones must recognise."""

import io

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from latentpapers.errors import UnknownName
from latentpapers.nets import features
from latentpapers.nets.efficientnet_lite import SameConv2d

SHAPES = {  # of a 64 px image
    ("vgg16", "fc2_relu"): (4096,), ("vgg16", "fc2"): (4096,), ("vgg16", "logits"): (1000,),
    ("vgg16", "conv3_3"): (256, 16, 16), ("vgg19", "conv5_4"): (512, 4, 4),
    ("vgg19", "conv2_2"): (128, 32, 32), ("vgg19", "conv3_4"): (256, 16, 16),
    ("vgg19", "pool5"): (512, 2, 2), ("vgg16hed", "conv5_3"): (512, 4, 4),
    ("vgg16hed", "conv3_3"): (256, 16, 16), ("alexnet", "relu5"): (256, 3, 3),
    ("alexnet", "fc2_relu"): (4096,), ("squeezenet1_1", "fire9"): (512, 3, 3),
    ("squeezenet1_1", "logits"): (1000,), ("squeeze_deepscale", "fire2"): (128, 15, 15),
    ("inception_torchvision", "pool3"): (2048,), ("inception_torchvision", "logits"): (1000,),
    ("inception_torchvision", "maxpool2"): (192, 5, 5), ("efficientnetlite0", "pooled"): (1280,),
    ("efficientnetlite0", "logits"): (1000,), ("efficientnetlite0", "block4"): (40, 8, 8),
}  # fmt: skip


def images(n=2, size=64, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def random_state(name, seed=0):
    """Values for a skeleton that keep the maps of a random network in a usable range."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in features.skeleton(name).state_dict().items():
        if not value.is_floating_point():
            state[key] = torch.zeros(value.shape, dtype=value.dtype)
        elif value.dim() > 1:
            scale = (2 / value[0].numel()) ** 0.5
            state[key] = torch.randn(value.shape, generator=generator) * scale
        elif key.endswith(("running_var", "weight")):
            state[key] = 0.5 + torch.rand(value.shape, generator=generator)
        else:
            state[key] = 0.1 * torch.randn(value.shape, generator=generator)
    return state


@pytest.mark.parametrize(("name", "layer"), list(SHAPES))
def test_layers_have_the_known_shapes(name, layer):
    """On the meta device: shapes are computed, nothing else."""
    net = features.build(name, features.skeleton(name).state_dict(), layer).to("meta")
    assert net(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, *SHAPES[name, layer])
    assert net.layer == layer


@pytest.mark.parametrize("name", sorted(features.SPECS))
def test_the_usual_layer_is_one_of_the_layers(name):
    assert features.spec_of(name).default in features.layers(name)
    assert len(set(features.layers(name))) == len(features.layers(name))


def test_parameter_counts_are_the_published_ones():
    for name, count in (("vgg16", 138_357_544), ("vgg19", 143_667_240), ("alexnet", 61_100_840),
                        ("squeezenet1_1", 1_235_496), ("vgg16hed", 14_714_688),
                        ("inception_torchvision", 27_161_264),
                        ("efficientnetlite0", 4_652_008)):  # fmt: skip
        assert sum(p.numel() for p in features.skeleton(name).parameters()) == count


def test_the_convolutions_alone_are_torchvision_s_vgg16():
    alone = features.skeleton("vgg16hed").state_dict()
    whole = features.skeleton("vgg16").state_dict()
    assert {k: v.shape for k, v in alone.items()} == {
        k: v.shape for k, v in whole.items() if k.startswith("features.")
    }
    ours, theirs = features.layers("vgg16hed"), features.layers("vgg16")
    assert ours == theirs[: len(ours)]


@pytest.fixture(scope="module")
def vgg():
    return random_state("vgg16hed")


def test_a_map_before_its_relu_is_not_overwritten(vgg):
    """torchvision's ReLUs work in place; here they must not."""
    from torchvision.models import vgg16

    with torch.device("meta"):
        whole = vgg16(weights=None)
    theirs = whole.features
    state = {k.removeprefix("features."): v for k, v in vgg.items()}
    theirs.load_state_dict(state, assign=True)
    theirs.eval().requires_grad_(False)
    net, x = features.build("vgg16hed", vgg, "relu5_3"), images(1, 32)
    wanted = ["conv1_1", "relu1_1", "conv3_3", "conv5_3", "relu5_3"]
    maps = net.maps(x, wanted)
    assert list(maps) == wanted
    for layer, end in (("conv1_1", 1), ("conv3_3", 15), ("conv5_3", 29), ("relu5_3", 30)):
        assert torch.equal(maps[layer], theirs[:end](net.prepare(x)))
    assert float(maps["conv5_3"].min()) < 0
    assert torch.equal(maps["relu5_3"], maps["conv5_3"].relu())
    overwritten = theirs[:1](net.prepare(x))  # the control: what in-place ReLUs would leave
    theirs[1](overwritten)
    assert not torch.equal(overwritten, maps["conv1_1"])


def test_cutting_a_network_does_not_change_what_is_left(vgg):
    x = images(1, 32)
    whole = features.build("vgg16hed", vgg, "pool5")
    cut = features.build("vgg16hed", vgg, "conv3_3")
    assert torch.equal(cut(x), whole.maps(x, ["conv3_3"])["conv3_3"])
    assert len(cut.stages) < len(whole.stages)
    assert torch.equal(features.build("vgg16hed", vgg)(x), whole.maps(x, ["conv5_3"])["conv5_3"])


def test_folded_normalisations_change_nothing_but_the_time():
    net, x = features.build("efficientnetlite0", random_state("efficientnetlite0")), images(3, 64)
    before = net(x)
    short = features.folded(net)
    found = short(x)
    # single precision through 49 convolutions whose weights were multiplied beforehand
    assert torch.allclose(found, before, rtol=1e-3, atol=1e-3 * float(before.abs().mean()))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in short.modules())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 49
    assert torch.equal(net(x), before), "the network given was changed"
    for bias in (m.bias for m in short.modules() if isinstance(m, nn.Conv2d)):
        bias.zero_()  # the control: without the shifts that were folded in
    assert not torch.allclose(short(x), before, rtol=1e-2, atol=1e-2 * float(before.abs().mean()))


def test_a_network_in_training_is_not_folded():
    net = features.build("efficientnetlite0", random_state("efficientnetlite0")).train()
    with pytest.raises(RuntimeError, match="evaluation mode"):
        features.folded(net)


def test_gradients_reach_the_image_and_no_parameter(vgg):
    net, x = features.build("vgg16hed", vgg, "conv2_2"), images(1, 16).requires_grad_()
    net(x).square().sum().backward()
    assert float(x.grad.abs().sum()) > 0
    assert not net.training
    assert all(p.grad is None and not p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "size"), [("squeezenet1_1", 224), ("alexnet", 224), ("inception_torchvision", 299)]
)
def test_the_logits_are_torchvision_s(name, size):
    from torchvision import models

    state = random_state(name)
    theirs = features.skeleton(name)
    nn.Module.load_state_dict(theirs, state, assign=True)
    assert type(theirs).__module__.startswith(models.__name__)
    net = features.build(name, {k: v.clone() for k, v in state.items()}, "logits")
    x = images(1, size)
    normalised = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    with torch.no_grad():
        wanted = theirs.eval()(normalised)
    # the same operations, the normalisation rounded once more or less
    torch.testing.assert_close(net(x), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    assert not torch.allclose(net(x.flip(1)), wanted, rtol=1e-3)


def test_the_inception_of_2015_is_torch_fidelity_s(tmp_path):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state = random_state("inception_tf2015")
    torch.save(state, tmp_path / "x.pth")
    layers = ["2048", "logits_unbiased", "logits"]
    file = str(tmp_path / "x.pth")
    theirs = FeatureExtractorInceptionV3("x", layers, feature_extractor_weights_path=file)
    net = features.build("inception_tf2015", state)
    pixels = torch.randint(0, 256, (2, 3, 40, 48), generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(torch.uint8)
    x = pixels.float() / 255
    wanted = dict(zip(["pool3", *layers[1:]], theirs(pixels)))
    found = net.maps(x, ["logits", "pool3", "logits_unbiased"])
    assert found.keys() == wanted.keys()
    for layer, value in found.items():
        assert torch.equal(value, wanted[layer])
    assert found["pool3"].shape == (2, 2048)
    assert found["logits"].shape == (2, 1008)
    assert torch.equal(net(x), found["pool3"])
    assert torch.equal(net(x + 0.4 / 255), found["pool3"])  # rounds to the same bytes
    assert not torch.equal(net(x.flip(1)), found["pool3"])
    with pytest.raises(UnknownName, match="pool3"):
        features.build("inception_tf2015", state, "pool4")


def test_building_the_inception_of_2015_reads_no_file_and_no_network(monkeypatch):
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    def never(*_, **__):
        raise AssertionError("it tried to download")

    monkeypatch.setattr(theirs, "load_state_dict_from_url", never)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", never)
    for name in features.SPECS:
        features.skeleton(name)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (1, 1)])
@pytest.mark.parametrize("size", [7, 8, 224 // 16])
def test_same_padding_is_tensorflow_s(kernel, stride, size):
    """Output pixel j reads from j * stride - floor(total / 2) on; zeros outside."""
    conv = SameConv2d(1, 1, kernel, stride, bias=False).double()
    conv.weight.data = torch.randn(
        conv.weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    x = images(1, size)[:, :1].double()
    out = conv(x)
    outputs = -(-size // stride)
    start = max((outputs - 1) * stride + kernel - size, 0) // 2
    wanted = torch.zeros(outputs, outputs, dtype=torch.float64)
    for i in range(outputs):
        for j in range(outputs):
            for a in range(kernel):
                for b in range(kernel):
                    row, column = i * stride - start + a, j * stride - start + b
                    if 0 <= row < size and 0 <= column < size:
                        wanted[i, j] += conv.weight[0, 0, a, b].item() * x[0, 0, row, column]
    torch.testing.assert_close(out[0, 0], wanted)  # float64: rounding only
    if stride == 2 and size % 2 == 0:  # the control: torch's own symmetric padding differs
        own = nn.functional.conv2d(x, conv.weight, stride=2, padding=kernel // 2)
        assert not torch.allclose(own[0, 0], wanted)


@pytest.mark.parametrize(
    ("name", "way"),
    [("efficientnetlite0", PIL.Image.BICUBIC), ("inception_torchvision", PIL.Image.BILINEAR)],
)
@pytest.mark.parametrize("size", [64, 500])
def test_images_are_resized_as_pillow_does(name, way, size):
    net = features.build(name, features.skeleton(name).state_dict())
    x, side = images(1, size), features.spec_of(name).size
    wanted = np.stack(  # floats, a colour at a time: Pillow rounds bytes after each of two passes
        [np.asarray(PIL.Image.fromarray(c.numpy()).resize((side, side), way)) for c in x[0]]
    )
    found = (net.prepare(x) * net.std + net.mean)[0].numpy()
    # torch places its filters in float32: 500 * 2^-24 of a pixel off, times a slope of up to 1
    assert np.abs(found - wanted).max() < 1e-4
    assert np.abs(found[:, ::-1] - wanted).max() > 0.1


@pytest.mark.parametrize("name", ["vgg16hed", "inception_tf2015"])
def test_what_is_no_batch_of_images_is_refused(name):
    net = features.build(name, features.skeleton(name).state_dict())
    for bad in (
        images().mul(255).byte(), images()[0], images()[:, :1], images().permute(0, 2, 3, 1),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"float \(N, 3, H, W\) in \[0, 1\]"):
            net(bad)


def test_unknown_names_say_what_is_known():
    with pytest.raises(UnknownName, match="vgg16hed"):
        features.spec_of("vgg17")
    state = features.skeleton("vgg16hed").state_dict()
    with pytest.raises(UnknownName, match="conv5_3"):
        features.build("vgg16hed", state, "conv6_1")
    net = features.build("vgg16hed", state, "conv3_3")
    with pytest.raises(UnknownName, match="conv3_3"):
        net.maps(images(), ["conv5_3"])  # cut away


def test_a_network_can_be_saved_and_moved():
    net = features.build("squeezenet1_1", random_state("squeezenet1_1"), "fire3")
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    assert net.double()(images().double()).dtype is torch.float64
