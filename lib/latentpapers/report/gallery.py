"""The static gallery: every number beside the paper's, its verdict, and where it came from.

`build` writes Sphinx sources from ledgers and committed results and renders them in a process of
its own, so that two builds of the same results are equal byte by byte. The pages hold no address of
another host: formulas are MathML, fonts are the reader's.
"""

import ast
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from latentpapers import paths, storage
from latentpapers.errors import UserError
from latentpapers.report import mathml, sources, stamp, tables
from latentpapers.report.tables import NOTHING, markdown_row

_MARKER = ".latentpapers-gallery"
_CODE = re.compile(r"(`[^`]+`|\$[^$]+\$)")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~^$@])")
_PICTURE = re.compile(r"(?:\.\./)+results/[\w./-]+\.(?:png|jpg|svg)")
_LEDGER = re.compile(r"\]\(ledger/(claims|equations|errata|figures|values)\.yaml\)")
_TITLES = {
    "lag": "LAG: a latent adversarial generator",
    "lsrgan": "LSRGAN: latent space regularization",
    "lrc_i2i": "LRC-I2I: low resolution conditioning",
    "diamond": "Diamond in the rough: traversing the latent space",
    "avae": "AVAE: adversarial training of variational auto-encoders",
    "across": "Across the papers",
    "metrics": "How the metrics were calibrated",
}
_LEGEND = (
    ("held", "held", "our interval supports the claim"),
    ("failed", "did not hold", "our interval contradicts it"),
    ("undecided", "undecided", "the interval straddles, or the run is missing"),
    ("inconsistent", "paper inconsistent", "the paper contradicts itself"),
    ("untestable", "not testable here", "the missing thing is named"),
    ("todo", "todo", "not run yet"),
)


def build(out: Path, presets: Sequence[str] = sources.PRESETS, *, base: Path | None = None) -> Path:
    """Renders the gallery.

    Args:
        out: folder to write; replaced as a whole once the new one is complete. An existing folder
            that is not a gallery is refused.
        presets: presets whose results are shown.
        base: the results folder; None: the project's.

    Returns:
        The path of the front page.

    Raises:
        UserError: Sphinx missing or failing, or `out` holds something else.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()) and not (out / _MARKER).is_file():
        raise UserError(f"{out} exists and is no gallery; name an empty or new folder.")
    with storage.writable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
        try:
            _write(work / "src", _site(tuple(presets), base))
            _render(work / "src", work / "html")
            (work / "html" / _MARKER).write_text("")
            if out.exists():
                out.rename(work / "old")
            (work / "html").rename(out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return out / "index.html"


def _render(source: Path, target: Path) -> None:
    library = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [library, os.environ.get("PYTHONPATH")]))
    # Hash order and dates are the two things that would make equal builds differ.
    env = os.environ | {"PYTHONPATH": search, "PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "0"}
    doctrees = source.parent / "doctrees"
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", doctrees, source, target]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        if "No module named sphinx" in done.stderr:
            raise UserError("the gallery needs Sphinx; install the dependency group `gallery`.")
        tail = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"Sphinx could not render the gallery: {tail}")
    (target / ".buildinfo").unlink(missing_ok=True)
    if done.stderr.strip():
        print(_relative(done.stderr, source), file=sys.stderr)


def _relative(text: str, source: Path) -> str:
    """Sphinx's warnings without the temporary folder."""
    return text.replace(f"{source}{os.sep}", "").rstrip()


def _write(folder: Path, site: Mapping[str, str | bytes | Path]) -> None:
    shutil.copytree(paths.root() / "docs" / "gallery", folder)
    for name, content in site.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def _site(presets: tuple[str, ...], base: Path | None) -> dict[str, str | bytes | Path]:
    """All sources, path -> content (a Path is copied)."""
    site: dict[str, str | bytes | Path] = {"index.md": _front(presets, base)}
    start = paths.root() / "notebooks" / "start_here.ipynb"
    site |= _notebook(start, "") if start.is_file() else {}
    modules: set[str] = set()
    for paper in (*sources.papers(), *sources.others()):
        book = sources.ledger(paper)
        site |= _notebooks(paper)
        found = [r for p in presets if (r := sources.results(paper, p, base)) is not None]
        for result in found:
            site |= _result_files(result)
            site[f"{paper}/results_{result.preset}.md"] = _result_page(result, book)
        if book is not None:
            site[f"{paper}/equations.md"] = _equations(book)
            site[f"{paper}/errata.md"] = _errata(book)
            modules |= {_module(e.implements) for e in book.equations.equations if e.implements}
        pages = [name for name in site if name.startswith(f"{paper}/")]
        site[f"{paper}/index.md"] = _paper(paper, book, found, pages, base)
    site |= {f"source/{m}.md": text for m in sorted(modules) if (text := _listing(m))}
    listed = [name for name in site if name.startswith("source/")]
    site["source/index.md"] = _source_index(listed)
    return site


# --- front page ------------------------------------------------------------------------------


def _front(presets: tuple[str, ...], base: Path | None) -> str:
    judged = {p: sources.judged(p, base, presets) for p in sources.papers()}
    cards = "\n".join(_card(paper, entries) for paper, entries in judged.items())
    legend = " ".join(f"{_chip(text, kind)}: {says}." for kind, text, says in _LEGEND)
    start = ["start_here"] * (paths.root() / "notebooks" / "start_here.ipynb").is_file()
    toc = "\n".join([*start, *(f"{name}/index" for name in (*judged, *sources.others()))])
    every = [(paper, j) for paper, entries in judged.items() for j in entries]
    return f"""# Latent Papers: what held, and what did not

Five papers on adversarial latent spaces, rebuilt and run. Every number here was measured by a
committed run; each stands beside the paper's own with its interval, its scale and its verdict.

{legend}

::::{{grid}} 1 1 2 2
:gutter: 2

{cards}
::::

{_grouped(every)}

```{{toctree}}
:hidden:

{toc}
source/index
```
"""


def _grouped(every: list[tuple[str, sources.Judged]]) -> str:
    """The claims by outcome; those that nobody has run yet are folded away."""
    parts = []
    for kind, text, _ in _LEGEND:
        mine = [entry for entry in every if entry[1].kind == kind]
        if not mine:
            continue
        title, table = f"{text.capitalize()} ({len(mine)})", _claims(mine, link=True)
        if kind == "todo":
            parts.append(f"::::{{dropdown}} Claims without a run: {title}\n\n{table}\n::::")
        else:
            parts.append(f"## {title}\n\n{table}")
    return "\n\n".join(parts)


def _card(paper: str, entries: list[sources.Judged]) -> str:
    kinds = [j.kind for j in entries]
    counts = [(k, kinds.count(k)) for k in dict.fromkeys(sources.KINDS.values()) if k in kinds]
    words = {kind: text for kind, text, _ in _LEGEND}
    chips = " ".join(_chip(f"{n} {words[k]}", k) for k, n in counts)
    return f""":::{{grid-item-card}} {esc(_TITLES.get(paper, paper))}
:link: {paper}/index
:link-type: doc

{chips or _chip("todo: no ledger yet", "todo")}
:::
"""


def _claims(entries: Iterable[tuple[str, sources.Judged]], link: bool = False) -> str:
    lines = []
    for paper, j in entries:
        name = f"[{esc(j.claim.id)}]({paper}/index.md)" if link else f"[{esc(j.claim.id)}]{{.id}}"
        chip = _chip(j.text, j.kind)
        where = esc(j.claim.where)
        lines.append([name, f"{esc(j.claim.text)} ({where})", chip, j.preset, esc(j.sentence)])
    if not lines:
        return "No claims have been written down yet."
    return _table(["claim", "what the paper says", "verdict", "preset", "evidence"], lines)


def _chip(text: str, kind: str) -> str:
    return f"[{esc(text)}]{{.chip .chip-{kind}}}"


# --- a paper ---------------------------------------------------------------------------------


def _paper(
    paper: str, book: Any, found: list[sources.Results], pages: list[str], base: Path | None
) -> str:
    title = esc(_TITLES.get(paper, paper))
    if book is None and paper in sources.others():
        body = "Notebooks that belong to no single paper."
    elif book is None:
        body = f"{_chip('todo', 'todo')} The ledger of this paper is not written yet."
    else:
        presets = tuple(r.preset for r in found)
        judged = [(paper, j) for j in sources.judged(paper, base, presets)]
        body = f"{_about(book)}\n\n## Claims\n\n{_claims(judged)}\n\n{_overview(book, found)}"
    names = [p.removeprefix(f"{paper}/").rpartition(".")[0] for p in pages if _is_page(p)]
    toc = "\n".join(sorted(names, key=_page_order))
    return f"# {title}\n\n{body}\n\n```{{toctree}}\n:maxdepth: 1\n:caption: Pages\n\n{toc}\n```\n"


def _is_page(name: str) -> bool:
    return name.endswith((".md", ".ipynb"))


def _page_order(name: str) -> tuple[int, str]:
    kinds = ("results_paper", "results_gpu", "results_quick", "equations", "errata")
    return (kinds.index(name) if name in kinds else len(kinds), name)


def _about(book: Any) -> str:
    arxiv = f" (arXiv {book.values.arxiv})" if getattr(book.values, "arxiv", None) else ""
    return f"*{esc(book.values.title)}*{arxiv}"


def _overview(book: Any, found: list[sources.Results]) -> str:
    """What the paper has and in which presets it was regenerated."""
    lines = []
    for kind, entries in (("tables", book.values.tables), ("figures", book.figures.figures)):
        suffix = ".md" if kind == "tables" else ".png"
        for entry in entries:
            made = [
                f"[{r.preset}](results_{r.preset}.md)"
                for r in found
                if (r.folder / kind / f"{entry.id}{suffix}").is_file()
            ]
            state = ", ".join(made) or _chip("todo", "todo")
            lines.append([tables.label(entry.id), esc(entry.caption), state])
    head = "## Tables and figures\n\n"
    return head + _table(["what", "the paper's caption", "regenerated"], lines) if lines else ""


# --- results of one preset -------------------------------------------------------------------


def _result_files(result: sources.Results) -> dict[str, Path]:
    folder = f"{result.paper}/files_{result.preset}"
    kept = [*result.figures(), *(p.with_suffix(".npz") for p in result.figures())]
    kept += [p.with_suffix(".csv") for p in result.tables()]
    files = {f"{folder}/{p.name}": p for p in kept if p.is_file()}
    executed = {f"{result.paper}/executed_{result.preset}_{p.name}": p for p in result.notebooks()}
    return files | executed


def _result_page(result: sources.Results, book: Any) -> str:
    parts = [f"# Results: preset {result.preset}", esc(stamp.age(result.manifest)) + "."]
    parts += [f"*{esc(text)}*" for text in sources.scale_labels(result.rows)]
    parts += [_table_section(result, path) for path in result.tables()]
    parts += [_figure_section(result, path, book) for path in result.figures()]
    shown = {p.stem for p in (*result.tables(), *result.figures())}
    for id in dict.fromkeys(row["id"] for row in result.rows):
        if id not in shown:
            parts.append(f"## {esc(tables.label(id))}\n\n{_numbers(result, id)}")
    parts.append(_provenance(result.manifest))
    return "\n\n".join(parts) + "\n"


def _table_section(result: sources.Results, path: Path) -> str:
    csv = f"files_{result.preset}/{path.stem}.csv"
    return f"## {tables.label(path.stem)}\n\n{path.read_text()}\n\n{{download}}`CSV <{csv}>`"


def _figure_section(result: sources.Results, path: Path, book: Any) -> str:
    entries = {f.id: f for f in book.figures.figures} if book is not None else {}
    entry, facts = entries.get(path.stem), result.facts(path)
    files = f"files_{result.preset}/{path.stem}"
    alt = esc(facts.get("caption") or (entry.shows if entry else path.stem))
    lines = [f"## {esc(tables.label(path.stem))}", f"![{alt}]({files}.png)"]
    if facts.get("caption"):
        lines.append(f"**Ours:** {esc(facts['caption'])}")
    if entry is not None:
        lines.append(f"**Paper's caption:** {esc(entry.caption)}")
        lines.append(f"**Shows:** {esc(entry.shows)}")
        if entry.note:
            lines.append(f"**Note:** {esc(entry.note)}")
    if facts.get("label"):
        lines.append(f"[{esc(facts['label'])}]{{.scale-label}}")
    if any(row["id"] == path.stem for row in result.rows):
        lines.append(_numbers(result, path.stem))
    if path.with_suffix(".npz").is_file():
        lines.append(f"{{download}}`data behind the figure <{files}.npz>`")
    return "\n\n".join(lines)


def _numbers(result: sources.Results, id: str) -> str:
    """Numbers that belong to no printed table: ours alone."""
    rows = tables.shown(row for row in result.rows if row["id"] == id).values()
    lines = [
        [esc(r["row"]), esc(r["column"]), esc(tables.number(r)), f"{r['n']:,}", esc(r["interval"])]
        for r in rows
    ]
    return _table(["row", "column", "ours", "n", "interval"], lines)


def _provenance(manifest: Mapping[str, Any]) -> str:
    if not manifest:
        return "## Provenance\n\nNo manifest was committed with these results."
    lines = [
        [
            esc(name),
            _hash(job.get("fingerprint")),
            _hash(job.get("code")),
            _hash(job.get("config")),
            esc(job.get("seed", NOTHING)),
            esc(job.get("device", NOTHING)),
            str(len(job.get("library", {}))),
        ]
        for name, job in sorted(manifest.get("jobs", {}).items())
    ]
    head = ["job", "fingerprint", "cells", "configuration", "seed", "device", "library files"]
    commit = f"Commit `{manifest['commit']}`." if manifest.get("commit") else "No commit recorded."
    return "\n\n".join(["## Provenance", commit, _table(head, lines), *_inputs(manifest)])


def _inputs(manifest: Mapping[str, Any]) -> list[str]:
    """Data and package versions, each once, folded away."""
    facts: dict[str, set[str]] = {}
    for job in manifest.get("jobs", {}).values():
        for kind in ("data", "versions"):
            for name, value in (job.get(kind) or {}).items():
                facts.setdefault(f"{kind}: {name}", set()).add(str(value))
    lines = [[esc(name), esc(", ".join(sorted(v)))] for name, v in sorted(facts.items())]
    if not lines:
        return []
    inner = _table(["what", "hash or version"], lines)
    return [f":::{{dropdown}} Data and package versions\n\n{inner}\n:::"]


def _hash(value: Any) -> str:
    if isinstance(value, str):
        return f"`{value[:12]}`"
    return NOTHING if value is None else f"`{storage.sha256(storage.dumps(value).encode())[:12]}`"


# --- equations, errata -----------------------------------------------------------------------


def _equations(book: Any) -> str:
    parts = ["# Equations", "Numbers are the paper's. Each links to the code that implements it."]
    for e in book.equations.equations:
        parts += [
            f"## Equation {esc(e.id)}",
            f"{esc(e.says)} *Section {esc(e.section)}, {e.kind}.*",
        ]
        parts.append(f"```{{raw}} html\n{mathml.block(e.latex, e.id)}```")
        parts.append(_where(e))
    return "\n\n".join(parts) + "\n"


def _where(e: Any) -> str:
    facts = []
    if e.implements:
        facts.append(f"code: {_code_link(e.implements)}")
    if e.anchor:
        notebook, _, anchor = e.anchor.partition("#")
        url = html.escape(f"{notebook}.html#{anchor}")
        facts.append(f'derivation: <a href="{url}">{html.escape(e.anchor)}</a>')
    facts += [f"{name}: `{v}`" for name in ("check", "control") if (v := getattr(e, name))]
    state = "" if e.status == "done" else _chip("todo", "todo")
    return " ".join(filter(None, [state, "; ".join(facts)])) or _chip("todo", "todo")


def _module(implements: str) -> str:
    return implements.partition(":")[0]


def _code_link(implements: str) -> str:
    module, _, name = implements.partition(":")
    line = source_line(implements)
    if line is None:
        return f"`{implements}`"
    url = html.escape(f"../source/{module}.html#L-{line}")
    return f'<a href="{url}"><code>{html.escape(f"{module}:{name}")}</code> (line {line})</a>'


def _module_file(module: str) -> Path | None:
    base = Path(__file__).resolve().parents[2].joinpath(*module.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def source_line(implements: str) -> int | None:
    """The line where `latentpapers.module:name.inner` is defined, read without importing it.

    Returns:
        None if the module or the name does not exist.
    """
    module, _, dotted = implements.partition(":")
    file = _module_file(module)
    node: Any = ast.parse(file.read_text()) if file else None
    for name in dotted.split("."):
        body = getattr(node, "body", [])
        node = next((n for n in body if getattr(n, "name", None) == name), None)
    return node.lineno if node is not None else None


def _listing(module: str) -> str | None:
    """A page with a module's source, each line with an anchor `L-<n>`."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    file = _module_file(module)
    if file is None:
        return None
    style = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=True, wrapcode=True)
    code = highlight(file.read_text(), PythonLexer(), style)
    # An empty line would end a raw block inside Markdown only outside a fence; the fence keeps it.
    fence = "````````"
    return f'# {esc(module)}\n\n{fence}{{raw}} html\n<div class="listing">{code}</div>\n{fence}\n'


def _source_index(pages: list[str]) -> str:
    names = "\n".join(Path(p).stem for p in sorted(pages))
    listed = f"```{{toctree}}\n:maxdepth: 1\n\n{names}\n```" if names else "Nothing is linked yet."
    return f"# Source\n\nThe library files that implement numbered equations.\n\n{listed}\n"


def _errata(book: Any) -> str:
    parts = ["# Errata", "Slips, ambiguities and contradictions; the reading that is used is bold."]
    for e in book.errata.errata:
        readings = "\n".join(
            f"- **{esc(r.name)}**: {esc(r.text)} **(used)**" if r.name == e.used
            else f"- {esc(r.name)}: {esc(r.text)}"
            for r in e.readings
        )  # fmt: skip
        parts += [f"## {esc(e.id)}: {esc(e.where)}", f"Printed: {esc(e.printed)}", esc(e.problem)]
        parts += [readings, f"**Why:** {esc(e.why)}"]
        if e.effect is not None:
            parts.append(f"**Effect** ({esc(e.effect.run)}): {esc(e.effect.text)}")
    if len(parts) == 2:
        parts = ["# Errata", "None have been found so far."]
    return "\n\n".join(parts) + "\n"


# --- notebooks -------------------------------------------------------------------------------


def _notebooks(paper: str) -> dict[str, str | bytes | Path]:
    site: dict[str, str | bytes | Path] = {}
    for file in sorted((paths.root() / "notebooks" / paper).glob("*.ipynb")):
        site |= _notebook(file, f"{paper}/")
    return site


def _notebook(file: Path, folder: str) -> dict[str, str | bytes | Path]:
    """The page of a notebook, and the checkout's pictures that its text shows (`linked/`)."""
    linked: dict[str, str | bytes | Path] = {}

    def moved(match: re.Match[str]) -> str:
        picture = (file.parent / match[0]).resolve()
        if not picture.is_file() or not picture.is_relative_to(paths.root()):
            return match[0]
        name = f"linked/{picture.relative_to(paths.root()).as_posix()}"
        linked[folder + name] = picture
        return name

    # A ledger's file is no page here, but its content has one.
    page = _LEDGER.sub(_ledger_page, _PICTURE.sub(moved, _offline(file).decode()))
    return {f"{folder}{file.name}": page, **linked}


def _ledger_page(match: re.Match[str]) -> str:
    return f"]({match[1] if match[1] in ('equations', 'errata') else 'index'}.md)"


def _offline(path: Path) -> bytes:
    """The notebook without widget views, which need a script from elsewhere; pictures stay."""
    notebook = json.loads(path.read_text())
    for cell in notebook.get("cells", []):
        kept = [o for o in cell.get("outputs", []) if not _is_widget(o)]
        cell |= {"outputs": kept} if "outputs" in cell else {}
    notebook.get("metadata", {}).pop("widgets", None)
    return storage.dumps(notebook).encode()


def _is_widget(output: Mapping[str, Any]) -> bool:
    return any("widget-view" in kind for kind in output.get("data", {}))


# --- Markdown --------------------------------------------------------------------------------


def esc(text: Any) -> str:
    """Text of a ledger as MyST Markdown: formulas between dollars and `code` stay, the rest is
    shown as written."""
    parts = _CODE.split(str(text).replace("\n", " "))
    return "".join(p if i % 2 else _SPECIAL.sub(r"\\\1", p) for i, p in enumerate(parts))


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown already."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(markdown_row(map(_cell, row)) for row in rows)


def _cell(text: str) -> str:
    # `esc` has escaped pipes in words; those in formulas and code are still bare.
    return text.replace("\\|", "|")
