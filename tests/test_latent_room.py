"""The room's side of the searches: pairs of checkpoints, searches, the shipped results."""

import dataclasses
import math

import pytest
import torch

from latentpapers import models, paths, weights
from latentpapers.errors import Missing, UserError
from latentpapers.latent import found, method, sphere, walk
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
    other = diamond.walk_of_weights("pgan_celeba", how, 4, 1, device="cpu", steps=5)
    assert not torch.equal(walked[0], other[0])
    net["generator_raw"].size = 512
    with pytest.raises(UserError, match="needs a GPU"):
        diamond.walk_of_weights("pgan_celebahq512", how, 4, 0, device="cpu")


def test_a_walk_without_the_weights_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(weights.registry, "find", lambda name: None)
    with pytest.raises(Missing, match="pgan_celebahq512"):
        diamond.walk_of_weights("pgan_celebahq512", settings("pgan"), 1, 0, device="cpu")


SHIPPED = sorted((paths.checkpoints() / "diamond" / "searches").glob("*.safetensors"))


@pytest.mark.skipif(not SHIPPED, reason="no search result of Diamond is shipped yet")
def test_shipped_searches_belong_to_their_networks():
    for path in SHIPPED:
        result, card = found.load(path)
        model = models.load(f"diamond/{path.stem}")
        assert card["network"] == path.stem
        # searched with the very network that is shipped, not with an earlier state of it
        assert card["images"] == model.card["images"]
        assert result.z0.shape[1] == diamond.pair(model).latent
        how = method.Sigma(**{**card["search"]["sigma"], "descent": SHORT})
        assert how.low - 1e-6 <= float(result.sigma.min())
        assert float(result.sigma.max()) <= how.high + 1e-6
        assert float(sphere.angle(result.z0, result.z1).min()) > 0
        assert path.stat().st_size <= 1 << 20
