"""The generated words of README and of the notebooks' titles: costs, and what held.

They stand between marker lines and are rewritten by `make refresh`; tests fail if they are not
current. Nobody types a result.
"""

import copy
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentpapers import paths, storage
from latentpapers.config import NAMES, named
from latentpapers.errors import UserError
from latentpapers.report import sources
from latentpapers.report.tables import NOTHING, markdown_row

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
PICTURES = ("<!-- pictures:begin -->", "<!-- pictures:end -->")
Costs = Mapping[str, Mapping[str, str]]
"""preset -> {"where": "2 CPU cores", "cost": "avae 118 s"}."""
_KINDS = {
    "held": "held",
    "failed": "did not hold",
    "undecided": "undecided",
    "untestable": "not testable here",
    "inconsistent": "paper inconsistent",
    "todo": "todo",
}


def readme_table(costs: Costs | None = None, *, base: Path | None = None) -> str:
    """Markdown: presets with their measured costs, claims by outcome, and what did not hold.

    All claims with their evidence stand in `results/README.md`.

    Args:
        costs: measured costs, in the order to be shown; without them that table is left out.
        base: the results folder; None: the project's.
    """
    parts = [preset_table(costs)] if costs else []
    return "\n\n".join([*parts, counts_table(base), failed_table(base)]) + "\n"


def pictures_table(base: Path | None = None, *, preset: str = "quick") -> str:
    """Markdown: a line a paper with a picture that a run made; beside it the paper's title, what
    the picture shows, how its claims came out, and the scale label.

    The pictures are those of the start page (`results/<preset>/start/figures/<paper>.png`).
    """
    folder = (base or paths.results()) / preset / "start" / "figures"
    lines = [_picture(paper, folder, base) for paper in sources.papers()]
    # unbreakable, so that a narrow page does not shrink the pictures
    left = "picture made by a shipped network".replace(" ", "&nbsp;")
    table = _table([left, "paper, and what came of its claims"], lines)
    return f"{table}\n\n{_scales(folder, base)}\n"


def _scales(folder: Path, base: Path | None) -> str:
    """At which scales there are results, how little the shipped networks saw, what has not run."""
    facts = (sources.read_json(folder / f"{paper}.json") for paper in sources.papers())
    shares = [100 * f["scale"]["budget"] for f in facts if f and f["scale"]["budget"]]
    have = {name for paper in sources.papers() for name in sources.presets(paper, base)}
    run = ", ".join(f"`{name}`" for name in NAMES if name in have) or "none"
    text = f"Results so far: {run}"
    if shares:
        text += (f"; the networks in the pictures saw {min(shares):.1g} to {max(shares):.2g} % of "
                 "the images that the papers' networks saw")  # fmt: skip
    for name in (name for name in NAMES if name not in have):
        seeds = " SEEDS=0,1,2" if name in ("gpu", "paper") else ""
        text += f". `{name}`: not run yet, command `make reproduce PRESET={name}{seeds}`"
    return f"*{text}.*"


def _picture(paper: str, folder: Path, base: Path | None) -> list[str]:
    """The picture, and the words beside it."""
    facts, book = sources.read_json(folder / f"{paper}.json"), sources.ledger(paper)
    kinds = Counter(j.kind for j in sources.judged(paper, base))
    came = ", ".join(f"{kinds[k]} {word}" for k, word in _KINDS.items() if kinds[k])
    title = f" *{book.values.title}*" if book is not None else ""
    words = [f"**[`{paper}`](notebooks/{paper}/)**{title}", f"**{came or NOTHING}**"]
    if not facts:
        return ["no network is shipped yet", "<br>".join(words)]
    place = f"{folder.parents[2].name}/{folder.parents[1].name}/start/figures/{paper}.png"
    picture = f'<img src="{place}" width="260" alt="{facts["caption"]}">'
    words[1:1] = [facts["caption"]]
    return [picture, "<br>".join([*words, f"<sub>{facts['label']}</sub>"])]


def preset_table(costs: Costs) -> str:
    """| preset | where | measured cost |"""
    lines = [[f"`{name}`", c.get("where", NOTHING), c["cost"]] for name, c in costs.items()]
    return _table(["preset", "where", "measured cost"], lines)


def counts_table(base: Path | None = None) -> str:
    """One line a paper: how many numbers were measured and how its claims came out."""
    lines = [_counts(paper, base) for paper in sources.papers()]
    return _table(["paper", "presets run", "numbers", *_KINDS.values()], lines)


def _counts(paper: str, base: Path | None) -> list[str]:
    names = sources.presets(paper, base)
    found = [sources.results(paper, name, base) for name in names]
    numbers = sum(len(r.rows) for r in found if r)
    kinds = Counter(j.kind for j in sources.judged(paper, base))
    counts = [str(kinds[kind]) if kinds[kind] else NOTHING for kind in _KINDS]
    if sources.ledger(paper) is None:
        counts[-1] = "ledger"
    return [f"`{paper}`", ", ".join(names) or NOTHING, str(numbers or NOTHING), *counts]


def failed_table(base: Path | None = None) -> str:
    """One line a claim that a committed run contradicts."""
    lines = [
        [f"`{j.claim.id}`", _short(j.claim.text), f"**{j.text}**", j.preset]
        for paper in sources.papers()
        for j in sources.judged(paper, base)
        if j.kind == "failed"
    ]
    if not lines:
        return "No claim has failed in a committed run."
    return _table(["did not hold", "what the paper says", "verdict", "preset"], lines)


def claims_table(base: Path | None = None, only: Sequence[str] | None = None) -> str:
    """Every claim of every paper with its verdict."""
    lines = [
        [f"`{j.claim.id}`", j.claim.text, j.text, j.preset or NOTHING, j.sentence]
        for paper in only or sources.papers()
        for j in sources.judged(paper, base)
    ]
    return _table(["claim", "what the paper says", "verdict", "preset", "evidence"], lines)


def _short(text: str, limit: int = 140) -> str:
    return text if len(text) <= limit else text[: limit - 1].rsplit(" ", 1)[0] + " …"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(markdown_row(row) for row in rows)


def update_readme(path: Path, costs: Costs | None = None, *, base: Path | None = None) -> bool:
    """Rewrites what stands between the markers of `path`, atomically; True if it changed.

    The markers of the pictures may be absent.

    Raises:
        UserError: the markers are missing, doubled or in the wrong order.
    """
    old = Path(path).read_text()
    new = _current(old, Path(path).name, costs, base)
    if new != old:
        storage.write_text(path, new)
    return new != old


def readme_is_current(path: Path, costs: Costs | None = None, *, base: Path | None = None) -> bool:
    """Whether `update_readme` with the same arguments would change nothing."""
    old = Path(path).read_text()
    return old == _current(old, Path(path).name, costs, base)


def _current(text: str, name: str, costs: Costs | None, base: Path | None) -> str:
    if any(marker in text for marker in PICTURES):
        text = _replaced(text, name, pictures_table(base), *PICTURES)
    return _replaced(text, name, readme_table(costs, base=base), BEGIN, END)


def _replaced(text: str, name: str, table: str, begin: str, end: str) -> str:
    if (text.count(begin), text.count(end)) != (1, 1) or text.index(begin) > text.index(end):
        raise UserError(f"{name} needs the lines {begin} and {end}, once each and in this order.")
    head, _, rest = text.partition(begin)
    return f"{head}{begin}\n{table}{end}{rest.partition(end)[2]}"


def _told(judged: sources.Judged) -> str:
    """A verdict, and the preset whose numbers decided it: not always the one on the page."""
    decided = judged.kind in ("held", "failed", "undecided") and judged.preset
    return f"**{judged.text}**" + (f" ({judged.preset})" if decided else "")


_TITLE = re.compile(r"<!-- verdicts:begin ([\w\s-]+) -->.*?<!-- verdicts:end -->", re.DOTALL)


def with_verdicts(
    notebook: dict[str, Any], paper: str, *, base: Path | None = None
) -> dict[str, Any]:
    """A copy of a notebook whose title cell shows the current verdicts of the claims it decides.

    They stand between `<!-- verdicts:begin ID ID -->` and `<!-- verdicts:end -->`; a notebook
    without these markers is returned as it is.

    Raises:
        UnknownName: an id that the paper's ledger does not have.
    """
    notebook = copy.deepcopy(notebook)
    title = notebook["cells"][0]
    known = {j.claim.id: j for j in sources.judged(paper, base)}

    def block(match: re.Match[str]) -> str:
        ids = match.group(1).split()
        found = [named("claim", i, known) for i in ids]
        lines = [[f"`{j.claim.id}`", _short(j.claim.text), _told(j)] for j in found]
        table = _table(["claim", "the paper says", "verdict (preset)"], lines)
        return f"<!-- verdicts:begin {' '.join(ids)} -->\n\n{table}\n\n<!-- verdicts:end -->"

    title["source"] = _TITLE.sub(block, "".join(title["source"])).splitlines(keepends=True)
    return notebook
