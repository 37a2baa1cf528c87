"""The reviewer's pages of the gallery: front page, claims with filters, measured errata.

Every function gives MyST Markdown and is pure in (ledgers, results).
"""

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from latentpapers.report import pages, sources
from latentpapers.report.myst import chip, esc, table

if TYPE_CHECKING:
    from latentpapers.ledger.schemas import Claim

LEGEND = (
    ("held", "held", "our interval supports the claim"),
    ("failed", "did not hold", "our interval contradicts it"),
    ("undecided", "undecided", "the interval straddles, or the run is missing"),
    ("inconsistent", "paper inconsistent", "the paper contradicts itself"),
    ("untestable", "not testable here", "the missing thing is named"),
    ("todo", "todo", "not run yet"),
)
WORDS = {kind: text for kind, text, _ in LEGEND}
TITLES = {
    "lag": "LAG: a latent adversarial generator",
    "lsrgan": "LSRGAN: latent space regularisation",
    "lrc_i2i": "LRC-I2I: low resolution conditioning",
    "diamond": "Diamond in the rough: traversing the latent space",
    "avae": "AVAE: adversarial training of variational auto-encoders",
    "across": "Across the papers",
    "metrics": "How the metrics were calibrated",
}
Judged = Mapping[str, list[sources.Judged]]
"""Paper -> its claims with their verdicts."""


def picture(paper: str, base: Path | None = None) -> tuple[Path, dict] | None:
    """A picture that a shipped network of the paper made, and its facts (caption, scale label)."""
    for preset in sources.PRESETS:
        folder = (base or sources.paths.results()) / preset / "start" / "figures"
        facts = sources.read_json(folder / f"{paper}.json")
        if facts and (folder / f"{paper}.png").is_file():
            return folder / f"{paper}.png", facts
    return None


def front(judged: Judged, presets: tuple[str, ...], toc: str, base: Path | None = None) -> str:
    """The first page: what each paper came to, what failed, what is missing and why."""
    legend = " ".join(f"{chip(text, kind)}: {says}." for kind, text, says in LEGEND)
    cards = "\n".join(_card(paper, entries, base) for paper, entries in judged.items())
    return f"""# Latent Papers: what held, and what did not

Five papers on adversarial latent spaces, rebuilt and run. Every number here was measured by a
committed run; each stands beside the paper's own with its interval, its scale and its verdict.

{legend}

::::{{grid}} 1 2 3 3
:gutter: 1
:class-container: papers

{cards}
::::

[All claims, with filters](claims.md) · [errata with measured effects](errata_measured.md) ·
[known gaps](known_gaps.md)

{_failed(judged)}

{_missing(judged)}

{_unrun(judged, presets)}

```{{toctree}}
:hidden:

{toc}
```
"""


def _card(paper: str, entries: list[sources.Judged], base: Path | None) -> str:
    kinds = [j.kind for j in entries]
    counts = [(k, kinds.count(k)) for k in dict.fromkeys(sources.KINDS.values()) if k in kinds]
    chips = " ".join(chip(f"{n} {WORDS[k]}", k) for k, n in counts)
    shown = picture(paper, base)
    seen = ""
    if shown is not None:
        caption, label = esc(shown[1]["caption"]), esc(shown[1]["label"])
        seen = f"![{caption}](cards/{paper}.png)\n\n{caption}\n\n[{label}]{{.scale-label}}\n\n"
    return f""":::{{grid-item-card}} {esc(TITLES.get(paper, paper))}
:link: {paper}/index
:link-type: doc

{seen}{chips or chip("todo: no ledger yet", "todo")}
:::
"""


def _failed(judged: Judged) -> str:
    parts = []
    for kind in ("failed", "inconsistent"):
        mine = [(p, j) for p, entries in judged.items() for j in entries if j.kind == kind]
        if mine:
            parts.append(f"## {WORDS[kind].capitalize()} ({len(mine)})\n\n{claims(mine)}")
    return "\n\n".join(parts)


def _missing(judged: Judged) -> str:
    """What cannot be tested here, by what is missing."""
    groups: dict[str, list[str]] = {}
    mine = [(p, j) for p, entries in judged.items() for j in entries if j.kind == "untestable"]
    for paper, j in mine:
        named = f"[{esc(j.claim.id)}]({paper}/index.md#{anchor(j.claim)})"
        groups.setdefault(pages.missing_of(j), []).append(named)
    order = sorted(groups, key=lambda why: (-len(groups[why]), why))
    lines = [[esc(why), ", ".join(groups[why])] for why in order]
    if not lines:
        return ""
    head = f"## Not testable here, and why ({len(mine)})"
    return f"{head}\n\n{table(['what is missing', 'claims'], lines)}"


def _unrun(judged: Judged, presets: tuple[str, ...]) -> str:
    """Presets of these papers without results, with the command that would run them."""
    lines = [
        [esc(paper), chip(f"{preset}: not run yet", "todo"), f"`{command}`"]
        for paper, preset, command in pages.unrun()
        if paper in judged and preset in presets
    ]
    if not lines:
        return ""
    return f"## Not run yet\n\n{table(['paper', 'preset', 'command'], lines)}"


def claims(entries: Iterable[tuple[str, sources.Judged]], *, link: bool = True) -> str:
    """A table of claims with verdict and evidence; `link` leads from an id to its paper's page."""
    lines = []
    for paper, j in entries:
        here, there = f"{{.id #{anchor(j.claim)}}}", f"({paper}/index.md#{anchor(j.claim)})"
        name = f"[{esc(j.claim.id)}]" + (there if link else here)
        said = f"{esc(j.claim.text)} ({esc(j.claim.where)})"
        lines.append([name, said, chip(j.text, j.kind), j.preset, esc(j.sentence)])
    if not lines:
        return "No claims have been written down yet."
    head = ["claim", "what the paper says", "verdict", "preset", "evidence"]
    return f":::{{div}} claims\n{table(head, lines)}\n:::"


# --- all claims, with filters ------------------------------------------------------------------

_SCRIPT = """<script>
(() => {
  const rows = [...document.querySelectorAll("table.ledger tbody tr")];
  const fields = ["paper", "kind", "preset", "about"];
  const chosen = (name) => document.getElementById("filter-" + name).value;
  const apply = () => {
    const words = chosen("text").toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits = fields.every((f) => !chosen(f) || row.dataset[f] === chosen(f))
        && row.textContent.toLowerCase().includes(words);
      row.hidden = !fits;
      shown += fits;
    }
    document.getElementById("filter-count").textContent = shown + " of " + rows.length + " claims";
  };
  for (const name of [...fields, "text"])
    document.getElementById("filter-" + name).addEventListener("input", apply);
  apply();
})();
</script>"""


def claims_page(judged: Judged) -> str:
    """Every claim of every paper with filters by paper, outcome, preset, subject and words.

    A small script of the page's own hides rows; without it all are shown.
    """
    every = [(paper, j) for paper, entries in judged.items() for j in entries]
    rows = "\n".join(_row(paper, j) for paper, j in every)
    head = "".join(f"<th>{name}</th>" for name in ("claim", "what the paper says", "verdict",
                                                    "evidence"))  # fmt: skip
    body = (
        f'<div class="filters">{_filters(every)}</div>\n<div class="table-wrapper">'
        f'<table class="ledger docutils"><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n'
        f"</tbody></table></div>\n{_SCRIPT}"
    )
    return f"# All claims\n\nChoose, or type a word.\n\n````{{raw}} html\n{body}\n````\n"


def _filters(every: list[tuple[str, sources.Judged]]) -> str:
    kinds = [kind for kind, _, _ in LEGEND if any(j.kind == kind for _, j in every)]
    offered = {
        "paper": {p: p for p, _ in every},
        "kind": {k: WORDS[k] for k in kinds},
        "preset": {j.preset: j.preset or "none" for _, j in every if j.preset},
        "about": {j.claim.about: j.claim.about.replace("_", " ") for _, j in every},
    }
    names = {"paper": "paper", "kind": "verdict", "preset": "preset", "about": "about"}
    return "".join(
        f'<label>{names[f]} <select id="filter-{f}"><option value="">all</option>'
        + "".join(f'<option value="{_attr(v)}">{html.escape(t)}</option>' for v, t in o.items())
        + "</select></label> "
        for f, o in offered.items()
    ) + ('<label>words <input id="filter-text" type="search"></label> '
         '<span id="filter-count"></span>')  # fmt: skip


def _row(paper: str, j: sources.Judged) -> str:
    facts = {"paper": paper, "kind": j.kind, "preset": j.preset, "about": j.claim.about}
    data = " ".join(f'data-{k}="{_attr(v)}"' for k, v in facts.items())
    said = f"{html.escape(j.claim.text)} <i>{html.escape(j.claim.where)}</i>"
    preset = f" <code>{j.preset}</code>" if j.preset else ""
    return (
        f'<tr id="{_attr(j.claim.id)}" {data}><td><a href="{paper}/index.html#{anchor(j.claim)}">'
        f"{html.escape(j.claim.id)}</a></td><td>{said}</td>"
        f'<td><span class="chip chip-{j.kind}">{html.escape(j.text)}</span>{preset}</td>'
        f"<td>{html.escape(j.sentence)}</td></tr>"
    )


def anchor(claim: "Claim") -> str:
    """Of a claim's row on its paper's page: Sphinx knows no underscores in ids."""
    return claim.id.replace("_", "-")


def _attr(text: str) -> str:
    return html.escape(text, quote=True)


# --- errata ------------------------------------------------------------------------------------


def errata_measured(papers: Iterable[str]) -> str:
    """The errata of all papers whose effect was measured; the others are counted."""
    lines, total = [], 0
    for paper in papers:
        book = sources.ledger(paper)
        for e in book.errata.errata if book is not None else ():
            total += 1
            if e.effect is not None:
                name = f"[{esc(e.id)}]({paper}/errata.md)"
                lines.append([name, esc(e.where), esc(e.problem), f"**{esc(e.used)}**",
                              f"{esc(e.effect.text)} ({esc(e.effect.run)})"])  # fmt: skip
    head = ["erratum", "where", "what is wrong", "reading used", "measured effect"]
    words = (
        f"{len(lines)} of {total} slips, ambiguities and contradictions were run both ways. "
        "The others are in each paper's errata."
    )
    shown = f":::{{div}} errata\n{table(head, lines)}\n:::" if lines else ""
    return f"# Errata with measured effects\n\n{words}\n\n{shown}\n"
