"""Geometry of latent spaces: paths and attribute directions.

Submodules are imported on first use.
"""

import importlib
import pkgutil
from types import ModuleType

_NAMES = frozenset(m.name for m in pkgutil.iter_modules(__path__))


def __getattr__(name: str) -> ModuleType:
    if name in _NAMES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
