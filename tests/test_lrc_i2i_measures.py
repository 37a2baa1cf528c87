"""What is measured of a translator and kept on its card; what ships of it."""

import copy
import json
import warnings
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import lpips
import pytest
import torch
import yaml
from pretend_gpu import pretended

from latentpapers import config, data, ledger, models, paths
from latentpapers.errors import Missing
from latentpapers.latent import pulse
from latentpapers.losses import subspace
from latentpapers.metrics import features, full_reference, perceptual, translation
from latentpapers.metrics.entry import score
from latentpapers.metrics.protocol import Score
from latentpapers.nets import stargan_v2, stylegan
from latentpapers.nets.spectral import iterate
from latentpapers.papers import lrc_i2i as room
from latentpapers.report import tables
from latentpapers.seeds import generator
from latentpapers.train import checkpoint
from latentpapers.train.runs import state_of

TINY = room.Training("lrc", "drawn-faces", 16, 24, 4, 2, batch=4, width=4, cap=8,
                     discriminator_width=4)  # fmt: skip
HOW = room.Measuring(targets=16, sources=3, pool=20, real=24, side=16, components=4, crossed=4)


class Pool(torch.nn.Module):
    """Features without a network: colours of sixteen places."""

    def __init__(self):
        super().__init__()
        self.register_buffer("one", torch.ones(1))

    def forward(self, x):
        return torch.nn.functional.avg_pool2d(x, 4).flatten(1) * self.one


@pytest.fixture(scope="module")
def held():
    return room.held_out("drawn-faces", 16, HOW, 0)


def model(job=TINY):
    nets = room.networks(job, 0)
    for net in nets.values():
        iterate(net)
    return models.Model(nets, {"config": config.as_dict(job)})


def test_held_out_images_are_the_same_for_everybody(held):
    again = room.held_out("drawn-faces", 16, HOW, 0)
    other = room.held_out("drawn-faces", 16, HOW, 1)
    assert torch.equal(held.images, again.images)
    assert torch.equal(held.chosen, again.chosen)
    assert not torch.equal(held.chosen, other.chosen)
    assert held.images.shape == (20, 3, 16, 16)
    assert held.real.shape == (24, 3, 16, 16)
    assert not any((held.images == r).flatten(1).all(1).any() for r in held.real)


def test_outputs_are_each_target_s_own_sources(held):
    net = model()
    made = room.translated(net, held)
    assert made.shape == (16, 3, 3, 16, 16)
    lows = room.targets(net, data.to_bytes(held.images[:16]))
    one = room.translate(net, held.images[held.chosen[5, 2]][None], lows[5:6])
    assert torch.allclose(made[5, 2], one[0], atol=1e-5)  # other batch sizes
    assert not torch.allclose(made[5, 1], one[0], atol=1e-5)


@pytest.mark.parametrize("method", ["lrc", "stargan_v2"])
def test_a_pool_encoded_once_gives_the_same_outputs(held, method, monkeypatch):
    """Every source serves several targets; on a GPU it is encoded once for all of them."""
    small = {"size": 32, "style": 8, "hidden": 8} if method == "stargan_v2" else {}
    net = model(replace(TINY, method=method, **small))
    one = room.translated(net, held, once=False)
    name, seen = ("features" if small else "encode"), []
    encode = getattr(net["generator"], name)
    monkeypatch.setattr(net["generator"], name, lambda x: seen.append(len(x)) or encode(x))
    other = room.translated(net, held, once=True)
    assert sum(seen) == len(held.images) < held.chosen.numel()
    assert torch.allclose(one, other, atol=1e-5)  # other batch sizes
    assert torch.equal(one, room.translated(net, held))  # committed numbers were made pair by pair
    assert not torch.allclose(one, other.roll(1, 1), atol=1e-3)  # control: another source


def test_images_of_another_size_are_fitted(held):
    large = room.Held(torch.nn.functional.interpolate(held.images, size=32), held.chosen, held.real)
    assert torch.allclose(
        room.translated(model(), large), room.translated(model(), held), atol=1e-5
    )
    small = room.Held(subspace.reduce(held.images, 8), held.chosen, held.real)
    assert room.translated(model(), small).shape == (16, 3, 3, 16, 16)


def test_measures_are_those_of_the_outputs(held):
    net, look = model(), Pool()
    found = room.measures(net, held, HOW, look)
    lengths = {k: len(v) for k, v in found.items()}
    assert lengths == {"lr_rmse": 16, "layout": 16, "diversity": 16, "fd": 9, "density": 9,
                       "coverage": 9, "similarity": 4}  # fmt: skip
    made = room.translated(net, held)
    lows = subspace.reduce(held.images[:16], 4)
    errors = [full_reference.lr_rmse((made[:, k] + 1) / 2, (lows + 1) / 2, kernel="average")
              for k in range(3)]  # fmt: skip
    assert found["lr_rmse"] == pytest.approx(torch.stack(errors).mean(0).tolist(), rel=1e-5)
    ref = translation.Reference.of(translation.pooled(look, held.real), 4)
    seen = translation.pooled(look, made.flatten(0, 1)).unflatten(0, (16, 3))
    numbers = ref.numbers(seen, torch.arange(16)).tolist()
    assert [found[k][0] for k in ("fd", "density", "coverage")] == pytest.approx(numbers)
    assert found["diversity"] == pytest.approx(translation.diversity(seen).tolist())
    json.dumps(found)


def test_the_nearest_member_fits_and_keeps_details(held):
    x, y = held.images[:4].double(), subspace.reduce(held.images[4:8], 4).double()
    p = subspace.nearest(x, y)
    assert torch.allclose(subspace.reduce(p, 4), y, atol=1e-12)  # float64
    z = subspace.nearest(x.flip(3), y)  # another member: Pythagoras
    total = (x - p).square().sum() + (p - z).square().sum()
    assert float((x - z).square().sum()) == pytest.approx(float(total), rel=1e-9)
    assert not torch.allclose(subspace.reduce(x, 4), y, atol=0.01)  # control
    found = room.measures_of_nearest(held, HOW, 4, Pool())
    assert "similarity" not in found
    assert max(found["lr_rmse"]) < 0.5 * min(room.measures(model(), held, HOW, Pool())["lr_rmse"])


def test_similarity_is_nothing_where_the_source_is_not_heard(held, monkeypatch):
    net, look = model(), Pool()
    centre = translation.pooled(look, held.real).mean(0)
    x, w = held.images[:4], held.images[4:8]
    heard = room.similarity(net, x, w, look, centre)
    monkeypatch.setattr(
        room.measuring, "grid", lambda m, s, t: held.images[None, 4:8].expand(4, -1, -1, -1, -1)
    )
    deaf = room.similarity(net, x, w, look, centre)
    assert deaf.abs().max() < 1e-5
    monkeypatch.setattr(
        room.measuring, "grid", lambda m, s, t: s[:, None].expand(-1, 4, -1, -1, -1)
    )
    copies = room.similarity(net, x, w, look, centre)
    assert copies.mean() > heard.mean()


def test_a_measured_run_ships_its_numbers(tmp_path, monkeypatch):
    """From the command line: a card without a network, with measures and the critic's weights."""
    monkeypatch.setattr(room.runs, "MEASURED", ("tiny_exact",))
    monkeypatch.setattr(room.runs, "Measuring", lambda: HOW)
    monkeypatch.setattr(room.runs, "looker", lambda side: Pool())
    monkeypatch.setitem(room.SHIPPED, "tiny_exact", TINY)
    monkeypatch.setitem(room.KEPT, "tiny_exact", ("no network",))
    monkeypatch.setenv("LATENTPAPERS_PROCESSES", "1")
    room.train_from_cli(["--run", "tiny_exact", "--out", str(tmp_path)])
    found = models.load(tmp_path / "tiny_exact_s0.safetensors")
    assert not found.parts
    assert found.card["measures"]["how"]["targets"] == 16
    assert set(found.card["measures"]["ours"]) >= {"fd", "similarity"}
    weights = found.card["critic_weights"]
    assert len(weights) == 8
    assert found.card["critic_weight"] == pytest.approx(
        float(torch.tensor(weights).square().mean().sqrt())
    )
    # control: another setting is no longer the run whose numbers tables show
    room.train_from_cli(["--run", "tiny_exact", "--out", str(tmp_path / "b"), "--set", "steps=1"])
    assert "measures" not in models.load(tmp_path / "b" / "tiny_exact_s0.safetensors").card


def test_a_learning_curve_is_measured_on_the_training_s_own_state(tmp_path, monkeypatch, held):
    """Also of a run whose file keeps no network; each row by the network as it was then."""
    monkeypatch.setattr(room.runs, "looker", lambda side, device: Pool())
    runs = replace(room.RUNS, measure=partial(room.measured, how=HOW))
    path = tmp_path / "net.safetensors"
    rows = runs.curve(TINY, seed=0, path=path, shares=(0.5, 1.0), only=("no network",))
    assert not models.load(path).parts
    assert [row["images"] for row in rows] == [4, 8]
    nets = room.runs._networks(state_of(path))
    found = room.measures(room.runs._model(TINY, nets), held, HOW, Pool())
    ids = {"lr_rmse": "lr_rmse", "featdist_efficientnetlite0_small": "diversity"}
    for metric, name in ids.items():  # five digits are kept
        mean = float(torch.tensor(found[name]).mean())
        assert rows[1][metric][0] == pytest.approx(mean, rel=1e-4)
        assert rows[1][metric][1] < mean < rows[1][metric][2]
    assert rows[1]["fd_efficientnetlite0_small"][0] == pytest.approx(found["fd"][0], rel=1e-4)
    assert rows[0]["lr_rmse"] != rows[1]["lr_rmse"]  # control: another network


def test_what_averaging_changes_is_nothing_without_it(tmp_path, monkeypatch):
    monkeypatch.setattr(room.runs, "looker", lambda side: Pool())
    found = {}
    for ema in (0.5, 0.0):
        path = tmp_path / f"{ema}.safetensors"
        room.train(replace(TINY, ema=ema, lr=0.05), seed=0, path=path)
        found[ema] = room.averaging(replace(TINY, ema=ema), path, HOW)
    assert set(found[0.5]) == {"fd", "lr_rmse", "diversity"}
    assert all(v == [0.0, 0.0, 0.0] for v in found[0.0].values())
    assert all(low <= value <= high for value, low, high in found[0.5].values())
    assert found[0.5]["lr_rmse"][0] != 0  # control


def test_every_short_run_differs_from_the_plain_one_in_one_field():
    plain = config.as_dict(room.SHIPPED["faces_low8"])
    for name, changed in (room.REMEDIES | room.ABLATIONS | room.READINGS).items():
        job = config.as_dict(room.SHIPPED[name])
        assert {k: v for k, v in job.items() if v != plain[k]} == changed, name
        assert len(changed) == 1


def test_norms_inside_spadain_reach_the_network_and_its_file(held, tmp_path):
    """`normed="paper"` (lrc_i2i-e11): what ships is the trained network, its norms divided out."""
    job, path = replace(TINY, normed="paper", ema=0.0), tmp_path / "net.safetensors"
    inside = "decoder.0.norm1.weight.parametrizations.weight.original"
    assert inside in room.networks(job, 0)["generator"].state_dict()
    assert inside not in room.networks(TINY, 0)["generator"].state_dict()  # control
    room.train(job, seed=0, path=path)
    shipped = models.load(path)
    for block in shipped["generator"].decoder:
        sigma = torch.linalg.matrix_norm(block.norm1.weight.weight.flatten(1).double(), ord=2)
        assert abs(float(sigma) - 1) < 1e-2  # stored in 16 bits
    trained = room.networks(job, 0)["generator"]
    trained.load_state_dict(checkpoint.networks(state_of(path), averaged=False)["generator"])
    for _ in range(40):
        iterate(trained)
    x, y = held.images[:2], room.targets(shipped, data.to_bytes(held.images[2:4]))
    with torch.no_grad():
        expected = trained(x, y).clamp(-1, 1)
    assert torch.allclose(room.translate(shipped, x, y), expected, atol=0.02)  # 16 bits a weight
    assert not torch.allclose(room.translate(model(), x, y), expected, atol=0.02)  # control


def test_map_weights_are_the_last_three_inputs():
    weight = torch.zeros(2, 6, 3, 3)
    weight[1, 3:] = 0.5
    weight[0, 2] = 9.0  # not of the map
    assert room.map_weights({"joined.0.conv1.weight": weight}) == [0.0, 0.5]


# --- what ships ----------------------------------------------------------------------------------


def cards():
    for name in room.MEASURED:
        file = paths.checkpoints() / "lrc_i2i" / f"{name}_s0.safetensors"
        if file.is_file():
            yield name, models.load(file)


def test_shipped_numbers_are_whole_and_of_the_runs_that_the_code_describes():
    found = dict(cards())
    assert {"faces_low8", "cats_lrc"} <= set(found)
    for name, loaded in found.items():
        assert room.job_of(loaded) == room.SHIPPED[name], name
        kept = loaded.card["measures"]
        assert kept["how"] == config.as_dict(room.Measuring())
        for one in (kept["ours"], kept.get("nearest", kept["ours"])):
            assert len(one["diversity"]) == len(one["lr_rmse"]) == 96
            assert len(one["fd"]) == 9
            assert all(torch.tensor(v).isfinite().all() for v in one.values())
        assert set(loaded.parts) == set(room.KEPT[name]) - {"no network"}


def test_shipped_numbers_can_be_measured_again():
    """Diversity of four targets, by the shipped network of 8 bits; the card's were unrounded."""
    how = room.Measuring()
    try:
        held = room.held_out("faces-dcgan", 64, how, 0)
    except Missing:
        pytest.skip("more portraits than ship need `latentpapers data fetch faces-dcgan`")
    few = room.Held(held.images, held.chosen[:4], held.real[:1])
    net = models.load("lrc_i2i/faces_low8_s0")
    seen = translation.pooled(room.looker(), room.translated(net, few).flatten(0, 1))
    found = translation.diversity(seen.unflatten(0, (4, 10)))
    card = torch.tensor(net.card["measures"]["ours"]["diversity"])
    # 8 bits a weight move an output by about a grey level, root mean square
    assert torch.allclose(found, card[:4], atol=0.02)
    assert (found - card[4:8]).abs().max() > 0.05  # control: other targets


# --- the published protocols ----------------------------------------------------------------------


class Random(torch.nn.Module):
    """A feature network that nobody trained: colours of four places, mixed."""

    def __init__(self, name):
        super().__init__()
        draw = torch.Generator().manual_seed(len(name))
        self.register_buffer("mix", torch.randn(48, 6, generator=draw))

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1) @ self.mix


def drawings(name, *, size, split, n=None):
    """In place of the paper's own sets, with two classes."""
    found = data.load("drawn-faces", size=size, split=split, n=n or 40)
    return replace(found, labels=torch.arange(len(found)) % 2)


@pytest.fixture(scope="module")
def alex():
    """LPIPS on an AlexNet that nobody trained."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).net.state_dict()
    state = {"features." + key.split(".", 1)[1]: value for key, value in theirs.items()}
    return perceptual.network("alexnet", state)


@pytest.fixture
def protocols(monkeypatch, tmp_path, alex):
    """The published protocols with random networks and a hundredth of their images; yields the
    names of the weights that are here."""
    here = {"inception_torchvision", "alexnet", "vgg16"}
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path))
    monkeypatch.setattr("latentpapers.weights.available", lambda name: name in here)
    monkeypatch.setattr(features, "_loaded", lambda name, layer, path: Random(name))
    monkeypatch.setattr(perceptual, "_loaded", lambda trunk, path: alex)
    for metric, protocol in features.PROTOCOLS.items():
        n = 120 if metric.startswith("fid") else 12
        monkeypatch.setitem(features.PROTOCOLS, metric, replace(protocol, n=n))
    monkeypatch.setattr(room.protocol, "data", SimpleNamespace(**{**vars(data), "load": drawings,
                        "to_float": data.to_float, "to_bytes": data.to_bytes}))  # fmt: skip
    small = {name: replace(of, size=of.size // 4) for name, of in room.protocol.PRINTED.items()}
    monkeypatch.setattr(room.protocol, "PRINTED", small)
    return here


def job_for(name, **changed):
    of, method = room.protocol.PRINTED[name], name.partition("_")[2]
    method = method if method in room.METHODS else "lrc"
    low = room.SWEEP.get(name, 8)
    wide = {"style": 8, "hidden": 8} if method == "stargan_v2" else {}
    job = room.Training(method, of.data, of.size, 24, low, 2, batch=4, width=4, cap=8,
                        discriminator_width=4, **wide)  # fmt: skip
    return replace(job, **changed)


def printed_cells(row, place):
    """What the ledger's file itself says, read without the library."""
    path = paths.root() / "notebooks" / "lrc_i2i" / "ledger" / "values.yaml"
    tables = yaml.safe_load(path.read_text())["tables"]
    return {(t["id"], c["row"], c["column"], c["metric"]) for t in tables for c in t["cells"]
            if c["row"] == row and c["column"].split(" ", 1)[1] == place}  # fmt: skip


def test_every_printed_number_of_ours_has_a_network_in_preset_paper():
    """All cells of the paper's own rows but those that it quotes or that no preset trains."""
    names = {(of.row, of.place) for of in room.protocol.PRINTED.values()}
    path = paths.root() / "notebooks" / "lrc_i2i" / "ledger" / "values.yaml"
    tables = yaml.safe_load(path.read_text())["tables"]
    own = {(c["row"], c["column"].split(" ", 1)[1]) for t in tables for c in t["cells"]
           if c["row"].startswith(("Ours", "StarGAN"))}  # fmt: skip
    assert own - names == {("StarGAN v2", "CelebA-HQ 256")}  # the authors' network: OFFICIAL
    assert names <= own
    training = room.PRESETS["paper"].training
    for name, of in room.protocol.PRINTED.items():
        assert (training[name].data, training[name].size) == (of.data, of.size), name
    assert [name for name, p in room.PRESETS.items() if p.published] == ["paper"]
    counts = {of.data: data.info(of.data).counts for of in room.protocol.PRINTED.values()}
    for name, of in room.protocol.PRINTED.items():  # every held-out image is a target
        every = [metric for *_, metric in room.places(of)]
        assert room.protocol_targets(every) == counts[of.data]["test"], name


def test_published_numbers_stand_at_the_ledger_s_cells(protocols):
    names = ("faces_lrc", "faces_stargan_v2", "faces_low16", "cats_lrc")
    nets = {(name, 3): model(job_for(name)) for name in names}
    lines = list(room.as_published(nets, seed=5))
    tables = [line for line in lines if line.id != "differences"]
    found = {(x.id, x.row, x.column, x.metric) for x in tables}
    wanted = [printed_cells("Ours", "CelebA-HQ 128"), printed_cells("StarGAN v2", "CelebA-HQ 128"),
              printed_cells("Ours (16x16 target)", "CelebA-HQ"),
              printed_cells("Ours", "AFHQ cat")]  # fmt: skip
    assert found == set().union(*wanted)
    assert len(tables) == len(found) == 12
    assert {x.seed for x in lines} == {3}
    gaps = {x.column: x for x in lines if x.id == "differences"}
    assert set(gaps) == {f"{k} CelebA-HQ 128" for k in ("FID", "LPIPS", "density", "coverage")}
    assert {x.row for x in gaps.values()} == {"Ours - StarGAN v2"}
    # control: a network of other images, and one that is nobody's counterpart
    others = {("faces_lrc", 0): model(job_for("faces_lrc", data="faces-dcgan")),
              ("drawn_lrc", 0): model()}  # fmt: skip
    assert list(room.as_published(others)) == []


class Recorder:
    """What a notebook's cell asks of its run."""

    def __init__(self, published):
        self.config, self.seed = SimpleNamespace(published=published), 5
        self.preset, self.device_name, self.rows = "paper", "gpu", []

    def record(self, id, row, column, metric, value, lo, hi, *, interval, n, scale, seed):
        self.rows.append({
            "id": id, "row": row, "column": column, "metric": metric, "value": value, "lo": lo,
            "hi": hi, "interval": interval, "n": n, "scale": config.as_dict(scale), "seed": seed,
            "unit": "", "direction": ledger.metrics()[metric].direction,
        })  # fmt: skip


def test_the_notebook_puts_published_numbers_beside_printed_ones(protocols, capsys):
    """The cell of 3_tables, with one network; `report.tables` then compares."""
    path = paths.root() / "notebooks" / "lrc_i2i" / "3_tables.ipynb"
    sources = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
    (cell,) = [s for s in sources if "lrc.as_published" in s]
    scale = config.Scale("paper", 10, 1.0, "celeba-hq 8 to 128 px", "gpu", (3,))
    protocols.remove("vgg16")
    given = {"ROWS": {"faces_lrc": "Ours"}, "OTHER": {}, "lrc": room, "where": "cpu",
             "every": {"Ours": {3: model(job_for("faces_lrc"))}},
             "labels": {("Ours", 3): scale}}  # fmt: skip
    run = Recorder(True)
    exec(cell, given | {"run": run})
    told = capsys.readouterr().out
    assert "weights fetch vgg16" in told
    assert "'stargan_v2_afhq'" in told
    lines = tables.compare(ledger.load("lrc_i2i"), "table_1", run.rows).to_dict("records")
    ours = {line["column"]: line for line in lines if line["row"] == "Ours"}
    assert ours["FID CelebA-HQ 128"]["paper"] == "15.52"
    assert "not comparable" not in ours["FID CelebA-HQ 128"]["note"]
    assert ours["FID CelebA-HQ 128"]["n"] == "120"
    assert ours["FID CelebA-HQ 256"]["ours"] == "—"
    assert ours["LPIPS CelebA-HQ 128"]["paper"] == "0.34"
    assert not any(row["id"] == "table_2" for row in run.rows)
    run = Recorder(False)  # control: any other preset
    exec(cell, given | {"run": run})
    assert run.rows == []
    assert "`paper` alone" in capsys.readouterr().out


def test_published_numbers_are_those_of_score(protocols):
    """By hand: all outputs in one pass, then `lp.metrics.score`."""
    net = model(job_for("faces_lrc"))
    found = room.published(room.maker(net), room.protocol.PRINTED["faces_lrc"], seed=5)
    held = data.load("drawn-faces", size=32, split="test", n=12).pixels
    real = data.load("drawn-faces", size=32, split="train", n=40).pixels
    chosen = translation.drawn_sources(12, 10, 12, generator(5, "sources", "celeba-hq"))
    lows = subspace.reduce(data.to_float(held), 8).repeat_interleave(10, 0)
    with torch.no_grad():
        images = net["generator"](data.to_float(held)[chosen.flatten()], lows)
    made = data.to_bytes(images).unflatten(0, (12, 10))
    again = room.protocol_outputs(
        room.maker(net), room.protocol.PRINTED["faces_lrc"], 12, seed=5, block=7
    )
    assert again.dtype == torch.uint8
    assert (again.int() - made.int()).abs().max() <= 1  # blocks of another size round otherwise
    whole = room.protocol_outputs(room.maker(net), room.protocol.PRINTED["faces_lrc"], 12, seed=5)
    by_hand = {
        "fid_torchvision_n20000": score("fid_torchvision_n20000", whole.flatten(0, 1), real,
                                        layout="NCHW"),
        "lpips_alex_pairs45": score("lpips_alex_pairs45", list(whole), layout="NCHW"),
        **{f"{k}_vgg16fc2_k5_n2000": score(f"{k}_vgg16fc2_k5_n2000", whole[:, 0], real[:12],
                                           layout="NCHW") for k in ("density", "coverage")},
    }  # fmt: skip
    assert list(found) == ["fid_torchvision_n20000", "lpips_alex_pairs45",
                           "density_vgg16fc2_k5_n2000", "coverage_vgg16fc2_k5_n2000"]  # fmt: skip
    for metric, one in by_hand.items():
        ours = found[metric]
        assert (ours.n, ours.method) == (one.n, one.method), metric
        same = pytest.approx((one.value, one.low, one.high), rel=1e-6)
        assert (ours.value, ours.low, ours.high) == same, metric
    assert found["fid_torchvision_n20000"].n == 120
    other = room.published(room.maker(net), room.protocol.PRINTED["faces_lrc"], seed=6)  # control
    assert other["fid_torchvision_n20000"].value != found["fid_torchvision_n20000"].value


def test_published_numbers_on_a_gpu_are_those_on_the_cpu(
    protocols, alex, monkeypatch
):  # fmt: skip
    """A pretended one; networks and features there, images by blocks."""
    net = model(job_for("faces_lrc"))
    here = room.published(room.maker(net), room.protocol.PRINTED["faces_lrc"])
    own = copy.deepcopy(alex)  # it stays there
    monkeypatch.setattr(perceptual, "_loaded", lambda trunk, path: own)
    with pretended():
        for part in net.parts.values():
            part.to("cuda")
        there = room.published(room.maker(net), room.protocol.PRINTED["faces_lrc"], device="cuda")
    assert list(there) == list(here)
    for metric in here:  # its convolutions may be other ones
        assert there[metric].value == pytest.approx(here[metric].value, rel=1e-3), metric


def test_without_weights_there_is_no_number_and_a_sentence(protocols):
    nets = {("faces_lrc", 0): model(job_for("faces_lrc"))}
    assert room.unmeasured() == "The weights of all published protocols are here."
    protocols.remove("inception_torchvision")
    told = room.unmeasured()
    assert "fid_torchvision_n20000" in told
    assert "fid_torchvision_n5000" in told
    assert "`python -m latentpapers weights fetch inception_torchvision`" in told
    assert "alexnet" not in told
    assert "\n" not in told
    lines = list(room.as_published(nets))
    assert len(lines) == 3
    assert not any(line.metric.startswith("fid") for line in lines)
    protocols.clear()
    assert list(room.as_published(nets)) == list(room.authors_lines()) == []
    assert all(f"fetch {name}" in room.unmeasured() for name in ("alexnet", "vgg16"))


def test_a_difference_of_two_published_numbers():
    a, b = Score(5.0, 2.0, 9.0, 120, "x"), Score(1.0, -2.0, 5.0, 100, "y")
    gap = room.less(a, b)  # 3-4-5 and 4-3-5
    assert (gap.value, gap.low, gap.high, gap.n) == (4.0, -1.0, 9.0, 100)
    back = room.less(b, a)
    assert (back.value, back.low, back.high) == (-4.0, -9.0, 1.0)


def test_the_authors_network_gets_our_targets_and_sources(protocols, monkeypatch):
    """Small random networks of its kind: classes of references, masks of sources, own row."""
    torch.manual_seed(0)
    tiny = {"width": 4, "cap": 8, "style": 6}
    nets = {name: torch.nn.ModuleDict({
        "generator": stargan_v2.Generator(64, **tiny, high_pass=high),
        "style": stargan_v2.StyleEncoder(64, **tiny, domains=domains),
    }).eval() for name, high, domains in (("stargan_v2_celebahq", 1.0, 2),
                                          ("stargan_v2_afhq", 0.0, 3))}  # fmt: skip

    class Faces(torch.nn.Module):
        def masks(self, x):
            flat = x.mean((1, 2, 3), keepdim=True).sigmoid().expand(-1, 1, 256, 256)
            return flat, 1 - flat

    monkeypatch.setattr(
        "latentpapers.weights.network", lambda name: {**nets, "wing": Faces()}[name]
    )
    official = tuple((a, replace(of, size=64), c) for a, of, c in room.OFFICIAL)
    monkeypatch.setattr(room.published_weights, "OFFICIAL", official)
    protocols.remove("alexnet")  # the slowest; its cells then stay empty
    assert list(room.authors_lines()) == []
    assert any("stargan_v2_celebahq" in told for told in room.authors_missing())
    protocols |= set(nets)
    assert {x.id for x in room.authors_lines()} == {"table_3"}  # CelebA-HQ's needs landmarks too
    protocols.add("wing")
    lines = list(room.authors_lines(seed=5))
    assert room.authors_missing() == []
    cells = set().union(*[printed_cells("StarGAN v2", place) for place in
                          ("CelebA-HQ 256", "AFHQ cat", "AFHQ dog", "AFHQ wild")])  # fmt: skip
    assert {(x.id, x.column, x.metric) for x in lines} == {
        (i, c, m) for i, _, c, m in cells if m != "lpips_alex_pairs45"
    }
    assert {x.row for x in lines} == {"StarGAN v2, authors' weights"}
    assert "not here" in room.authors_scale(lines[0], "paper", "gpu").text()
    x = torch.rand(4, 3, 64, 64) * 2 - 1
    behind = data.to_bytes(torch.rand(4, 3, 64, 64) * 2 - 1)
    classes = torch.tensor([0, 1, 1, 0])
    both = {n: room.authors_maker(needed, n) for needed, _, n in official}
    with torch.no_grad():
        cases = ((None, "stargan_v2_celebahq", classes, Faces().masks(x)),
                 (2, "stargan_v2_afhq", torch.full((4,), 2), None))  # fmt: skip
        for number, name, labels, masks in cases:
            style = nets[name]["style"](data.to_float(behind), labels)
            expected = nets[name]["generator"](x, style, masks)
            assert torch.equal(both[number](x, behind, classes), expected)
        flipped = both[None](x, behind, 1 - classes)  # control: the other head
        assert not torch.allclose(flipped, both[None](x, behind, classes), atol=1e-3)
        assert not torch.allclose(both[0](x, behind, None), both[2](x, behind, None), atol=1e-3)


# --- PULSE's own generator ------------------------------------------------------------------------


def test_pulse_searches_stylegan_where_it_is_here(monkeypatch):
    torch.manual_seed(0)
    nets = {"stylegan_ffhq_mapping": stylegan.Mapping(8, layers=2),
            "stylegan_ffhq_synthesis": stylegan.Synthesis(16, latent=8, fmap_base=16,
                                                          fmap_max=8)}  # fmt: skip
    here = {"stylegan_ffhq_synthesis"}
    monkeypatch.setattr("latentpapers.weights.available", lambda name: name in here)
    monkeypatch.setattr(
        "latentpapers.weights.network", lambda n: nets[n].eval().requires_grad_(False)
    )
    small = pulse.of_codes(lambda z: z, 2)
    space, chunk, told = room.pulse_space(small, own=True)  # control: one of two files
    assert space is small
    assert "stylegan_ffhq_mapping" in told
    assert "latentpapers weights convert" in told
    here |= set(nets)
    assert room.pulse_space(small, own=False) == (small, 64, "PULSE searches this project's PGAN.")
    monkeypatch.setattr(
        room.published_weights, "stylegan_space", partial(room.stylegan_space, count=2000)
    )
    space, chunk, told = room.pulse_space(small, own=True)
    assert (space.rows, space.latent, chunk) == (6, 8, 2)
    assert "StyleGAN" in told
    draw = generator(0, "stylegan", "space")
    z = torch.randn(2000, 8, generator=draw)
    w = nets["stylegan_ffhq_mapping"](z)
    before = torch.where(w < 0, 5 * w, w)  # the last activation undone
    assert torch.allclose(space.mean, before.mean(0), atol=1e-5)
    assert torch.allclose(space.std, before.std(0), atol=1e-5)
    with pretended():
        there = room.stylegan_space("cuda", count=2000)
    assert torch.allclose(there.mean, space.mean, atol=1e-6)
    for net in nets.values():  # back from the pretended GPU
        net.load_state_dict({k: torch.Tensor(v) for k, v in net.state_dict().items()}, assign=True)
    target = torch.zeros(3, 3, 4, 4)
    begin = pulse.start(space, 3, torch.Generator().manual_seed(1))

    def found(steps):
        plan = pulse.Plan(steps=steps, returned="best")
        return pulse.search(space, target, lambda v: subspace.reduce(v, 4), plan, begin, chunk=2)

    long = found(15)
    assert long.images.shape == (3, 3, 16, 16)
    assert bool((long.best < found(1).best).all())
