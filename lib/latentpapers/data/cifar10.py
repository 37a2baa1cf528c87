"""`cifar10`: the packed file `cifar10_jpeg_60k.npz` from a data folder, decoded once.

All images of the file share one JPEG header: an image is header + scan. The pixels are those of
JPEG copies, not CIFAR-10's original ones, so the set is a stand-in named `cifar10-jpeg` in
results. The classes take turns: the first n images are balanced for any n.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentpapers import paths, storage
from latentpapers.data import packs
from latentpapers.data.digits import rank_in_class
from latentpapers.errors import Missing

if TYPE_CHECKING:
    from latentpapers.data.imageset import ImageSet
    from latentpapers.data.registry import Info

FILE = "cifar10_jpeg_60k.npz"
_REMEDY = "put a whole copy of it there"


def file() -> Path:
    """The packed file, from the first data folder that has it.

    Raises:
        Missing: no folder has it.
    """
    for folder in paths.data_dirs():
        if (folder / FILE).is_file():
            return folder / FILE
    raise Missing(
        f"data set 'cifar10' needs the file {FILE}, which is in no data folder; set "
        "LATENTPAPERS_DATA to the folder that holds it."
    )


def load(info: "Info", size: int, split: str, n: int) -> "ImageSet":
    """The first `n` images of a split; whole splits are kept decoded in the cache folder."""
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
    return packs.decoded(f"cifar10-{split}-{storage.sha256_file(path)[:12]}", make)


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
