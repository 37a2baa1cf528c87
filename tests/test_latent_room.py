"""The room's side of the searches: pairs of checkpoints, searches, the shipped results."""

import dataclasses
import math

import pytest
import torch

from latentpapers import models, paths, tensorfile, weights
from latentpapers.errors import Missing, UserError
from latentpapers.latent import found, inversion, method, sphere, walk
from latentpapers.latent.descent import Plan
from latentpapers.nets import pgan, wgan_gp
from latentpapers.papers import diamond

SHORT = Plan(steps=3, tolerance=0.0)


def settings(name):
    how = diamond.PRESETS["quick"].wgan_gp if name == "wgan_gp" else diamond.PRESETS["quick"].search
    return dataclasses.replace(
        how, batch=4, chunk=8,
        inversion=dataclasses.replace(how.inversion, candidates=10, descent=SHORT),
        proto=dataclasses.replace(how.proto, descent=SHORT),
        sigma=dataclasses.replace(how.sigma, descent=dataclasses.replace(SHORT, rate=0.01)),
    )  # fmt: skip


def small(name):
    torch.manual_seed(0)
    if name == "pgan":
        nets = {"generator": pgan.Generator(8, fmap_base=32, fmap_max=8, latent=16),
                "critic": pgan.Critic(8, fmap_base=32, fmap_max=8)}  # fmt: skip
        nets["generator_raw"] = pgan.Generator(8, fmap_base=32, fmap_max=8, latent=16)
    else:
        nets = {"generator": wgan_gp.Generator(16, width=4, latent=16),
                "critic": wgan_gp.Critic(16, width=4, norm="none")}  # fmt: skip
    nets = {n: net.eval().requires_grad_(False) for n, net in nets.items()}
    return models.Model(nets, {"config": {"method": name}})


@pytest.mark.parametrize("name", ["pgan", "wgan_gp"])
def test_a_search_of_a_checkpoint(name, monkeypatch):
    monkeypatch.setattr(diamond, "FREE", SHORT)
    result = diamond.search(small(name), settings(name), 8, 0)
    again = diamond.search(small(name), settings(name), 8, 0)
    for code in ("z0", "z1", "zp"):
        z = getattr(result, code)
        assert z.shape == (8, 16)
        assert torch.allclose(z.norm(dim=1), torch.tensor(math.sqrt(16)), rtol=1e-4)
        assert torch.equal(z, getattr(again, code))
    other = diamond.search(small(name), settings(name), 8, 1)
    assert not torch.equal(result.z0, other.z0)
    expected = {"free", "highest"} | ({"without_spreads"} if name == "wgan_gp" else set())
    assert set(result.extra) == expected


def test_the_generator_as_trained_is_taken_where_it_was_kept():
    model = small("pgan")
    z = torch.randn(4, 16)
    made = diamond.pair(model).generate(z)
    assert torch.equal(made, model["generator_raw"](z))
    assert not torch.equal(made, model["generator"](z))  # control: the average is another network


def test_batch_statistics_couple_images_and_running_ones_do_not():
    z = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    for statistics, tied in (("running", False), ("batch", True)):
        pair = diamond.pair(small("wgan_gp"), statistics=statistics)
        assert pair.coupled is tied
        alone, together = pair.generate(z[:2]), pair.generate(z)[:2]
        assert torch.allclose(alone, together, atol=1e-5) is not tied
    assert not diamond.pair(small("pgan"), statistics="batch").coupled


def test_a_walk_with_public_weights(monkeypatch):
    """Of a network in their form; the real ones are 276 MB each."""
    net = torch.nn.ModuleDict(small("pgan").parts)
    monkeypatch.setattr(weights, "network", lambda name: net)
    how = settings("pgan")
    walked = diamond.walk_of_weights("pgan_celeba", how, 4, 0, device="cpu", steps=5)
    assert [x.shape[0] for x in walked] == [4] * len(walked)
    assert len(walked) == len(walk.walk(torch.randn(2, 16), torch.randn(2, 16), 5))
    again = diamond.walk_of_weights("pgan_celeba", how, 4, 0, device="cpu", steps=5)
    assert all(torch.equal(a, b) for a, b in zip(walked, again, strict=True))
    seen, invert = [], inversion.invert
    monkeypatch.setattr(inversion, "invert", lambda *a, **k: seen.append(a[3]) or invert(*a, **k))
    diamond.walk_of_weights("pgan_celebahq512", how, 4, 0, device="cpu", steps=2)
    assert seen[0].alpha == 15  # that data set's own, diamond-e32
    assert how.inversion.alpha == 2  # control
    other = diamond.walk_of_weights("pgan_celeba", how, 4, 1, device="cpu", steps=5)
    assert not torch.equal(walked[0], other[0])
    net["generator_raw"].size = 512
    with pytest.raises(UserError, match="needs a GPU"):
        diamond.walk_of_weights("pgan_celebahq512", how, 4, 0, device="cpu")


def test_a_walk_without_the_weights_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(weights.registry, "find", lambda name: None)
    with pytest.raises(Missing, match="pgan_celebahq512"):
        diamond.walk_of_weights("pgan_celebahq512", settings("pgan"), 1, 0, device="cpu")


def tiny_folder(tmp_path, monkeypatch, few=8, many=12):
    """A checkpoint folder with both forms of a search of one network."""
    monkeypatch.setattr(diamond, "FREE", SHORT)
    monkeypatch.setattr(paths, "checkpoints", lambda: tmp_path)
    how, out = settings("pgan"), {}
    for n, large in ((few, False), (many, True)):
        out[n] = diamond.search(small("pgan"), how, n, 0, extras=4)
        card = {"n": n, "seed": 0, "latent": 16, "search": {"start": how.start}}
        write = found.save_small if large else found.save
        write(diamond.searches("net", many=large), out[n], card)
    return out


def test_a_shipped_search_is_that_of_dozens_or_of_hundreds(tmp_path, monkeypatch):
    made = tiny_folder(tmp_path, monkeypatch)
    close = {"atol": 0.05, "rtol": 0}  # 8 bits of recovered codes; starts and angles are exact
    for n, of in ((6, 8), (8, 8), (10, 12), (12, 12), (99, 12)):
        result = diamond.shipped_search("net", n)
        assert len(result.z0) == min(n, of)
        torch.testing.assert_close(result.z1, made[of].z1[:n], **close)
    # other candidates of the inversion, so another search: which file was read can be told
    assert (made[8].z1 - made[12].z1[:8]).abs().max() > 0.5
    diamond.searches("net", many=True).unlink()
    assert len(diamond.shipped_search("net", 99).z0) == 8
    with pytest.raises(Missing):
        diamond.shipped_search("nobody", 1)


def test_the_cli_writes_either_form(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(diamond, "FREE", SHORT)
    model = small("pgan")
    model.card.update(title="a network", images=8)
    monkeypatch.setattr(models, "load", lambda name: model)
    short = [f"--set={part}.descent.steps=3" for part in ("inversion", "proto", "sigma")]
    words = ["--search", "net", "--n", "4", "--out", str(tmp_path), "--set=batch=4", *short]
    for extra, name in (([], "net_s0"), (["--small"], "net_many_s0")):
        assert diamond.train_from_cli([*words, *extra, "--extras", "2"]) == 0
        card = tensorfile.header(tmp_path / f"{name}.safetensors")
        assert (card["n"], card["latent"], card["network"]) == (4, 16, "net_s0")
    assert "Search of 4 latents" in capsys.readouterr().out
    whole = found.load(tmp_path / "net_s0.safetensors")[0]
    card = tensorfile.header(tmp_path / "net_many_s0.safetensors")
    less, _ = found.load_small(tmp_path / "net_many_s0.safetensors", diamond._starts_of(card))
    torch.testing.assert_close(less.z0, whole.z0, atol=2e-3, rtol=0)  # half precision
    assert len(less.extra["free"]) == 2


SHIPPED = sorted((paths.checkpoints() / "diamond" / "searches").glob("*.safetensors"))


@pytest.mark.skipif(not SHIPPED, reason="no search result of Diamond is shipped yet")
def test_shipped_searches_belong_to_their_networks():
    for path in SHIPPED:
        card = tensorfile.header(path)
        if "_many_" in path.stem:
            result, _ = found.load_small(path, diamond._starts_of(card))
        else:
            result, _ = found.load(path)
        model = models.load(f"diamond/{card['network']}")
        assert card["network"] == path.stem.replace("_many", "")
        assert len(result.z0) == card["n"]
        # searched with the very network that is shipped, not with an earlier state of it
        assert card["images"] == model.card["images"]
        assert result.z0.shape[1] == diamond.pair(model).latent
        how = method.Sigma(**{**card["search"]["sigma"], "descent": SHORT})
        assert how.low - 1e-6 <= float(result.sigma.min())
        assert float(result.sigma.max()) <= how.high + 1e-6
        assert float(sphere.angle(result.z0, result.z1).min()) > 0
        assert path.stat().st_size <= 1 << 20
