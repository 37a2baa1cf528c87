"""The room's side of the searches: pairs of checkpoints, searches, the shipped results."""

import contextlib
import dataclasses
import math

import pytest
import torch
from pretend_gpu import pretended

from latentpapers import data, models, paths, tensorfile, weights
from latentpapers.errors import Corrupt, Missing, UserError
from latentpapers.latent import found, inversion, method, sphere, walk
from latentpapers.latent.descent import Plan
from latentpapers.latent.pair import of_networks
from latentpapers.latent.pair import sample as starting_points
from latentpapers.metrics.protocol import Score
from latentpapers.nets import biggan, pgan, wgan_gp
from latentpapers.papers import diamond
from latentpapers.seeds import generator

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
    monkeypatch.setattr(diamond.searching, "FREE", SHORT)
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


def test_a_search_ends_with_the_part_that_the_clock_allows(monkeypatch):
    """Whole parts, at least one, and those are the starts of the search without a clock."""
    model, how = small("pgan"), settings("pgan")
    whole = diamond.search(model, how, 16, 0, extras=0)
    ticks = iter(range(0, 1000, 10))
    monkeypatch.setattr(diamond.searching.time, "perf_counter", lambda: next(ticks))
    for seconds, n in ((0.0, 4), (45.0, 8), (65.0, 12), (1e9, 16)):  # a part takes 10, then 20
        cut = diamond.search(model, how, 16, 0, extras=0, seconds=seconds, part=4)
        assert len(cut.z0) == n, seconds
        for code in ("z0", "z1", "zp", "sigma"):
            torch.testing.assert_close(getattr(cut, code), getattr(whole, code)[:n])
        assert len(cut.steps) == 3


def drawn(latent=16):
    """A small generator of drawn faces, with the card that a search of edited starts reads."""
    model = small("pgan")
    model.card.update(title="a network", images=8)
    model.card["config"] |= {"minority": "hat"}
    return model


def bright(images, attribute):
    return (images.mean((1, 2, 3)) > images.mean()).double()


def test_edited_starts_are_searched_themselves(tmp_path, monkeypatch):
    """Appendix E: the method on what the attribute made, not the source's protoimage."""
    monkeypatch.setattr(diamond.editing, "shows", bright)
    model, how = drawn(), settings("pgan")
    z0 = diamond.search(model, how, 8, 0, extras=0).z0
    direction = diamond.attribute_vector(model, 0, n=200)
    z = sphere.project(diamond.latents(200, 1, 16))
    has = bright(diamond.pair(model).images(z), "hat").bool()
    torch.testing.assert_close(direction, z[has].mean(0) - z[~has].mean(0))
    edited = diamond.search_edited(model, how, z0, direction, [0, 2, 5, 7], [2, 3, 6, 7], 0)
    up, down = edited.of(1, 8), edited.of(-1, 7)
    assert (up.rows.tolist(), down.rows.tolist()) == ([0, 2, 5, 7], [2, 3, 6])
    torch.testing.assert_close(up.starts(z0), sphere.project(z0[[0, 2, 5, 7]] + direction))
    torch.testing.assert_close(down.starts(z0), sphere.project(z0[[2, 3, 6]] - direction))
    # by hand: the method's own search, begun at the edited codes
    g = generator(0, "edited")
    candidates = starting_points(10, 16, g, reading="paper")
    by_hand = method.search(diamond.pair(model, dtype=torch.bfloat16), up.starts(z0), candidates,
                            how)  # fmt: skip
    torch.testing.assert_close(up.improved(z0), by_hand.improved())
    found.save_edited(tmp_path / "e.safetensors", edited, {"n": 8})
    again = found.load_edited(tmp_path / "e.safetensors")
    assert float(sphere.angle(again.zp, edited.zp).max()) < 1.0
    torch.testing.assert_close(again.starts(z0), edited.starts(z0), atol=2e-3, rtol=0)
    found.save(tmp_path / "f.safetensors", diamond.search(model, how, 4, 0, extras=0), {})
    with pytest.raises(Corrupt, match="edited"):
        found.load_edited(tmp_path / "f.safetensors")


def test_a_run_is_searched_there_as_here(tmp_path, monkeypatch):
    """Nothing of the search of a run, of its edited starts or of reading them stays on the CPU."""
    monkeypatch.setattr(diamond.editing, "shows", lambda images, name: bright(images.cpu(), name))
    model = drawn()
    monkeypatch.setattr(
        models,
        "load",
        lambda path, device="cpu": models.Model(
            {name: net.to(device) for name, net in model.parts.items()}, model.card
        ),
    )
    limit = dataclasses.replace(diamond.PRESETS["gpu"].limit, edited=4)
    preset = dataclasses.replace(diamond.PRESETS["gpu"], search=settings("pgan"), n_score=64,
                                 limit=limit)  # fmt: skip
    read = {}
    for device in ("cpu", "cuda"):
        path = tmp_path / device / "drawn_pgan.safetensors"
        path.parent.mkdir()
        with pretended() if device == "cuda" else contextlib.nullcontext():
            diamond.search_run(preset, "drawn_pgan", path, 0, device=device)
            r = found.load(diamond.run_file(path, "search"))[0].to(device)
            up = found.load_edited(diamond.run_file(path, "edited")).to(device).of(1, 16)
            read[device] = (r.improved().cpu(), up.improved(r.z0).cpu())
            assert r.z0.device.type == up.zp.device.type == device
    for here, there in zip(*read.values(), strict=True):
        torch.testing.assert_close(torch.Tensor(here), torch.Tensor(there), atol=0.05, rtol=0)


def test_a_run_is_searched_once(tmp_path, monkeypatch):
    """Notebook 2 keeps it; notebooks 3 and 4 read it; other settings are another search."""
    monkeypatch.setattr(diamond.editing, "shows", bright)
    monkeypatch.setattr(diamond.searching, "FREE", SHORT)
    monkeypatch.setattr(models, "load", lambda path, device="cpu": drawn())
    calls, search = [], diamond.search
    monkeypatch.setattr(
        diamond.searching, "search", lambda *a, **k: calls.append(k) or search(*a, **k)
    )
    limit = dataclasses.replace(diamond.PRESETS["gpu"].limit, edited=4)
    preset = dataclasses.replace(diamond.PRESETS["gpu"], search=settings("pgan"), n_score=80,
                                 limit=limit)  # fmt: skip
    path = tmp_path / "drawn_pgan.safetensors"
    first = diamond.search_run(preset, "drawn_pgan", path, 0)
    again = diamond.search_run(preset, "drawn_pgan", path, 0)
    assert len(calls) == 1
    assert 0 < calls[0]["seconds"] < preset.limit.seconds / 2  # the edited starts took some
    assert len(first.z0) == 20  # a quarter
    assert torch.equal(first.zp, again.zp)
    edited = found.load_edited(diamond.run_file(path, "edited"))
    who = bright(diamond.pair(drawn()).images(first.z0), "hat").nonzero().flatten().tolist()
    rows = sorted({0, 1, 2, 3, *who})
    assert edited.of(1, 20).rows.tolist() == edited.of(-1, 20).rows.tolist() == rows
    other = dataclasses.replace(preset, n_score=40)
    assert len(diamond.search_run(other, "drawn_pgan", path, 0).z0) == 16  # no fewer
    assert len(calls) == 2
    monkeypatch.setattr(diamond.editing, "shows", lambda images, _: torch.zeros(len(images)))
    diamond.search_run(dataclasses.replace(preset, n_score=90), "drawn_pgan", path, 0)
    assert not diamond.run_file(path, "edited").is_file()  # nobody wears one: no direction


@pytest.mark.parametrize("preset", ["gpu", "paper"])
def test_a_chunk_fits_into_8_gb(preset):
    """What the inversion's step keeps for its backward pass, counted, a latent; and the networks.
    (The peak itself is measured on a GPU by the benchmark.)"""
    preset = diamond.PRESETS[preset]
    job = preset.training["faces_pgan"]
    nets = [net.eval().requires_grad_(False) for net in diamond.networks(job, 0).values()]
    pair = of_networks(*nets, dtype=torch.bfloat16)
    own = {p.untyped_storage().data_ptr() for net in nets for p in net.parameters()}

    def kept(n):
        seen = {}

        def pack(t):
            seen[t.untyped_storage().data_ptr()] = t
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            images = pair.generate(torch.randn(n, job.latent).requires_grad_())
            loss = pair.features(images, n).sum() + images.square().sum()
        assert loss.requires_grad
        return sum(t.untyped_storage().nbytes() for at, t in seen.items() if at not in own)

    one, two = kept(1), kept(2)
    weights = 4 * sum(p.numel() for net in nets for p in net.parameters())
    need = preset.search.chunk * (two - one) + one + 2 * weights
    assert 3e9 < need < 6.5e9  # room for what a step makes and drops again


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


def test_figure_4_walks_biggan_where_its_files_are(monkeypatch):
    how = settings("pgan")
    monkeypatch.setattr(weights.registry, "find", lambda name: None)
    rows = dict(diamond.biggan_row(how, 0, device="cpu"))
    assert "D.pth" in rows["BigGAN"]
    assert "1024 px" in rows["[30] on CelebA-HQ"]
    nets = {"biggan128_generator": biggan.Generator(width=8, classes=5, chunk=4, shared=6),
            "biggan128_discriminator": biggan.Discriminator(width=8, classes=5)}  # fmt: skip
    nets = {name: net.eval().requires_grad_(False) for name, net in nets.items()}
    monkeypatch.setattr(weights, "network", lambda name: nets[name])
    assert dict(diamond.biggan_row(how, 0, device="cpu"))["BigGAN"] == "needs a GPU"
    seen, invert = [], inversion.invert
    monkeypatch.setattr(inversion, "invert", lambda *a, **k: seen.append(a[3]) or invert(*a, **k))
    with pretended():
        for net in nets.values():
            net.to("cuda")
        rows = dict(diamond.biggan_row(how, 0, device="cuda", label=3))
    assert rows["BigGAN, class 3"].shape == (8, 3, 128, 128)  # the original and seven steps
    assert seen[0].alpha == 15  # appendix C's and the authors'
    for part in ("generator", "discriminator"):
        assert "BigGAN" in weights.info(f"biggan128_{part}").what


def tiny_folder(tmp_path, monkeypatch, few=8, many=12):
    """A checkpoint folder with both forms of a search of one network."""
    monkeypatch.setattr(diamond.searching, "FREE", SHORT)
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
    monkeypatch.setattr(diamond.searching, "FREE", SHORT)
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
    card = tensorfile.header(tmp_path / "net_s0.safetensors")
    whole = found.load(tmp_path / "net_s0.safetensors", diamond.starts_of(card))[0]
    card = tensorfile.header(tmp_path / "net_many_s0.safetensors")
    less, _ = found.load_small(tmp_path / "net_many_s0.safetensors", diamond.starts_of(card))
    torch.testing.assert_close(less.z0, whole.z0, atol=2e-3, rtol=0)  # half precision
    assert len(less.extra["free"]) == 2


def test_one_reading_alone_in_the_other_position(tmp_path, monkeypatch):
    """Every reading changes its own stage, leaves the stages before it, and is written and read; as
    coded, from the same candidates, the search is the one that is shipped."""
    monkeypatch.setattr(paths, "checkpoints", lambda: tmp_path / "shipped")
    monkeypatch.setattr(diamond.rereading, "middle_score", lambda model, z0: 5.0)
    model, how = small("pgan"), settings("pgan")
    model.card.update(title="a network", images=8)
    monkeypatch.setattr(models, "load", lambda name: model)
    preset = dataclasses.replace(diamond.PRESETS["quick"], search=how)
    monkeypatch.setitem(diamond.PRESETS, "quick", preset)
    shipped = diamond.search(model, how, 8, 0, extras=0)
    card = {"n": 8, "seed": 0, "latent": 16, "search": {"start": how.start}}
    found.save(diamond.searches("net"), shipped, card, starts=False)
    out = str(diamond.searches("net").parent)
    # batches of 4, so "ten" are one batch of 4 here; it would not change anything
    monkeypatch.setitem(diamond.SINGLE, "e36", {"batch": 2})
    assert diamond.train_from_cli(["--readings", "net", "--n", "4", "--out", out]) == 0
    first, got = diamond.dozens("net")[0].first(4), diamond.readings("net")
    assert list(got) == list(diamond.SINGLE)
    inverted = {"e1", "e2", "e3", "e5", "e6", "e8", "e36"}
    for name, r in got.items():
        assert torch.equal(r.z1, first.z1) == (name not in inverted), name
        same_proto = torch.allclose(r.zp, first.zp, atol=0.05)
        assert same_proto == (name in ("e20", "e21", "e11")), name  # e11: three steps in any case
        assert [s > 0 for s in r.steps] == [name in inverted, name not in ("e20", "e21"), True]
    for name in ("e20", "e21"):
        assert not torch.allclose(got[name].sigma, first.sigma, atol=1e-4), name
    # control: nothing set is nothing changed
    monkeypatch.setitem(diamond.SINGLE, "e0", {})
    candidates = method.starts(8, diamond.pair(model), how, generator(0, "search"))[1]
    again = diamond.search_again(model, shipped.first(4), candidates, how, "e0")
    for code in ("z1", "zp", "sigma"):
        torch.testing.assert_close(getattr(again, code), getattr(shipped, code)[:4], atol=1e-3,
                                   rtol=0)  # fmt: skip


def test_the_least_of_several_intervals_speaks_for_all():
    def interval(value, half):
        return Score(value, value - half, value + half, int(100 * half), "jackknife")

    good = [interval(3.0, 1.0), interval(5.0, 4.0)]
    least = diamond.least_of_all(good)
    assert (least.value, least.low, least.high, least.n) == (3.0, 1.0, 4.0, 100)
    assert least.low > 0  # every one is above 0
    assert (
        diamond.least_of_all([*good, interval(1.0, 2.0)]).low < 0 < diamond.least_of_all(good).high
    )
    assert diamond.least_of_all([*good, interval(-3.0, 2.0)]).high < 0  # one below 0 decides
    assert "3 pairs" in diamond.least_of_all([*good, good[0]]).method


def test_the_middle_of_the_scores_is_between_real_and_made(monkeypatch):
    class Card(dict):
        pixels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)

    model = small("pgan")
    model.card["config"].update(data="x", size=8)
    monkeypatch.setattr(data, "load", lambda *a, **k: Card())
    z0 = sphere.project(torch.randn(4, 16, generator=torch.Generator().manual_seed(1)))
    ours = diamond.middle_score(model, z0)
    with torch.no_grad():
        real = model["critic"](-torch.ones(4, 3, 8, 8)).mean()
        made = model["critic"](model["generator_raw"](z0)).mean()
    assert ours == pytest.approx(float(real + made) / 2, rel=1e-4)
    assert abs(float(real - made)) > 1e-3  # control


SHIPPED = sorted((paths.checkpoints() / "diamond" / "searches").glob("*.safetensors"))


def edited_belongs(path, card):
    edited, model = found.load_edited(path), models.load(f"diamond/{card['network']}")
    assert card["images"] == model.card["images"]
    assert len(edited.rows) == card["n"]
    vector = diamond.attribute_vector(model, card["seed"])
    assert float(torch.cosine_similarity(vector, edited.direction, 0)) > 0.99
    assert path.stat().st_size < 40_000


@pytest.mark.skipif(not SHIPPED, reason="no search result of Diamond is shipped yet")
def test_shipped_searches_belong_to_their_networks():
    for path in SHIPPED:
        card = tensorfile.header(path)
        if "_edited_" in path.stem:
            edited_belongs(path, card)
            continue
        if "_readings_" in path.stem:
            name = path.stem.partition("_readings_")[0]
            got, first = diamond.readings(name), diamond.dozens(name)[0].first(card["n"])
            assert list(got) == list(diamond.SINGLE)
            assert sum(torch.equal(r.z1, first.z1) for r in got.values()) == 6
            assert card["images"] == models.load(f"diamond/{card['network']}").card["images"]
            continue
        if "_many_" in path.stem or "_paper_" in path.stem:
            result, _ = found.load_small(path, diamond.starts_of(card))
        else:
            result, _ = found.load(path, diamond.starts_of(card))
        model = models.load(f"diamond/{card['network']}")
        assert card["network"] == path.stem.replace("_many", "").replace("_paper", "")
        assert len(result.z0) == card["n"]
        # searched with the very network that is shipped, not with an earlier state of it
        assert card["images"] == model.card["images"]
        assert result.z0.shape[1] == diamond.pair(model).latent
        how = method.Sigma(**{**card["search"]["sigma"], "descent": SHORT})
        assert how.low - 1e-6 <= float(result.sigma.min())
        assert float(result.sigma.max()) <= how.high + 1e-6
        assert float(sphere.angle(result.z0, result.z1).min()) > 0
        assert path.stat().st_size <= 1 << 20
