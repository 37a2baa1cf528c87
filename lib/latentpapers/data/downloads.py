"""Files of data sets: fetched or put there by hand, checked, unpacked, verified later.

The transfer itself is `latentpapers.transfer`. Where no published hash is known, the first
download is trusted, its SHA-256 written beside it (`NAME.sha256`), and every later use checked
against that record.
"""

import contextlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentpapers import archives, paths, storage, transfer
from latentpapers.data.entry import size_in_words
from latentpapers.errors import Corrupt, Missing, StorageFull

RECORD = ".source.json"
"""In every unpacked folder: archive, its SHA-256, how that was known, number and bytes of files."""
_SLACK = 64 * 2**20  # bytes that a file may have beyond twice the stated size


@dataclass(frozen=True)
class Source:
    """A file of a data set: where it comes from, what it must be, where its content goes.

    Attributes:
        file: its name in the data folder, possibly in a folder (`celeba/list_attr_celeba.txt`).
        urls: official address first, then mirrors; `gdrive:ID` goes through gdown.
        size: bytes, exact or approximate.
        page: where a person finds it.
        sha256, md5: as published; if both are empty the first download is trusted and recorded.
        folder: where it is unpacked, below the data folder; empty for a plain file.
    """

    file: str
    urls: tuple[str, ...]
    size: int
    licence: str
    page: str
    sha256: str = ""
    md5: str = ""
    folder: str = ""

    @property
    def known_hash(self) -> str | None:
        """The published hash as `transfer.fetch` takes it, the strongest one."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}" if self.md5 else None


def default_folder() -> Path:
    """Where downloads go if nothing else is said: the data folder of the cache."""
    return paths.cache() / "data"


def find(relative: str) -> Path | None:
    """A file or folder below the data folders, or None."""
    found = (folder / relative for folder in paths.data_dirs())
    return next((path for path in found if path.exists()), None)


def present(source: Source) -> Path | None:
    """The file, or the folder it was unpacked into, if it is here."""
    return find(source.folder or source.file)


def absent(name: str, sources: tuple[Source, ...], folder: Path | None = None) -> Missing:
    """The one sentence for a data set whose files are not here."""
    lacking = [s for s in sources if present(s) is None] or list(sources)
    files = ", ".join(f"{Path(s.file).name} ({size_in_words(s.size)})" for s in lacking)
    place = folder or default_folder()
    return Missing(
        f"data set {name!r} needs {files}, licence: {lacking[0].licence}; "
        f"`latentpapers data fetch {name}` brings it, or put it by hand into "
        f"{place / Path(lacking[0].file).parent} (from {lacking[0].page}) and run that command."
    )


def bring(name: str, sources: tuple[Source, ...], dest: Path | None = None) -> Path:
    """Fetches and unpacks what is not here yet; says licence and size before the first byte.

    An archive that lies in a data folder already (put there by hand) is checked and used, and
    stays; one that was downloaded is removed once it is unpacked.

    Args:
        name: the data set, for messages.
        dest: the data folder to write to; the cache's if None.

    Returns:
        The data folder.

    Raises:
        Missing: no source answers; the sentence says how to do it by hand.
        Corrupt: a file is not the published one.
    """
    folder = Path(dest) if dest else _home(sources)
    for source in sources:
        if (folder / (source.folder or source.file)).exists():
            continue
        by_hand = find(source.file)
        path = by_hand or fetch(name, source, folder)
        how = check(source, path)
        if source.folder:
            _unpack(source, path, folder / source.folder, how)
            if by_hand is None:
                path.unlink()
        elif by_hand:  # in another data folder; the parts of a set stay together
            storage.write_bytes(folder / source.file, path.read_bytes())
    return folder


def _home(sources: tuple[Source, ...]) -> Path:
    """The data folder that holds a part of the set already, else the cache's."""
    for source in sources:
        relative = source.folder or source.file
        for folder in paths.data_dirs():
            if (folder / relative).exists():
                return folder
    return default_folder()


def fetch(name: str, source: Source, folder: Path) -> Path:
    """Downloads one file, from its first source that answers with the right content.

    Raises:
        Missing: no source gives the published file; a partial one stays for the next call.
        StorageFull: no room.
    """
    path = folder / source.file
    path.parent.mkdir(parents=True, exist_ok=True)
    _say(f"{name}: {path.name}, {size_in_words(source.size)}; licence: {source.licence}")
    _room(source, path)
    remedy = str(absent(name, (source,), folder)).rstrip(".")
    options = {"accept": _accept(source), "remedy": remedy}
    most = 2 * source.size + _SLACK
    try:
        return transfer.fetch(source.urls, path, source.known_hash, most, **options)
    except Corrupt as error:  # another file everywhere: the data set is as absent as before
        raise Missing(str(error)) from error


def _accept(source: Source) -> Callable[[Path], None]:
    def accept(path: Path) -> None:
        if source.folder and not archives.is_archive(path):
            raise Corrupt("what came is no archive (a page of the server?)")

    return accept


def check(source: Source, path: Path) -> str:
    """Compares a file with its published or recorded hash.

    Returns:
        "published" or "first use": how the right hash is known.

    Raises:
        Corrupt: another content.
    """
    record = path.with_name(f"{path.name}.sha256")
    if source.known_hash is None:
        digest = storage.sha256_file(path)
        if not record.is_file():
            _say(f"{path.name}: no published hash; trusting this copy, sha256 {digest} recorded")
            with contextlib.suppress(StorageFull):  # a folder that can only be read
                storage.write_text(record, f"{digest}  {path.name}\n")
        elif record.read_text().split()[:1] != [digest]:
            raise Corrupt(f"{path} is not the file that {record.name} records; remove both.")
        return "first use"
    if not transfer.matches(path, source.known_hash):
        other, remedy = transfer.another(source.known_hash), "remove it and fetch it again"
        raise Corrupt(f"{path} is not the published file ({other}); {remedy}.")
    return "published"


def verify(sources: tuple[Source, ...], name: str) -> list[str]:
    """Lines that say what was checked of each file or unpacked folder.

    Raises:
        Missing: something is not here.
        Corrupt: a file differs from its hash, or a folder from its record.
    """
    lines = []
    for source in sources:
        path = present(source)
        if path is None:
            raise absent(name, (source,))
        if not source.folder:
            lines.append(f"{path.name}: {check(source, path)} hash holds")
        elif (path / RECORD).is_file():
            lines.append(_verify_folder(path))
        else:
            lines.append(f"{path.name}: unpacked by hand, no record to compare with")
    return lines


def mark(folder: Path) -> str:
    """A hash that changes when an unpacked folder's source does, or its files' names and sizes."""
    record = folder / RECORD
    if record.is_file():
        return storage.sha256_file(record)
    return storage.sha256(storage.dumps(_listing(folder)).encode())


def _unpack(source: Source, path: Path, folder: Path, how: str) -> None:
    archives.extract(path, folder)
    about = {"archive": path.name, "sha256": storage.sha256_file(path), "hash": how}
    storage.write_json(folder / RECORD, about | _totals(folder))


def _listing(folder: Path) -> list[list[Any]]:
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name != RECORD)
    return [[f.relative_to(folder).as_posix(), f.stat().st_size] for f in files]


def _totals(folder: Path) -> dict[str, Any]:
    files = _listing(folder)
    listing = storage.sha256(storage.dumps(files).encode())
    return {"files": len(files), "bytes": sum(s for _, s in files), "listing": listing}


def _verify_folder(folder: Path) -> str:
    known = json.loads((folder / RECORD).read_text())
    found = _totals(folder)
    if any(known[key] != found[key] for key in found):
        raise Corrupt(
            f"{folder} holds {found['files']:,} files ({found['bytes']:,} bytes), its archive "
            f"{known['files']:,} ({known['bytes']:,}); remove the folder and fetch it again."
        )
    return f"{folder.name}: {found['files']:,} files as in {known['archive']} ({known['hash']})"


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _room(source: Source, path: Path) -> None:
    free, needed = shutil.disk_usage(path.parent).free, source.size * (2 if source.folder else 1)
    if free < needed:
        raise StorageFull(
            f"{path.name} needs {size_in_words(needed)} (unpacked included) and {path.parent} has "
            f"{size_in_words(free)}; free space, or name another folder with --dest."
        )
