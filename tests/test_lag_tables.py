"""Table S1: the published metrics beside the stand-ins, and the row that ships as numbers."""

import csv
import dataclasses
import re
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch

from latentpapers import data, models, paths, storage, tensorfile, weights
from latentpapers.errors import Corrupt, Missing, UserError
from latentpapers.metrics import cache, features, perceptual
from latentpapers.papers import lag

PAPER = lag.PRESETS["paper"]
HERE = {"alexnet", "inception_tf2015"}


@pytest.fixture
def here(monkeypatch):
    """The weights that this machine is told to have."""
    found: set[str] = set()
    monkeypatch.setattr(weights, "available", lambda name: name in found)
    return found


def images(n, seed, size=32):
    return 2 * torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) - 1


# --- the published metrics -----------------------------------------------------------------------


def test_published_columns_are_those_whose_weights_are_here(here):
    columns, sentences = lag.published(PAPER)
    assert columns == {}
    assert [s.split(":")[0] for s in sentences] == ["No LPIPS", "No FID"]
    for name, sentence in zip(("alexnet", "inception_tf2015"), sentences, strict=True):
        assert f"python -m latentpapers weights fetch {name}`" in sentence
    here |= {"alexnet"}
    columns, sentences = lag.published(PAPER)
    assert (columns, len(sentences)) == ({"LPIPS": "lpips_alex"}, 1)
    here |= HERE
    assert lag.published(PAPER) == ({"LPIPS": "lpips_alex", "FID": "fid_tf2015_n10000"}, [])


def test_fid_is_left_out_where_there_are_not_10000_images(here):
    here |= HERE
    columns, (sentence,) = lag.published(dataclasses.replace(PAPER, n_eval=400))
    assert list(columns) == ["LPIPS"]
    assert "10,000 images, not 400" in sentence


@pytest.mark.parametrize("name", ["quick", "cpu", "gpu"])
def test_other_presets_keep_to_the_stand_ins(here, name):
    here |= HERE
    assert lag.published(lag.PRESETS[name]) == ({}, [])
    assert PAPER.published


def test_lpips_is_the_packages_on_images_of_minus_one_to_one(monkeypatch):
    """Random trunk, the package's own heads; more images than a block holds."""
    import lpips

    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    state = {"features." + k.split(".", 1)[1]: v for k, v in theirs.net.state_dict().items()}
    ours = perceptual.network("alexnet", state)
    monkeypatch.setattr(perceptual, "_loaded", lambda trunk, path: ours)
    x, y = images(70, 0), images(70, 1)
    with torch.no_grad():
        expected = theirs(x, y).flatten()
        mistaken = theirs((x + 1) / 2, (y + 1) / 2).flatten()
    found = lag.lpips(x, y)
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=0)
    assert not torch.allclose(found.float(), mistaken, rtol=0.01)  # control: the usual mistake
    both = lag.to_truth(((y + 1) * 127.5).round().byte(), x, "random z", {"LPIPS": lag.lpips})
    assert list(both) == ["error at random z", "LPIPS at random z"]
    torch.testing.assert_close(both["LPIPS at random z"].float(), expected, rtol=0.02, atol=0)


def test_lpips_without_its_trunk_is_one_sentence():
    if weights.available("alexnet"):
        pytest.skip("the AlexNet trunk is on this machine")
    with pytest.raises(Missing, match="alexnet"):
        lag.lpips(images(1, 0), images(1, 1))


class Eight(torch.nn.Module):
    """Eight random features of an image on [0, 1]."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.register_buffer("matrix", torch.randn(3 * 32 * 32, 8, generator=g))

    def forward(self, x):
        return x.flatten(1) @ self.matrix


def test_fid_is_the_distance_of_two_gaussians_of_features(monkeypatch):
    small = dataclasses.replace(features.PROTOCOLS["fid_tf2015_n10000"], n=192)
    monkeypatch.setitem(features.PROTOCOLS, "fid_tf2015_n10000", small)
    monkeypatch.setattr(features, "_named", lambda name, layer: Eight())
    monkeypatch.setattr(cache, "remembered", lambda name, n, make: make())
    model = models.load("lag/table_lag_x16_s0")
    fake = images(192, 2)
    found = lag.fid(model, fake)
    real = data.load("faces-dcgan", size=32, split="train", n=192).pixels
    a, b = ((v.double().numpy().reshape(192, -1) / 255) @ Eight().matrix.double().numpy()
            for v in (real, ((fake + 1) * 127.5).round()))  # fmt: skip
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
    expected = gap + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert found.value == pytest.approx(expected, rel=1e-3)
    assert found.value != pytest.approx(gap, rel=0.05)  # control: without the covariances
    assert lag.fid(model, data.to_float(real)).value == pytest.approx(0, abs=1e-3)
    with pytest.raises(UserError, match="192 images, not 191"):
        lag.fid(model, fake[:191])


# --- the row that ships as numbers ---------------------------------------------------------------

COLUMNS = ("error at z = 0", "perceptual distance", "LR RMSE", "PSNR", "spread over z",
           "LR RMSE at random z", "error at random z",
           "perceptual distance at random z")  # fmt: skip


def test_the_shipped_numbers_are_those_of_the_run_and_of_the_presets_images():
    file = lag.score_file("table_lag_x32")
    assert file.stat().st_size <= 20_000
    for name in ("quick", "cpu"):
        preset = lag.PRESETS[name]
        found, far, model = lag.shipped_scores("table_lag_x32", name, preset.n_eval)
        assert tuple(found) == COLUMNS
        assert all(v.shape == (preset.n_eval,) and v.isfinite().all() for v in found.values())
        assert far.low < far.value < far.high
        assert (far.n, model.parts) == (preset.n_eval, {})
    job = lag.job_of(model)
    assert job == lag.SHIPPED["table_lag_x32"]
    assert lag.low_side(job) == 1
    assert model.card["images"] == 96_000
    one = dataclasses.replace(lag.SHIPPED["table_lag_x16"], factor=32, phase=job.phase)
    assert job == one  # equal to the other rows but for the factor


@pytest.mark.parametrize(("preset", "n"), [("quick", 39), ("gpu", 2000)])
def test_there_are_no_numbers_of_other_images(preset, n):
    with pytest.raises(Missing, match="train lag --run table_lag_x32"):
        lag.shipped_scores("table_lag_x32", preset, n)


def test_an_altered_file_is_refused(tmp_path, monkeypatch):
    content = bytearray(lag.score_file("table_lag_x32").read_bytes())
    content[-1] ^= 1
    altered = tmp_path / "altered.safetensors"
    altered.write_bytes(content)
    monkeypatch.setattr(lag.scores, "score_file", lambda name, seed: altered)
    with pytest.raises(Corrupt):
        lag.shipped_scores("table_lag_x32", "quick", 40)


def test_a_scored_network_gives_the_numbers_that_the_table_has_of_it(tmp_path, monkeypatch):
    """`score` of a network that does ship, against its row in the table of `quick`."""
    network = paths.checkpoints() / "lag" / "table_lag_x16_s0.safetensors"
    monkeypatch.setitem(lag.PRESETS, "cpu", dataclasses.replace(lag.PRESETS["quick"], n_eval=16))
    assert lag.train_from_cli(["--score", str(network), "--out", str(tmp_path)]) == 0
    file = tmp_path / network.name
    monkeypatch.setattr(lag.scores, "score_file", lambda name, seed: file)
    found, far, model = lag.shipped_scores("table_lag_x16", "quick", 40)
    about = tensorfile.header(file)
    assert about["network"] == storage.sha256_file(network)
    assert model.card["config"] == models.load("lag/table_lag_x16_s0").card["config"]
    ours = {name: float(v.mean()) for name, v in found.items()} | {"FD": far.value}
    assert set(ours) == {*COLUMNS, "FD"}
    for column, printed in rows_of("LAG x16").items():
        assert ours[column] == pytest.approx(printed, rel=3e-3), column
    others = rows_of("LAG x8")  # control: another network's row
    assert not any(ours[c] == pytest.approx(others[c], rel=3e-3) for c in ours)


def rows_of(title):
    """Column -> value of a row of table S1 in the results of `quick`, as printed."""
    with (paths.root() / "results/quick/lag/tables/table_S1.csv").open(newline="") as lines:
        rows = [r for r in csv.DictReader(lines) if r["row"] == title]
    return {r["column"]: float(re.match(r"[\d.,]+", r["ours"])[0].replace(",", "")) for r in rows
            if r["column"] in (*COLUMNS, "FD")}  # fmt: skip
