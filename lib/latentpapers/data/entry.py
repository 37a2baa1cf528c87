"""What the registry knows of a data set: facts (`Info`), and how to get at its images (`Entry`)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentpapers.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from latentpapers.data.imageset import ImageSet
    from latentpapers.data.superres import PairSet


@dataclass(frozen=True)
class Info:
    """What is known about a data set without loading it.

    Attributes:
        what: one line in words.
        sizes: the sizes `load` accepts, in pixels; empty for whole pictures of different sizes.
        channels: 1 or 3.
        counts: split -> number of images, None if as many as asked for.
        default: split -> number that `n=None` gives.
        needs: what to do before the first use; empty if it works out of the box.
        recipe: commands that make the set's file from public sources; empty if none is needed.
        publishable: False if it shows real people: never in a committed figure or notebook.
        download: bytes to download, 0 if nothing or unknown.
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
    recipe: str = ""
    publishable: bool = True
    download: int = 0

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, train first."""
        return tuple(self.counts)


Loader = Callable[[Info, int, str, int], "ImageSet"]
Files = Callable[[str, int], list[str]]


def _whole_pictures(info: Info, size: int, split: str, n: int) -> "ImageSet":
    raise UserError(
        f"data set {info.name!r} holds whole pictures; use lp.data.pairs or lp.data.pictures."
    )


def _no_files() -> list[Path]:
    return []


@dataclass(frozen=True)
class Entry:
    """A data set: its facts, its loader, and hashes of the files that decide its content.

    Attributes:
        parts: (split, n) -> hashes; reads files, decodes nothing.
        load: (info, size, split, n) -> images.
        remembered: whether equal calls may share one result in memory.
        fetch: brings what `needs` names, into a folder or the cache; returns file or folder.
        files: what is on this machine now: packs, or folders with a record of their source.
        built_in: it needs no file at all.
        pairs: (info, factor, split) -> high and low resolution.
        pictures: (info, split, n) -> whole pictures.
        digest: hash of the decoded pixels in the file that results use, and how many images.
        verify: says line by line what was checked; raises Corrupt or Missing.
    """

    info: Info
    parts: Files
    load: Loader = _whole_pictures
    remembered: bool = False
    fetch: Callable[[Path | None], Path] | None = None
    files: Callable[[], list[Path]] = _no_files
    built_in: bool = False
    pairs: Callable[[Info, int, str], "PairSet"] | None = None
    pictures: Callable[[Info, str, int | None], "list[Tensor]"] | None = None
    digest: Callable[[], tuple[str, int]] | None = None
    verify: Callable[[], list[str]] | None = None


def table(*entries: Entry) -> dict[str, Entry]:
    """Entries by name."""
    return {entry.info.name: entry for entry in entries}


def size_in_words(bytes_: int) -> str:
    """`1.4 GB`, `250 MB`, `size unknown`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes_ >= factor:
            return f"{bytes_ / factor:.3g} {unit}"
    return f"{bytes_} bytes" if bytes_ else "size unknown"
