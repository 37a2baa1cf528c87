"""Packs of images, CIFAR-10's packed file, and the `latentpapers data` command."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from latentpapers import data
from latentpapers.data import cifar10, command, packs
from latentpapers.errors import Corrupt, Missing, UnknownName, UserError


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LATENTPAPERS_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path


def pixels(i, height=20, width=20):
    return np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def album(tmp_path):
    """train/{cat,dog} and val/{cat,dog}, three PNGs each."""
    root = tmp_path / "album"
    for k, place in enumerate(("train/cat", "train/dog", "val/cat", "val/dog")):
        (root / place).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(pixels(10 * k + i)).save(root / place / f"{i}.png")
    (root / "readme.txt").write_text("not an image")
    return root


# --- packs ------------------------------------------------------------------------------------


def test_a_pack_gives_back_every_pixel_with_names_labels_and_splits(album, tmp_path):
    out = packs.pack_folder(album, tmp_path / "p.npz", 20, licence="CC0", source="here")
    pack = packs.read_pack(out)
    assert pack.names.tolist()[:2] == ["train/cat/0.png", "train/cat/1.png"]
    assert pack.label_names == ("cat", "dog")
    assert pack.labels.tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert pack.is_test.tolist() == [False] * 6 + [True] * 6
    assert (pack.licence, pack.source, pack.size, len(pack)) == ("CC0", "here", 20, 12)
    decoded = pack.decode()
    for k in range(4):
        for i in range(3):
            assert np.array_equal(decoded[3 * k + i], pixels(10 * k + i).transpose(2, 0, 1))
    assert not np.array_equal(decoded[0], decoded[1])
    assert np.array_equal(pack.decode([7, 2]), decoded[[7, 2]])


def test_the_same_folder_gives_the_same_bytes_and_another_pixel_another_hash(album, tmp_path):
    first = packs.pack_folder(album, tmp_path / "a.npz", 20)
    assert packs.pack_folder(album, tmp_path / "b.npz", 20).read_bytes() == first.read_bytes()
    before = packs.read_pack(first).sha256
    changed = pixels(0)
    changed[0, 0, 0] ^= 1
    Image.fromarray(changed).save(album / "train/cat/0.png")
    assert packs.read_pack(packs.pack_folder(album, tmp_path / "c.npz", 20)).sha256 != before


def test_packing_cuts_the_centre_square_and_reduces_it(tmp_path):
    folder = tmp_path / "wide"
    folder.mkdir()
    wide = np.zeros((32, 64, 3), dtype=np.uint8)
    wide[:, 16:48] = 200  # exactly the centre square
    Image.fromarray(wide).save(folder / "a.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # stored on its side
    half = np.zeros((16, 16, 3), dtype=np.uint8)
    half[:, :8] = 255
    Image.fromarray(half).save(folder / "b.jpg", exif=turned, quality=100)
    decoded = packs.read_pack(packs.pack_folder(folder, tmp_path / "w.npz", 8)).decode()
    assert (decoded[0] == 200).all()
    upper, lower = decoded[1, :, :3].mean(), decoded[1, :, 5:].mean()
    assert (upper > 250) & (lower < 5)  # upright: the left half of the file is the upper half


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda f: (f / "a.png").write_bytes(b"no image"), UserError, "cannot read .*a.png"),
        (lambda f: Image.fromarray(pixels(0, 9, 30)).save(f / "a.png"), UserError, "only 9 pixels"),
        (lambda f: (f / "a.txt").write_text("x"), Missing, "no image below"),
    ],
)
def test_a_folder_that_cannot_be_packed_leaves_nothing(tmp_path, make, error, words):
    folder = tmp_path / "bad"
    folder.mkdir()
    make(folder)
    with pytest.raises(error, match=words):
        packs.pack_folder(folder, tmp_path / "out" / "x.npz", 16)
    assert not list(tmp_path.glob("out/*"))
    with pytest.raises(Missing, match="no folder"):
        packs.pack_folder(tmp_path / "absent", tmp_path / "x.npz", 16)
    with pytest.raises(UserError, match="8 to 1024"):
        packs.pack_folder(folder, tmp_path / "x.npz", 4)


def test_a_flipped_bit_is_found_or_changes_nothing(album, tmp_path):
    path = packs.pack_folder(album, tmp_path / "p.npz", 20)
    content = path.read_bytes()
    whole = packs.read_pack(path).decode()
    found = 0
    for at in range(50, len(content), len(content) // 40):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        try:
            # dates and padding of the archive hold nothing of ours
            assert np.array_equal(packs.read_pack(path).decode(), whole)
        except Corrupt as error:
            found += "pack the folder or fetch" in str(error)
    assert found >= 30
    path.write_bytes(content)
    assert np.array_equal(packs.read_pack(path).decode(), whole)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_pack_is_found(album, tmp_path, keep):
    path = packs.pack_folder(album, tmp_path / "p.npz", 20)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(Corrupt, match=r"p\.npz is damaged"):
        packs.read_pack(path)


def rewritten(path, **changes):
    """The archive with some arrays replaced and fresh checksums: only our hash can tell."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **(arrays | changes))
    return arrays


def test_a_content_that_does_not_fit_its_hash_or_index_is_found(album, tmp_path):
    path = packs.pack_folder(album, tmp_path / "p.npz", 20)
    arrays = rewritten(path)
    assert len(packs.read_pack(path)) == 12  # rewriting alone changes nothing
    rewritten(path, labels=arrays["labels"][::-1])
    with pytest.raises(Corrupt, match="does not match its hash"):
        packs.read_pack(path)
    np.savez(path, blob=arrays["blob"], offsets=arrays["offsets"][:-1], names=arrays["names"])
    with pytest.raises(Corrupt, match="index"):
        packs.read_pack(path)


def test_a_pack_with_pickled_objects_is_refused(album, tmp_path):
    path = packs.pack_folder(album, tmp_path / "p.npz", 20)
    rewritten(path, names=np.array([object()] * 12, dtype=object))
    with pytest.raises(Corrupt, match="allow_pickle"):
        packs.read_pack(path)


def test_a_pack_without_meta_is_read_and_split_by_name(album, tmp_path):
    path = packs.pack_folder(album, tmp_path / "p.npz", 20)
    arrays = rewritten(path)
    n = 400
    names = np.array([f"image {i}" for i in range(n)])
    one = arrays["blob"][: arrays["offsets"][1]]
    offsets = np.arange(n + 1, dtype=np.int64) * len(one)
    np.savez(path, blob=np.tile(one, n), offsets=offsets, names=names)
    pack = packs.read_pack(path)
    assert (pack.size, pack.labels, pack.label_names) == (20, None, ())
    assert 20 <= int(pack.is_test.sum()) <= 65  # a tenth of 400, four standard errors
    train, test = pack.order("train"), pack.order("test")
    assert sorted([*train, *test]) == list(range(n))
    assert train.tolist() != sorted(train)  # shuffled
    assert np.array_equal(pack.order("train"), train)


def test_a_pack_in_a_data_folder_is_a_data_set(album, folders):
    packs.pack_folder(album, folders / "data" / "pets.npz", 20)
    assert data.names()[-1] == "pets"
    assert data.info("pets").counts == {"train": 6, "test": 6}
    whole = data.load("pets", size=20)
    assert len(whole) == 6
    assert torch.bincount(whole.labels).tolist() == [3, 3]
    assert torch.equal(data.load("pets", size=20, n=2).pixels, whole.pixels[:2])
    small = data.load("pets", size=10, split="test")
    reference = data.resize(data.load("pets", size=20, split="test").pixels, 10)
    assert torch.equal(small.pixels, reference)
    before = data.data_hash("pets", "train", 20)
    Image.fromarray(pixels(99)).save(album / "train/cat/0.png")
    packs.pack_folder(album, folders / "data" / "pets.npz", 20)
    assert data.data_hash("pets", "train", 20) != before
    (folders / "data" / "pets.npz").write_bytes(b"PK broken")
    with pytest.raises(Corrupt, match=r"pets\.npz is damaged"):
        data.load("pets", size=20)
    (folders / "data" / "pets.npz").unlink()
    with pytest.raises(UnknownName, match="pets"):
        data.load("pets", size=20)


# --- decoded cache ----------------------------------------------------------------------------


def test_decoded_pixels_are_kept_once_and_mended_if_damaged(folders):
    calls = []

    def make():
        calls.append(1)
        return np.arange(60, dtype=np.uint8).reshape(5, 3, 2, 2)

    assert np.array_equal(packs.decoded("key", make), packs.decoded("key", make))
    assert len(calls) == 1
    kept = folders / "cache" / "data" / "decoded" / "key.npy"
    assert [f.name for f in kept.parent.iterdir()] == ["key.npy"]
    kept.write_bytes(kept.read_bytes()[:-10])
    assert np.array_equal(packs.decoded("key", make), make())
    assert np.array_equal(np.load(kept), make())


def test_a_cache_that_cannot_be_written_is_done_without(folders):
    (folders / "cache").write_text("a file where the folder should be")
    out = packs.decoded("key", lambda: np.zeros(3, dtype=np.uint8))
    assert out.tolist() == [0, 0, 0]


# --- CIFAR-10 ---------------------------------------------------------------------------------


def cifar_file(path, per_class=4):
    """A file of the same layout: shared JPEG header, one scan an image; 3 of 4 are for training."""
    classes = ["airplane", "automobile", "bird"]
    headers, scans, labels, is_train, originals = set(), [], [], [], []
    for label in range(len(classes)):
        for i in range(per_class):
            buffer = io.BytesIO()
            Image.fromarray(pixels(100 * label + i, 32, 32)).save(buffer, "JPEG", quality=90)
            content = buffer.getvalue()
            start = content.index(b"\xff\xda")
            start += 2 + int.from_bytes(content[start + 2 : start + 4], "big")
            headers.add(content[:start])
            scans.append(content[start:])
            labels.append(label)
            is_train.append(i != 1)
            originals.append(np.asarray(Image.open(buffer)).transpose(2, 0, 1))
    (header,) = headers
    np.savez(
        path,
        scan=np.frombuffer(b"".join(scans), np.uint8),
        offsets=np.cumsum([0, *map(len, scans)]),
        headers=np.frombuffer(header, np.uint8),
        header_offsets=np.array([0, len(header)]),
        header_id=np.zeros(len(scans), np.uint16),
        label=np.array(labels, np.uint8),
        is_train=np.array(is_train),
        classes=np.array(classes),
    )
    return np.stack(originals)


def test_cifar_is_decoded_balanced_and_split(folders):
    originals = cifar_file(folders / "data" / cifar10.FILE)
    train = data.load("cifar10-jpeg", size=32, n=9)
    # of each class images 0, 2, 3 are for training; the classes take turns
    order = [4 * label + i for i in (0, 2, 3) for label in range(3)]
    assert np.array_equal(train.pixels.numpy(), originals[order])
    assert train.labels.tolist() == [0, 1, 2] * 3
    assert train.label_names == ("airplane", "automobile", "bird")
    test = data.load("cifar10-jpeg", size=32, split="test", n=2)
    assert np.array_equal(test.pixels.numpy(), originals[[1, 5]])
    assert torch.equal(data.load("cifar10-jpeg", size=32, n=4).pixels, train.pixels[:4])
    half = data.load("cifar10-jpeg", size=16, n=9)
    assert torch.equal(half.pixels, data.resize(train.pixels, 16))


def test_cifar_s_whole_split_is_decoded_once(folders, monkeypatch):
    cifar_file(folders / "data" / cifar10.FILE)
    first = data.load("cifar10-jpeg", size=32, n=9).pixels
    monkeypatch.setattr(cifar10, "_decode", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(data.load("cifar10-jpeg", size=32, n=9).pixels, first)
    monkeypatch.undo()


def test_absent_and_damaged_cifar_files_are_named(folders):
    with pytest.raises(Missing, match=r"cifar10_jpeg_60k\.npz.*LATENTPAPERS_DATA"):
        data.load("cifar10-jpeg", size=32, n=1)
    with pytest.raises(Missing, match="LATENTPAPERS_DATA"):
        data.data_hash("cifar10-jpeg", "train", 32)
    path = folders / "data" / cifar10.FILE
    cifar_file(path)
    with pytest.raises(Corrupt, match="holds 9 train images, not 50,000"):
        data.load("cifar10-jpeg", size=32)
    before = data.data_hash("cifar10-jpeg", "train", 32)
    whole = path.read_bytes()
    for bad in (whole[: len(whole) // 2], whole[:5000] + b"\0\0\0\0" + whole[5004:], b""):
        path.write_bytes(bad)
        assert data.data_hash("cifar10-jpeg", "train", 32) != before
        with pytest.raises(Corrupt, match=r"cifar10_jpeg_60k\.npz is damaged"):
            data.load("cifar10-jpeg", size=32, n=9)


# --- command ----------------------------------------------------------------------------------


def test_the_command_lists_describes_and_packs(album, folders, capsys):
    out = folders / "data" / "pets.npz"
    assert command.main(["pack", str(album), "--size", "20", "--out", str(out)]) == 0
    assert "12 images, sha256" in capsys.readouterr().out
    assert command.main(["names"]) == 0
    listed = capsys.readouterr().out
    assert "digits" in listed
    assert "pets" in listed
    assert command.main(["info", "pets"]) == 0
    assert "train 6, test 6" in capsys.readouterr().out
    with pytest.raises(UnknownName):
        command.main(["info", "nothing"])
    with pytest.raises(SystemExit):
        command.main(["dance"])


def test_the_command_fetches_through_the_registry(folders, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(data.registry, "fetch", lambda *a: asked.append(a) or folders)
    assert command.main(["fetch", "faces-dcgan", "--dest", str(folders)]) == 0
    assert asked == [("faces-dcgan", folders)]
    assert str(folders) in capsys.readouterr().out


def test_list_show_and_verify_say_what_is_here(album, folders, capsys):
    packs.pack_folder(album, folders / "data" / "pets.npz", 20)
    assert command.main(["list"]) == 0
    state = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "built in" in state["digits"]
    assert "here" in state["pets"]
    assert "fetch, 729 MB" in state["afhq-cat"]
    assert "put by hand" in state["faces-utk"]
    assert command.main(["info", "celeba-hq"]) == 0
    assert "never in public" in capsys.readouterr().out
    sheet = folders / "sheet.png"
    assert command.main(["show", "pets", "-n", "5", "--out", str(sheet)]) == 0
    with Image.open(sheet) as image:
        assert image.size == (5 * 22 - 2, 20)
        first = np.asarray(image)[:, :20].transpose(2, 0, 1)
    assert np.array_equal(first, data.load("pets", size=20, n=1).pixels[0])
    assert command.main(["show", "photos", "--split", "test", "-n", "3", "--out", str(sheet)]) == 0
    capsys.readouterr()
    assert command.main(["verify"]) == 0
    assert "pets.npz: 12 images decode" in capsys.readouterr().out
    assert command.main(["verify", "digits"]) == 0
    damaged = (folders / "data" / "pets.npz").read_bytes()
    (folders / "data" / "pets.npz").write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(Corrupt, match="is damaged"):
        command.main(["verify", "pets"])


def test_pack_takes_a_format_and_a_quality(album, folders, capsys):
    sizes = {}
    for options in (["png"], ["webp"], ["jpeg", "--quality", "30"]):
        out = folders / f"{options[0]}.npz"
        words = ["pack", str(album), "--size", "20", "--out", str(out), "--format", *options]
        assert command.main(words) == 0
        sizes[options[0]] = out.stat().st_size
    assert sizes["jpeg"] < sizes["webp"] < sizes["png"]
    with pytest.raises(UserError, match="unknown format"):
        command.main(["pack", str(album), "--size", "20", "--format", "gif"])
    with pytest.raises(UserError, match="no quality 200"):
        command.main(["pack", str(album), "--size", "20", "--quality", "200"])
