"""Downloadable sets from small archives of the official layouts: fetch, crop, split, labels."""

import hashlib
import pickle
import shutil
from itertools import count
from pathlib import Path

import data_bed as bed
import numpy as np
import pytest
import torch
from PIL import Image

from latentpapers import data, transfer
from latentpapers.data import afhq, celeba, cifar10, lsun, named_packs
from latentpapers.errors import Corrupt, Missing, UserError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LATENTPAPERS_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(transfer, "_WAIT", 0.0)
    return tmp_path / "cache" / "data"


@pytest.fixture
def shop():
    opened = bed.Shop()
    yield opened
    opened.close()


def chw(array):
    return np.ascontiguousarray(array.transpose(2, 0, 1))


# --- AFHQ, CelebA-HQ --------------------------------------------------------------------------


def animals(evaluation="val", top="afhq/", side=24):
    """train/{cat,dog,wild} of 6 images, `evaluation` of 2; noise, so that JPEG stays JPEG."""
    numbers = count()
    files = {}
    for split, n in (("train", 6), (evaluation, 2)):
        for kind in ("cat", "dog", "wild"):
            for i in range(n):
                content = bed.encoded(bed.pixels(next(numbers), side, side))
                files[f"{top}{split}/{kind}/flickr_{kind}_{i:06d}.png"] = content
    return files


@pytest.mark.parametrize(
    ("name", "source", "evaluation", "top"),
    [
        ("afhq-cat", afhq.V1, "val", "afhq/"),
        ("afhq-wild", afhq.V1, "val", "afhq/"),
        ("afhq-v2-dog", afhq.V2, "test", ""),
    ],
)
def test_afhq_is_fetched_split_and_reduced(shop, name, source, evaluation, top):
    files = animals(evaluation, top)
    shop.offer(source, bed.zipped(files))
    with pytest.raises(Missing, match=f"`latentpapers data fetch {name}`"):
        data.load(name, size=16, n=1)
    data.fetch(name)
    kind = name.split("-")[-1]
    train = data.load(name, size=16, n=6)
    test = data.load(name, size=16, split="test", n=2)
    assert torch.equal(data.load(name, size=16, n=2).pixels, train.pixels[:2])
    for found, split in ((train, "train"), (test, evaluation)):
        expected = {
            chw(np.asarray(_opened(content).resize((16, 16), Image.Resampling.BILINEAR))).tobytes()
            for path, content in files.items()
            if path.startswith(f"{top}{split}/{kind}/")
        }
        assert {image.numpy().tobytes() for image in found.pixels} == expected
    assert data.info(name).publishable
    assert data.verify(name)[0].endswith("(published)")
    with pytest.raises(Corrupt, match="holds 6 train images here, not"):
        data.load(name, size=16)  # the official number
    with pytest.raises(UserError, match="too few for the crop"):
        data.load(name, size=32, n=1)  # a 24 px image is never enlarged


def _opened(content):
    import io

    return Image.open(io.BytesIO(content)).convert("RGB")


def test_a_set_is_decoded_once_and_its_hash_follows_the_source(shop, home, monkeypatch):
    shop.offer(afhq.V1, bed.zipped(animals()))
    data.fetch("afhq-cat")
    monkeypatch.setitem(data.info("afhq-cat").counts, "train", 6)
    first = data.load("afhq-cat", size=16, n=6)
    monkeypatch.setattr("latentpapers.data.imagefiles.open_image", lambda _: pytest.fail("again"))
    assert torch.equal(data.load("afhq-cat", size=16, n=6).pixels, first.pixels)
    monkeypatch.undo()
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(home.parent))
    before = data.data_hash("afhq-cat", "train", 16, 6)
    assert data.data_hash("afhq-cat", "train", 16, 6) == before
    other = animals()
    other["afhq/train/cat/flickr_cat_000000.png"] = bed.encoded(bed.pixels(999, 24, 24))
    shutil.rmtree(home / "afhq")
    shop.offer(afhq.V1, bed.zipped(other))
    data.fetch("afhq-cat")
    assert data.data_hash("afhq-cat", "train", 16, 6) != before
    assert data.load("afhq-cat", size=16, n=6).fingerprint != first.fingerprint


def test_a_wrong_or_cut_archive_leaves_no_data_set(shop, home):
    whole = bed.zipped(animals())
    shop.offer(afhq.V1, whole)
    shop.served.put("afhq.zip", whole[:-1] + b"\1")
    with pytest.raises(Missing, match="not the published file"):
        data.fetch("afhq-cat")
    for bad in (whole[: len(whole) // 2], b"<html>quota</html>"):
        shop.offer(afhq.V2, bad, known=False)
        with pytest.raises((Missing, Corrupt)):
            data.fetch("afhq-v2-cat")
    assert [f for f in home.rglob("*") if f.is_file() and ".part" not in f.name] == []
    assert not data.files("afhq-cat")
    assert not data.files("afhq-v2-cat")


def test_celeba_hq_has_two_classes_and_its_validation_set_is_test(shop):
    files = {
        f"celeba_hq/{split}/{kind}/{i:06d}.png": bed.encoded(bed.pixels(10 * a + i, 32, 32))
        for a, (split, kind) in enumerate(
            [("train", "female"), ("train", "male"), ("val", "female"), ("val", "male")]
        )
        for i in range(3)
    }
    shop.offer(celeba.HQ, bed.zipped(files))
    data.fetch("celeba-hq")
    train = data.load("celeba-hq", size=32, n=6)
    assert train.label_names == ("female", "male")
    images = {chw(bed.pixels(10 * a + i, 32, 32)).tobytes(): a for a in (0, 1) for i in range(3)}
    assert [images[p.numpy().tobytes()] for p in train.pixels] == train.labels.tolist()
    assert set(train.labels.tolist()) == {0, 1}
    assert len(data.load("celeba-hq", size=32, split="test", n=6)) == 6
    assert not data.info("celeba-hq").publishable


# --- CelebA -----------------------------------------------------------------------------------

NAMES = [f"{i:06d}.jpg" for i in range(1, 9)]
PARTITION = [0, 0, 0, 0, 1, 1, 2, 2]
ATTRIBUTES = np.where(np.random.default_rng(0).random((8, 40)) < 0.5, 1, -1)


def lists():
    """The five lists in the layout of the official files."""
    rows = {
        "list_attr_celeba.txt": ["8", " ".join(f"Attribute_{k}" for k in range(40)) + " "]
        + [f"{n} " + " ".join(f"{v:2d}" for v in row) for n, row in zip(NAMES, ATTRIBUTES)],
        "list_eval_partition.txt": [f"{n} {p}" for n, p in zip(NAMES, PARTITION)],
        "identity_CelebA.txt": [f"{n} {i}" for i, n in enumerate(NAMES)],
        "list_bbox_celeba.txt": ["8", "image_id x_1 y_1 width height"]
        + [f"{n}    95  71 226 313" for n in NAMES],
        "list_landmarks_align_celeba.txt": ["8", "lefteye_x lefteye_y righteye_x righteye_y"]
        + [f"{n} " + "69 109 106 113 77 142 73 152 108 154" for n in NAMES],
    }
    return {name: ("\n".join(lines) + "\n").encode() for name, lines in rows.items()}


def portrait(i):
    return bed.smooth(i, 218, 178)


@pytest.fixture
def faces(shop, monkeypatch):
    """CelebA with 8 images behind gdown, and torchvision told their MD5."""
    import gdown
    from torchvision.datasets import CelebA

    images = {f"img_align_celeba/{n}": bed.encoded(portrait(i), "PNG") for i, n in enumerate(NAMES)}
    offered = {"img_align_celeba.zip": bed.zipped(images), **lists()}
    by_id = {}
    for source in celeba.SOURCES:
        name = source.file.removeprefix("celeba/")
        by_id[source.urls[0].removeprefix("gdrive:")] = offered[name]
        shop.undo.append(
            bed.change(
                source, size=len(offered[name]), md5="",
                sha256=hashlib.sha256(offered[name]).hexdigest(),
            )
        )  # fmt: skip

    def download(id, output, quiet, resume):
        Path(output).write_bytes(by_id[id])
        return output

    monkeypatch.setattr(gdown, "download", download)
    known = [("", hashlib.md5(content).hexdigest(), n) for n, content in offered.items()]
    monkeypatch.setattr(CelebA, "file_list", known)


def test_the_md5_of_our_lists_are_torchvision_s():
    from torchvision.datasets import CelebA

    published = {name: (drive, md5) for drive, md5, name in CelebA.file_list}
    ours = {
        source.file.removeprefix("celeba/"): (source.urls[0].removeprefix("gdrive:"), source.md5)
        for source in celeba.SOURCES
    }
    assert ours == published


@pytest.mark.parametrize(
    ("name", "top", "left", "side", "splits"),
    [
        ("celeba", 50, 25, 128, {"train": [0, 1, 2, 3], "valid": [4, 5], "test": [6, 7]}),
        ("celeba-pgan", 57, 25, 128, {"train": [0, 1, 2, 3], "valid": [4, 5], "test": [6, 7]}),
        ("celeba-lag", 30, 10, 158, {"train": [0, 1, 2, 3, 4, 5], "test": [6, 7]}),
    ],
)
def test_celeba_s_crops_partitions_and_attributes(faces, name, top, left, side, splits):
    with pytest.raises(Missing, match=r"img_align_celeba\.zip .*latentpapers data fetch"):
        data.load(name, size=64, n=1)
    data.fetch(name)
    for split, members in splits.items():
        found = data.load(name, size=128, split=split, n=len(members))
        assert found.attribute_names == tuple(f"Attribute_{k}" for k in range(40))
        assert np.array_equal(found.attributes.numpy(), ATTRIBUTES[members] > 0)
        for pixels, i in zip(found.pixels, members):
            cut = chw(portrait(i)[top : top + side, left : left + side])
            expected = cut if side == 128 else _area(cut, 128)
            assert np.array_equal(pixels.numpy(), expected)
    whole = data.load(name, size=128, n=1).pixels[0].numpy()
    half = data.load(name, size=64, n=1).pixels[0].numpy()
    if name == "celeba":
        assert np.array_equal(half, whole[:, ::2, ::2])  # nearest, as BEGAN-tensorflow does
    else:
        cut = chw(portrait(0)[top : top + side, left : left + side])
        assert np.array_equal(half, _area(cut, 64))
    assert not data.info(name).publishable
    assert len(data.verify(name)) == 6
    with pytest.raises(Corrupt, match="holds"):
        data.load(name, size=64)


def _area(pixels, size):
    """Mean over areas, (3, H, H) -> (3, size, size): every pixel cut into `size` slices an axis."""
    length = pixels.shape[1]
    share = np.repeat(np.eye(length), size, 1).reshape(length, size, length).mean(2)
    return np.rint((share.T @ pixels.astype(np.float64) @ share).round(9)).astype(np.uint8)


def test_a_celeba_image_of_another_size_and_an_altered_list_are_refused(faces, home):
    data.fetch("celeba")
    folder = home / "celeba"
    Image.fromarray(bed.pixels(0, 64, 64)).save(folder / "img_align_celeba" / NAMES[0])
    with pytest.raises(UserError, match=r"000001\.jpg has 64 x 64 pixels, too few for the crop"):
        data.load("celeba", size=64, n=1)
    altered = folder / "list_attr_celeba.txt"
    altered.write_text(altered.read_text().replace("-1", " 1", 1))
    with pytest.raises(Corrupt, match="not the published ones"):
        data.load("celeba", size=64, n=1)
    with pytest.raises(Corrupt, match="img_align_celeba holds 8 files"):
        data.verify("celeba")


# --- LSUN -------------------------------------------------------------------------------------


def database(tmp_path, images):
    """An lmdb of WebP images under hash-like keys, as LSUN's; the bytes of its files."""
    import lmdb

    folder = tmp_path / "lmdb"
    folder.mkdir()
    with lmdb.open(str(folder), map_size=2**24) as env, env.begin(write=True) as transaction:
        for i, array in enumerate(images):
            key = hashlib.sha1(str(i).encode()).hexdigest().encode()
            transaction.put(key, bed.encoded(array, "WEBP", lossless=True))
    found = {f.name: f.read_bytes() for f in folder.iterdir()}
    shutil.rmtree(folder)
    return found


def scenes(tmp_path, n, seed=0):
    return [bed.smooth(seed + i, 256, 300 + 10 * i) for i in range(n)]


def in_order(images):
    """As the database sorts its keys."""
    keys = [hashlib.sha1(str(i).encode()).hexdigest() for i in range(len(images))]
    return [images[i] for i in np.argsort(keys)]


def test_lsun_is_read_from_lmdb_and_made_square_by_areas(shop, tmp_path):
    train, val = scenes(tmp_path, 5), scenes(tmp_path, 2, seed=50)
    for split, images in (("train", train), ("test", val)):
        files = database(tmp_path, images)
        top = {f"church_outdoor_{split}_lmdb/{n}": content for n, content in files.items()}
        shop.offer(lsun.CHURCH[split], bed.zipped(top))
    with pytest.raises(Missing, match=r"church_outdoor_train_lmdb\.zip"):
        data.load("lsun-church", size=32, n=1)
    data.fetch("lsun-church")
    for split, images in (("train", train), ("test", val)):
        found = data.load("lsun-church", size=32, split=split, n=len(images))
        expected = [_reduced(image, 32) for image in in_order(images)]
        assert np.array_equal(found.pixels.numpy(), np.stack(expected))
    few = data.load("lsun-church", size=32, n=2)
    whole = data.load("lsun-church", size=32, n=5)
    assert torch.equal(few.pixels, whole.pixels[:2])
    with pytest.raises(Corrupt, match="holds 5 train images here, not 6"):
        data.load("lsun-church", size=32, n=6)


def _reduced(image, size):
    """Area average by integrating each axis exactly (cumulative sums in float64)."""
    out = chw(image).astype(np.float64)
    for axis in (1, 2):
        length = out.shape[axis]
        total = np.concatenate([np.zeros_like(out.take([0], axis)), out.cumsum(axis)], axis)
        edges = np.arange(size + 1) * (length / size)
        low = np.minimum(edges.astype(int), length)
        high = np.minimum(low + 1, length)
        part = np.expand_dims(edges - low, [0, 2] if axis == 1 else [0, 1])
        at = total.take(low, axis) * (1 - part) + total.take(high, axis) * part
        out = np.diff(at, axis=axis) / (length / size)
    return np.rint(out.round(9)).astype(np.uint8)


def test_a_cut_lmdb_is_refused_before_it_can_kill_the_process(shop, tmp_path, home):
    files = database(tmp_path, scenes(tmp_path, 4))
    shop.offer(lsun.TRAINS["train"], bed.zipped({f"train/{n}": c for n, c in files.items()}))
    data.fetch("lsun-train")
    assert len(data.load("lsun-train", size=16, n=4)) == 4
    path = home / "lsun" / "train_lmdb" / "data.mdb"
    whole = path.read_bytes()
    for keep in (len(whole) // 2, 5000, 0):
        path.write_bytes(whole[:keep])
        with pytest.raises(Corrupt, match="no whole lmdb"):
            data.load("lsun-train", size=16, n=4)


# --- CIFAR-10 ---------------------------------------------------------------------------------


def batches(payload=None):
    """data_batch_1..5 of 6 images, test_batch of 4, batches.meta, as Python pickled them."""
    rng = np.random.default_rng(1)
    files, stored = {}, {}
    for name, n in [*((f"data_batch_{k}", 6) for k in range(1, 6)), ("test_batch", 4)]:
        pixels = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        labels = [int(v) for v in rng.permutation(n) % 3]
        stored[name] = (pixels, labels)
        value = {"batch_label": name, "labels": labels, "data": pixels, "filenames": ["x"] * n}
        files[name] = pickle.dumps(payload or value, protocol=2)
    meta = {"label_names": ["airplane", "automobile", "bird"], "num_vis": 3072}
    files["batches.meta"] = pickle.dumps(meta, protocol=2)
    return files, stored


def tell_torchvision(monkeypatch, files):
    from torchvision.datasets import CIFAR10

    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    train = [[f"data_batch_{k}", md5[f"data_batch_{k}"]] for k in range(1, 6)]
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})


def archive(files):
    return bed.tarred({f"cifar-10-batches-py/{n}": c for n, c in files.items()}, "w:gz")


def test_the_official_cifar_10_is_read_balanced_and_without_torchvision_s_unpickling(
    shop, monkeypatch
):
    from torchvision.datasets import CIFAR10

    assert CIFAR10.tgz_md5 == cifar10.SOURCE.md5  # before it is replaced below
    files, stored = batches()
    shop.offer(cifar10.SOURCE, archive(files))
    tell_torchvision(monkeypatch, files)
    with pytest.raises(Missing, match=r"cifar-10-python\.tar\.gz \(170|cifar-10-python"):
        data.load("cifar10", size=32, n=1)
    data.fetch("cifar10")
    train = data.load("cifar10", size=32, n=30)
    everything = [stored[f"data_batch_{k}"] for k in range(1, 6)]
    pixels = np.concatenate([p for p, _ in everything]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([v for _, v in everything])
    by_class = {k: pixels[labels == k] for k in range(3)}
    assert train.labels[:6].tolist() == [0, 1, 2, 0, 1, 2]
    for i in range(30):
        k = int(train.labels[i])
        rank = int((train.labels[:i] == k).sum())
        assert np.array_equal(train.pixels[i].numpy(), by_class[k][rank])
    assert train.label_names == ("airplane", "automobile", "bird")
    test = data.load("cifar10", size=32, split="test", n=4)
    assert np.array_equal(np.sort(test.labels), np.sort(stored["test_batch"][1]))
    with pytest.raises(Corrupt, match="holds 30 train images, not 50,000"):
        data.load("cifar10", size=32)


class Payload:
    """What unpickling would run: it would create the file."""

    path = ""

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_with_a_payload_is_refused_even_under_the_right_md5(shop, monkeypatch, tmp_path):
    Payload.path = str(tmp_path / "owned")
    files, _ = batches(payload={"data": Payload(), "labels": [0]})
    shop.offer(cifar10.SOURCE, archive(files))
    data.fetch("cifar10")
    with pytest.raises(Corrupt, match="another MD5"):
        data.load("cifar10", size=32, n=1)
    tell_torchvision(monkeypatch, files)
    with pytest.raises(Corrupt, match=r"it asks for .*open, which is refused"):
        data.load("cifar10", size=32, n=1)
    assert not (tmp_path / "owned").exists()
    pickle.loads(files["data_batch_1"])["data"].close()  # the control: it does run elsewhere
    assert (tmp_path / "owned").exists()


def test_without_the_official_files_the_stand_in_is_named_not_taken(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / cifar10.FILE).write_bytes(b"")
    with pytest.raises(Missing, match=r"'cifar10-jpeg', a stand-in"):
        data.load("cifar10", size=32, n=1)


# --- packs under short names ------------------------------------------------------------------


def test_cats_are_made_by_their_recipe(shop, home, tmp_path):
    files = {
        f"afhq/train/cat/flickr_cat_{i:06d}.jpg": bed.encoded(bed.smooth(i, 140, 140), "JPEG")
        for i in range(40)
    }
    shop.offer(afhq.V1, bed.zipped(files))
    recipe = data.info("cats").recipe
    assert recipe.startswith("latentpapers data fetch afhq-cat && latentpapers data pack ")
    with pytest.raises(Missing) as error:
        data.load("cats", size=64, n=1)
    assert recipe in str(error.value)
    path = data.fetch("cats")
    assert path == home / "cats.npz"
    assert data.fetch("cats") == path
    train = data.load("cats", size=128, n=30)
    assert train.pixels.shape == (30, 3, 128, 128)
    assert data.files("cats") == [path]
    assert "differ from the committed" in data.verify("cats")[0]
    # the published first name is found just the same, and is no name of its own
    path.rename(home / "cats_afhq5153_128.npz")
    assert data.load("cats", size=128, n=30).fingerprint == train.fingerprint
    assert "cats_afhq5153_128" not in data.names()


def test_churches_take_four_classes_and_faces_are_never_published(shop, home):
    files = {"repo-34f82a3/README.md": b"about"}
    for k, kind in enumerate((*named_packs._CHURCH_PARTS, "altar")):
        for i in range(12):
            content = bed.encoded(bed.smooth(20 * k + i, 70, 70), "PNG")
            files[f"repo-34f82a3/dataset/{'train' if i % 2 else 'test'}/{kind}/{k}_{i}.png"] = (
                content
            )
    shop.offer(named_packs.AHE, bed.zipped(files), known=False)
    data.fetch("churches")
    train = data.load("churches", size=32, n=30)
    assert set(train.label_names) == set(named_packs._CHURCH_PARTS)
    with pytest.raises(UserError, match="by hand"):
        data.fetch("faces-utk")
    with pytest.raises(Missing, match=r"faces_utk12k_128\.npz"):
        data.load("faces-utk", size=64, n=1)
    assert not data.info("faces-utk").publishable
    with pytest.raises(UserError, match="whole pictures"):
        data.load("ahe", size=64, n=1)


# --- what a run's fingerprint sees ------------------------------------------------------------


def test_the_plan_hashes_the_packs_tars_and_folders_that_a_job_names(shop, tmp_path, monkeypatch):
    from types import SimpleNamespace

    from latentpapers.runner import plan

    source = tmp_path / "notebook.ipynb"
    source.write_text('{"source": ["lp.data.load(\\"afhq-cat\\")", "lp.data.pairs(\\"set5\\")"]}')
    job = SimpleNamespace(paper="nobody", source=source, overrides="")
    assert plan.data_packs(job) == {}
    shop.offer(afhq.V1, bed.zipped(animals()))
    folder = data.fetch("afhq-cat") / "afhq"
    tar = tmp_path / "data" / "sr_test_set5_set14_bsd100_x4.tar"
    tar.parent.mkdir()
    tar.write_bytes(bed.tarred({"Set5/HR/1.webp": bytes(3 * 2**20)}))
    assert plan.data_packs(job) == {"afhq": folder, tar.name: tar}
    before = plan.data_hashes(job)
    assert plan.data_hashes(job) == before
    assert set(before) == {"data afhq", f"data {tar.name}"}
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 1  # neither in the first MiB nor in the last
    tar.write_bytes(content)
    (folder / ".source.json").write_text("{}")
    after = plan.data_hashes(job)
    assert all(before[key] != after[key] for key in before)
