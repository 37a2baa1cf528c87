"""Pairs and whole pictures: tars in place, official folders, low resolution made where absent."""

import data_bed as bed
import numpy as np
import pytest
import torch

from latentpapers import data, paths, transfer
from latentpapers.data import known, superres
from latentpapers.errors import Corrupt, Missing, UnknownName, UserError

TAR = "sr_test_set5_set14_bsd100_x4.tar"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LATENTPAPERS_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(transfer, "_WAIT", 0.0)
    monkeypatch.setattr(known, "_table", dict)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def shop():
    opened = bed.Shop()
    yield opened
    opened.close()


def lossless(array):
    return bed.encoded(array, "WEBP", lossless=True)


def picture(i):
    return bed.pixels(i, 24 + 4 * i, 32)


def small(i):
    """Stands for a published low-resolution picture: no operator of ours makes it."""
    return bed.pixels(100 + i, 6 + i, 8)


def chw(array):
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def test_set5_in_a_tar_is_read_in_place(home):
    files = {}
    for i in (3, 1, 2, 5, 4):
        files[f"Set5/HR/img_{i:03d}.webp"] = lossless(picture(i))
        files[f"Set5/LR_x4/img_{i:03d}.webp"] = lossless(small(i))
    (home / TAR).write_bytes(bed.tarred(files))
    pairs = data.pairs("set5")
    assert pairs.names == tuple(f"img_{i:03d}" for i in range(1, 6))
    for i, item in enumerate(pairs, 1):
        assert np.array_equal(item.hr.numpy(), chw(picture(i)))
        assert np.array_equal(item.lr.numpy(), chw(small(i)))
        assert item.hr.dtype == item.lr.dtype == torch.uint8
        assert item.publishable == (i not in (1, 4, 5))
    assert (len(pairs), pairs.factor, pairs.of) == (5, 4, 5)
    assert "MATLAB bicubic, as published" in pairs.describe()
    assert sorted(p.name for p in home.iterdir()) == [TAR]
    first = data.pictures("set5", n=2)
    assert [np.array_equal(p.numpy(), chw(picture(i))) for i, p in enumerate(first, 1)] == [
        True
    ] * 2
    assert data.files("set5") == [home / TAR]
    before = data.data_hash("set5", "test", 0)
    changed = picture(1)
    changed[0, 0, 0] ^= 1
    files["Set5/HR/img_001.webp"] = lossless(changed)
    (home / TAR).write_bytes(bed.tarred(files))
    assert data.pairs("set5").fingerprint != pairs.fingerprint
    assert data.data_hash("set5", "test", 0) != before


def test_part_of_a_set_is_labelled_as_part(home):
    files = {f"Urban100/HR/img_{i:03d}.webp": lossless(picture(i)) for i in (1, 6, 76)}
    files |= {f"Urban100/LR_x4/img_{i:03d}.webp": lossless(small(i)) for i in (1, 6, 76)}
    (home / "sr_test_urban100_every5th_x4.tar").write_bytes(bed.tarred(files))
    pairs = data.pairs("urban100")
    assert pairs.describe().startswith("urban100 · 3 of 100 pictures, x4")
    # by their number in the whole set, not by their place in this part
    assert [item.publishable for item in pairs] == [True, True, False]


def test_pixels_in_a_tar_that_are_not_the_committed_ones_are_refused(home, monkeypatch):
    files = {f"Set5/HR/{i}.webp": lossless(picture(i)) for i in range(1, 6)}
    files |= {f"Set5/LR_x4/{i}.webp": lossless(small(i)) for i in range(1, 6)}
    (home / TAR).write_bytes(bed.tarred(files))
    value = data.pairs("set5").fingerprint
    row = {"sha256": value, "images": 5, "lossless": True, "decoder": "this"}
    monkeypatch.setattr(known, "_table", lambda: {"set5": row})
    assert data.pairs("set5").fingerprint == value
    assert data.verify("set5") == ["set5: 5 images, decoded pixels as committed"]
    files["Set5/LR_x4/1.webp"] = lossless(np.ascontiguousarray(small(1)[::-1]))
    (home / TAR).write_bytes(bed.tarred(files))
    with pytest.raises(Corrupt, match="not the committed ones"):
        data.pairs("set5")


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.6])
def test_a_damaged_tar_is_refused_in_a_sentence(home, keep):
    files = {f"Set5/HR/{i}.webp": lossless(picture(i)) for i in range(1, 6)}
    files |= {f"Set5/LR_x4/{i}.webp": lossless(small(i)) for i in range(1, 6)}
    whole = bed.tarred(files)
    used = len(whole.rstrip(b"\0"))
    (home / TAR).write_bytes(whole[: int(keep * used)])
    with pytest.raises((Corrupt, Missing), match=f"{TAR} is damaged|holds"):
        data.pairs("set5")
    (home / TAR).write_bytes(whole.replace(b"WEBPVP8L", b"WEBPxxxx"))
    with pytest.raises(Corrupt, match="is no image"):
        data.pairs("set5")


def benchmark():
    """EDSR's archive: original names, LR_bicubic/X2..X4, `B100` for BSD100."""
    files = {}
    for name, i in (("baby", 1), ("bird", 2), ("butterfly", 3), ("head", 4), ("woman", 5)):
        files[f"benchmark/Set5/HR/{name}.png"] = bed.encoded(bed.pixels(i, 30, 27))
        files[f"benchmark/Set5/LR_bicubic/X4/{name}x4.png"] = bed.encoded(bed.pixels(50 + i, 7, 6))
    return files


def test_edsr_s_benchmark_folder_is_fetched_and_cut_to_multiples(shop):
    shop.offer(superres._BENCHMARK, bed.tarred(benchmark()))
    with pytest.raises(Missing, match=r"benchmark\.tar .*latentpapers data fetch set5"):
        data.pairs("set5")
    data.fetch("set5")
    pairs = data.pairs("set5")
    assert pairs.names == ("baby", "bird", "butterfly", "head", "woman")
    assert np.array_equal(pairs[0].hr.numpy(), chw(bed.pixels(1, 30, 27))[:, :28, :24])
    assert np.array_equal(pairs[4].lr.numpy(), chw(bed.pixels(55, 7, 6)))
    assert [item.publishable for item in pairs] == [False, True, True, False, False]
    assert "published" in data.verify("set5")[0]
    with pytest.raises(Missing, match="benchmark"):
        data.pairs("set14")  # the archive of this test holds Set5 alone


def test_low_resolution_is_made_where_none_is_published(shop):
    shop.offer(superres._BENCHMARK, bed.tarred(benchmark()))
    data.fetch("set5")
    pairs = data.pairs("set5", factor=3)
    assert "bicubic, made here" in pairs.describe()
    hr = pairs[1].hr
    assert hr.shape == (3, 30, 27)
    # as MATLAB makes it of bytes; tests/test_degrade.py holds that to the published images
    assert torch.equal(pairs[1].lr, data.imresize(hr[None], (10, 9))[0])
    with pytest.raises(UserError, match="factor"):
        data.pairs("set5", factor=1)
    with pytest.raises(UserError, match="factor"):
        data.pairs("set5", factor=2.5)


def test_a_published_low_resolution_of_the_wrong_size_is_refused(shop):
    files = benchmark()
    files["benchmark/Set5/LR_bicubic/X4/birdx4.png"] = bed.encoded(bed.pixels(0, 7, 7))
    shop.offer(superres._BENCHMARK, bed.tarred(files))
    data.fetch("set5")
    with pytest.raises(Corrupt, match="bird of set5"):
        data.pairs("set5")


def test_div2k_and_pirm_are_read_from_their_own_folders(shop, monkeypatch):
    parts = {"train": (1, 2, 3), "valid": (801, 802)}
    for source in superres.DIV2K:
        part = "train" if "train" in source.file else "valid"
        low = "LR" in source.file
        top = f"DIV2K_{part}_{'LR_bicubic/X4' if low else 'HR'}"
        files = {
            f"{top}/{i:04d}{'x4' if low else ''}.png": bed.encoded(
                bed.pixels(i, *((5, 6) if low else (20, 24)))
            )
            for i in parts[part]
        }
        shop.offer(source, bed.zipped(files))
    data.fetch("div2k")
    with pytest.raises(Corrupt, match="holds 3 pictures, div2k / train has 800"):
        data.pictures("div2k", "train")
    counts = data.info("div2k").counts
    monkeypatch.setitem(counts, "train", 3)
    monkeypatch.setitem(counts, "test", 2)
    assert [p.shape for p in data.pictures("div2k")] == [(3, 20, 24)] * 3
    pairs = data.pairs("div2k")
    assert pairs.names == ("0801", "0802")
    assert np.array_equal(pairs[1].lr.numpy(), chw(bed.pixels(802, 5, 6)))
    assert len(data.pairs("div2k", split="train")) == 3
    for source in superres.PIRM:
        low = "LR" in source.file
        size = (5, 5) if low else (20, 20)
        files = {f"x/{i}.png": bed.encoded(bed.pixels(i, *size)) for i in (2, 10, 1)}
        shop.offer(source, bed.tarred(files, "w:gz"), known=False)
    data.fetch("pirm")
    monkeypatch.setitem(data.info("pirm").counts, "test", 3)
    assert data.pairs("pirm").names == ("1", "2", "10")
    with pytest.raises(UnknownName, match="test, valid"):
        data.pairs("pirm", split="train")


def test_pirm_as_its_authors_packed_it_is_found_by_hand(home, monkeypatch):
    for place, size in (("Test/Original", 20), ("Test/4x_downsampled", 5)):
        folder = home / "PIRM" / place
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(bed.encoded(bed.pixels(1, size, size)))
    monkeypatch.setitem(data.info("pirm").counts, "test", 1)
    pairs = data.pairs("pirm")
    assert np.array_equal(pairs[0].lr.numpy(), chw(bed.pixels(1, 5, 5)))


def test_training_photographs_of_many_sizes(home):
    files = {
        "bsds500_train/2.jpg": bed.encoded(bed.smooth(1, 30, 40), "JPEG"),
        "bsds500_train/10.jpg": bed.encoded(bed.smooth(2, 40, 30), "JPEG"),
        "photos_1440/a.webp": lossless(bed.pixels(3, 50, 60)),
        "notes.txt": b"not a picture",
    }
    (home / "sr_train_photos.tar").write_bytes(bed.tarred(files))
    found = data.pictures("sr-photos")
    assert [tuple(p.shape) for p in found] == [(3, 30, 40), (3, 40, 30), (3, 50, 60)]
    assert np.array_equal(found[2].numpy(), chw(bed.pixels(3, 50, 60)))
    with pytest.raises(UserError, match="cannot give 4 pictures of sr-photos: it has 3"):
        data.pictures("sr-photos", n=4)
    with pytest.raises(UserError, match=r"whole pictures.*lp\.data\.pairs"):
        data.load("sr-photos", size=64)


def test_absent_sets_and_wrong_doors_are_named(home):
    with pytest.raises(Missing, match=r"sr_train_photos\.tar.*BSDS500"):
        data.pictures("sr-photos")
    with pytest.raises(UserError, match="'digits' has no pairs; sets that have: set5"):
        data.pairs("digits")
    with pytest.raises(UserError, match="'digits' has no whole pictures; sets that have: photos"):
        data.pictures("digits")
    with pytest.raises(Missing):
        data.data_hash("set5", "test", 0)
    assert [p.dtype for p in data.pictures("photos", n=2)] == [torch.uint8] * 2


@pytest.mark.parametrize(
    ("name", "count", "of"),
    [("set5", 5, 5), ("set14", 14, 14), ("bsd100", 100, 100), ("urban100", 20, 100)],
)
def test_the_development_packs_hold_the_committed_pixels(name, count, of, monkeypatch, request):
    monkeypatch.undo()
    if not data.files(name):
        pytest.skip(f"no {name} in the data folders (LATENTPAPERS_DATA): CI has none")
    assert any(folder.is_dir() for folder in paths.data_dirs())
    pairs = data.pairs(name)  # compares with packs/pixels.json
    assert (len(pairs), pairs.of) == (count, of)
    assert pairs.fingerprint == known.of(name)["sha256"]
