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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from latentpapers import paths, storage
from latentpapers.errors import UserError
from latentpapers.ledger.implements import scan, section
from latentpapers.report import mathml, reviewer, sources, stamp, tables
from latentpapers.report.myst import DOCUMENTS, chip, esc, relinked, table
from latentpapers.report.reviewer import TITLES
from latentpapers.report.tables import NOTHING

_MARKER = ".latentpapers-gallery"
_PICTURE = re.compile(r"(?:\.\./)+results/[\w./-]+\.(?:png|jpg|svg)")


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
    in_the_way = next((p for p in (out, *out.parents) if p.exists()), out)
    if in_the_way.exists() and not in_the_way.is_dir():
        raise UserError(f"{in_the_way} is a file; name an empty or new folder.")
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
    site: dict[str, str | bytes | Path] = _overall(presets, base)
    start = paths.root() / "notebooks" / "start_here.ipynb"
    site |= _notebook(start, "") if start.is_file() else {}
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
        pages = [name for name in site if name.startswith(f"{paper}/")]
        site[f"{paper}/index.md"] = _paper(paper, book, found, pages, base)
    site |= {f"source/{m}.md": text for m in _modules(site) if (text := _listing(m))}
    listed = [name for name in site if name.startswith("source/")]
    site["source/index.md"] = _source_index(listed)
    return site


def _overall(presets: tuple[str, ...], base: Path | None) -> dict[str, str | bytes | Path]:
    """The pages that belong to no single paper."""
    judged = {p: sources.judged(p, base, presets) for p in sources.papers()}
    site: dict[str, str | bytes | Path] = {
        "claims.md": reviewer.claims_page(judged),
        "errata_measured.md": reviewer.errata_measured(sources.papers()),
    }
    for name, page in DOCUMENTS.items():
        file = paths.root() / name
        if file.is_file():
            site[f"{page}.md"] = relinked(file.read_text(), file.parent, "", _line_of)
    for picture in (paths.root() / "docs").glob("*.svg"):
        site[picture.name] = picture
    for paper in judged:
        if (shown := reviewer.picture(paper, base)) is not None:
            site[f"cards/{paper}.png"] = shown[0]
    start = ["start_here"] * (paths.root() / "notebooks" / "start_here.ipynb").is_file()
    own = [name.removesuffix(".md") for name in site if name.endswith(".md")]
    each = [f"{name}/index" for name in (*judged, *sources.others())]
    toc = "\n".join([*start, *own[:2], *each, *own[2:], "source/index"])
    return site | {"index.md": reviewer.front(judged, presets, toc, base)}


def _modules(site: Mapping[str, str | bytes | Path]) -> list[str]:
    """The library's modules that a page links to."""
    texts = (text for text in site.values() if isinstance(text, str))
    return sorted(
        {m for text in texts for m in re.findall(r"source/(latentpapers[\w.]*)\.html", text)}
    )


# --- a paper ---------------------------------------------------------------------------------


def _paper(
    paper: str, book: Any, found: list[sources.Results], pages: list[str], base: Path | None
) -> str:
    title = esc(TITLES.get(paper, paper))
    if book is None and paper in sources.others():
        body = "Notebooks that belong to no single paper."
    elif book is None:
        body = f"{chip('todo', 'todo')} The ledger of this paper is not written yet."
    else:
        presets = tuple(r.preset for r in found)
        judged = [(paper, j) for j in sources.judged(paper, base, presets)]
        shown = reviewer.claims(judged, link=False)
        body = f"{_about(book)}\n\n## Claims\n\n{shown}\n\n{_overview(book, found)}"
    names = [p.removeprefix(f"{paper}/").rpartition(".")[0] for p in pages if _is_page(p)]
    toc = "\n".join(sorted(names, key=_page_order))
    return f"# {title}\n\n{body}\n\n```{{toctree}}\n:maxdepth: 1\n:caption: Pages\n\n{toc}\n```\n"


def _is_page(name: str) -> bool:
    return name.endswith((".md", ".ipynb"))


def _page_order(name: str) -> tuple[int, str]:
    kinds = (*(f"results_{preset}" for preset in sources.PRESETS), "equations", "errata")
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
            state = ", ".join(made) or chip("todo", "todo")
            lines.append([tables.label(entry.id), esc(entry.caption), state])
    head = "## Tables and figures\n\n"
    return head + table(["what", "the paper's caption", "regenerated"], lines) if lines else ""


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
    labels = "\n".join(f"- {esc(text)}" for text in sources.scale_labels(result.rows))
    parts.append(f":::{{dropdown}} Scales of these numbers\n\n{labels or 'none'}\n:::")
    parts += [_table_section(result, path, book) for path in result.tables()]
    parts += [_figure_section(result, path, book) for path in result.figures()]
    shown = {p.stem for p in (*result.tables(), *result.figures())}
    for id in dict.fromkeys(row["id"] for row in result.rows):
        if id not in shown:
            parts.append(f"## {esc(tables.label(id))}\n\n{_numbers(result, id)}")
    parts.append(_provenance(result.manifest))
    return "\n\n".join(parts) + "\n"


def _table_section(result: sources.Results, path: Path, book: Any) -> str:
    csv = f"files_{result.preset}/{path.stem}.csv"
    parts = [f"## {tables.label(path.stem)}", path.read_text(), _verdicts(result, path.stem, book)]
    made = _made(result, "3_tables", f"{{download}}`CSV <{csv}>`")
    return "\n\n".join(filter(None, [*parts, made]))


def _verdicts(result: sources.Results, id: str, book: Any) -> str:
    """The claims whose rule reads this table or figure, with the verdict of this preset."""
    from latentpapers.ledger.schemas import refs
    from latentpapers.ledger.verdicts import rule_of

    lines = []
    for claim in book.claims.claims if book is not None else ():
        rule, entry = rule_of(claim, result.preset), result.verdicts.get(claim.id)
        if rule is None or entry is None or id not in {ref.id for ref in refs(rule)}:
            continue
        kind = sources.KINDS.get(entry["verdict"], "undecided")
        suffix = f" ({', '.join(entry['suffixes'])})" if entry.get("suffixes") else ""
        words = chip(entry["verdict"] + suffix, kind)
        lines.append(
            [
                f"[{esc(claim.id)}](index.md#{reviewer.anchor(claim)})",
                esc(claim.text),
                words,
                esc(entry["sentence"]),
            ]
        )
    head = ["claim", "what the paper says", "verdict", "evidence"]
    return f":::{{div}} claims\n{table(head, lines)}\n:::" if lines else ""


def _made(result: sources.Results, notebook: str | None, *files: str) -> str:
    """Which notebook and job made it, what can be downloaded, and the way to the provenance."""
    jobs = [n for n in result.manifest.get("jobs", {}) if n.partition("/")[0] == notebook]
    source = paths.root() / "notebooks" / result.paper / f"{notebook}.ipynb"
    by = f'<a href="{notebook}.html">{notebook}</a>' if source.is_file() else notebook or ""
    stamps = ", ".join(_hash(result.manifest["jobs"][n].get("fingerprint")) for n in jobs)
    made = f"Made by {by}" + (f", job {stamps}" if stamps else "") if by else ""
    provenance = '<a href="#provenance">provenance</a>'
    return " · ".join(filter(None, [made, provenance, *files]))


def _figure_section(result: sources.Results, path: Path, book: Any) -> str:
    entries = {f.id: f for f in book.figures.figures} if book is not None else {}
    entry, facts = entries.get(path.stem), result.facts(path)
    files = f"files_{result.preset}/{path.stem}"
    alt = esc(facts.get("caption") or (entry.shows if entry else path.stem))
    drawn = ", drawn" if path.stem.startswith("table_") else ""  # the table has the plain heading
    lines = [f"## {esc(tables.label(path.stem))}{drawn}", f"![{alt}]({files}.png)"]
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
    lines.append(_verdicts(result, path.stem, book))
    data = path.with_suffix(".npz").is_file()
    behind = [f"{{download}}`data behind the figure <{files}.npz>`"] * data
    lines.append(_made(result, entry.notebook if entry else None, *behind))
    return "\n\n".join(filter(None, lines))


def _numbers(result: sources.Results, id: str) -> str:
    """Numbers that belong to no printed table: ours alone."""
    rows = tables.shown(row for row in result.rows if row["id"] == id).values()
    lines = [
        [esc(r["row"]), esc(r["column"]), esc(tables.number(r)), f"{r['n']:,}", esc(r["interval"])]
        for r in rows
    ]
    return table(["row", "column", "ours", "n", "interval"], lines)


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
    return "\n\n".join(["## Provenance", commit, table(head, lines), *_inputs(manifest)])


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
    inner = table(["what", "hash or version"], lines)
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
        facts.append(f"code: {_code_link(e.implements, e.says)}")
    if e.anchor:
        notebook, _, anchor = e.anchor.partition("#")
        url = html.escape(f"{notebook}.html#{anchor}")
        facts.append(f'derivation: <a href="{url}">{html.escape(e.anchor)}</a>')
    facts += [f"{name}: `{v}`" for name in ("check", "control") if (v := getattr(e, name))]
    state = "" if e.status == "done" else chip("todo", "todo")
    return " ".join(filter(None, [state, "; ".join(facts)])) or chip("todo", "todo")


def _code_link(implements: str, says: str) -> str:
    module, _, name = implements.partition(":")
    line = source_line(implements)
    if line is None:
        return f"`{implements}`"
    url, hover = html.escape(f"../source/{module}.html#L-{line}"), html.escape(says, quote=True)
    words = f"<code>{html.escape(f'{module}:{name}')}</code> (line {line})"
    return f'<a href="{url}" title="{hover}">{words}</a>'


def _line_of(module: str, name: str) -> int | None:
    """The line of a function of the library, the first where it has none, None without file."""
    if _module_file(module) is None:
        return None
    return (source_line(f"{module}:{name}") if name else None) or 1


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
    """A page with a module's source, each line with an anchor `L-<n>`, and the ways back."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    file = _module_file(module)
    if file is None:
        return None
    style = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=True, wrapcode=True)
    code = highlight(file.read_text(), PythonLexer(), style)
    code, back = _with_sections(code, module)
    # An empty line would end a raw block inside Markdown only outside a fence; the fence keeps it.
    fence = "````````"
    raw = f'{fence}{{raw}} html\n{back}<div class="listing">{code}</div>\n{fence}'
    return f"# {esc(module)}\n\n{raw}\n"


def _with_sections(code: str, module: str) -> tuple[str, str]:
    """A listing whose functions lead to the sections that derive them, and a list of those."""
    lines, links = code.split("\n"), []
    for (paper, eq), item in sorted(scan().items()):
        notebook, _, anchor = section(paper, eq).partition("#")
        if item.target.partition(":")[0] != module or not _has_page(paper, notebook):
            continue
        url = html.escape(f"../{paper}/{notebook.removesuffix('.ipynb')}.html#{anchor}")
        back = f'<a class="eq" href="{url}">{paper}, equation {html.escape(eq)}</a>'
        name = html.escape(item.target.partition(":")[2])
        links.append(f'<li><a href="#L-{item.line}"><code>{name}</code></a>: {back}</li>')
        for i, text in enumerate(lines):
            if f'id="L-{item.line}"' in text:
                lines[i] = f"{text}  {back}"
    return "\n".join(lines), f'<ul class="ways">{"".join(links)}</ul>' if links else ""


def _has_page(paper: str, notebook: str) -> bool:
    return (paths.root() / "notebooks" / paper / notebook).is_file()


def _source_index(pages: list[str]) -> str:
    names = "\n".join(Path(p).stem for p in sorted(pages))
    listed = f"```{{toctree}}\n:maxdepth: 1\n\n{names}\n```" if names else "Nothing is linked yet."
    return f"# Source\n\nThe library files that pages link to.\n\n{listed}\n"


def _errata(book: Any) -> str:
    """Those with a measured effect first."""
    entries = sorted(book.errata.errata, key=lambda e: e.effect is None)
    if not entries:
        return "# Errata\n\nNone have been found so far.\n"
    measured = sum(e.effect is not None for e in entries)
    parts = [
        "# Errata",
        "Slips, ambiguities and contradictions; the reading that is used is bold. "
        f"{measured} of {len(entries)} have a measured effect and stand first.",
    ]
    for e in entries:
        readings = "\n".join(
            f"- **{esc(r.name)}**: {_formula(r.text)} **(used)**" if r.name == e.used
            else f"- {esc(r.name)}: {_formula(r.text)}"
            for r in e.readings
        )  # fmt: skip
        parts += [f"## {esc(e.id)}: {esc(e.where)}", f"Printed: {_formula(e.printed)}"]
        parts.append(esc(e.problem))
        if e.effect is not None:
            mark = chip("measured effect", "held")
            parts.append(f"{mark} {esc(e.effect.text)} *({esc(e.effect.run)})*")
        parts += [readings, f"**Why:** {esc(e.why)}"]
    return "\n\n".join(parts) + "\n"


def _formula(text: str) -> str:
    """A ledger's text; one with a command of TeX is a formula as a whole."""
    return f"${text}$" if re.search(r"\\[a-zA-Z]", text) else esc(text)


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

    def words(text: str) -> str:
        return relinked(_PICTURE.sub(moved, text), file.parent, folder, _line_of)

    notebook = json.loads(file.read_text())
    for cell in notebook.get("cells", []):
        _offline(cell, words)
    notebook.get("metadata", {}).pop("widgets", None)
    return {f"{folder}{file.name}": storage.dumps(notebook), **linked}


def _offline(cell: dict[str, Any], words: Callable[[str], str]) -> None:
    """A cell without widget views, which need a script from elsewhere, and with the site's links;
    pictures stay, the code of a solution is folded."""
    if cell["cell_type"] == "markdown":
        cell["source"] = words("".join(cell["source"]))
    tags = cell["metadata"].get("tags", [])
    if "solution" in tags and cell["cell_type"] == "code" and "hide-input" not in tags:
        cell["metadata"] = {**cell["metadata"], "tags": [*tags, "hide-input"]}
    if "outputs" in cell:
        cell["outputs"] = [o for o in cell["outputs"] if not _is_widget(o)]
    for output in cell.get("outputs", []):
        if "text/markdown" in output.get("data", {}):
            # the head of a shown source; its code is no Markdown
            head, fence, code = "".join(output["data"]["text/markdown"]).partition("```")
            output["data"]["text/markdown"] = words(head) + fence + code


def _is_widget(output: Mapping[str, Any]) -> bool:
    return any("widget-view" in kind for kind in output.get("data", {}))
