"""Data sets: one registry, images as bytes, every set with its licence, source and hash.

`load(name, size=..., split=..., n=...)` is the door to square images of one size; `pairs(name)` and
`pictures(name)` are those to whole pictures. `names()`, `info()` and `data_hash()` answer without
torch; the rest imports it on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from latentpapers.data.photographs import photos
from latentpapers.data.registry import (
    Info,
    data_hash,
    fetch,
    files,
    info,
    load,
    names,
    pairs,
    pictures,
    verify,
)

if TYPE_CHECKING:
    from latentpapers.data.bank import Bank, PairBank
    from latentpapers.data.degrade import downscale, imresize, round_colours, upscale
    from latentpapers.data.imageset import ImageSet, resize, to_bytes, to_float
    from latentpapers.data.superres import Pair, PairSet

_LAZY = {
    "Bank": "bank",
    "ImageSet": "imageset",
    "Pair": "superres",
    "PairBank": "bank",
    "PairSet": "superres",
    "downscale": "degrade",
    "imresize": "degrade",
    "resize": "imageset",
    "round_colours": "degrade",
    "to_bytes": "imageset",
    "to_float": "imageset",
    "upscale": "degrade",
}

__all__ = [
    "Bank",
    "ImageSet",
    "Info",
    "Pair",
    "PairBank",
    "PairSet",
    "data_hash",
    "downscale",
    "fetch",
    "files",
    "imresize",
    "info",
    "load",
    "names",
    "pairs",
    "photos",
    "pictures",
    "resize",
    "round_colours",
    "to_bytes",
    "to_float",
    "upscale",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
