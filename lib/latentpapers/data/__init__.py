"""Data sets: one registry, images as bytes, every set with its licence, source and hash.

`load(name, size=..., split=..., n=...)` is the door. `names()`, `info()` and `data_hash()` answer
without torch; the rest imports it on first use.
"""

from typing import TYPE_CHECKING, Any

from latentpapers.data.photographs import photos
from latentpapers.data.registry import Info, data_hash, fetch, info, load, names

if TYPE_CHECKING:
    from latentpapers.data.imageset import ImageSet, resize, to_bytes, to_float

__all__ = [
    "ImageSet",
    "Info",
    "data_hash",
    "fetch",
    "info",
    "load",
    "names",
    "photos",
    "resize",
    "to_bytes",
    "to_float",
]


def __getattr__(name: str) -> Any:
    if name in ("ImageSet", "resize", "to_bytes", "to_float"):
        from latentpapers.data import imageset

        return getattr(imageset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
