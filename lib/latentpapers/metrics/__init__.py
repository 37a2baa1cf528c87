"""Measures with a protocol id and an interval each. Submodules are imported on first use."""

import importlib
import pkgutil
from typing import Any

_NAMES = frozenset(m.name for m in pkgutil.iter_modules(__path__))
# functions offered here, and the module each is in
_FUNCTIONS = {"score": "entry", "values": "entry", "density_coverage": "density"}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
