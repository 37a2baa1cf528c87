"""Are the committed results consistent with themselves, and how old is the code behind them?

*Inconsistent* turns the suite red: a file that differs from its hash in `manifest.json`, a table
that differs from a rebuild from `metrics.jsonl`. *Older code* does not: it is shown, no more.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latentpapers import storage
from latentpapers.errors import UserError
from latentpapers.report import sources, tables

_VOLATILE = ("runs/", "manifest.json", "runtime.json")
_LIBRARY = Path(__file__).resolve().parent.parent


def inconsistent(results_dir: Path) -> list[str]:
    """Every contradiction below `results_dir`, one sentence each; empty if all is well.

    Args:
        results_dir: `results/`, `results/<preset>` or `results/<preset>/<paper>`. A folder with
            results but no manifest is a contradiction too.
    """
    base = Path(results_dir)
    found = {p.parent for name in ("metrics.jsonl", "manifest.json") for p in base.rglob(name)}
    folders = sorted(f for f in found if "runs" not in f.relative_to(base).parts)
    return [problem for folder in folders for problem in _folder(folder)]


def _folder(folder: Path) -> Iterator[str]:
    name = f"{folder.parent.name}/{folder.name}"
    try:
        manifest = sources.read_json(folder / "manifest.json")
        if manifest is None or not isinstance(manifest.get("files"), dict):
            yield f"{name}: manifest.json is missing or lists no files; run `latentpapers collect`."
            return
        yield from (f"{name}/{p}" for p in _hashes(folder, manifest["files"]))
        yield from (f"{name}/{p}" for p in _rebuilt(folder, manifest["paper"]))
    except (UserError, KeyError, ValueError, TypeError) as error:
        yield f"{name}: {type(error).__name__}: {error}"


def _hashes(folder: Path, files: Mapping[str, str]) -> Iterator[str]:
    """Files that are absent, changed, or there without being listed."""
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    present = {p for p in present if not p.startswith(_VOLATILE)}
    for name in sorted(files.keys() | present):
        if name not in present:
            yield f"{name} is in the manifest but not on disk."
        elif name not in files:
            yield f"{name} is not in the manifest."
        elif storage.sha256_file(folder / name) != files[name]:
            yield f"{name} differs from its hash in the manifest."


def _rebuilt(folder: Path, paper: str) -> Iterator[str]:
    """Tables and verdicts that are not what the committed rows give."""
    rows = storage.read_jsonl(folder / "metrics.jsonl")
    book = sources.ledger(paper)
    if book is None:
        return
    names = sorted({p.stem for p in folder.glob("tables/*") if p.suffix in (".md", ".csv")})
    for table in names:
        for suffix, content in tables.build(book, table, rows).items():
            path = folder / "tables" / f"{table}{suffix}"
            if not path.is_file() or path.read_bytes() != content:
                yield f"tables/{path.name} differs from a rebuild from metrics.jsonl."
    yield from _verdicts(folder, book, rows)


def _verdicts(folder: Path, book: Any, rows: list[dict[str, Any]]) -> Iterator[str]:
    import json

    from latentpapers.ledger import verdicts

    if not (folder / "claims.json").is_file():
        return
    committed = sources.results(book.paper, folder.parent.name, folder.parent.parent)
    for verdict in verdicts.decide_all(rows, folder.parent.name, book):
        wanted = json.loads(storage.dumps(verdict.as_dict()))
        found = (committed.verdicts if committed else {}).get(verdict.claim, {})
        if any(found.get(key) != value for key, value in wanted.items()):
            yield f"claims.json: {verdict.claim} differs from a rebuild from metrics.jsonl."


def changed(manifest: Mapping[str, Any]) -> list[str]:
    """Library files that a job of this manifest imported and that differ today (or are gone)."""
    then: dict[str, set[str]] = {}
    for job in manifest.get("jobs", {}).values():
        for name, sha in job.get("library", {}).items():
            then.setdefault(name, set()).add(sha)
    return sorted(name for name, shas in then.items() if shas != {_today(name)})


def _today(name: str) -> str:
    path = _LIBRARY / name
    return storage.sha256_file(path) if path.is_file() else ""


def age(manifest: Mapping[str, Any]) -> str:
    """`made at commit 1a2b3c4; 2 imported files changed since (nets/began.py, seeds.py)`."""
    names, commit = changed(manifest), manifest.get("commit")
    made = f"made at commit {commit}" if commit else "made outside a git checkout"
    if not names:
        return f"{made}; no imported file changed since"
    count = f"{len(names)} imported file{'s' * (len(names) > 1)} changed since"
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"{made}; {count} ({shown})"
