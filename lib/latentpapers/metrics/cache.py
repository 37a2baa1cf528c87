"""Features kept on disk, under a name made of everything they depend on.

A name is the hash of the images' bytes, the network's weights and code, and how images are
prepared; a change of any of them is another name, so nothing is ever out of date. Files appear
whole (atomic rename), so two writers only do the work twice; a damaged file is made again.
"""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentpapers import paths, storage, tensorfile
from latentpapers.errors import Corrupt, Missing, StorageFull
from latentpapers.shapes import Features


def folder() -> Path:
    """Where entries are."""
    return paths.cache() / "features"


def key(**parts: Any) -> str:
    """A name from JSON values: the hash of all of them."""
    return storage.sha256(storage.dumps(parts).encode())


def digest(tensor: Tensor) -> str:
    """Hash of a tensor's type, shape and bytes, in row-major order; block by block."""
    found = hashlib.sha256(f"{tensor.dtype}:{tuple(tensor.shape)}".encode())
    blocks = tensor.detach().split(256) if tensor.ndim else [tensor.detach()]
    for part in blocks:
        found.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def remembered(name: str, rows: int, make: Callable[[], Features]) -> Features:
    """The entry of that name, or what `make` gives, which is kept for the next time.

    Args:
        name: from `key`.
        rows: images that the features are of; an entry of another length counts as damaged.
        make: computes them.

    Returns:
        (rows, F) on the CPU. A disk that is full or read-only costs a warning, not the result.
    """
    path = folder() / f"{name}.safetensors"
    kept = _read(path, name, rows)
    if kept is not None:
        return kept
    made = make().detach().cpu()
    try:
        tensorfile.save(path, {"features": made}, about={"key": name})
    except StorageFull as error:
        warnings.warn(f"features are not kept for the next time: {error}", stacklevel=2)
    return made


def _read(path: Path, name: str, rows: int) -> Features | None:
    try:
        if tensorfile.header(path).get("key") != name:
            return None
        found = tensorfile.load(path).get("features")
    except (Missing, Corrupt, RuntimeError):  # the last: removed between looking and opening
        return None
    intact = isinstance(found, Tensor) and found.ndim == 2 and len(found) == rows
    return found if intact else None
