"""LSUN: church_outdoor and bedroom with their official train and val sets, and the objects `train`.

The images lie as WebP or JPEG in an lmdb. The whole image is averaged over areas to a square, its
aspect ratio not kept and nothing cut off, as in LAG's loader. Image i is entry i of the database,
whose keys are hashes: any n is a random sample. SHA-256 as in TensorFlow Datasets.

torchvision's LSUN is not used: it writes a pickle of the keys into the working folder and reads
pickles from there.
"""

import itertools
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentpapers.data import downloads, folders, imagefiles
from latentpapers.data.downloads import Source
from latentpapers.data.entry import Entry, Info, table
from latentpapers.errors import Corrupt

if TYPE_CHECKING:
    from latentpapers.data.imageset import ImageSet

_LICENCE = "no formal licence; research use (the photographs belong to their owners)"
_HOST = "http://dl.yf.io/lsun"
SIZES = (16, 32, 64, 128, 256)


def _source(file: str, size: int, sha256: str, folder: str) -> Source:
    return Source(f"lsun/{Path(file).name}", (f"{_HOST}/{file}",), size, _LICENCE,
                  "www.yf.io/p/lsun", sha256, folder=f"lsun/{folder}")  # fmt: skip


CHURCH = {
    "train": _source(
        "scenes/church_outdoor_train_lmdb.zip", 2_448_463_466,
        "91128ae026840ac0c5982b4445ab5fc4e092d6847cca76793b2b1a0815c2e74a",
        "church_outdoor_train_lmdb",
    ),
    "test": _source(
        "scenes/church_outdoor_val_lmdb.zip", 5_957_308,
        "34635b7547a3e51a15f942a4a4082dd6bc9cca381a953515cb2275c0eed50584",
        "church_outdoor_val_lmdb",
    ),
}  # fmt: skip
BEDROOM = {
    "train": _source(
        "scenes/bedroom_train_lmdb.zip", 45_922_737_680,
        "a15644c2e7153106867f0adb3491fc41224102d1f01b24494fb47d9f5d1f174e", "bedroom_train_lmdb",
    ),
    "test": _source(
        "scenes/bedroom_val_lmdb.zip", 4_670_661,
        "5d022e781b241c25ec2e1f1f769afcdb8091d7fd58362667aec03137b8114b12", "bedroom_val_lmdb",
    ),
}  # fmt: skip
TRAINS = {
    "train": _source(
        "objects/train.zip", 45_875_163_738,
        "da0d4a4c5dbccca62f7f813658c9987b1136fb64e4b733dddafd59b116ca6ec1", "train_lmdb",
    ),
}  # fmt: skip


def _entry(
    name: str, what: str, sources: dict[str, Source], counts: dict[str, int | None], most: int
) -> Entry:
    everything = tuple(sources.values())
    default = {split: min(count or most, most) for split, count in counts.items()}
    info = Info(
        name=name,
        what=what,
        sizes=SIZES,
        channels=3,
        counts=counts,
        default=default,
        licence=_LICENCE,
        source="LSUN (Yu et al. 2015)",
        needs=f"`latentpapers data fetch {name}`",
        download=sum(source.size for source in everything),
    )

    def load(info: Info, size: int, split: str, n: int) -> "ImageSet":
        return _load(info, size, split, n, sources[split])

    def parts(split: str, n: int) -> list[str]:
        base = folders.root(name, (sources[split],))
        return [*folders.code(), downloads.mark(base)]

    return Entry(
        info,
        parts=parts,
        load=load,
        fetch=lambda dest: downloads.bring(name, everything, dest),
        files=lambda: [p for p in map(downloads.present, everything) if p],
        verify=lambda: downloads.verify(everything, name),
    )


def _load(info: Info, size: int, split: str, n: int, source: Source) -> "ImageSet":
    from latentpapers.data.imageset import assemble

    base = folders.root(info.name, (source,))
    with _database(base) as (view, whole):

        def cut(key_and_value: tuple[bytes, bytes]) -> np.ndarray:
            return imagefiles.area(imagefiles.read(bytes(key_and_value[1])), size, size)

        def make(count: int) -> np.ndarray:
            values = itertools.islice(view.cursor(), count)
            return imagefiles.stack(values, count, cut, size)

        mark = downloads.mark(base)
        pixels = folders.decoded(info, size, split, mark, n, whole, make)
    return assemble(info, size, split, np.array(pixels))


@contextmanager
def _database(folder: Path) -> Iterator[tuple[Any, int]]:
    """A read transaction and the number of entries.

    Raises:
        Corrupt: no lmdb, or a damaged one.
    """
    import lmdb

    try:
        _whole(folder)
    except ValueError as error:
        raise _broken(folder, error) from error
    try:
        flags = {"readonly": True, "lock": False, "readahead": False, "max_readers": 1}
        with lmdb.open(str(folder), create=False, **flags) as database, database.begin() as view:
            yield view, view.stat()["entries"]
    except lmdb.Error as error:
        raise _broken(folder, error) from error


def _broken(folder: Path, why: Exception) -> Corrupt:
    return Corrupt(f"{folder} is no whole lmdb ({why}); remove the folder and fetch it again.")


def _whole(folder: Path) -> None:
    """Compares the file's length with the last page that its own header names.

    lmdb maps the file: reading a page behind its end would kill the process, not raise.

    Raises:
        ValueError: no lmdb, or one that ends early.
    """
    path = folder / "data.mdb"
    content = path.open("rb").read(2 * _LARGEST_PAGE) if path.is_file() else b""
    found = [_meta(content, at) for at in (0, _page_size(content))]
    last, size = max(found)[1], _page_size(content)
    held = path.stat().st_size
    # the last pages may have been allocated and given up again without ever being written
    if held < max(2, last + 1 - _UNWRITTEN) * size:
        raise ValueError(f"data.mdb ends after {held:,} of {(last + 1) * size:,} bytes")


_MAGIC, _LARGEST_PAGE, _UNWRITTEN = 0xBEEFC0DE, 2**16, 16


def _page_size(content: bytes) -> int:
    """Bytes a page, from the first of the two meta pages (offsets of lmdb 0.9, 64 bit)."""
    if len(content) < 152 or struct.unpack_from("<I", content, 16)[0] != _MAGIC:
        raise ValueError("data.mdb has no header")
    return struct.unpack_from("<I", content, 40)[0]


def _meta(content: bytes, at: int) -> tuple[int, int]:
    """(transaction, last page) of a meta page; the later transaction is the one in force."""
    if len(content) < at + 152:
        raise ValueError("data.mdb has no second header")
    last, transaction = struct.unpack_from("<QQ", content, at + 136)
    return transaction, last


ENTRIES = table(
    _entry(
        "lsun-church", "LSUN church_outdoor, whole images made square", CHURCH,
        {"train": 126_227, "test": 300}, 126_227,
    ),
    _entry(
        "lsun-bedroom", "LSUN bedroom, whole images made square", BEDROOM,
        {"train": 3_033_042, "test": 300}, 100_000,
    ),
    _entry("lsun-train", "LSUN trains (objects), whole images made square", TRAINS,
           {"train": None}, 100_000),
)  # fmt: skip
