"""Scores on published test sets, which ship without the pictures they were measured on."""

import math

import pytest
import torch

from latentpapers import data, paths, storage
from latentpapers.errors import Corrupt, Missing
from latentpapers.papers import lsrgan

SETS = {"set5": 5, "set14": 14, "bsd100": 100, "urban100": 20}


def pair(name, seed):
    lr = torch.randint(0, 256, (3, 8, 12), generator=torch.Generator().manual_seed(seed)).byte()
    return data.Pair(name, lsrgan.bicubic(lr), lr)


@pytest.fixture
def small(monkeypatch):
    """Two pictures of noise in place of a test set."""
    pairs = [pair("a", 0), pair("b", 1)]
    monkeypatch.setattr(lsrgan, "evaluation_pairs", lambda name: pairs)
    return pairs


def test_what_is_written_is_what_was_measured(small, tmp_path, monkeypatch):
    lsrgan.score(("esr",), ("set5",), tmp_path)
    monkeypatch.setattr(lsrgan, "score_file", lambda seed: tmp_path / "published_s0.safetensors")
    found, card = lsrgan.published_scores()
    assert set(found) == {"bicubic", "esr"}
    # the true pictures are the bicubic ones here: no error at all, and the control is not
    assert all(math.isinf(v) for v in found["bicubic"]["set5"]["PSNR"])
    net = lsrgan.load_generator(lsrgan.models.load("lsrgan/esr_s0"))
    again = lsrgan.measure(lambda p: lsrgan.enlarge(net, p.lr), {"set5": small}, ())
    for column, values in again["set5"].items():
        assert torch.equal(found["esr"]["set5"][column], values), column
    assert bool(found["esr"]["set5"]["PSNR"].isfinite().all())
    assert card["sets"]["set5"]["pictures"] == 2


def test_scores_of_another_network_are_refused(small, tmp_path, monkeypatch):
    lsrgan.score(("esr",), ("set5",), tmp_path)
    monkeypatch.setattr(lsrgan, "score_file", lambda seed: tmp_path / "published_s0.safetensors")
    monkeypatch.setattr(storage, "sha256_file", lambda path: "another")
    with pytest.raises(Corrupt, match="measure again with"):
        lsrgan.published_scores()


def test_absent_scores_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(lsrgan, "score_file", lambda seed: tmp_path / "none.safetensors")
    with pytest.raises(Missing):
        lsrgan.published_scores()


def test_shipped_scores_are_of_every_picture_and_of_the_shipped_networks():
    found, card = lsrgan.published_scores()  # raises if a network has changed
    assert set(found) == {"bicubic", *lsrgan.SCORED} == {"bicubic", *card["networks"]}
    assert {k: v["pictures"] for k, v in card["sets"].items()} == SETS
    for values in found.values():
        for name, count in SETS.items():
            assert all(v.shape == (count,) and bool(v.isfinite().all())
                       for v in values[name].values())  # fmt: skip
    assert lsrgan.score_file().stat().st_size <= 150_000
    assert lsrgan.score_file().is_relative_to(paths.checkpoints())


def test_shipped_scores_can_be_measured_again():
    """On Set5 alone: seconds. Its pictures are not part of the project."""
    try:
        pairs = lsrgan.evaluation_pairs("set5")
    except Missing:
        pytest.skip("Set5 is not in a data folder")
    found, card = lsrgan.published_scores()
    pixels = ((p.name, p.hr.numpy()) for p in pairs)
    assert card["sets"]["set5"]["sha256"] == data.known.digest(pixels)
    net = lsrgan.load_generator(lsrgan.models.load("lsrgan/esr_s0"))
    again = lsrgan.measure(lambda p: lsrgan.enlarge(net, p.lr), {"set5": pairs}, ())["set5"]
    # another kind of processor may round a few pixels to the neighbouring grey level
    assert torch.allclose(again["PSNR"], found["esr"]["set5"]["PSNR"], atol=5e-3)
    other = found["lsr"]["set5"]["PSNR"]  # the control
    assert not torch.allclose(again["PSNR"], other, atol=5e-3)
