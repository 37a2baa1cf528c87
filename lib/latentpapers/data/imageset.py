"""A set of images in memory, and the three conversions everything else relies on."""

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from latentpapers.shapes import Bytes, Images, Labels

if TYPE_CHECKING:
    from latentpapers.data.registry import Info


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one data set at one size, with everything that is known about each.

    Attributes:
        name, size, split: what `load` was asked for; images are size x size pixels.
        pixels: uint8 (N, C, H, W), on the CPU when loaded.
        labels: class of each image, or None; `label_names[k]` names class k.
        attributes: binary attributes (N, A), or None.
        factors: continuous factors in [0, 1] (N, F), or None.
        licence, source: of the images.
        sha256: of the decoded pixels and their shape.
    """

    name: str
    size: int
    split: str
    pixels: Bytes
    labels: Labels | None
    label_names: tuple[str, ...]
    attributes: Bool[Tensor, "N A"] | None
    attribute_names: tuple[str, ...]
    factors: Float[Tensor, "N F"] | None
    factor_names: tuple[str, ...]
    licence: str
    source: str
    sha256: str

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what is in the set: the pixels and their shape."""
        return self.sha256

    def to(self, device: str | torch.device) -> "ImageSet":
        """The same set with its tensors on `device`."""
        return replace(self, **self._each(lambda tensor: tensor.to(device)))

    def subset(self, index: Any) -> "ImageSet":
        """The images that `index` picks: a slice, a list, an integer or a boolean tensor."""
        picked = self._each(lambda tensor: tensor[index])
        return replace(self, **picked, sha256=pixel_hash(picked["pixels"]))

    def copy(self) -> "ImageSet":
        """The same set in memory of its own."""
        return replace(self, **self._each(Tensor.clone))

    def describe(self) -> str:
        """One line for a notebook: name, split, number, shape and what comes with the pixels."""
        channels = self.pixels.shape[1]
        extras = {"classes": self.label_names, "attributes": self.attribute_names}
        extras["factors"] = self.factor_names
        known = [f"{len(names)} {what}" for what, names in extras.items() if names]
        shape = f"{channels} x {self.size} x {self.size}"
        parts = [f"{self.name} / {self.split}", f"{len(self):,} images of {shape}", *known]
        return " · ".join([*parts, self.licence])

    def _each(self, change: Any) -> dict[str, Any]:
        names = ("pixels", "labels", "attributes", "factors")
        tensors = {name: getattr(self, name) for name in names}
        return {name: None if t is None else change(t) for name, t in tensors.items()}


def assemble(
    info: "Info",
    size: int,
    split: str,
    pixels: Any,
    *,
    labels: Any = None,
    label_names: tuple[str, ...] = (),
    attributes: Tensor | None = None,
    attribute_names: tuple[str, ...] = (),
    factors: Tensor | None = None,
    factor_names: tuple[str, ...] = (),
) -> ImageSet:
    """An `ImageSet` from a loader's arrays: resized where needed, hashed, int64 labels."""
    pixels = _resized(torch.as_tensor(pixels), size).contiguous()
    labels = None if labels is None else torch.as_tensor(labels).long()
    return ImageSet(
        name=info.name,
        size=size,
        split=split,
        pixels=pixels,
        labels=labels,
        label_names=tuple(label_names),
        attributes=attributes,
        attribute_names=tuple(attribute_names),
        factors=factors,
        factor_names=tuple(factor_names),
        licence=info.licence,
        source=info.source,
        sha256=pixel_hash(pixels),
    )


def pixel_hash(pixels: Bytes) -> str:
    """SHA-256 of the shape and the bytes of an image tensor."""
    digest = hashlib.sha256(str(tuple(pixels.shape)).encode())
    digest.update(pixels.contiguous().cpu().numpy().data)
    return digest.hexdigest()


def to_float(images: Bytes) -> Images:
    """Bytes 0..255 to float32 in [-1, 1]: 0 is -1, 255 is 1.

    Raises:
        ValueError: `images` are not uint8.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"to_float takes uint8 images, not {images.dtype}.")
    return images.float() / 127.5 - 1


def to_bytes(images: Images) -> Bytes:
    """Images in [-1, 1] to the nearest of 256 levels, halves to the even one; clamped outside.

    `to_bytes(to_float(b)) == b` for every byte.

    Raises:
        ValueError: `images` are not floating point, or hold NaN.
    """
    if not images.is_floating_point():
        raise ValueError(f"to_bytes takes floating-point images, not {images.dtype}.")
    if bool(images.isnan().any()):
        raise ValueError("to_bytes got NaN; a byte cannot say so.")
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def resize(images: Bytes, size: int) -> Bytes:
    """Square resampling without aliasing, in float, rounded half to even once at the end.

    To a whole fraction of the size it is the exact area average (the papers' average pooling).
    Otherwise it is bilinear with a kernel as wide as the reduction (`antialias=True`): it cannot
    ring, so nothing is clamped. Both are one batched operation; PIL would go image by image and
    rounds between its two passes.

    Args:
        images: uint8 (N, C, H, W).
        size: height and width of the result, at least 1.

    Raises:
        ValueError: another type, or a size below 1.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or size < 1:
        what = f"{images.dtype} {tuple(images.shape)} to {size}"
        raise ValueError(f"resize takes uint8 (N, C, H, W) and a size of 1 or more, not {what}.")
    return torch.cat([_shrunk(part, size) for part in images.split(1024)])


def _resized(pixels: Bytes, size: int) -> Bytes:
    return pixels if pixels.shape[-2:] == (size, size) else resize(pixels, size)


def _shrunk(images: Bytes, size: int) -> Bytes:
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images.clone()
    if height % size == 0 and width % size == 0:
        # sums of bytes are whole numbers far below 2^53, so the average is rounded once
        cells = images.double().unflatten(-1, (size, -1)).unflatten(-3, (size, -1))
        return cells.mean(dim=(-1, -3)).round().to(torch.uint8)
    shape = (size, size)
    smooth = F.interpolate(
        images.float(), size=shape, mode="bilinear", antialias=True, align_corners=False
    )
    return smooth.round().clamp(0, 255).to(torch.uint8)
