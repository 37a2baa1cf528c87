"""Tar, zip and wheel files from elsewhere, unpacked so that nothing they hold can do harm.

Refused before anything is kept: names that lead out of the folder, links and devices, more bytes
than declared or than the caller allows, a truncated or damaged archive. The folder appears whole,
by one rename, or not at all.
"""

import gzip
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from latentpapers import storage
from latentpapers.errors import Corrupt

RATIO = 20
"""Unpacked bytes per archived byte that are still believed; images hardly shrink."""
_SLACK = 64 * 2**20  # small archives of text may compress better than RATIO
_BLOCK = 2**20
_TAIL = 64  # blocks that may follow the last file of a tar
_IGNORED = ("__MACOSX", ".DS_Store")
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error,
           EOFError, ValueError, RuntimeError, NotImplementedError)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """One file of an archive: its name, its declared size, and how to open it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def extract(archive: Path, folder: Path, *, limit: int | None = None) -> Path:
    """Unpacks `archive` into the new folder `folder`; one common top folder is dropped.

    Args:
        archive: .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz.
        folder: must not exist.
        limit: most bytes unpacked; 20 times the archive's own size and 64 MiB if None.

    Returns:
        `folder`.

    Raises:
        Corrupt: damaged, truncated, a bomb, or holding a name or link that leads outside; the
            sentence says which. Nothing is left behind.
        StorageFull: no room.
    """
    archive, folder = Path(archive), Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    most = limit or RATIO * archive.stat().st_size + _SLACK
    try:
        with storage.writable(folder), _damage(archive), _members(archive) as members:
            _unpack(_listed(members(), most), scratch)
        scratch.chmod(0o755)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def read(archive: Path, names: Collection[str], *, limit: int | None = None) -> dict[str, bytes]:
    """The content of some files of an archive, by their names in it; nothing is unpacked.

    Args:
        limit: most bytes in all; as for `extract` if None.

    Raises:
        Corrupt: damaged, truncated, a bomb; a file is absent, comes twice or is a link.
    """
    archive, wanted = Path(archive), sorted(names)
    most = limit or RATIO * archive.stat().st_size + _SLACK
    with _damage(archive), _members(archive) as members:
        kept = [member for member, _ in _listed((m for m in members() if m.name in names), most)]
        found = sorted(member.name for member in kept)
        if found != wanted:
            raise ValueError(f"it holds {found} where {wanted} are expected")
        return {member.name: b"".join(_blocks(member)) for member in kept}


def is_archive(path: Path) -> bool:
    """Whether a file begins like a zip or a tar: a server's error page does not."""
    path = Path(path)
    return zipfile.is_zipfile(path) or _is_tar(path)


@contextmanager
def _damage(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "remove it and fetch it again"
        raise Corrupt(f"{archive} cannot be unpacked ({reason}); {remedy}.") from error


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error):
        return False


@contextmanager
def _members(archive: Path) -> Iterator[Callable[[], Iterator[Member]]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield lambda: _of_zip(zipped)
    else:
        with tarfile.open(archive) as tar:
            yield lambda: _of_tar(tar)


def _of_zip(zipped: zipfile.ZipFile) -> Iterator[Member]:
    for entry in zipped.infolist():
        kind = entry.external_attr >> 28  # the Unix file type, 0 if written elsewhere
        if kind not in (0, 0o04, 0o10):
            raise ValueError(f"{entry.filename!r} is a link or device")
        if not entry.is_dir():
            yield Member(entry.filename, entry.file_size, lambda entry=entry: zipped.open(entry))


def _of_tar(tar: tarfile.TarFile) -> Iterator[Member]:
    for entry in tar:
        if not (entry.isreg() or entry.isdir()):
            raise ValueError(f"{entry.name!r} is a link or device")
        if entry.isreg():
            yield Member(entry.name, entry.size, lambda entry=entry: tar.extractfile(entry))
    # a compressed tar ends with a checksum, which is only compared at the end of the stream
    for _ in range(_TAIL):
        if not tar.fileobj.read(_BLOCK):
            return
    raise ValueError("much follows after its last file")


def _listed(members: Iterator[Member], most: int) -> list[tuple[Member, tuple[str, ...]]]:
    """All files with the parts of their names; stops at the first that is too much."""
    kept, total = [], 0
    for member in members:
        parts, total = _parts(member.name), total + member.size
        if total > most:
            raise ValueError(f"it unpacks to more than {most:,} bytes: a decompression bomb?")
        if not set(parts) & set(_IGNORED):
            kept.append((member, parts))
    return kept


def _unpack(kept: list[tuple[Member, tuple[str, ...]]], folder: Path) -> None:
    if not kept:
        raise ValueError("it holds no file")
    top = {parts[0] for _, parts in kept}
    drop = int(len(top) == 1 and all(len(parts) > 1 for _, parts in kept))
    for member, parts in kept:
        _write(member, folder.joinpath(*parts[drop:]))


def _parts(name: str) -> tuple[str, ...]:
    """The components of a member's name.

    Raises:
        ValueError: it is absolute, climbs, names a drive, or holds a byte no file name has.
    """
    path = PurePosixPath(name)
    windows = PureWindowsPath(name)
    bad = path.is_absolute() or windows.drive or windows.root or "\\" in name or "\0" in name
    if bad or ".." in path.parts or not path.parts:
        raise ValueError(f"the name {name!r} leads out of the folder")
    return path.parts


def _write(member: Member, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{member.name!r} comes twice") from error
    with path.open("wb") as target:
        target.writelines(_blocks(member))


def _blocks(member: Member) -> Iterator[bytes]:
    """The content; a header may lie about its size."""
    read = 0
    with member.open() as source:
        while block := source.read(_BLOCK):
            read += len(block)
            if read > member.size:
                raise ValueError(f"{member.name!r} is larger than it says")
            yield block
    if read != member.size:
        raise ValueError(f"{member.name!r} ends after {read:,} of {member.size:,} bytes")
