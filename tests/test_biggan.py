"""BigGAN's layout and arithmetic, and the converters of public GAN files, on small files of the
same layout."""

import collections
import copy
import math
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from latentpapers import models, weights
from latentpapers.errors import Corrupt, UserError
from latentpapers.nets import biggan, pgan, wgan_gp
from latentpapers.weights import biggan as biggan_files
from latentpapers.weights import pgan as pgan_files

TINY = {"width": 8, "classes": 5}


def count(net):
    return sum(p.numel() for p in net.parameters())


def tiny(kind=biggan.Generator, **options):
    torch.manual_seed(0)
    extra = {"chunk": 4, "shared": 6} if kind is biggan.Generator else {}
    return kind(**TINY, **extra, **options)


def test_counts_of_the_public_code():
    with torch.device("meta"):
        nets = biggan.Generator(), biggan.Discriminator()
    assert [count(net) for net in nets] == [70_433_988, 87_982_370]
    assert nets[0].latent == 120
    assert "70,433,988" in biggan.Generator.__doc__
    assert "87,982,370" in biggan.Discriminator.__doc__


def test_keys_of_the_public_files():
    """A few names and shapes of the published G_ema.pth and D.pth."""
    with torch.device("meta"):
        g, d = biggan.Generator().state_dict(), biggan.Discriminator().state_dict()
    shapes = {
        "shared.weight": (1000, 128), "linear.weight": (24576, 20), "linear.u0": (1, 24576),
        "blocks.0.0.bn1.gain.weight": (1536, 148), "blocks.0.0.bn1.stored_var": (1536,),
        "blocks.3.1.theta.weight": (24, 192, 1, 1), "blocks.3.1.gamma": (),
        "blocks.4.0.conv_sc.weight": (96, 192, 1, 1), "output_layer.0.gain": (96,),
        "output_layer.2.weight": (3, 96, 3, 3), "output_layer.2.sv0": (1,),
    }  # fmt: skip
    assert {k: tuple(g[k].shape) for k in shapes} == shapes
    shapes = {
        "blocks.0.0.conv1.weight": (96, 3, 3, 3), "blocks.0.1.phi.weight": (12, 96, 1, 1),
        "linear.weight": (1, 1536), "embed.weight": (1000, 1536), "embed.u0": (1, 1000),
    }  # fmt: skip
    assert {k: tuple(d[k].shape) for k in shapes} == shapes
    assert not any(k.startswith("blocks.5.0.conv_sc") for k in d)


@pytest.mark.parametrize("kind", ["conv", "linear", "embedding"])
def test_spectral_norm_becomes_the_largest_singular_value(kind):
    torch.manual_seed(0)
    layer = {
        "conv": lambda: biggan.SpectralConv(4, 6),
        "linear": lambda: biggan.SpectralLinear(7, 5),
        "embedding": lambda: biggan.SpectralEmbedding(5, 9),
    }[kind]()
    torch.nn.init.normal_(layer.weight)
    for _ in range(200):
        layer.normalised()
    true = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
    # 200 power iterations, fp32
    torch.testing.assert_close(layer.sv0.squeeze(), true, rtol=1e-4, atol=0)
    torch.testing.assert_close(layer.normalised(), layer.weight / true, rtol=1e-4, atol=1e-6)


def test_evaluation_moves_nothing_and_training_does():
    g = tiny()
    z, y = torch.randn(2, 24), torch.tensor([0, 3])
    for mode, still in ((False, True), (True, False)):
        before = copy.deepcopy(g.train(mode).state_dict())
        g(z, y)
        assert all(torch.equal(v, before[k]) for k, v in g.state_dict().items()) is still


def test_attention_against_loops():
    torch.manual_seed(0)
    layer = biggan.Attention(16).eval()
    torch.nn.init.constant_(layer.gamma, 0.7)
    x = torch.randn(1, 16, 4, 4)
    q, k = layer.theta(x)[0].flatten(1), F.max_pool2d(layer.phi(x), 2)[0].flatten(1)
    v, out = F.max_pool2d(layer.g(x), 2)[0].flatten(1), torch.zeros(8, 16)
    for i in range(16):
        weights = torch.stack([torch.exp(q[:, i] @ k[:, j]) for j in range(4)])
        out[:, i] = (v * (weights / weights.sum())).sum(1)
    there = x + 0.7 * layer.o(out.view(1, 8, 4, 4))
    torch.testing.assert_close(layer(x), there, rtol=1e-4, atol=1e-5)  # fp32


def test_each_block_hears_its_own_chunk_and_the_class():
    g = tiny().eval()
    z, y = torch.randn(1, 24), torch.tensor([2])
    base = g(z, y)
    for i in range(6):
        other = z.clone()
        other[:, 4 * i : 4 * i + 4] += 1
        assert not torch.allclose(g(other, y), base)
    assert not torch.allclose(g(z, torch.tensor([3])), base)
    assert base.abs().max() <= 1


def test_discriminator_projects_the_class():
    d, x = tiny(biggan.Discriminator).eval(), torch.randn(2, 3, 128, 128)
    h, y = d.features(x), torch.tensor([1, 4])
    there = d.linear(h).flatten() + (d.embed(y) * h).sum(1)
    torch.testing.assert_close(d(x, y), there)
    assert h.shape == (2, 128)


def test_fixed_class():
    g, d = tiny().eval(), tiny(biggan.Discriminator).eval()
    z, y = torch.randn(2, 24), torch.tensor([3, 3])
    one, judge = biggan.OfClass(g, 3), biggan.OfClass(d, 3)
    assert one.latent == 24
    assert torch.equal(one(z), g(z, y))
    assert torch.equal(judge(one(z)), d(g(z, y), y))
    assert torch.equal(judge.features(one(z)), d.features(g(z, y)))


def test_biggan_files(tmp_path):
    for net, read in ((tiny(), biggan_files.generator),
                      (tiny(biggan.Discriminator), biggan_files.discriminator)):  # fmt: skip
        torch.save(net.state_dict(), tmp_path / "net.pth")
        state, recipe = read(tmp_path / "net.pth")
        again = models.build(recipe)
        again.load_state_dict(state)
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in net.state_dict().items())
    with pytest.raises(Corrupt, match="no BigGAN file"):
        biggan_files.generator(tmp_path / "net.pth")  # a discriminator
    state = tiny().state_dict()
    del state["blocks.1.0.bn2.bias.weight"]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(Corrupt, match=r"bn2\.bias\.weight' is missing"):
        biggan_files.generator(tmp_path / "net.pth")


# --- the GAN zoo ------------------------------------------------------------------------------


@pytest.fixture
def config_class():
    """A class of a module that the reader must not import."""
    module = types.ModuleType("models_of_the_zoo")
    module.BaseConfig = type("BaseConfig", (), {"__module__": "models_of_the_zoo"})
    sys.modules["models_of_the_zoo"] = module
    yield module.BaseConfig
    del sys.modules["models_of_the_zoo"]


_TO_ZOO = {
    "first": "formatLayer", "blocks": "scaleLayers", "to_rgb": "toRGBLayers",
    "from_rgb": "fromRGBLayers", "dense": "groupScaleZero.1", "score": "decisionLayer",
}  # fmt: skip


def zoo_state(net, *, module):
    base = "groupScale0.0" if isinstance(net, pgan.Generator) else "groupScaleZero.0"
    out = collections.OrderedDict()
    for key, value in net.state_dict().items():
        *path, kind = key.split(".")
        first = {**_TO_ZOO, "base": base}[path[0]]
        out[".".join([first, *path[1:], *["module"] * module, kind])] = value
    return out


def tiny_pgan(seed=0, reading="zoo", kind=pgan.Generator):
    torch.manual_seed(seed)
    net = kind(16, fmap_base=64, fmap_max=16, reading=reading)
    for p in net.parameters():
        if p.ndim == 1:
            torch.nn.init.normal_(p)
    return net


@pytest.mark.parametrize("module", [True, False])
def test_zoo_file(tmp_path, config_class, module):
    nets = {"netG": tiny_pgan(), "avgG": tiny_pgan(1), "netD": tiny_pgan(kind=pgan.Critic)}
    content = {k: zoo_state(net, module=module) for k, net in nets.items()}
    path = tmp_path / "s2_i100.pth"
    torch.save({"config": config_class(), **content}, path)
    del sys.modules["models_of_the_zoo"].BaseConfig  # whoever tries to load it, fails
    states, recipes = pgan_files.zoo(path, allow_pickle_stub=True)
    for theirs, ours in pgan_files._ZOO_PARTS.items():
        net = models.build(recipes[ours])
        net.load_state_dict(states[ours])
        x = torch.randn(4, 3, 16, 16) if theirs == "netD" else torch.randn(4, 16)
        assert torch.equal(net(x), nets[theirs](x))
    with pytest.raises(UserError, match="allow stubs"):
        pgan_files.zoo(path)


def test_zoo_file_of_something_else(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    with pytest.raises(Corrupt, match="no netG and netD"):
        pgan_files.zoo(tmp_path / "other.pth")
    state = zoo_state(tiny_pgan(), module=False)
    state["styleMap.weight"] = torch.zeros(3)
    torch.save({"netG": state, "netD": state}, tmp_path / "other.pth")
    with pytest.raises(Corrupt, match=r"styleMap\.weight"):
        pgan_files.zoo(tmp_path / "other.pth")


def test_zoo_file_by_its_registered_name(tmp_path, config_class, monkeypatch):
    """The published file, at a size that a test can write."""
    monkeypatch.setattr(
        pgan, "widths", lambda size, base=8192, most=512: (8,) * (size.bit_length() - 2)
    )
    torch.manual_seed(0)
    nets = {"netG": pgan.Generator(128), "avgG": pgan.Generator(128), "netD": pgan.Critic(128)}
    content = {k: zoo_state(net, module=True) for k, net in nets.items()}
    path = tmp_path / "celebaCropped_s5_i83000-2b0acc76.pth"
    torch.save({"config": config_class(), **content}, path)
    monkeypatch.setattr(pgan_files, "_recipe", _of_eight_channels)
    found = weights.network("pgan_celeba", path)
    x = torch.randn(4, 3, 128, 128)
    assert torch.equal(found["critic"](x), nets["netD"](x))
    z = torch.randn(2, 512)
    assert torch.equal(found["generator"](z), nets["avgG"](z))
    assert torch.equal(found["generator_raw"](z), nets["netG"](z))


def _of_eight_channels(state, reading, path):
    kind = "Generator" if "first.weight" in state else "Critic"
    return {"net": f"pgan.{kind}", "options": {"size": 128}}


@pytest.mark.parametrize("size", [16, 64])
def test_zoo_dcgan_file(tmp_path, size):
    torch.manual_seed(0)
    g, d = wgan_gp.Generator(size, width=4, latent=12), wgan_gp.Critic(size, width=4)
    deep = wgan_gp.depth(size)
    names = {ours: theirs for generator in (True, False)
             for theirs, ours in [*pgan_files._dcgan_names(deep, generator=generator).items()]
             if generator}  # fmt: skip
    content = {"netG": {_named(k, names): v for k, v in g.state_dict().items()}}
    names = {o: t for t, o in pgan_files._dcgan_names(deep, generator=False).items()}
    content["netD"] = {_named(k, names): v for k, v in d.state_dict().items()}
    # the zoo's own names, in its own order
    order = [f"main.convTranspose{i}.weight" for i in reversed(range(deep + 1))]
    assert [k for k in content["netD"] if "convTranspose" in k] == order
    assert "main.outlayer.weight" in content["netG"]
    assert f"main.batchNorm{deep}.running_mean" in content["netG"]
    torch.save(content, tmp_path / "wgan.pt")
    states, recipes = pgan_files.dcgan(tmp_path / "wgan.pt")
    for part, net in (("generator_raw", g), ("critic", d)):
        again = models.build(recipes[part])
        again.load_state_dict(states[part])
        x = torch.randn(4, 12) if part != "critic" else torch.randn(4, 3, size, size)
        assert torch.equal(again.eval()(x), net.eval()(x))


def _named(key, names):
    ours = next(o for o in names if key.startswith(f"{o}."))
    return names[ours] + key[len(ours) :]


# --- NVIDIA's files ---------------------------------------------------------------------------


class Network:
    """What TensorFlow's wrapper pickles: a state with a list of named arrays."""

    def __init__(self, variables):
        self.variables = variables

    def __getstate__(self):
        return {"version": 2, "name": "G", "variables": self.variables}


def tensorflow_variables(levels=3, latent=16, *, critic=False, seed=0):
    rng = np.random.default_rng(seed)
    w, size = pgan.widths(4 << (levels - 1), 64, 16), lambda i: f"{4 << i}x{4 << i}"

    def layer(name, *shape, bias=None):
        last = shape[-1] if bias is None else bias
        return [(f"{name}/weight", rng.normal(size=shape).astype(np.float32)),
                (f"{name}/bias", rng.normal(size=last).astype(np.float32))]  # fmt: skip

    out = [("lod", np.float32(0))]
    if critic:
        out += layer("4x4/Conv", 3, 3, w[0] + 1, w[0]) + layer("4x4/Dense0", 16 * w[0], w[0])
        out += layer("4x4/Dense1", w[0], 1)
    else:
        out += layer("4x4/Dense", latent, 16 * w[0], bias=w[0]) + layer(
            "4x4/Conv", 3, 3, w[0], w[0]
        )
    for i in range(levels):
        rgb = (3, w[i]) if critic else (w[i], 3)
        out += layer(f"{'From' if critic else 'To'}RGB_lod{levels - 1 - i}", 1, 1, *rgb)
        if i and critic:
            out += layer(f"{size(i)}/Conv0", 3, 3, w[i], w[i])
            out += layer(f"{size(i)}/Conv1_down", 3, 3, w[i], w[i - 1])
        elif i:
            out += layer(f"{size(i)}/Conv0_up", 3, 3, w[i], w[i - 1], bias=w[i])
            out += layer(f"{size(i)}/Conv1", 3, 3, w[i], w[i])
    return out


def fused_up(x, w):
    """TensorFlow's enlarging convolution: the 3x3 kernel blurred to 4x4, transposed, stride 2."""
    padded = np.pad(w, [(1, 1), (1, 1), (0, 0), (0, 0)])
    four = padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]
    kernel = torch.as_tensor(four).permute(3, 2, 0, 1)  # in, out, h, w
    return F.conv_transpose2d(x, kernel, stride=2, padding=1)


def fused_down(x, w):
    padded = np.pad(w, [(1, 1), (1, 1), (0, 0), (0, 0)])
    four = (padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]) * 0.25
    return F.conv2d(x, torch.as_tensor(four).permute(3, 2, 0, 1), stride=2, padding=1)


def tensorflow_layer(v, name, x, gain=2**0.5):
    w = v[f"{name}/weight"]
    fan = int(np.prod(w.shape[:-1])) if "_up" not in name else w.shape[0] ** 2 * w.shape[3]
    w = w * np.float32(gain / math.sqrt(fan))
    if name.endswith("_up"):
        y = fused_up(x, w)
    elif name.endswith("_down"):
        y = fused_down(x, w)
    elif w.ndim == 4:
        y = F.conv2d(x, torch.as_tensor(w).permute(3, 2, 0, 1), padding=w.shape[0] // 2)
    else:
        y = x.flatten(1) @ torch.as_tensor(w)
    return y


def biased(v, name, y):
    b = torch.as_tensor(v[f"{name}/bias"])
    return y + (b if y.ndim == 2 else b.view(1, -1, 1, 1))


def act(x):
    return F.leaky_relu(x, 0.2)


def normed(x):
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def tensorflow_generator(v, z, levels):
    y = tensorflow_layer(v, "4x4/Dense", normed(z), math.sqrt(2) / 4).view(len(z), -1, 4, 4)
    x = normed(act(biased(v, "4x4/Dense", y)))
    x = normed(act(biased(v, "4x4/Conv", tensorflow_layer(v, "4x4/Conv", x))))
    for i in range(1, levels):
        for part in ("Conv0_up", "Conv1"):
            name = f"{4 << i}x{4 << i}/{part}"
            x = normed(act(biased(v, name, tensorflow_layer(v, name, x))))
    return biased(v, "ToRGB_lod0", tensorflow_layer(v, "ToRGB_lod0", x, 1.0))


def tensorflow_critic(v, x, levels):
    x = act(biased(v, "FromRGB_lod0", tensorflow_layer(v, "FromRGB_lod0", x)))
    for i in reversed(range(1, levels)):
        for part in ("Conv0", "Conv1_down"):
            name = f"{4 << i}x{4 << i}/{part}"
            x = act(biased(v, name, tensorflow_layer(v, name, x)))
    groups = x.reshape(4, -1, *x.shape[1:])
    spread = (groups.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3)).repeat(4)
    x = torch.cat((x, spread.view(-1, 1, 1, 1).expand(-1, 1, 4, 4)), 1)
    x = act(biased(v, "4x4/Conv", tensorflow_layer(v, "4x4/Conv", x)))
    x = act(biased(v, "4x4/Dense0", tensorflow_layer(v, "4x4/Dense0", x)))
    return biased(v, "4x4/Dense1", tensorflow_layer(v, "4x4/Dense1", x, 1.0)).flatten()


def written(tmp_path, **options):
    lists = [tensorflow_variables(seed=0), tensorflow_variables(critic=True, seed=1),
             tensorflow_variables(seed=2)]  # fmt: skip
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps(tuple(Network(v) for v in lists)))
    return path, [dict(v) for v in lists]


def test_nvidia_file_gives_tensorflow_s_numbers(tmp_path):
    path, (raw, critic, average) = written(tmp_path)
    states, recipes = pgan_files.nvidia(path, allow_pickle_stub=True)
    nets = {part: models.build(recipe) for part, recipe in recipes.items()}
    for part, net in nets.items():
        net.load_state_dict(states[part])
    z, x = torch.randn(4, 16), torch.randn(8, 3, 16, 16)
    # fp32, sums in another order, images of size 10
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(nets["generator"](z), tensorflow_generator(average, z, 3), **close)
    torch.testing.assert_close(nets["generator_raw"](z), tensorflow_generator(raw, z, 3), **close)
    torch.testing.assert_close(nets["critic"](x), tensorflow_critic(critic, x, 3), **close)


def test_control_an_unturned_kernel_is_caught(tmp_path, monkeypatch):
    path, (_, _, average) = written(tmp_path)
    turn = pgan_files._turned
    monkeypatch.setattr(
        pgan_files, "_turned",
        lambda w, layer: turn(w, layer).flip(2, 3) if layer.endswith("_up") else turn(w, layer),
    )  # fmt: skip
    states, recipes = pgan_files.nvidia(path, allow_pickle_stub=True)
    net = models.build(recipes["generator"])
    net.load_state_dict(states["generator"])
    z = torch.randn(4, 16)
    assert not torch.allclose(net(z), tensorflow_generator(average, z, 3), rtol=0.1, atol=0.1)


def test_nvidia_refuses(tmp_path):
    path, _ = written(tmp_path)
    with pytest.raises(UserError, match="allow stubs"):
        pgan_files.nvidia(path)
    path.write_bytes(pickle.dumps((1, 2)))
    with pytest.raises(Corrupt, match="three networks"):
        pgan_files.nvidia(path)
    path.write_bytes(pickle.dumps((Network([("a/b", np.zeros(2))]),) * 3))
    with pytest.raises(Corrupt, match="no layer of a PGAN"):
        pgan_files.nvidia(path, allow_pickle_stub=True)
