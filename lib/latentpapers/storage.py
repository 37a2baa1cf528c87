"""Atomic writes and content hashes. A file appears whole or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latentpapers.errors import StorageFull

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns 'disk full' and 'read-only' from anywhere inside into one sentence.

    Raises:
        StorageFull: with the path and the reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _UNWRITABLE:
            reason = os.strerror(error.errno).lower()
            raise StorageFull(
                f"cannot write {path}: {reason}; free space, or set LATENTPAPERS_OUT to a folder "
                "that can be written. Nothing was left half written."
            ) from error
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved over it if the block ends well, removed if not."""
    path = Path(path)
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        draft = Path(name)
        try:
            yield draft
            draft.chmod(0o644)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` atomically."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Writes `content` (UTF-8) to `path` atomically."""
    write_bytes(path, content.encode())


def dumps(value: Any) -> str:
    """Canonical JSON: sorted keys, no NaN, floats as the shortest text that reads back equal."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented canonical JSON, atomically."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=2)
    write_text(path, text + "\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes one canonical JSON object a line, atomically."""
    write_text(path, "".join(dumps(row) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Reads a `.jsonl` file; a missing file holds no rows."""
    path = Path(path)
    if not path.exists():
        return []
    # not splitlines: it also splits at U+2028 and the like, which JSON leaves inside texts
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def sha256(content: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
