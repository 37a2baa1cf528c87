"""Latent Papers: five papers on adversarial latent spaces, executable.

`import latentpapers as lp` loads no torch: every submodule is imported on first use, so a notebook
pays only for what it touches. `lp.begin` opens a run inside a notebook; `lp.check` holds the
comparisons that notebooks print.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# fmt: off
_SUBMODULES = frozenset((
    "check", "cli", "config", "data", "errors", "latent", "ledger", "losses", "metrics", "models",
    "nets", "notebook", "papers", "paths", "precision", "report", "runner", "seeds", "shapes",
    "storage", "tensorfile", "train", "weights", "widgets",
))
# fmt: on
_FUNCTIONS = {"begin": "notebook", "show_source": "notebook"}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES, *_FUNCTIONS])
