"""Image files of every mode, area averages against a plain reference, and the committed hashes."""

import struct
import zlib

import data_bed as bed
import numpy as np
import pytest
from PIL import Image

from latentpapers.data import imagefiles, known, packs
from latentpapers.errors import UserError

GRADIENT = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)


def saved(tmp_path, image, name="x.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_grey_palette_and_colour_become_the_same_three_channels(tmp_path):
    grey = Image.fromarray(GRADIENT)
    expected = np.repeat(GRADIENT[None], 3, 0)
    palette = grey.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    for i, image in enumerate((grey, grey.convert("RGB"), palette)):
        assert np.array_equal(imagefiles.read(saved(tmp_path, image, f"{i}.png")), expected)
    assert np.array_equal(imagefiles.read((tmp_path / "0.png").read_bytes()), expected)
    one_bit = saved(tmp_path, Image.fromarray(GRADIENT > 99), "bit.png")
    assert np.array_equal(imagefiles.read(one_bit)[0], np.where(GRADIENT > 99, 255, 0))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    wide = (GRADIENT.astype(np.uint16) * 257).astype(np.uint16)
    wide[0, :3] = (128, 129, 65535 - 129)  # 128/257 rounds to 0, 129/257 to 1
    path = saved(tmp_path, Image.fromarray(wide), "w.png")
    found = imagefiles.read(path)[0]
    expected = np.rint(wide / 257)
    assert np.array_equal(found, expected)
    assert found[0, :2].tolist() == [0, 1]
    # the control: Pillow alone clips
    assert not np.array_equal(np.asarray(Image.open(path).convert("RGB"))[..., 0], expected)


def test_transparent_pixels_are_put_on_white(tmp_path):
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    rgba[0, 1] = (10, 20, 30, 0)
    rgba[1, 0] = (0, 0, 0, 128)
    found = imagefiles.read(saved(tmp_path, Image.fromarray(rgba)))
    assert found[:, 0, 0].tolist() == [10, 20, 30]
    assert found[:, 0, 1].tolist() == [255, 255, 255]
    assert found[:, 1, 0].tolist() == [127, 127, 127]


def test_an_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: to be turned a quarter clockwise
    path = saved(tmp_path, Image.fromarray(GRADIENT), "t.png", exif=exif)
    assert np.array_equal(imagefiles.read(path)[0], np.rot90(GRADIENT, -1))


def test_what_has_no_agreed_range_or_is_no_image_is_refused_by_name(tmp_path):
    flat = saved(tmp_path, Image.fromarray(GRADIENT.astype(np.float32)), "f.tif")
    with pytest.raises(UserError, match=r"f\.tif \(mode F has no agreed range"):
        imagefiles.read(flat)
    whole = bed.encoded(bed.pixels(0, 40, 40))
    for i, bad in enumerate((b"", b"text", whole[: len(whole) // 2])):
        (tmp_path / f"{i}.png").write_bytes(bad)
        with pytest.raises(UserError, match=rf"cannot read .*{i}\.png"):
            imagefiles.read(tmp_path / f"{i}.png")
    with pytest.raises(UserError, match="an image"):
        imagefiles.read(b"bytes")


def test_a_picture_that_claims_too_many_pixels_is_never_decoded(tmp_path, monkeypatch):
    claim = struct.pack(">II", 20_000, 20_000)  # in the header of a 20 px image
    sound = bed.encoded(bed.pixels(0))
    bomb = sound[:16] + claim + sound[24:29]
    bomb += struct.pack(">I", zlib.crc32(bomb[12:29])) + sound[33:]
    with pytest.raises(UserError, match=r"cannot read an image \(.*(bomb|pixels)"):
        imagefiles.read(bomb)
    monkeypatch.setattr(imagefiles, "MOST_PIXELS", 100)
    with pytest.raises(UserError, match="12 x 9 pixels are more than we decode"):
        imagefiles.read(bed.encoded(bed.pixels(0, 9, 12)))


def test_a_crop_that_does_not_fit_is_refused_not_padded():
    image = Image.fromarray(bed.pixels(0, 20, 30))
    assert imagefiles.crop(image, (10, 0, 30, 20), "a.png").size == (20, 20)
    with pytest.raises(UserError, match=r"a\.png has 30 x 20 pixels, too few"):
        imagefiles.crop(image, (11, 0, 31, 20), "a.png")


@pytest.mark.parametrize(("size", "new"), [((31, 31), (24, 24)), ((37, 53), (10, 16)),
                                           ((64, 32), (16, 8)), ((9, 9), (9, 9))])  # fmt: skip
def test_area_is_the_mean_over_the_area_each_pixel_covers(size, new):
    pixels = bed.pixels(3, *size).transpose(2, 0, 1)
    # reference: each old pixel repeated until the new grid divides it, then a plain mean
    fine = np.repeat(np.repeat(pixels, new[0], 1), new[1], 2).astype(np.float64)
    cells = fine.reshape(3, new[0], size[0], new[1], size[1])
    mean = cells.mean(axis=(2, 4))
    found = imagefiles.area(pixels, *new)
    # equal but for means that lie on a half to the last bit
    assert np.abs(found - mean).max() <= 0.5 + 1e-9
    assert (found != np.rint(mean)).mean() < 1e-3
    assert found.dtype == np.uint8


def test_files_are_named_in_the_order_a_person_expects():
    names = ["10.png", "2.png", "a10b1.png", "a2b10.png", "a2b9.png"]
    assert sorted(names, key=imagefiles.natural) == [
        "2.png", "10.png", "a2b9.png", "a2b10.png", "a10b1.png"
    ]  # fmt: skip


def test_the_parallel_loop_keeps_order_and_count(monkeypatch):
    monkeypatch.setattr(imagefiles, "_BLOCK", 4)
    found = imagefiles.stack(iter(range(100)), 10, lambda i: np.full((3, 2, 2), i, np.uint8), 2)
    assert found[:, 0, 0, 0].tolist() == list(range(10))


def test_the_pixel_digest_ignores_order_and_sees_names_shapes_and_bytes(monkeypatch):
    a, b = bed.pixels(0).transpose(2, 0, 1), bed.pixels(1).transpose(2, 0, 1)
    value = known.digest([("a", a), ("b", b)])
    assert known.digest([("b", b), ("a", a)]) == value
    changed = a.copy()
    changed[0, 0, 0] ^= 1
    others = [[("a", changed), ("b", b)], [("a", b), ("b", a)], [("a", a)],
              [("a", a.reshape(3, 10, 40)), ("b", b)]]  # fmt: skip
    assert value not in [known.digest(other) for other in others]
    row = {"sha256": value, "images": 2, "lossless": True, "decoder": "this"}
    monkeypatch.setattr(known, "_table", lambda: {"x": row, "y": row | {"lossless": False}})
    assert known.compare("x", value) == "x: 2 images, decoded pixels as committed"
    with pytest.raises(ValueError, match="not the committed ones"):
        known.compare("x", "0")
    assert "differ from the committed" in known.compare("y", "0")
    assert "no committed hash" in known.compare("z", "0")


def test_every_committed_hash_belongs_to_a_set_that_results_may_use():
    import json

    from latentpapers import data

    committed = json.loads(known.FILE.read_text())
    assert {"cats", "churches", "cifar10-jpeg", "set5", "set14", "bsd100"} <= set(committed)
    assert set(committed) <= set(data.names())
    assert all(len(row["sha256"]) == 64 and row["images"] > 0 for row in committed.values())


@pytest.mark.parametrize(
    ("kind", "quality", "lossless"),
    [("webp", None, True), ("png", None, True), ("webp", 90, False), ("jpeg", None, False)],
)
def test_a_pack_of_each_format_reads_back(tmp_path, kind, quality, lossless):
    folder = tmp_path / "in"
    folder.mkdir()
    originals = [bed.smooth(i, 32, 32) for i in range(3)]
    for i, image in enumerate(originals):
        Image.fromarray(image).save(folder / f"{i}.png")
    codec = packs.codec(kind, quality)
    pack = packs.read_pack(packs.pack_folder(folder, tmp_path / "p.npz", 32, codec=codec))
    assert pack.lossless == lossless
    difference = np.abs(pack.decode().astype(int) - np.stack(originals).transpose(0, 3, 1, 2))
    # smooth pictures: a lossy codec at this quality stays within a few grey levels
    assert difference.max() == 0 if lossless else 0 < difference.max() <= 12
    for bad in (("gif", None), ("png", 90), ("webp", 0), ("jpeg", 101)):
        with pytest.raises(UserError, match=r"format|quality"):
            packs.codec(*bad)


def test_flat_only_and_distinct_make_the_same_names_wherever_the_files_lie(tmp_path):
    for place in ("one/train/dome", "one/test/dome", "one/train/altar", "two"):
        (tmp_path / place).mkdir(parents=True)
    files = {f"{i}.png": bed.encoded(bed.pixels(i)) for i in range(40)}
    for i, (name, content) in enumerate(files.items()):
        (tmp_path / "two" / name).write_bytes(content)
        (tmp_path / "one" / ("train" if i % 3 else "test") / "dome" / name).write_bytes(content)
    (tmp_path / "one/train/altar/x.png").write_bytes(bed.encoded(bed.pixels(99)))
    (tmp_path / "one/train/dome/zz.png").write_bytes(files["0.png"])
    options = {"only": ("dome",), "flat": True, "distinct": True}
    one = packs.read_pack(packs.pack_folder(tmp_path / "one", tmp_path / "1.npz", 20, **options))
    two = packs.read_pack(packs.pack_folder(tmp_path / "two", tmp_path / "2.npz", 20))
    assert set(one.names) == set(two.names) == set(files)
    assert one.label_names == ("dome",)
    for split in ("train", "test"):  # the same files, the same splits in the same order
        assert one.names[one.order(split)].tolist() == two.names[two.order(split)].tolist()
        assert np.array_equal(one.decode(one.order(split)), two.decode(two.order(split)))
    assert len(two.order("test")) > 0
