"""Data sets that lie unpacked in a folder: which files, in which order, cut how, kept decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentpapers import storage
from latentpapers.data import downloads, imagefiles, packs
from latentpapers.data.downloads import Source
from latentpapers.data.entry import Entry, Info
from latentpapers.errors import Corrupt

if TYPE_CHECKING:
    from PIL.Image import Image

    from latentpapers.data.imageset import ImageSet

_HERE = Path(__file__).parent

Cut = Callable[["Image", int, Path], np.ndarray]


@dataclass(frozen=True)
class Folders:
    """Where the images of each split lie.

    Attributes:
        sources: what `fetch` brings; the first names the folder that is looked for.
        splits: split -> folders below the unpacked one, tried in order.
        classes: class names, each a folder below the split's; empty if the split holds one kind.
        cut: (image, size, file) -> uint8 (3, size, size).
    """

    sources: tuple[Source, ...]
    splits: dict[str, tuple[str, ...]]
    cut: Cut
    classes: tuple[str, ...] = ()


def entry(info: Info, where: Folders) -> Entry:
    """A registry entry for images in folders."""

    def load(info: Info, size: int, split: str, n: int) -> "ImageSet":
        return _load(info, size, split, n, where)

    def files() -> list[Path]:
        found = downloads.present(where.sources[0])
        return [found] if found else []

    return Entry(
        info,
        parts=lambda split, n: [*code(), downloads.mark(root(info.name, where.sources))],
        load=load,
        fetch=lambda dest: downloads.bring(info.name, where.sources, dest),
        files=files,
        verify=lambda: downloads.verify(where.sources, info.name),
    )


def root(name: str, sources: tuple[Source, ...]) -> Path:
    """The unpacked folder of a data set.

    Raises:
        Missing: it is not here; the sentence names the command.
    """
    found = downloads.present(sources[0])
    if found is None:
        raise downloads.absent(name, sources)
    return found


def decoded(
    info: Info, size: int, split: str, mark: str, count: int, whole: int,
    make: Callable[[int], np.ndarray],
) -> np.ndarray:  # fmt: skip
    """`make(count)`; whole splits are kept decoded in the cache folder.

    Raises:
        Corrupt: the split holds fewer images than asked for.
    """
    if count > whole:
        raise Corrupt(
            f"data set {info.name!r} holds {whole:,} {split} images here, not {count:,}; remove "
            f"its folder, then `latentpapers data fetch {info.name}`."
        )
    if count < whole:
        return make(count)
    key = storage.sha256("".join([mark, *code()]).encode())[:16]
    return packs.decoded(f"{info.name}-{split}-{size}-{key}", lambda: make(count))


def bilinear(image: "Image", size: int, file: Path) -> np.ndarray:
    """Pillow's bilinear reduction of a square image, as in StarGAN v2's and LRC's loaders."""
    from PIL import Image

    square = imagefiles.crop(image, (0, 0, size, size), file) if image.width < size else image
    return imagefiles.to_array(square.resize((size, size), Image.Resampling.BILINEAR))


def _load(info: Info, size: int, split: str, n: int, where: Folders) -> "ImageSet":
    from latentpapers.data.imageset import assemble

    base = root(info.name, where.sources)
    files, labels = _files(base, split, where)

    def make(count: int) -> np.ndarray:
        def cut(file: Path) -> np.ndarray:
            return where.cut(imagefiles.open_image(file), size, file)

        return imagefiles.stack(files[:count], count, cut, size)

    pixels = decoded(info, size, split, downloads.mark(base), n, len(files), make)
    known = {"labels": labels[:n], "label_names": where.classes} if where.classes else {}
    return assemble(info, size, split, np.array(pixels), **known)


def _files(base: Path, split: str, where: Folders) -> tuple[list[Path], np.ndarray]:
    """All files of a split, shuffled by a hash of their names, and their classes."""
    tried = [base / name for name in where.splits[split]]
    folder = next((f for f in tried if f.is_dir()), None)
    if folder is None:
        names = " or ".join(where.splits[split])
        raise Corrupt(f"{base} holds no folder {names}; remove it and fetch it again.")
    kinds: Sequence[Any] = where.classes or ("",)
    found = [f for kind in kinds for f in imagefiles.of_folder(folder / kind)]
    files = imagefiles.shuffled(found, folder)
    names = [f.relative_to(folder).parts[0] for f in files]
    labels = [where.classes.index(name) for name in names] if where.classes else [0] * len(files)
    return files, np.array(labels, dtype=np.int64)


def code() -> list[str]:
    """Hashes of the code that decides what these loaders return."""
    names = ("folders.py", "imagefiles.py", "celeba.py", "afhq.py", "lsun.py")
    return [storage.sha256_file(_HERE / name) for name in names]
