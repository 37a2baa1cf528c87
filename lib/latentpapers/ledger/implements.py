"""`@implements("avae", eq="5")`: ties a function to the one equation that it computes.

The decorator only leaves a mark, so the function stays what it was. `scan` finds the same marks in
the source text, without importing anything; `ledger.completeness` compares them with the ledgers.
"""

import ast
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from latentpapers.errors import UnknownName
from latentpapers.ledger.schemas import PAPERS, LedgerError

Function = TypeVar("Function", bound=Callable)
_REGISTRY: dict[tuple[str, str], str] = {}
PACKAGE = Path(__file__).resolve().parent.parent


def implements(paper: str, *, eq: str) -> Callable[[Function], Function]:
    """Marks a function as the implementation of equation `eq` of `paper`.

    The mark is `function.__implements__`, a tuple of (paper, equation); one function may carry
    several. Its docstring gains the notebook section that derives the equation.

    Raises:
        UnknownName: not a paper's id.
        LedgerError: another function has that equation already.
    """
    if paper not in PAPERS:
        raise UnknownName("paper", paper, PAPERS)

    def mark(function: Function) -> Function:
        target = f"{function.__module__}:{function.__qualname__}"
        holder = _REGISTRY.setdefault((paper, eq), target)  # equal again after a module reload
        if holder != target:
            raise LedgerError(
                f"equation {eq} of {paper} is implemented by {holder} and again by {target}; "
                "keep one of the two marks."
            )
        marks = getattr(function, "__implements__", ())
        function.__implements__ = (*marks, (paper, eq))  # type: ignore[attr-defined]
        words = inspect.cleandoc(function.__doc__ or "")
        place = f"notebooks/{paper}/{section(paper, eq)}"
        function.__doc__ = f"{words}\n\nDerived in {place} (equation {eq})."
        return function

    return mark


_WORD = re.compile(r"[a-z]\w*")


def section(paper: str, eq: str) -> str:
    """The notebook section that derives an equation: `1_derivation.ipynb#eq-5`.

    What the paper does not number (`alg1`) has its name as anchor. A test holds this equal to the
    anchors of the ledgers.

    Raises:
        UnknownName: not a paper's id.
    """
    if paper not in PAPERS:
        raise UnknownName("paper", paper, PAPERS)
    return f"1_derivation.ipynb#{eq if _WORD.fullmatch(eq) else f'eq-{eq}'}"


def registered() -> dict[tuple[str, str], str]:
    """`{(paper, equation): "module:function"}` of the modules imported so far."""
    return dict(_REGISTRY)


@dataclass(frozen=True)
class Implementation:
    """Where an equation is implemented.

    Attributes:
        target: `latentpapers.losses.energy:energy`.
        file: path relative to the package's parent folder.
        line: line of `def`.
    """

    target: str
    file: str
    line: int


def scan(package: Path | None = None) -> dict[tuple[str, str], Implementation]:
    """All marks in the library's source text, by (paper, equation). Imports nothing.

    Args:
        package: the folder `latentpapers`; by default the one that this file belongs to.

    Raises:
        LedgerError: two functions with one equation, or a mark that is not written as literals.
    """
    package = package or PACKAGE
    found: dict[tuple[str, str], Implementation] = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package.parent).as_posix()
        for key, item in _marks(path.read_text(), name):
            if key in found:
                raise LedgerError(
                    f"equation {key[1]} of {key[0]} is implemented by {found[key].target} and "
                    f"again by {item.target}; keep one of the two marks."
                )
            found[key] = item
    return found


@functools.lru_cache(maxsize=512)
def _marks(source: str, name: str) -> tuple[tuple[tuple[str, str], Implementation], ...]:
    if "implements" not in source:
        return ()
    module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return tuple(
        (_literal(call, name), Implementation(f"{module}:{qualname}", name, node.lineno))
        for qualname, node in functions(ast.parse(source))
        for call in node.decorator_list
        if isinstance(call, ast.Call) and _name(call.func) == "implements"
    )


def functions(
    tree: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    """Functions and classes of a module with their qualified names; nothing inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from functions(node, f"{prefix}{node.name}.")


def _name(node: ast.expr) -> str | None:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def _literal(call: ast.Call, name: str) -> tuple[str, str]:
    given = {word.arg: word.value for word in call.keywords} | dict(
        zip(("paper",), call.args, strict=False)
    )
    values = [getattr(given.get(key), "value", None) for key in ("paper", "eq")]
    if not all(isinstance(value, str) for value in values):
        raise LedgerError(
            f'{name}:{call.lineno}: write @implements("<paper>", eq="<number>") with literal texts.'
        )
    return values[0], values[1]
