"""Packs: a folder of images as one `.npz` of compressed images. No pickle inside, ever.

Arrays of a pack: `blob` (all images' files, end to end), `offsets` (N + 1), `names` (N), and where
known `labels`, `label_names`, `is_test`, `image_sha256` (first 16 bytes, of each image's pixels as
they were packed) and `meta` (JSON: size, codec, licence, source, hash over everything else). Packs
without `meta`, as other tools write them, can be read too; the archive's own checksums then stand
in for the hash. Without `is_test`, a tenth of the images (by a hash of their names) is the test
split.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentpapers import paths, storage
from latentpapers.data import imagefiles
from latentpapers.errors import Corrupt, Missing, StorageFull, UserError

if TYPE_CHECKING:
    from latentpapers.data.entry import Info
    from latentpapers.data.imageset import ImageSet

FORMAT = "latentpapers-pack/1"
SUFFIXES = imagefiles.SUFFIXES
_TEST_FOLDERS, _TRAIN_FOLDERS = frozenset({"test", "val"}), frozenset({"train"})
_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError, SyntaxError)
_KEEP = 1000  # decoded images that are worth a file in the cache folder

Codec = dict[str, Any]
LOSSLESS: Codec = {"format": "WEBP", "lossless": True, "quality": 100, "method": 4}


@dataclass(frozen=True, eq=False)
class Pack:
    """A pack in memory: images still compressed.

    Attributes:
        size: height and width in pixels.
        names: (N,) file names; labels: (N,) int64 or None; is_test: (N,) bool.
        sha256: of the pack's content.
    """

    path: Path
    size: int
    names: np.ndarray
    labels: np.ndarray | None
    label_names: tuple[str, ...]
    is_test: np.ndarray
    licence: str
    source: str
    sha256: str
    lossless: bool
    blob: np.ndarray = field(repr=False)
    offsets: np.ndarray = field(repr=False)
    image_sha256: np.ndarray | None = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def order(self, split: str) -> np.ndarray:
        """Indices of a split in the order of a hash of their names: a fixed shuffle."""
        members = np.flatnonzero(self.is_test == (split == "test"))
        names = _short_names(self.names)
        return np.array(sorted(members, key=lambda i: _name_hash(names[i])), dtype=np.int64)

    def decode(self, index: np.ndarray | None = None) -> np.ndarray:
        """Images `index` (all if None) as uint8 (N, 3, size, size), on all processors.

        Whoever asks for most of a large pack has the whole of it decoded once: the pixels stay in
        the cache folder, under the hash of the pack's content.

        Raises:
            Corrupt: an image that does not decode, or not to the pixels that were packed.
        """
        everything = np.arange(len(self))
        index = everything if index is None else np.asarray(index)
        if len(index) < max(_KEEP, len(self) / 2):
            return self._decode(index)
        key = f"{self.path.stem}-{self.sha256[:16]}"
        return np.asarray(decoded(key, lambda: self._decode(everything))[index])

    def _decode(self, index: np.ndarray) -> np.ndarray:
        out = np.empty((len(index), 3, self.size, self.size), dtype=np.uint8)

        def fill(rows: np.ndarray) -> None:
            for row in rows:
                out[row] = self._image(int(index[row]))

        # threads: Pillow decodes outside Python's lock; in parts, so that handing over costs little
        parts = np.array_split(np.arange(len(index)), max(1, len(index) // 64))
        with _reading(self.path), ThreadPoolExecutor(imagefiles.workers()) as pool:
            list(pool.map(fill, parts))
        return out

    def _image(self, i: int) -> np.ndarray:
        pixels = decode_image(self.blob[self.offsets[i] : self.offsets[i + 1]].tobytes())
        if pixels.shape != (3, self.size, self.size):
            raise ValueError(f"image {i} is {pixels.shape}")
        # only lossless codecs promise the same pixels from every decoder
        known = self.image_sha256 if self.lossless else None
        if known is not None and known[i].tobytes() != _short_hash(pixels):
            raise ValueError(f"the pixels of image {i} do not match their hash")
        return pixels


def codec(kind: str, quality: int | None = None) -> Codec:
    """Arguments of Pillow's `save` for `webp`, `jpeg` or `png`.

    Args:
        quality: 1 to 100 for a lossy file; None is lossless for webp and png, 95 for jpeg.

    Raises:
        UserError: another kind or quality.
    """
    if kind not in ("webp", "jpeg", "png"):
        raise UserError(f"unknown format {kind!r}; known: webp, jpeg, png.")
    if quality is not None and (kind == "png" or not 1 <= quality <= 100):
        raise UserError(
            f"no quality {quality} for {kind}; 1 to 100 for webp and jpeg, none for png."
        )
    if kind == "png":
        return {"format": "PNG", "lossless": True, "optimize": True}
    if kind == "jpeg":
        return {"format": "JPEG", "quality": quality or 95, "subsampling": 0, "optimize": True}
    return {"format": "WEBP", "quality": quality, "method": 4} if quality else LOSSLESS


def pack_folder(
    folder: Path,
    out: Path,
    size: int,
    *,
    licence: str = "as the source",
    source: str = "",
    codec: Codec = LOSSLESS,
    only: tuple[str, ...] = (),
    flat: bool = False,
    distinct: bool = False,
) -> Path:
    """Packs every image below `folder`: centre square, reduced to `size` (Lanczos).

    Folders named train and test (or val) become splits; other folders on the way to an image
    become its class. Files are taken in sorted order: the same folder gives the same bytes.

    Args:
        folder: searched recursively for images of any mode (see `imagefiles`).
        out: the `.npz` to write, atomically.
        size: height and width, 8 to 1024 pixels.
        licence, source: of the images; kept in the pack.
        codec: how each image is compressed, see `codec`; lossless WebP.
        only: names of the folders to take, empty for all.
        flat: images are named by their file alone, and folders make no splits.
        distinct: files with equal bytes are taken once.

    Raises:
        Missing: no such folder, or no image in it.
        UserError: an image that cannot be read or is smaller than `size`, with its name.
    """
    folder = Path(folder)
    if not 8 <= size <= 1024:
        raise UserError(f"cannot pack at {size} pixels; choose a size from 8 to 1024.")
    if not folder.is_dir():
        raise Missing(f"no folder {folder}; name the folder that holds the images.")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    files = [f for f in files if not only or set(f.relative_to(folder).parts[:-1]) & set(only)]
    files = _distinct(files) if distinct else files
    if not files:
        raise Missing(f"no image below {folder}; known kinds: {', '.join(sorted(SUFFIXES))}.")
    where = [f.relative_to(folder) for f in files]
    splits, classes = zip(*map(_place, where))
    return write_pack(
        out,
        imagefiles.parallel(lambda file: _square(file, size), files),
        size,
        names=[w.name if flat else w.as_posix() for w in where],
        classes=classes if any(classes) else None,
        is_test=None if flat or None in splits else [s == "test" for s in splits],
        licence=licence,
        source=source or folder.name,
        codec=codec,
    )


def write_pack(
    out: Path,
    images: Iterator[np.ndarray],
    size: int,
    *,
    names: list[str],
    classes: Any = None,
    is_test: list[bool] | None = None,
    licence: str,
    source: str,
    codec: Codec = LOSSLESS,
) -> Path:
    """Writes images (uint8, (3, size, size)) as a pack, atomically; the same input, the same bytes.

    Args:
        codec: keyword arguments of Pillow's `Image.save`, see `codec`.
    """

    def encode(pixels: np.ndarray) -> tuple[bytes, bytes]:
        return _encode(pixels, codec), _short_hash(pixels)

    blobs, hashes = [], []
    for blob, digest in imagefiles.parallel(encode, images):
        blobs.append(np.frombuffer(blob, dtype=np.uint8))
        hashes.append(np.frombuffer(digest, dtype=np.uint8))
    arrays: dict[str, np.ndarray] = {
        "blob": np.concatenate(blobs),
        "offsets": np.concatenate([[0], np.cumsum([len(b) for b in blobs])]).astype(np.int64),
        "names": np.array(names),
        "image_sha256": np.stack(hashes),
    }
    if classes is not None:
        label_names = sorted(set(classes))
        arrays["label_names"] = np.array(label_names)
        arrays["labels"] = np.array([label_names.index(c) for c in classes], dtype=np.int16)
    if is_test is not None:
        arrays["is_test"] = np.array(is_test)
    meta = {"format": FORMAT, "size": size, "codec": codec, "licence": licence, "source": source}
    meta["sha256"] = _content_hash(arrays, meta)
    arrays["meta"] = np.frombuffer(storage.dumps(meta).encode(), dtype=np.uint8)
    with storage.replacing(Path(out)) as draft, draft.open("wb") as stream:
        np.savez(stream, **arrays)
    return Path(out)


def read_pack(path: Path) -> Pack:
    """Reads a pack and verifies its hash; images are decoded later.

    Raises:
        Missing: no such file.
        Corrupt: truncated, altered, or not a pack.
    """
    path = Path(path)
    if not path.is_file():
        raise Missing(f"no pack {path}; make it with `latentpapers data pack DIR --size N`.")
    with _reading(path):
        arrays = _arrays(path)
        meta = json.loads(arrays.pop("meta").tobytes()) if "meta" in arrays else {}
        known = meta.pop("sha256", None)
        content = _content_hash(arrays, meta)
        if known not in (None, content):
            raise ValueError("its content does not match its hash")
        return _pack(path, arrays, meta, content)


def load(pack: Pack, info: "Info", size: int, split: str, n: int) -> "ImageSet":
    """The first `n` images of a split of a pack, as an `ImageSet`.

    Raises:
        Corrupt: the pack holds fewer, or an image does not decode.
    """
    from latentpapers.data.imageset import assemble

    index = pack.order(split)[:n]
    with _reading(pack.path):
        if len(index) < n:
            raise ValueError(f"it holds {len(index):,} {split} images, not {n:,}")
    labels = None if pack.labels is None else pack.labels[index]
    pixels = pack.decode(index)
    return assemble(info, size, split, pixels, labels=labels, label_names=pack.label_names)


def find(name: str) -> Path | None:
    """The pack `name.npz` in the data folders, or None."""
    found = (folder / f"{name}.npz" for folder in paths.data_dirs())
    return next((file for file in found if is_pack(file)), None)


def found() -> tuple[str, ...]:
    """Names of all packs in the data folders."""
    files = [f for folder in paths.data_dirs() if folder.is_dir() for f in folder.glob("*.npz")]
    return tuple(sorted({f.stem for f in files if is_pack(f)}))


def is_pack(path: Path) -> bool:
    """Whether a file looks like a pack; reads its table of contents only.

    A file too damaged to tell counts as one, so that loading it can say what is wrong.
    """
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return {"blob.npy", "offsets.npy", "names.npy"} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return True


def decode_image(content: bytes) -> np.ndarray:
    """An encoded image as uint8 (3, H, W)."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def decoded(key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """`make()`, kept as `decoded/<key>.npy` in the cache folder and mapped from there next time.

    The key has to name the content (a hash of what is decoded). A damaged cache file is made
    again; a cache that cannot be written is done without.
    """
    path = paths.cache() / "data" / "decoded" / f"{key}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        pixels = make()
    try:
        with storage.replacing(path) as draft, draft.open("wb") as stream:
            np.save(stream, pixels, allow_pickle=False)
    except (StorageFull, OSError):
        pass
    return pixels


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turns every way in which a damaged archive fails into one sentence.

    Raises:
        Corrupt: with the reason and the remedy.
    """
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Corrupt(f"{path} is damaged ({reason}); {remedy}.") from error


def _reading(path: Path) -> Any:
    return reading(path, "pack the folder or fetch the file again")


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _pack(path: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any], content: str) -> Pack:
    blob, offsets, names = (arrays[name] for name in ("blob", "offsets", "names"))
    if (
        offsets.shape != (len(names) + 1,)
        or offsets[-1] != len(blob)
        or (np.diff(offsets) < 0).any()
    ):
        raise ValueError("its index does not fit its images")
    labels = arrays.get("labels", arrays.get("label"))
    is_test = arrays.get("is_test")
    if is_test is None:
        is_test = np.array([int(_name_hash(n)[:2], 16) < 26 for n in _short_names(names)])
    return Pack(
        path=path,
        size=meta.get("size") or decode_image(blob[: offsets[1]].tobytes()).shape[-1],
        names=names,
        labels=None if labels is None else labels.astype(np.int64),
        label_names=tuple(map(str, arrays.get("label_names", arrays.get("classes", ())))),
        is_test=is_test,
        licence=meta.get("licence", "unknown: ask who made the pack"),
        source=meta.get("source", path.name),
        sha256=content,
        lossless=bool(meta.get("codec", {}).get("lossless")),
        blob=blob,
        offsets=offsets,
        image_sha256=arrays.get("image_sha256"),
    )


def _content_hash(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> str:
    digest = hashlib.sha256(storage.dumps(meta).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def _short_hash(pixels: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).digest()[:16]


def _short_names(names: np.ndarray) -> list[str]:
    """Names without their folders where that is unambiguous: the same files, wherever they lay,
    make the same splits and the same order."""
    short = [str(name).rpartition("/")[2] for name in names]
    return short if len(set(short)) == len(short) else [str(name) for name in names]


def _name_hash(name: Any) -> str:
    return storage.sha256(str(name).encode())


def _encode(pixels: np.ndarray, codec: Codec) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(buffer, **codec)
    return buffer.getvalue()


def _distinct(files: list[Path]) -> list[Path]:
    """The first of each group of files with equal bytes."""
    first: dict[str, Path] = {}
    for file in files:
        first.setdefault(storage.sha256_file(file), file)
    return list(first.values())


def _place(file: Path) -> tuple[str | None, str]:
    """(split or None, class or "") from the folders of a file."""
    split, classes = None, []
    for part in file.parts[:-1]:
        if split is None and part in _TEST_FOLDERS | _TRAIN_FOLDERS:
            split = "test" if part in _TEST_FOLDERS else "train"
        else:
            classes.append(part)
    return split, "/".join(classes)


def _square(file: Path, size: int) -> np.ndarray:
    """The centre square of an image file, (3, size, size)."""
    image = imagefiles.open_image(file)
    return imagefiles.to_array(imagefiles.centre_square(image, size, file))
