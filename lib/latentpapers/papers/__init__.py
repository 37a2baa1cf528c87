"""One room per paper, a folder each (docs/architecture.md): presets, networks, steps, measures."""

import importlib
from types import ModuleType

from latentpapers.errors import UnknownName

BUILT = ("lag", "lsrgan", "lrc_i2i", "diamond", "avae")  # rooms that exist


def room(paper: str) -> ModuleType:
    """The module of a paper.

    Raises:
        UnknownName: no such paper, or one whose room is not built yet.
    """
    if paper not in BUILT:
        raise UnknownName("paper", paper, BUILT)
    return importlib.import_module(f"{__name__}.{paper}")


def __getattr__(name: str) -> ModuleType:
    if name in BUILT:
        return room(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
