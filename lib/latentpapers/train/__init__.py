"""One training engine for every paper; it knows none of them. See docs/architecture.md."""

import importlib
from typing import Any

_WHERE = {
    "fit": "engine", "Fit": "engine", "Task": "engine", "Update": "engine",
    "Context": "context", "Sampler": "context",
    "History": "history",
    "Group": "distributed", "single": "distributed", "launch": "distributed",
    "save": "checkpoint", "load": "checkpoint",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    if name in {"engine", "context", "distributed", "checkpoint", "schedule", "history"}:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
