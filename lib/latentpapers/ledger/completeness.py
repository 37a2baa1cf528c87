"""What is missing between the ledgers, the code, the notebooks and the tests. Imports no torch."""

import ast
import functools
import json
import re
from pathlib import Path

from latentpapers import ledger, paths
from latentpapers.ledger.implements import PACKAGE, Implementation, functions, scan
from latentpapers.ledger.schemas import NUMERIC_KINDS, Equation

_ANCHOR = re.compile(r"""<a\s+id=["']([^"']+)["']""")


def incomplete(paper: str) -> list[str]:
    """What is missing between `paper`'s equation ledger, code, notebooks and tests.

    Both ways: a *done* loss, operator or identity has its one implementation, anchor, check and
    control, a mark in the code has its equation, and a *done* figure has its notebook.

    Raises:
        LedgerError: the ledger itself is broken.
    """
    book = ledger.load(paper)
    equations = {e.id: e for e in book.equations.equations}
    marks = {eq: item for (owner, eq), item in scan().items() if owner == paper}
    problems = [
        f"{item.file}:{item.line}: {item.target} implements equation {eq} of {paper}, which the "
        "ledger does not list."
        for eq, item in marks.items()
        if eq not in equations
    ]
    for equation in equations.values():
        if equation.status == "done":
            missing = _missing(paper, equation, marks.get(equation.id))
            problems += [f"{paper} equation {equation.id}: {text}" for text in missing]
    return problems + [
        f"{paper} {figure.id}: notebook {figure.notebook} does not exist."
        for figure in book.figures.figures
        if figure.status == "done" and not notebook_path(paper, figure.notebook or "").is_file()
    ]


def broken_metrics() -> list[str]:
    """Metrics of the registry whose implementation is not defined in the library's source."""
    return [
        f"metrics.yaml: {metric.id}: {metric.implementation} does not exist."
        for metric in ledger.metrics().values()
        if metric.implementation and not has_function(metric.implementation)
    ]


def _missing(paper: str, equation: Equation, mark: Implementation | None) -> list[str]:
    problems = []
    if mark is None and (equation.kind in NUMERIC_KINDS or equation.implements):
        problems.append(f"no function is marked; the ledger names {equation.implements}.")
    if mark is not None and mark.target != equation.implements:
        problems.append(f"{mark.target} is marked, but the ledger names {equation.implements}.")
    if equation.anchor and not has_anchor(paper, equation.anchor):
        problems.append(f"notebook anchor {equation.anchor} does not exist.")
    for test in (equation.check, equation.control):
        if test and not has_test(test):
            problems.append(f"{test} does not exist.")
    return problems


def notebook_path(paper: str, name: str) -> Path:
    """Where the notebook `1_derivation` of `paper` is."""
    return paths.root() / "notebooks" / paper / f"{name}.ipynb"


def has_anchor(paper: str, anchor: str) -> bool:
    """Whether `1_derivation#eq-5` is an `<a id="eq-5">` in that notebook's markdown."""
    notebook, _, name = anchor.partition("#")
    path = notebook_path(paper, notebook)
    return path.is_file() and name in _anchors(path.read_text())


@functools.lru_cache(maxsize=32)
def _anchors(text: str) -> frozenset[str]:
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
    return frozenset(_ANCHOR.findall("\n".join("".join(cell["source"]) for cell in cells)))


def has_test(test: str) -> bool:
    """Whether `tests/test_x.py::test_y` (or `::TestZ::test_y`) is defined in that file."""
    file, *names = test.split("[")[0].split("::")
    path = paths.root() / file
    return path.is_file() and ".".join(names) in _defined(path.read_text())


def has_function(target: str, package: Path | None = None) -> bool:
    """Whether `latentpapers.module:function` is defined at the top of that module's source."""
    module, _, qualname = target.partition(":")
    base = (package or PACKAGE).parent.joinpath(*module.split("."))
    files = [p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()]
    return any(qualname in _defined(path.read_text()) for path in files)


@functools.lru_cache(maxsize=512)
def _defined(source: str) -> frozenset[str]:
    return frozenset(name for name, _ in functions(ast.parse(source)))
