"""Hashes of decoded pixels, committed beside the code: is a pack the one that results used?

`packs/pixels.json` holds one SHA-256 a set: over the images in the order of their names (equal
names: of their pixels), each as name, shape and bytes at its native size. So it does not depend on
the file's order, container or compression settings, and `data verify` can compare a pack that
somebody made anew. Lossless sets must match; for lossy ones another decoder or encoder may differ
by a grey level, which `verify` then reports without refusing the set. The file was written by

    latentpapers data verify --record
"""

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from latentpapers import storage

FILE = Path(__file__).with_name("packs") / "pixels.json"


def digest(items: Iterable[tuple[str, np.ndarray]]) -> str:
    """The SHA-256 of named images, uint8 (3, H, W) each, in any order."""
    lines = []
    for name, pixels in items:
        content = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
        lines.append(f"{name}:{tuple(pixels.shape)}:{content}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, Any]]:
    return json.loads(FILE.read_text())


def of(name: str) -> dict[str, Any] | None:
    """`{"sha256", "images", "lossless", "decoder"}` of a set, or None."""
    return _table().get(name)


def record() -> Path:
    """Writes `packs/pixels.json` anew from the packs in the data folders (for developers)."""
    import PIL
    from PIL import features

    from latentpapers.data import registry

    decoder = f"Pillow {PIL.__version__}, libwebp {features.version('webp')}"
    found = {}
    for name in registry.names():
        about = registry.entry(name)
        if about.digest and about.files():
            value, images = about.digest()
            lossless = bool(about.pairs) and name != "sr-photos"
            row = {"sha256": value, "images": images, "lossless": lossless, "decoder": decoder}
            found[name] = row
    storage.write_json(FILE, found)
    _table.cache_clear()
    return FILE


def compare(name: str, found: str) -> str:
    """One line: whether the pixels are those that results used.

    Raises:
        ValueError: a lossless set with other pixels.
    """
    known = of(name)
    if known is None:
        return f"{name}: no committed hash to compare with; decoded pixels {found}"
    if known["sha256"] == found:
        return f"{name}: {known['images']:,} images, decoded pixels as committed"
    if known["lossless"]:
        raise ValueError("its pixels are not the committed ones")
    return (
        f"{name}: decoded pixels differ from the committed ones (made anew, or another decoder: "
        f"{known['decoder']} made those)"
    )
