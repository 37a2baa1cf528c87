"""Image files of any kind to bytes: one reader, one area average, one parallel loop.

Every mode becomes 8-bit RGB: grey is repeated, 16-bit is divided by 257, transparent pixels are put
on white, CMYK is converted by Pillow, the first frame of several is taken, and the EXIF orientation
is applied. Float and 32-bit integer images have no agreed range and are refused.
"""

import io
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentpapers import storage
from latentpapers.errors import Corrupt, UserError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded: a few kB can claim gigabytes."""
SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"])
_BLOCK = 256
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")

Box = tuple[int, int, int, int]


def open_image(source: Path | bytes) -> "Image":
    """A decoded 8-bit RGB Pillow image, upright.

    Raises:
        UserError: no image, too many pixels, or a mode without an agreed range; names the file.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = "an image" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are more than we decode")
            return _rgb(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:120]
        if isinstance(error, UnidentifiedImageError):  # Pillow names the buffer's address
            reason = "its content is no picture format that is known"
        raise UserError(f"cannot read {name} ({reason}); remove or replace it.") from error


def read(source: Path | bytes) -> np.ndarray:
    """An image as uint8 (3, H, W).

    Raises:
        UserError: see `open_image`.
    """
    return np.ascontiguousarray(np.asarray(open_image(source)).transpose(2, 0, 1))


def _rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode in _SIXTEEN:  # Pillow would clip at 255
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no agreed range of values")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def crop(image: "Image", box: Box, name: object) -> "Image":
    """A box of an image; `crop` of Pillow would pad what lies outside with black.

    Raises:
        UserError: the image is smaller than the crop.
    """
    if image.width < box[2] or image.height < box[3]:
        raise UserError(
            f"{name} has {image.width} x {image.height} pixels, too few for the crop {box}; "
            "replace it by the original."
        )
    return image.crop(box)


def centre_square(image: "Image", size: int, name: object) -> "Image":
    """The centre square, reduced to `size` (Lanczos).

    Raises:
        UserError: the image is smaller than `size`.
    """
    from PIL import Image

    side = min(image.size)
    if side < size:
        raise UserError(f"{name} is only {side} pixels; pack with --size {side} or remove it.")
    left, top = ((length - side) // 2 for length in image.size)
    # cropped first: `resize(box=...)` would let the filter see pixels outside the box
    square = image.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.LANCZOS)


def to_array(image: "Image") -> np.ndarray:
    """A Pillow RGB image as uint8 (3, H, W)."""
    return np.asarray(image).transpose(2, 0, 1)


def area(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area average to any smaller size: each new pixel is the mean over the area it covers.

    The `INTER_AREA` / `ResizeMethod.AREA` of the authors' loaders, for whole and broken factors.

    Args:
        pixels: uint8 (C, H, W).
        height, width: of the result; the sides are reduced independently.

    Returns:
        uint8 (C, height, width), rounded half to even once at the end.
    """
    down = _weights(pixels.shape[1], height)
    across = _weights(pixels.shape[2], width)
    mean = down @ pixels.astype(np.float64) @ across.T
    # the sums of weights differ from 1 by rounding: without this, 254.4999999 could differ by size
    return np.rint(mean.round(9)).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=256)
def _weights(length: int, new: int) -> np.ndarray:
    """(new, length): the share of each old pixel in each new one; rows sum to 1."""
    edges = np.arange(new + 1) * (length / new)
    start, stop = edges[:-1, None], edges[1:, None]
    old = np.arange(length)[None]
    overlap = np.minimum(stop, old + 1) - np.maximum(start, old)
    return overlap.clip(0) / overlap.clip(0).sum(1, keepdims=True)


def workers() -> int:
    """Threads to decode with: the processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stack(
    sources: Iterable[Any], count: int, cut: Callable[[Any], np.ndarray], side: int
) -> np.ndarray:
    """`cut(source)` of the first `count` sources as uint8 (count, 3, side, side), in order.

    In parallel: Pillow decodes and resamples outside Python's lock, so threads are enough.
    """
    out = np.empty((count, 3, side, side), dtype=np.uint8)
    for i, pixels in enumerate(parallel(cut, itertools.islice(sources, count))):
        out[i] = pixels
    return out


def parallel(work: Callable[[Any], Any], sources: Iterable[Any]) -> Iterator[Any]:
    """`work(source)` of all sources, in order, by as many threads as there are processors."""
    rest = iter(sources)
    with ThreadPoolExecutor(workers()) as pool:
        while block := list(itertools.islice(rest, _BLOCK)):  # a block at a time: they may be bytes
            yield from pool.map(work, block)


def of_folder(folder: Path) -> list[Path]:
    """The image files below a folder, by name (numbers inside names in their order).

    Raises:
        Corrupt: there is none.
    """
    files = [f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file()]
    if not files:
        raise Corrupt(f"{folder} holds no image; remove the folder and fetch it again.")
    return sorted(files, key=lambda f: natural(f.relative_to(folder).as_posix()))


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A sorting key under which `2.png` comes before `10.png`."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(p)) if p.isdigit() else (1, p) for p in parts)


def shuffled(files: Iterable[Path], folder: Path) -> list[Path]:
    """Files in the order of a hash of their names: a shuffle that is the same everywhere."""
    return sorted(files, key=lambda f: storage.sha256(f.relative_to(folder).as_posix().encode()))
