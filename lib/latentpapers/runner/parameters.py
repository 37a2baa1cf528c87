"""The parameters cell of a notebook: what it may hold, and what a job puts in its place.

Strict where papermill only warns about an unknown name and never looks at types.
"""

import ast
from collections.abc import Iterator
from typing import Any

from latentpapers import config
from latentpapers.errors import UnknownName, UserError
from latentpapers.runner.cells import code_cells, python_only

MAX_PARAMETERS = 8
_FIXED = ("preset", "seed")


def parameters(notebook: dict[str, Any], name: str = "the notebook") -> dict[str, Any]:
    """The names and defaults in the cell tagged `parameters`.

    Raises:
        UserError: no or several such cells, something else than literals, more than eight names,
            a name that no later cell reads.
    """
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    tagged = [i for i, c in enumerate(code) if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise UserError(f"{name} has {len(tagged)} cells tagged 'parameters'; it needs one.")
    sources = code_cells(notebook)
    defaults = _literals(sources[tagged[0]], name)
    if len(defaults) > MAX_PARAMETERS:
        raise UserError(f"{name} has {len(defaults)} parameters; {MAX_PARAMETERS} are the limit.")
    later = {word for source in sources[tagged[0] + 1 :] for word in _names_read(source)}
    unread = [n for n in defaults if n not in later]
    if unread:
        raise UserError(f"{name}: no later cell reads parameter {', '.join(map(repr, unread))}.")
    return defaults


def _literals(source: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        try:
            found[target.id] = ast.literal_eval(node.value)  # type: ignore[union-attr]
        except (AttributeError, TypeError, ValueError):
            line = ast.unparse(node).splitlines()[0]
            raise UserError(f"{name}: a parameter is `name = literal`, not `{line}`.") from None
    return found


def _names_read(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(python_only(source))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id


def injected(
    asked: dict[str, Any],
    overrides: dict[str, Any],
    notebook: dict[str, Any],
    name: str = "the notebook",
) -> dict[str, Any]:
    """The parameters that differ from the notebook's defaults, checked by name and type.

    Args:
        asked: preset, seed, and device if one was asked for.
        overrides: one spelled as a parameter of the notebook sets that; all others go, dotted, to
            the preset through the parameter `overrides`.
        notebook: the notebook as JSON.
        name: how errors call it.

    Raises:
        UnknownName: the notebook has no such parameter; UserError: a value of another type.
    """
    defaults = parameters(notebook, name)
    own = {k: v for k, v in overrides.items() if k in defaults and k not in _FIXED}
    rest = {k: v for k, v in overrides.items() if k not in own}
    asked = asked | own | ({"overrides": rest} if rest else {})
    values: dict[str, Any] = {}
    for key, value in asked.items():
        if key not in defaults:
            raise UnknownName(f"parameter of {name}:", key, defaults)
        checked = config.typed(key, value, type(defaults[key]))
        if checked != defaults[key]:
            values[key] = checked
    return values
