"""Notebooks as plain JSON: read without nbformat, whose import alone costs more than a plan."""

import functools
import json
import re
from pathlib import Path
from typing import Any

from latentpapers import paths
from latentpapers.errors import UserError


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook file as JSON. Cached: do not change the result.

    Raises:
        UserError: not JSON.
    """
    state = path.stat()
    return _read_cached(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=256)
def _read_cached(path: Path, *state: int) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        name = paths.relative(path)
        raise UserError(f"{name} is no notebook ({error}); restore it from git.") from error


def code_cells(notebook: dict[str, Any]) -> list[str]:
    """The sources of the code cells."""
    cells = (c["source"] for c in notebook["cells"] if c["cell_type"] == "code")
    return [source if isinstance(source, str) else "".join(source) for source in cells]


def python_only(source: str) -> str:
    """A cell without its IPython lines (`%magic`, `!shell`, `help?`)."""
    if source.lstrip().startswith("%%"):
        return ""
    lines = source.splitlines()
    return "\n".join("" if re.match(r"\s*[%!?]|.*\?$", line) else line for line in lines)
