"""Pieces of MyST Markdown: escaped text, tables, chips, and links that lead inside the site."""

import html
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from latentpapers import paths
from latentpapers.report.tables import markdown_row

_CODE = re.compile(r"(`[^`]+`|\$[^$]+\$)")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~^$@])")
_LINK = re.compile(r'(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)(?:\s+"([^"]*)")?\)')
_LEDGER = re.compile(r"notebooks/(\w+)/ledger/(\w+)\.yaml")
DOCUMENTS = {
    "NOTATION.md": "notation",
    "CONTRIBUTING.md": "contributing",
    "docs/architecture.md": "architecture",
    "docs/known_gaps.md": "known_gaps",
}
"""Documents of the checkout that are pages of the site, without their suffix."""
_ELSEWHERE = {"README.md": "index.html", "results/README.md": "claims.html"}
Line = Callable[[str, str], int | None]
"""(module, dotted name) -> the line of its definition, None if it has no page."""


def esc(text: Any) -> str:
    """Text of a ledger as MyST Markdown: formulas between dollars and `code` stay, the rest is
    shown as written."""
    parts = _CODE.split(str(text).replace("\n", " "))
    return "".join(p if i % 2 else _SPECIAL.sub(r"\\\1", p) for i, p in enumerate(parts))


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown already."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(markdown_row(map(_cell, row)) for row in rows)


def _cell(text: str) -> str:
    # `esc` has escaped pipes in words; those in formulas and code are still bare.
    return text.replace("\\|", "|")


def chip(text: str, kind: str) -> str:
    """A verdict as a coloured chip."""
    return f"[{esc(text)}]{{.chip .chip-{kind}}}"


def relinked(text: str, folder: Path, page: str, line: Line) -> str:
    """Markdown whose links to files of the checkout lead to the site's pages.

    A link to a file without a page becomes its text; other addresses stay.

    Args:
        folder: where the text stands in the checkout; its links are relative to it.
        page: the folder of the site's page, "" for the top.
        line: finds functions.
    """

    def moved(match: re.Match[str]) -> str:
        words, target, hover = match[1], match[2], match[3]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        name, _, anchor = target.partition("#")
        file = Path(os.path.normpath(folder / name))
        if not file.exists() or not file.is_relative_to(paths.root()):
            return match[0]
        place = _place(file.relative_to(paths.root()).as_posix(), anchor, words, line)
        if place is None:
            return words
        url = os.path.relpath(place, page or ".").replace(os.sep, "/")
        title = f' title="{html.escape(hover)}"' if hover else ""
        return f'<a href="{html.escape(url)}"{title}>{words}</a>'

    return _LINK.sub(moved, text)


def _place(name: str, anchor: str, words: str, line: Line) -> str | None:
    """The page of a checkout's file, with an anchor where there is one."""
    tail = f"#{anchor}" if anchor else ""
    if name in DOCUMENTS or name in _ELSEWHERE:
        return _ELSEWHERE.get(name, f"{DOCUMENTS.get(name)}.html") + tail
    if match := _LEDGER.fullmatch(name):
        return f"{match[1]}/{match[2] if match[2] in ('equations', 'errata') else 'index'}.html"
    if name.startswith("lib/") and name.endswith(".py"):
        return _source(name, words, line)
    inside = name.removeprefix("notebooks/")
    if inside.endswith(".ipynb"):
        return f"{inside.removesuffix('.ipynb')}.html{tail}"
    return f"{inside}/index.html" if inside != name and "/" not in inside else None


def _source(name: str, words: str, line: Line) -> str | None:
    """The listing of a library file, at the function that the link's words name."""
    module = name.removeprefix("lib/").removesuffix(".py").removesuffix("/__init__")
    module = module.replace("/", ".")
    spoken = words.strip("`").removeprefix("latentpapers.")
    short = module.removeprefix("latentpapers.")
    number = re.search(r":(\d+)`?$", words)
    found = line(module, spoken.removeprefix(f"{short}.") if spoken.startswith(short) else "")
    if found is None:
        return None
    return f"source/{module}.html#L-{number[1] if number else found}"
