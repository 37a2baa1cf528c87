"""What the reports are made from: ledgers and committed results, read once, nothing computed twice.

A paper whose ledgers are not written yet, or whose runs are not done, is a normal state here: it
shows as *todo* instead of stopping the gallery.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentpapers import paths, storage
from latentpapers.errors import Corrupt, UserError

PRESETS = ("paper", "gpu", "cpu", "quick")
"""Presets, the one nearest to the paper first."""
DECIDED = ("reproduced", "reproduced at reduced scale", "not reproduced", "paper inconsistent")
KINDS = {
    "reproduced": "held",
    "reproduced at reduced scale": "held",
    "not reproduced": "failed",
    "undecided": "undecided",
    "not testable here": "untestable",
    "paper inconsistent": "inconsistent",
    "todo": "todo",
}
"""Verdict -> what the reader sees at a glance (and the colour of its chip)."""


@dataclass(frozen=True)
class Results:
    """The committed results of one (preset, paper).

    Attributes:
        folder: `results/<preset>/<paper>`.
        rows: `metrics.jsonl`.
        verdicts: claim id -> verdict (`claims.json`).
        manifest: `manifest.json`, empty if there is none.
    """

    paper: str
    preset: str
    folder: Path
    rows: tuple[dict[str, Any], ...]
    verdicts: dict[str, dict[str, Any]]
    manifest: dict[str, Any] = field(default_factory=dict)

    def figures(self) -> list[Path]:
        """The pictures, in the papers' order."""
        return sorted(self.folder.glob("figures/*.png"), key=lambda p: natural(p.stem))

    def tables(self) -> list[Path]:
        """The tables' Markdown files, in the papers' order."""
        return sorted(self.folder.glob("tables/*.md"), key=lambda p: natural(p.stem))

    def notebooks(self) -> list[Path]:
        """Executed notebooks that are kept as evidence."""
        found = (p.relative_to(self.folder) for p in self.folder.rglob("*.ipynb"))
        return sorted(self.folder / p for p in found if p.parts[0] != "runs")

    def facts(self, figure: Path) -> dict[str, Any]:
        """What a run noted beside a figure (caption, scale label); empty if nothing."""
        return read_json(figure.with_suffix(".json")) or {}


def natural(text: str) -> tuple[Any, ...]:
    """Sort key with numbers as numbers: `fig_2` before `fig_10`, appendix after."""
    import re

    parts = re.split(r"(\d+)", text)
    return tuple((1, "", int(p)) if p.isdigit() else (2 if p.isupper() else 0, p, 0) for p in parts)


def read_json(path: Path) -> Any:
    """The file's content, or None if it does not exist.

    Raises:
        Corrupt: not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Corrupt(
            f"{path} is not valid JSON; run `latentpapers collect` to write it again."
        ) from error


def results(paper: str, preset: str, base: Path | None = None) -> Results | None:
    """The committed results, or None where nothing was collected.

    Args:
        base: the results folder; None: the project's.
    """
    folder = (base or paths.results()) / preset / paper
    if not (folder / "metrics.jsonl").is_file():
        return None
    found = read_json(folder / "claims.json") or []
    entries = found.get("claims", found) if isinstance(found, dict) else found
    verdicts = {entry["claim"]: entry for entry in entries}
    rows = tuple(storage.read_jsonl(folder / "metrics.jsonl"))
    manifest = read_json(folder / "manifest.json") or {}
    return Results(paper, preset, folder, rows, verdicts, manifest)


def ledger(paper: str) -> Any:
    """The paper's ledger; None where it is not written yet, and for what is no paper.

    Raises:
        LedgerError: a ledger that exists and is wrong.
    """
    from latentpapers import ledger as books

    if paper not in books.papers() or not all(file.is_file() for file in books.files(paper)):
        return None
    return books.load(paper)


def papers() -> list[str]:
    """The papers' ids in the project's order."""
    from latentpapers import ledger as books

    return books.papers()


def others() -> list[str]:
    """Folders of notebooks that belong to no single paper (comparisons, calibration)."""
    found = {p.parent.name for p in (paths.root() / "notebooks").glob("*/*.ipynb")}
    return sorted(found - set(papers()))


def presets(paper: str, base: Path | None = None) -> list[str]:
    """The presets that have results, the one nearest to the paper first."""
    return [p for p in PRESETS if results(paper, p, base) is not None]


@dataclass(frozen=True)
class Judged:
    """A claim with the verdict that counts: of the preset nearest to the paper that decides it."""

    claim: Any
    preset: str
    verdict: str
    suffixes: tuple[str, ...]
    sentence: str

    @property
    def text(self) -> str:
        """Verdict with its suffixes."""
        return self.verdict + (f" ({', '.join(self.suffixes)})" if self.suffixes else "")

    @property
    def kind(self) -> str:
        """Key of the chip: held | failed | undecided | untestable | inconsistent | todo."""
        return KINDS.get(self.verdict, "undecided")


def judged(paper: str, base: Path | None = None, only: tuple[str, ...] = PRESETS) -> list[Judged]:
    """One entry a claim of the paper's ledger; no ledger, no entries.

    Verdicts come from `claims.json`, never from here. Without any results a claim is *todo*, or
    *not testable here* if the ledger names what is missing and no rule could decide it.
    """
    book = ledger(paper)
    found = [r for p in PRESETS if p in only and (r := results(paper, p, base)) is not None]
    return [] if book is None else [_judged(claim, found) for claim in book.claims.claims]


def _judged(claim: Any, found: list[Results]) -> Judged:
    known = [(r.preset, r.verdicts[claim.id]) for r in found if claim.id in r.verdicts]
    if any(preset == "cpu" and entry.get("evidence") for preset, entry in known):
        # the same networks measured on more images: the smaller sample has no say any more
        known = [(preset, entry) for preset, entry in known if preset != "quick"]
    decided = [entry for entry in known if entry[1]["verdict"] in DECIDED]
    open_ = [entry for entry in known if entry[1]["verdict"] != "not testable here"]
    for preset, entry in (*decided, *open_, *known):
        suffixes = tuple(entry.get("suffixes", ()))
        return Judged(claim, preset, entry["verdict"], suffixes, entry["sentence"])
    if not claim.rules and claim.missing:
        return Judged(claim, "", "not testable here", (), f"Missing: {claim.missing}")
    return Judged(claim, "", "todo", (), "No run has been collected yet.")


def scale_labels(rows: Any) -> list[str]:
    """The scale labels of rows, each once, in order.

    Raises:
        UserError: a row without scale.
    """
    from latentpapers.report.tables import scale_text

    if any("scale" not in row for row in rows):
        raise UserError("a result row has no scale; run `latentpapers collect` again.")
    return list(dict.fromkeys(scale_text(row["scale"]) for row in rows))
