"""What people see: figures, tables, diagrams, the gallery and the checks that keep them honest.

Submodules load on first use, so `latentpapers.report` itself imports neither torch nor matplotlib.
"""

import importlib
from typing import Any

_SUBMODULES = (
    "atlas", "diagram", "figures", "floors", "gallery", "links", "mathml", "pages", "sources",
    "stamp", "summary", "tables",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES])
