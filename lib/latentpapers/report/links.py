"""Links from an equation in a derivation to the function that computes it.

They stand at the end of the cell that has the equation's anchor, between marker lines, generated
from the ledger; the way back is in the function's docstring (`ledger.implements`). Neither holds a
line number, so that an edit of the library makes no notebook stale.
"""

import copy
import re
from collections.abc import Iterator
from typing import Any

from latentpapers.report import sources

_BLOCK = re.compile(r"\n*<!-- code:begin -->.*?<!-- code:end -->", re.DOTALL)
_ANCHOR = re.compile(r"""<a id=["']([^"']+)["']></a>""")
_LIBRARY = "lib/"


def with_links(notebook: dict[str, Any], paper: str, name: str) -> dict[str, Any]:
    """A copy of a notebook whose cells with anchors of equations link to the code.

    Args:
        notebook: the notebook's JSON.
        paper, name: `avae`, `1_derivation`.
    """
    notebook = copy.deepcopy(notebook)
    wanted = _functions(paper, name)
    for cell in notebook["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        text = _BLOCK.sub("", "".join(cell["source"]))
        found = [line for a in _ANCHOR.findall(text) for line in wanted.get(a, ())]
        if found:
            line = f"<small>Code: {' · '.join(found)}</small>"
            text = f"{text.rstrip()}\n\n<!-- code:begin -->\n{line}\n<!-- code:end -->"
        if text != "".join(cell["source"]):
            cell["source"] = text.splitlines(keepends=True)
    return notebook


def _functions(paper: str, name: str) -> dict[str, list[str]]:
    """Anchor -> one link an equation of this notebook that code implements."""
    book, out = sources.ledger(paper), {}
    for e in book.equations.equations if book is not None else ():
        notebook, _, anchor = (e.anchor or "").partition("#")
        if notebook == name and e.implements and e.status == "done":
            out.setdefault(anchor, []).append(f"eq {e.id} {link(e.implements, e.says)}")
    return out


def link(implements: str, says: str) -> str:
    """`latentpapers.losses.energy:energy` as a Markdown link that says what it computes."""
    module, _, function = implements.partition(":")
    hover = says.replace('"', "'").replace("$", "")
    path = f"../../{_LIBRARY}{module.replace('.', '/')}.py"
    return f'[`{module.removeprefix("latentpapers.")}.{function}`]({path} "{hover}")'


def linked(text: str) -> Iterator[tuple[str, str]]:
    """(path below the checkout, dotted name) of each library link in a cell's text."""
    for match in re.finditer(r'\[`([\w.]+)`\]\(\.\./\.\./(lib/[\w/]+\.py) "[^"]*"\)', text):
        yield match[2], match[1]
