"""Scores on published test sets, which ship without the pictures they were measured on."""

import math
import shutil

import pytest
import torch

from latentpapers import config, data, models, paths, storage, tensorfile
from latentpapers.errors import Corrupt, Missing, UnknownName
from latentpapers.metrics.protocol import Score
from latentpapers.papers import lsrgan

SETS = {"set5": 5, "set14": 14, "bsd100": 100, "urban100": 20}


def pair(name, seed):
    lr = torch.randint(0, 256, (3, 8, 12), generator=torch.Generator().manual_seed(seed)).byte()
    return data.Pair(name, lsrgan.bicubic(lr), lr)


@pytest.fixture
def small(monkeypatch):
    """Two pictures of noise in place of a test set."""
    pairs = [pair("a", 0), pair("b", 1)]
    monkeypatch.setattr(lsrgan.scores, "evaluation_pairs", lambda name, each=2: pairs)
    return pairs


def test_what_is_written_is_what_was_measured(small, tmp_path, monkeypatch):
    lsrgan.score(("esr",), ("set5",), tmp_path)
    monkeypatch.setattr(
        lsrgan.scores, "score_file", lambda *_: tmp_path / "published_s0.safetensors"
    )
    found, card = lsrgan.published_scores()
    assert set(found) == {"bicubic", "esr"}
    # the true pictures are the bicubic ones here: no error at all, and the control is not
    assert all(math.isinf(v) for v in found["bicubic"]["set5"]["PSNR"])
    net = lsrgan.load_generator(models.load("lsrgan/esr_s0"))
    again = lsrgan.measure(lambda p: lsrgan.enlarge(net, p.lr), {"set5": small}, ())
    for column, values in again["set5"].items():
        assert torch.equal(found["esr"]["set5"][column], values), column
    assert bool(found["esr"]["set5"]["PSNR"].isfinite().all())
    assert card["sets"]["set5"]["pictures"] == 2


def test_scores_of_another_network_are_refused(small, tmp_path, monkeypatch):
    lsrgan.score(("esr",), ("set5",), tmp_path)
    monkeypatch.setattr(
        lsrgan.scores, "score_file", lambda *_: tmp_path / "published_s0.safetensors"
    )
    monkeypatch.setattr(storage, "sha256_file", lambda path: "another")
    with pytest.raises(Corrupt, match="measure again with"):
        lsrgan.published_scores()


def test_absent_scores_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(lsrgan.scores, "score_file", lambda *_: tmp_path / "none.safetensors")
    with pytest.raises(Missing):
        lsrgan.published_scores()


@pytest.fixture
def elsewhere(small, tmp_path, monkeypatch):
    """Scores of a network that does not ship: the shipped ESR as if it were one of seed 1."""
    shipped = paths.checkpoints() / "lsrgan"
    shutil.copy(shipped / "esr_s0.safetensors", tmp_path / "esr_s1.safetensors")
    shutil.copy(shipped / "psnr_s0.safetensors", tmp_path / "psnr.safetensors")
    lsrgan.score(("esr",), ("set5", "photos_2"), tmp_path, seed=1, folder=tmp_path)
    monkeypatch.setattr(
        lsrgan.scores, "score_file", lambda seed, _="": tmp_path / f"published_s{seed}.safetensors"
    )
    return tmp_path


def test_scores_without_networks_bring_a_card_and_commands(elsewhere):
    found = lsrgan.scores_only(1, ("photos", "set5"), 2)
    values, model = found["esr"]
    tree, card = lsrgan.published_scores(1)
    assert torch.equal(values["photos"]["PSNR"], tree["esr"]["photos_2"]["PSNR"])
    assert torch.equal(values["set5"]["PSNR"], tree["esr"]["set5"]["PSNR"])
    assert (model.parts, model.card["title"]) == ({}, "ESR on sr-photos, crops of 64 px")
    assert "history" not in model.card
    assert card["networks"]["esr"] == storage.sha256_file(elsewhere / "esr_s1.safetensors")
    assert card["shipped"] is False
    start, train, again = card["commands"]
    assert start.startswith("cp results/checkpoints/lsrgan/psnr_s0.safetensors")
    assert "--run esr --seed 1" in train
    assert "--score --what published --seed 1 --networks" in again
    with pytest.raises(Missing, match=r"none on 'photos_3'.*table_seeds=\[0\].*cp results"):
        lsrgan.scores_only(1, ("photos",), 3)
    with pytest.raises(UnknownName, match="generator"):
        model["generator"]


def test_scores_of_another_first_stage_are_refused(elsewhere, monkeypatch):
    lsrgan.published_scores(1)
    monkeypatch.setattr(storage, "sha256_file", lambda path: "another")
    with pytest.raises(Corrupt, match=r"another psnr_s0.safetensors.*cp results"):
        lsrgan.published_scores(1)


def test_the_command_line_scores_what_does_not_ship(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(lsrgan.commands, "score", lambda *what: asked.append(what))
    words = ["--score", "--out", str(tmp_path)]
    lsrgan.train_from_cli(words)
    lsrgan.train_from_cli([*words, "--seed", "2", "--networks", str(tmp_path)])
    shipped, other = asked
    assert shipped[:2] == (lsrgan.SCORED, lsrgan.PUBLISHED_SETS)
    assert shipped[-2:] == (None, "published")
    assert "psnr" not in other[0]
    assert other[1] == (*lsrgan.PUBLISHED_SETS, *lsrgan.CROPS)
    assert other[3] == 2


def test_the_command_line_scores_the_first_stage_from_public_weights(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(lsrgan.commands, "score_first_stage", lambda *what: asked.append(what))
    words = ["--score", "--what", "first_stage", "--out", str(tmp_path)]
    lsrgan.train_from_cli([*words, "--networks", str(tmp_path)])
    assert asked == [(tmp_path, tmp_path)]
    with pytest.raises(SystemExit):
        lsrgan.train_from_cli(words)
    monkeypatch.setattr(
        lsrgan.commands, "score_readings", lambda *what: asked.append(("readings", *what))
    )
    words[2] = "readings"
    lsrgan.train_from_cli([*words, "--networks", str(tmp_path)])
    assert asked[1:] == [("readings", tmp_path, tmp_path)]


def test_the_first_stage_from_public_weights_ships_as_scores():
    found, model = lsrgan.first_stage_scores()
    assert set(found) == {"bicubic", "realsr_df2k", "psnr_df2k"}
    assert {len(values) for values in found.values()} == {5}
    job = lsrgan.SHIPPED["psnr_df2k"]
    assert model.card["config"] == config.as_dict(job)
    assert (model.card["steps"], model.card["origin"]) == (job.steps, "realsr_df2k")
    assert (job.width, job.blocks, job.growth, job.stage) == (64, 23, 32, "psnr")
    other, _ = lsrgan.published_scores()  # bicubic of the same pictures, measured another day
    assert list(found["bicubic"].values()) == pytest.approx(other["bicubic"]["set5"]["PSNR"])
    assert lsrgan.score_file(0, "first_stage").stat().st_size <= 6_000


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


@pytest.mark.parametrize("seed", lsrgan.UNSHIPPED_SEEDS)
def test_seeds_without_networks_are_whole_and_of_the_crops_that_tables_show(seed):
    found, card = lsrgan.published_scores(seed)  # raises if the first stage has changed
    assert set(found) == {"bicubic", *lsrgan.SCORED[1:]} == {"bicubic", *card["networks"]}
    assert {k: v["pictures"] for k, v in card["sets"].items()} == {
        **SETS, "photos_2": 12, "photos_0": 38}  # fmt: skip
    for values in found.values():
        for name, facts in card["sets"].items():
            assert all(v.shape == (facts["pictures"],) and bool(v.isfinite().all())
                       for v in values[name].values())  # fmt: skip
    zero, first = lsrgan.published_scores(0)
    for name in SETS:  # the same pictures for every seed, by their hashes and by what bicubic makes
        assert card["sets"][name]["sha256"] == first["sets"][name]["sha256"]
        for column, values in found["bicubic"][name].items():
            assert torch.equal(values, zero["bicubic"][name][column]), (name, column)
        assert not torch.equal(found["esr"][name]["PSNR"], zero["esr"][name]["PSNR"])  # control
    for key in lsrgan.CROPS:
        pairs = lsrgan.scored_pairs(key)
        assert card["sets"][key]["sha256"] == data.known.digest(
            (p.name, p.hr.numpy()) for p in pairs
        )
    shipped = models.load("lsrgan/esr_s0").card["config"]
    assert card["cards"]["esr"]["config"] == shipped
    assert lsrgan.score_file(seed).stat().st_size <= 120_000
    for preset in ("quick", "cpu"):
        chosen = lsrgan.PRESETS[preset]
        assert seed in chosen.table_seeds
        assert set(lsrgan.scores_only(seed, chosen.tests, chosen.each)) == set(lsrgan.SCORED[1:])


def test_shipped_scores_can_be_measured_again():
    """On Set5 alone: seconds. Its pictures are not part of the project."""
    try:
        pairs = lsrgan.evaluation_pairs("set5")
    except Missing:
        pytest.skip("Set5 is not in a data folder")
    found, card = lsrgan.published_scores()
    pixels = ((p.name, p.hr.numpy()) for p in pairs)
    assert card["sets"]["set5"]["sha256"] == data.known.digest(pixels)
    net = lsrgan.load_generator(models.load("lsrgan/esr_s0"))
    again = lsrgan.measure(lambda p: lsrgan.enlarge(net, p.lr), {"set5": pairs}, ())["set5"]
    # another kind of processor may round a few pixels to the neighbouring grey level
    assert torch.allclose(again["PSNR"], found["esr"]["set5"]["PSNR"], atol=5e-3)
    other = found["lsr"]["set5"]["PSNR"]  # the control
    assert not torch.allclose(again["PSNR"], other, atol=5e-3)


def test_packed_scores_are_the_scores():
    """NIQE in float64 beside the others; a picture whose NIQE is undefined; a set without it."""
    psnr, niqe = torch.tensor([27.0, 29.5]), torch.tensor([4.0, math.nan], dtype=torch.float64)
    tree = {"esr": {"set5": {"PSNR": psnr, "NIQE": niqe, "wrapped L1": psnr / 3},
                    "set14": {"PSNR": psnr[:1]}}}  # fmt: skip
    packed = lsrgan.packed(tree)
    assert [len(parts) for parts in packed["esr"].values()] == [2, 1]
    back = lsrgan.unpacked(packed)
    for name, found in tree["esr"].items():
        assert back["esr"][name].keys() == found.keys()
        for key, values in found.items():
            assert back["esr"][name][key].dtype is values.dtype
            torch.testing.assert_close(
                back["esr"][name][key], values, rtol=0, atol=0, equal_nan=True
            )


# --- readings that could flip a verdict -----------------------------------------------------------


def score(value, low, high):
    return Score(value, low, high, 3, "")


def test_the_set_that_favours_a_claim_least_is_chosen_after_the_move():
    found = {"a": score(2.0, 1.0, 3.0), "b": score(3.0, 2.0, 4.0)}
    move = {"a": score(5.0, 5.0, 5.0), "b": score(0.0, 0.0, 0.0)}
    assert lsrgan.least_favourable(found, {}, math.inf) == found["a"]
    assert lsrgan.least_favourable(found, move, math.inf) == found["b"]
    assert lsrgan.least_favourable(found, {}, 0.0) == found["b"]  # less is better


def test_the_change_of_a_range_is_that_of_the_means():
    g = torch.Generator().manual_seed(0)
    first, second, more = (torch.randn(40, generator=g, dtype=torch.float64) for _ in range(3))
    found = lsrgan.change_of_range(first - second, more)
    before = lsrgan.range_of_means([first, second]).value
    after = lsrgan.range_of_means([first + more, second]).value
    assert found.value == pytest.approx(after - before, abs=1e-12)
    assert found.low < found.value < found.high
    none = lsrgan.change_of_range(first - second, torch.zeros(40))
    assert (none.value, none.low, none.high) == (0, 0, 0)


def test_a_reading_changes_what_it_says_and_nothing_else():
    for name, (of, changed) in lsrgan.READINGS.items():
        one, other = (config.as_dict(lsrgan.SHIPPED[n]) for n in (name, of))
        assert {k: v for k, v in one.items() if v != other[k]} == changed
    trained = {n for by, _ in lsrgan.REREAD.values() for pair in by.values() for n in pair}
    assert trained == {*lsrgan.READINGS, "esr", "lsr", "cesr"}


def test_what_a_reading_moves_is_written_picture_by_picture(tmp_path, monkeypatch):
    """Against differences of differences taken by hand; other networks, or another measure."""
    monkeypatch.setattr(lsrgan.rereading, "scored_pairs", lambda name: [pair("a", 0), pair("b", 1)])
    monkeypatch.setattr(
        lsrgan.rereading, "score_file", lambda *_: tmp_path / "readings_s0.safetensors"
    )
    monkeypatch.setattr(storage, "sha256_file", lambda path: "any")

    def values(name, folder, sets):
        columns = ("PSNR", "SSIM", "L1", "NIQE", "SSIM 11 x 11", "PSNR of RGB")
        g = torch.Generator().manual_seed(sum(map(ord, name)))
        return {s: {c: torch.rand(2, generator=g) for c in columns} for s in sets}

    lsrgan.score_readings(tmp_path, tmp_path, values)
    found = lsrgan.reading_scores()
    order = (*lsrgan.CROPS, *lsrgan.PUBLISHED_SETS)
    esr, cesr, tenth = (values(n, None, order) for n in ("esr", "cesr", "cesr_tenth"))
    row = "CESR against ESR"
    for place in ("set14", "photos_0"):
        used = cesr[place]["SSIM"] - esr[place]["SSIM"]
        got = found["lsrgan-e10"][row]["SSIM"][place]
        torch.testing.assert_close(got, tenth[place]["SSIM"] - esr[place]["SSIM"] - used)
        got = found["lsrgan-e33"][row]["SSIM"][place]
        window = cesr[place]["SSIM 11 x 11"] - esr[place]["SSIM 11 x 11"]
        torch.testing.assert_close(got, window - used)
    assert found["lsrgan-e33"].keys() == {row}
    assert found["lsrgan-e34"].keys() == {row, "LSR against ESR"}
    monkeypatch.setattr(storage, "sha256_file", lambda path: "another")
    with pytest.raises(Corrupt, match="measure again"):
        lsrgan.reading_scores()


def test_shipped_readings_are_whole_and_of_the_shipped_networks():
    found = lsrgan.reading_scores()  # raises if a network has changed
    assert set(found) == set(lsrgan.REREAD)
    sizes = {**SETS, "photos_2": 12, "photos_0": 38}
    for erratum, rows in found.items():
        for columns in rows.values():
            for parts in columns.values():
                assert {k: len(v) for k, v in parts.items()} == {k: sizes[k] for k in parts}
                whole = torch.cat(list(parts.values()))
                assert bool(whole.isfinite().all())
                assert float(whole.abs().max()) > 0, erratum  # it did change something
    card = tensorfile.header(lsrgan.score_file(0, "readings"))
    assert card["readings"] == {k: [of, new] for k, (of, new) in lsrgan.READINGS.items()}
    assert lsrgan.score_file(0, "readings").stat().st_size <= 12_000


def test_what_a_network_is_asked_for(monkeypatch):
    """The columns and sets of its comparisons, and PSNR of RGB by its definition."""
    pairs = [pair("a", 0), pair("b", 1)]
    monkeypatch.setattr(
        lsrgan.rereading, "evaluate", lambda made, pairs, wanted: dict.fromkeys(wanted)
    )
    sets = {"photos_2": pairs, "set5": pairs}
    found = lsrgan.reading_values("lsr", paths.checkpoints(), sets)
    assert {k: set(v) for k, v in found.items()} == {"photos_2": {"PSNR", "L1", "PSNR of RGB"}}
    net = lsrgan.load_generator(models.load("lsrgan/lsr_s0"))
    for one, value in zip(pairs, found["photos_2"]["PSNR of RGB"], strict=True):
        gap = (lsrgan.enlarge(net, one.lr).double() - one.hr.double()).square().mean()
        assert float(value) == pytest.approx(10 * math.log10(255**2 / float(gap)))
