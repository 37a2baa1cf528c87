"""The public StarGAN v2 files: small ones of the same layout, written here, come back tensor for
tensor; other layouts are refused in one sentence."""

import numpy as np
import pytest
import torch

from latentpapers import models, weights
from latentpapers.errors import Corrupt, Missing, UserError
from latentpapers.nets import stargan_v2, wing
from latentpapers.weights import registry
from latentpapers.weights import stargan_v2 as convert

TINY = {"width": 4, "cap": 8}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A cache of its own; no weights from elsewhere."""
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("LATENTPAPERS_DATA", raising=False)
    return tmp_path


def nets(high_pass=1.0, domains=2, style=6, size=64):
    torch.manual_seed(0)
    return {
        "generator": stargan_v2.Generator(size, **TINY, style=style, high_pass=high_pass),
        "mapping_network": stargan_v2.MappingNetwork(
            latent=5, style=style, hidden=7, domains=domains
        ),
        "style_encoder": stargan_v2.StyleEncoder(size, **TINY, style=style, domains=domains),
    }


def published(path, parts, prefix="module."):
    """As the public code saves: a dict of state dicts, under DataParallel's prefix."""
    content = {
        name: {prefix + k: v for k, v in net.state_dict().items()} for name, net in parts.items()
    }
    torch.save(content, path)
    return path


OURS = {"generator": "generator", "mapping_network": "mapping", "style_encoder": "style",
        "discriminator": "discriminator"}  # fmt: skip


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize(("high_pass", "domains"), [(1.0, 2), (0.0, 3)])
def test_a_checkpoint_comes_back(place, prefix, high_pass, domains):
    parts = nets(high_pass, domains)
    parts["discriminator"] = stargan_v2.Discriminator(64, **TINY, domains=domains)
    states, recipes = convert.networks(published(place / "n.ckpt", parts, prefix))
    assert set(states) == set(OURS.values())
    x, z, label = torch.randn(2, 3, 64, 64), torch.randn(2, 5), torch.tensor([1, 0])
    built = {}
    for theirs, ours in OURS.items():
        net = models.build(recipes[ours])
        net.load_state_dict(states[ours])
        built[ours] = net
        before = parts[theirs].state_dict()
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    s = built["mapping"](z, label)
    torch.testing.assert_close(s, parts["mapping_network"](z, label), rtol=0, atol=0)
    mask = torch.rand(2, 1, 256, 256)
    masks = (mask, mask) if high_pass else None
    ours, theirs = (g(x, s, masks) for g in (built["generator"], parts["generator"]))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert recipes["generator"]["options"]["high_pass"] == high_pass
    assert recipes["style"]["options"]["domains"] == domains


def test_the_landmark_network_inside_a_checkpoint_comes_too(place):
    parts = nets()
    with torch.device("meta"):
        blank = wing.FAN()
    parts["fan"] = blank.to_empty(device="cpu")
    states, recipes = convert.networks(published(place / "n.ckpt", parts))
    assert recipes["fan"]["net"] == "wing.FAN"
    assert states["fan"].keys() == blank.state_dict().keys()


def test_other_files_are_refused(place):
    path = place / "n.ckpt"
    torch.save({"netG": {}}, path)
    with pytest.raises(Corrupt, match="no file of StarGAN v2"):
        convert.networks(path)
    parts = nets()
    del parts["generator"].decode[0].conv1
    with pytest.raises(Corrupt, match=r"decode\.0\.conv1"):
        convert.networks(published(path, parts))
    parts = nets()
    parts["generator"].decode[1].norm1 = stargan_v2.AdaIN(6, 3)
    with pytest.raises(Corrupt, match=r"decode\.1\.norm1.*has shape"):
        convert.networks(published(path, parts))
    parts = nets() | {"generator": stargan_v2.Generator(256, **TINY, style=6)}
    with pytest.raises(Corrupt, match="does not fit 64 px"):
        convert.networks(published(path, parts))
    published(path, nets())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(Corrupt):
        convert.networks(path)
    with pytest.raises(Missing):
        convert.networks(place / "other.ckpt")


def test_a_checkpoint_that_names_foreign_classes_is_refused(place):
    class Foreign:
        pass

    Foreign.__module__, Foreign.__qualname__ = __name__, "Foreign"
    globals()["Foreign"] = Foreign
    torch.save({"generator": {}, "style_encoder": {}, "args": Foreign()}, place / "n.ckpt")
    with pytest.raises(UserError, match="could run anything"):
        convert.networks(place / "n.ckpt")


def test_wing_and_its_mean_face(place):
    net = wing.FAN()
    more = {"m1.b1_4.conv1.weight": torch.zeros(3)}  # of a second hourglass: left out
    torch.save({"state_dict": net.state_dict() | more, "epoch": 3}, place / "wing.ckpt")
    points = np.arange(196.0).reshape(98, 2)
    np.savez(place / "celeba_lm_mean.npz", mean=points)
    loaded = weights.network("wing", place / "wing.ckpt")
    assert not loaded.training
    x = torch.rand(1, 3, 256, 256)
    torch.testing.assert_close(loaded(x), net.eval()(x).detach(), rtol=0, atol=0)
    face = weights.network("celeba_lm_mean", place / "celeba_lm_mean.npz")
    torch.testing.assert_close(face(512), 2 * torch.from_numpy(points).float())
    # found where the published files stand, and turned into our own form
    ours = weights.convert("celeba_lm_mean", place / "celeba_lm_mean.npz")
    assert ours.name == "celeba_lm_mean.safetensors"
    assert weights.find("celeba_lm_mean") == ours
    torch.save({"state_dict": {"l0.weight": torch.zeros(3)}}, place / "wing.ckpt")
    with pytest.raises(Corrupt, match="missing"):
        weights.load("wing", place / "wing.ckpt")
    for content in (b"no file of numpy", b""):
        (place / "celeba_lm_mean.npz").write_bytes(content)
        with pytest.raises(Corrupt):
            weights.load("celeba_lm_mean", place / "celeba_lm_mean.npz")


def test_a_published_file_is_found_in_its_folder(place, monkeypatch):
    """Both checkpoints have one file name; the folder tells them apart, as the publisher's does."""
    (place / "afhq").mkdir()
    published(place / "afhq" / "100000_nets_ema.ckpt", nets(0.0, 3))
    monkeypatch.setenv("LATENTPAPERS_DATA", str(place))
    assert weights.find("stargan_v2_afhq") == place / "afhq" / "100000_nets_ema.ckpt"
    assert weights.find("stargan_v2_celebahq") is None
    # a small one is no published one: its layout is refused
    with pytest.raises(Corrupt, match=r"stargan_v2_afhq|put the published file there"):
        weights.load("stargan_v2_afhq")


@pytest.mark.parametrize("name", sorted(convert.PUBLISHED))
def test_sizes_of_the_published_files(name):
    """Megabytes of the entry are those of its tensors in single precision."""
    skeleton = registry.ENTRIES[name].skeleton()
    numbers = sum(v.numel() for v in skeleton.state_dict().values())
    assert abs(weights.info(name).megabytes - 4e-6 * numbers) < 1
    assert "NC" in weights.info(name).licence


def test_what_is_not_here_cannot_be_fetched():
    for name in ("stargan_v2_afhq", "wing"):
        for call in (weights.load, weights.fetch):
            with pytest.raises(Missing, match=r"by hand .* `latentpapers weights convert"):
                call(name)
