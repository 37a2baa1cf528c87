"""One file from a list of addresses: resumed, checked, and there whole or not at all.

`pooch` compares complete hashes and puts the file in place in one step. The downloaders here add
what it lacks: a partial file (`NAME.part`) that the next call goes on with, a limit of bytes,
Google Drive (through gdown), and a hash of which only the beginning is published.
"""

import contextlib
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentpapers import storage
from latentpapers.errors import Corrupt, Missing

DRIVE = "gdrive:"
REMEDY = "check the network and run the same command again"
_TRIES = 4
_WAIT = 0.25  # seconds before the second try; four times as long before each further one
_BLOCK = 2**16  # a block that a reset breaks is lost to the partial file
_TIMEOUT = (20, 60)
_SHORTEST = 8  # hex digits of a hash's beginning that still mean something
_NAMES = {"sha256": "SHA-256", "md5": "MD5"}


def fetch(
    urls: Sequence[str],
    path: Path,
    known: str | None,
    most: int,
    *,
    accept: Callable[[Path], None] = lambda _: None,
    progress: bool | None = None,
    remedy: str = REMEDY,
) -> Path:
    """Downloads `path` from the first address that gives it; a right file is kept.

    What came of it stays in `NAME.part`, and the same call goes on from there: under the same
    address and the server's tag, or from anywhere if the hash is known, which then decides.

    Args:
        urls: official address first, then mirrors; `gdrive:ID` goes through gdown.
        known: the hash as pooch writes it (`md5:...`, `sha256:...` or bare SHA-256), or its
            beginning where only that is published; None if nobody publishes one.
        most: bytes after which a server is not believed any more.
        accept: looks at the complete file before its hash does, and raises Corrupt.
        progress: a bar on stderr; None if that is a terminal.
        remedy: end of the sentence.

    Raises:
        Missing: no address gave the file; names each with its reason.
        Corrupt: they all gave something else; nothing is left of it.
        StorageFull: it does not fit, or the folder can only be read.
    """
    file = _File(Path(path), known, most, accept, progress)
    if file.path.is_file() and (known is None or matches(file.path, known)):
        return file.path
    with storage.writable(file.path):
        file.path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=file.path.parent).close()
    file.path.unlink(missing_ok=True)  # another file; pooch keeps it where it knows no whole hash
    failures, wrong = [], 0
    for url in urls:
        try:
            return _retrieve(url, file)
        except (OSError, Corrupt) as error:  # those of requests are OSErrors
            failures.append(f"{_place(url)}: {_reason(error)}")
            wrong += isinstance(error, Corrupt)
    kind = Corrupt if wrong and wrong == len(urls) else Missing
    raise kind(f"could not fetch {file.path.name} ({'; '.join(failures)}); {remedy}.")


def matches(path: Path, known: str) -> bool:
    """Whether a file's hash is `known` (see `fetch`), or begins with it."""
    kind, digits = _split(known)
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest().startswith(digits)


def another(known: str) -> str:
    """`another SHA-256`: what is wrong with a file that does not match."""
    return f"another {_NAMES[_split(known)[0]]}"


def _split(known: str) -> tuple[str, str]:
    """Algorithm and digits."""
    kind, _, digits = known.rpartition(":")
    if len(digits) < _SHORTEST:
        raise ValueError(f"{known!r} is no hash")
    return kind or "sha256", digits.lower()


@dataclass(frozen=True)
class _File:
    """What is wanted, as `fetch` is told."""

    path: Path
    known: str | None
    most: int
    accept: Callable[[Path], None]
    progress: bool | None

    @property
    def part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def note(self) -> Path:
        """The address of the partial file, and the server's tag of the whole."""
        return self.path.with_name(f"{self.path.name}.part.json")

    @property
    def whole_hash(self) -> str | None:
        """The hash, if it is complete."""
        if self.known is None:
            return None
        kind, digits = _split(self.known)
        return f"{kind}:{digits}" if len(digits) == 2 * hashlib.new(kind).digest_size else None


def _retrieve(url: str, file: _File) -> Path:
    """The file from one address, in place.

    Raises:
        Corrupt: what came is something else.
        OSError: it did not come; the partial file stays.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    downloader = _Drive(file) if url.startswith(DRIVE) else _Resuming(file)
    place = {"path": str(file.path.parent), "fname": file.path.name}
    try:
        with storage.writable(file.path):
            pooch.retrieve(url, file.whole_hash, downloader=downloader, **place)
    except (ValueError, Corrupt) as error:
        if isinstance(error, OSError):  # requests: an address that is none
            raise
        file.part.unlink(missing_ok=True)
        file.note.unlink(missing_ok=True)
        if downloader.resumed:  # the old part was of something else
            return _retrieve(url, file)
        if isinstance(error, Corrupt):
            raise
        raise Corrupt(f"what came is not the published file ({another(file.known)})") from error
    file.note.unlink(missing_ok=True)
    file.path.chmod(0o644)
    return file.path


def _place(url: str) -> str:
    return "Google Drive" if url.startswith(DRIVE) else url


def _reason(error: Exception) -> str:
    answer = getattr(error, "response", None)
    if answer is not None:
        return f"{answer.status_code} {answer.reason}"
    # requests repeats the address and hides the cause at the end; urllib3's has it alone
    cause = getattr(error.args[0], "reason", None) if error.args else None
    text = " ".join(str(cause or error).split())
    return text[:160].rstrip(".") or type(error).__name__


class _Downloader:
    """Hands pooch a whole file; the partial one stands beside the place of the whole one.

    Attributes:
        resumed: whether the file begins with what an earlier call left.
    """

    def __init__(self, file: _File) -> None:
        self.file = file
        self.resumed = False

    def __call__(self, url: str, output_file: Any, *_: Any, **__: Any) -> None:
        file = self.file
        self.receive(url)
        file.accept(file.part)
        beginning = file.known and not file.whole_hash  # pooch compares whole hashes only
        if beginning and not matches(file.part, file.known):
            raise ValueError(another(file.known))
        file.part.replace(output_file)

    def receive(self, url: str) -> None:
        """Completes the partial file, or raises."""
        raise NotImplementedError


class _Resuming(_Downloader):
    """Over HTTP; goes on with the partial file."""

    def receive(self, url: str) -> None:
        """Tries a few times, each time from where it stopped."""
        import requests

        chunked = requests.exceptions.ChunkedEncodingError
        broken = (requests.ConnectionError, requests.Timeout, chunked)
        self.resumed = self._have(url)[0] > 0
        for turn in range(_TRIES):
            try:
                self._go_on(url)
                return
            except broken:
                if turn + 1 == _TRIES:
                    raise
                time.sleep(_WAIT * 4**turn)

    def _have(self, url: str) -> tuple[int, str]:
        """Bytes to go on from, and the server's tag of the file they belong to, if it gave one."""
        size = self.file.part.stat().st_size if self.file.part.is_file() else 0
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(self.file.note.read_text())
            if note["url"] == url and note["tag"]:
                return size, note["tag"]
        return (size, "") if self.file.known else (0, "")

    def _go_on(self, url: str) -> None:
        import requests

        have, tag = self._have(url)
        headers = {"Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={have}-"} if have else {}
        headers |= {"If-Range": tag} if have and tag else {}
        with requests.get(url, stream=True, headers=headers, timeout=_TIMEOUT) as answer:
            if answer.status_code == 416 and self.file.known:
                return  # nothing after these bytes: they are all, or the hash will not be right
            if answer.status_code == 416:
                self.file.part.unlink(missing_ok=True)
                raise requests.ConnectionError("the partial file did not fit; starting afresh")
            answer.raise_for_status()
            if answer.status_code != 206:
                have, self.resumed = 0, False
            tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            note = {"url": url, "tag": "" if tag.startswith("W/") else tag}
            storage.write_json(self.file.note, note)
            self._receive(answer, have)

    def _receive(self, answer: Any, have: int) -> None:
        import requests

        rest = int(answer.headers.get("Content-Length", 0))
        whole = have + rest if rest else 0
        answer.raw.enforce_content_length = False  # else it drops its last bytes and raises
        with _bar(self.file, have, whole) as bar, self.file.part.open("ab" if have else "wb") as to:
            for block in answer.iter_content(_BLOCK):
                to.write(block)
                bar.update(len(block))
                if to.tell() > self.file.most:
                    most = f"{self.file.most:,}"
                    raise Corrupt(f"it sends more than {most} bytes, far more than the file has")
        size = self.file.part.stat().st_size
        if whole and size < whole:
            raise requests.ConnectionError(f"it ended after {size:,} of {whole:,} bytes")


def _bar(file: _File, have: int, whole: int) -> Any:
    from tqdm import tqdm

    disable = None if file.progress is None else not file.progress
    count = {"total": whole or None, "initial": have, "unit": "B", "unit_scale": True}
    return tqdm(**count, disable=disable, desc=file.path.name)


class _Drive(_Downloader):
    """For `gdrive:ID`; gdown keeps its own partial file and resumes it."""

    def receive(self, url: str) -> None:
        """Through gdown, which knows Google's pages between the address and the file."""
        import gdown
        from gdown.exceptions import DownloadError, FileURLRetrievalError

        part = self.file.part
        part.unlink(missing_ok=True)  # another address's; gdown would take it for the whole
        wanted = sys.stderr.isatty() if self.file.progress is None else self.file.progress
        options = {"output": str(part), "quiet": not wanted, "resume": True}
        try:
            got = gdown.download(id=url.removeprefix(DRIVE), **options)
        except (DownloadError, FileURLRetrievalError) as error:
            raise ConnectionError(str(error)) from error
        if not got or not part.is_file():
            raise ConnectionError("Google Drive refused the file (its daily quota?)")
