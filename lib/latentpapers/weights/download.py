"""One file from a list of addresses: resumed, checked, and there whole or not at all.

The unfinished part lies in `.NAME.part` beside the place of the file; the same call goes on from
it. (pooch, which the rest of the field uses, neither resumes nor knows the hash prefixes that
torchvision publishes; half a gigabyte over a poor line needs both.)
"""

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentpapers import storage
from latentpapers.errors import Corrupt, UserError

_BLOCK = 2**18
_SILENCE = 30  # seconds without a byte after which a mirror is given up


def fetch(
    urls: Sequence[str], path: Path, sha256: str, most: int, *, progress: bool = False
) -> Path:
    """Downloads `path` from the first address that gives it.

    Args:
        urls: the official address first, then mirrors.
        sha256: hex hash, or its beginning where only that is published.
        most: bytes after which a server is not believed any more.
        progress: a bar on stderr.

    Raises:
        UserError: no address gave the file; names each with its reason. What came is kept.
        Corrupt: the file is another one than the published.
        StorageFull: it does not fit.
    """
    path = Path(path)
    if path.is_file() and matches(path, sha256):
        return path
    with storage.writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    reasons, wrong = [], 0
    for url in urls:
        try:
            _one(url, part, sha256, most, progress)
        except (OSError, http.client.HTTPException, Corrupt) as error:
            reasons.append(f"{url}: {_reason(error)}")
            wrong += isinstance(error, Corrupt)
            continue
        part.replace(path)
        return path
    kind = Corrupt if wrong == len(urls) else UserError
    remedy = "check the network and run the same command again"
    raise kind(f"could not fetch {path.name} ({'; '.join(reasons)}); {remedy}.")


def matches(path: Path, sha256: str) -> bool:
    """Whether a file's SHA-256 begins with `sha256`."""
    return storage.sha256_file(path).startswith(sha256)


def _one(url: str, part: Path, sha256: str, most: int, progress: bool) -> None:
    resumed = part.is_file() and part.stat().st_size > 0
    _transfer(url, part, most, progress)
    if matches(part, sha256):
        return
    part.unlink()
    if not resumed:
        raise Corrupt("another SHA-256 than the published one")
    _one(url, part, sha256, most, progress)  # the old part was of something else


def _transfer(url: str, part: Path, most: int, progress: bool) -> None:
    """Appends to `part` what it lacks.

    Raises:
        ConnectionError: the connection ended too early; what came is kept.
        Corrupt: more bytes than the file can have.
    """
    start = part.stat().st_size if part.is_file() else 0
    with _answer(url, start) as answer, storage.writable(part):
        if answer is None:
            return
        with part.open("ab" if answer.start else "wb") as file, _bar(progress, answer) as bar:
            for block in iter(lambda: answer.body.read(_BLOCK), b""):
                file.write(block)
                bar.update(len(block))
                if file.tell() > most:
                    part.unlink()
                    raise Corrupt(f"it sends more than {most:,} bytes")
    size = part.stat().st_size
    if answer.total and size < answer.total:
        raise ConnectionError(f"it ended after {size:,} of {answer.total:,} bytes")


@dataclass(frozen=True)
class _Answer:
    body: Any
    start: int  # the byte that it begins with
    total: int  # bytes of the whole file, 0 if unknown


@contextmanager
def _answer(url: str, start: int) -> Iterator[_Answer | None]:
    """The server's answer from byte `start` on, or from 0; None if there is nothing after it."""
    headers = {"User-Agent": "latentpapers"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        body = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_SILENCE
        )
    except urllib.error.HTTPError as error:
        if error.code != 416:  # range not satisfiable: `start` is the end of the file
            raise
        yield None
        return
    with body:
        if getattr(body, "status", None) != 206:
            start = 0
        length = int(body.headers.get("Content-Length") or 0)
        yield _Answer(body, start, start + length if length else 0)


@contextmanager
def _bar(wanted: bool, answer: _Answer) -> Iterator[Any]:
    from tqdm import tqdm

    options = {"total": answer.total or None, "initial": answer.start}
    with tqdm(**options, unit="B", unit_scale=True, disable=not wanted) as bar:
        yield bar


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
