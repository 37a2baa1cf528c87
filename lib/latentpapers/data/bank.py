"""Banks: uint8 images on the device, from which batches are cut, mirrored and turned there.

Which crop a sample gets is a function of (seed, step, number of the sample) alone: not of its
place in the batch, of the other samples, of the device, or of how many processes share the work. A
worker that asks for its own samples gets what one process would have given them.

    bank = Bank(pixels, "cuda")                               # (N, C, H, W), or a list of (C, H, W)
    batch = bank.crops(index, 64, (seed, step), flip=True)

One image after another lies in one row of bytes, so images of different sizes need no padding. A
batch is one gather of its rows of pixels, without a loop over images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from latentpapers.errors import UserError
from latentpapers.seeds import derive
from latentpapers.shapes import Bytes

Picture = UInt8[Tensor, "C H W"]
Index = Int[Tensor, "B"]
Stream = tuple[int, int] | torch.Generator
_LANES = 8  # independent numbers a sample: picture, top, left, mirror, upside down, transpose


class Windows(NamedTuple):
    """Where each sample of a batch lies in its image, and how it is turned afterwards.

    Attributes:
        image, top, left: (B,) int64, on the CPU: so few numbers are not worth a kernel each.
        mirror, upside_down, transpose: (B,) bool, applied in this order.
    """

    image: Tensor
    top: Tensor
    left: Tensor
    mirror: Tensor
    upside_down: Tensor
    transpose: Tensor


class Bank:
    """uint8 images of one or of different sizes on one device.

    Attributes:
        heights, widths: (N,) int64 on the CPU, pixels.
        channels: of every image.
        device: where crops are made.
    """

    def __init__(
        self, pixels: Bytes | Sequence[Picture], device: str | torch.device = "cpu"
    ) -> None:
        """Moves the images to the device, once.

        Args:
            pixels: uint8, (N, C, H, W), or one (C, H, W) an image.
            device: cpu, cuda, ...

        Raises:
            UserError: no image, another type or shape, or different numbers of channels.
        """
        shapes = _shapes(pixels)
        self.channels, self.device = shapes[0][0], torch.device(device)
        self._smallest = min(h for _, h, _ in shapes), min(w for _, _, w in shapes)
        sizes = torch.tensor(shapes)
        ends = sizes.prod(1).cumsum(0)
        self._starts = ends - sizes.prod(1)
        self.heights, self.widths = sizes[:, 1].contiguous(), sizes[:, 2].contiguous()
        if isinstance(pixels, Tensor):
            self._bytes = pixels.to(self.device).reshape(-1)
        else:
            self._bytes = torch.empty(int(ends[-1]), dtype=torch.uint8, device=self.device)
            for image, end in zip(pixels, ends.tolist()):
                self._bytes[end - image.numel() : end] = image.reshape(-1).to(self.device)

    def __len__(self) -> int:
        return len(self.heights)

    def image(self, i: int) -> Picture:
        """Image `i`, whole: a view of the bank."""
        height, width = int(self.heights[i]), int(self.widths[i])
        start = int(self._starts[i])
        flat = self._bytes[start : start + self.channels * height * width]
        return flat.view(self.channels, height, width)

    def crops(
        self,
        index: Index,
        size: int,
        stream: Stream,
        *,
        samples: Index | None = None,
        flip: bool = False,
        turn: bool = False,
    ) -> Bytes:
        """A random size x size crop of each image of `index`.

        Args:
            index: which images, int64; any order, repeats allowed.
            size: height and width of the crops.
            stream: (seed, step), or a generator, of which one number is taken.
            samples: the number of each sample in the step, which decides its crop; the image's
                own number if absent. Give distinct numbers where an image may come twice.
            flip: mirror half of the crops.
            turn: mirror, turn upside down and transpose, each with probability 1/2: all eight
                symmetries of the square, equally often.

        Returns:
            uint8 (B, C, size, size) on the bank's device; the caller's own memory.

        Raises:
            UserError: an image smaller than the crop, or an index that is out of range.
        """
        windows = self.draw(index, size, stream, samples=samples, flip=flip, turn=turn)
        return self.cut(windows, size)

    def draw(
        self,
        index: Index,
        size: int,
        stream: Stream,
        *,
        samples: Index | None = None,
        flip: bool = False,
        turn: bool = False,
    ) -> Windows:
        """What `crops` would cut, with the same arguments."""
        index = self._refuse_impossible(index, size)
        samples = index if samples is None else samples.cpu()
        if samples.shape != index.shape:
            raise UserError(f"{len(samples)} sample numbers do not fit {len(index)} images.")
        bits = _bits(_key(stream), samples)
        coins = (bits[3:6] & 1).bool()
        return Windows(
            index,
            _below(bits[1], self.heights[index] - size + 1),
            _below(bits[2], self.widths[index] - size + 1),
            coins[0] & (flip or turn),
            coins[1] & turn,
            coins[2] & turn,
        )

    def cut(self, windows: Windows, size: int) -> Bytes:
        """The crops of these windows: (B, C, size, size)."""
        first = self._rows(windows, size).to(self.device, non_blocking=True)
        rows = self._bytes.unfold(0, size, 1)  # every run of `size` bytes, without a copy
        crops = rows.index_select(0, first.flatten()).view(*first.shape, size)
        if windows.mirror.any():
            crops = _chosen(crops, crops.flip(3), windows.mirror)
        if windows.transpose.any():
            crops = _chosen(crops, crops.transpose(2, 3), windows.transpose)
        return crops

    def _rows(self, windows: Windows, size: int) -> Int[Tensor, "B C S"]:
        """Where each row of each crop begins. Upside down, they are read in the other order."""
        height, width = self.heights[windows.image], self.widths[windows.image]
        row = torch.arange(size)
        row = torch.where(windows.upside_down[:, None], size - 1 - row, row)
        row = (windows.top[:, None] + row) * width[:, None] + windows.left[:, None]
        plane = torch.arange(self.channels) * (height * width)[:, None]
        return (self._starts[windows.image][:, None] + plane)[:, :, None] + row[:, None]

    def choose(self, samples: Index, stream: Stream) -> Index:
        """An image for each sample number, all equally likely."""
        bits = _bits(_key(stream), samples.cpu())
        return _below(bits[0], torch.full_like(bits[0], len(self)))

    def _refuse_impossible(self, index: Tensor, size: int) -> Tensor:
        if not 1 <= size <= min(self._smallest):
            low, high = self._smallest
            raise UserError(
                f"cannot cut {size} px from images of which one has only {low} x {high} px; take "
                "smaller crops or leave such images out."
            )
        index = torch.as_tensor(index).cpu()
        if index.ndim != 1 or index.dtype not in (torch.int64, torch.int32) or not len(index):
            raise UserError(f"an index is (B,) whole numbers, not {index.dtype} {index.shape}.")
        low, high = map(int, index.aminmax())
        if low < 0 or high >= len(self):
            raise UserError(f"image {low if low < 0 else high} is not among {len(self):,} images.")
        return index.long()


class PairBank:
    """High and low resolution images of super resolution; crops of both show the same place.

    The low resolution images are given, made of whole images before any cropping (as the papers
    do: inside a crop's border they know pixels outside of it).

    Attributes:
        hr, lr: `Bank`s of the same number of images.
        factor: pixels of `hr` a pixel of `lr`.
    """

    def __init__(
        self,
        hr: Bytes | Sequence[Picture],
        lr: Bytes | Sequence[Picture],
        factor: int,
        device: str | torch.device = "cpu",
    ) -> None:
        """Moves both to the device.

        Raises:
            UserError: as `Bank`, or images that are not `factor` times the size of their partner.
        """
        self.hr, self.lr, self.factor = Bank(hr, device), Bank(lr, device), factor
        same = len(self.hr) == len(self.lr) and self.hr.channels == self.lr.channels
        if not same or not all(
            torch.equal(getattr(self.hr, side), factor * getattr(self.lr, side))
            for side in ("heights", "widths")
        ):
            raise UserError(
                f"the {len(self.hr)} high resolution images are not {factor} times the size of "
                f"the {len(self.lr)} low resolution ones; crop them to multiples of {factor} first."
            )

    def __len__(self) -> int:
        return len(self.hr)

    def crops(
        self,
        index: Index,
        size: int,
        stream: Stream,
        *,
        samples: Index | None = None,
        flip: bool = False,
        turn: bool = False,
    ) -> tuple[Bytes, Bytes]:
        """Crops of `size` pixels of `hr`, and of the same places of `lr`.

        Args:
            size: of the high resolution crop, a multiple of `factor`.
            index, stream, samples, flip, turn: as in `Bank.crops`.

        Returns:
            uint8 (B, C, size, size) and (B, C, size / factor, size / factor).

        Raises:
            UserError: as `Bank.crops`, or a size that is no multiple of the factor.
        """
        if size % self.factor:
            raise UserError(f"crops of {size} px do not divide by {self.factor}.")
        small, f = size // self.factor, self.factor
        low = self.lr.draw(index, small, stream, samples=samples, flip=flip, turn=turn)
        high = low._replace(top=f * low.top, left=f * low.left)
        return self.hr.cut(high, size), self.lr.cut(low, small)


def _shapes(pixels: Tensor | Sequence[Tensor]) -> list[tuple[int, int, int]]:
    if isinstance(pixels, Tensor):
        images, kind = [pixels[0]] if pixels.ndim == 4 and len(pixels) else [], "(N, C, H, W)"
    else:
        images, kind = list(pixels), "one (C, H, W) an image"
    odd = [image for image in images if image.dtype != torch.uint8 or image.ndim != 3]
    if not images or odd or len({len(image) for image in images}) > 1:
        raise UserError(f"a bank takes uint8 images of equal channels, {kind}, at least one.")
    if not all(image.numel() for image in images):
        raise UserError("a bank takes no image without pixels.")
    shapes = [tuple(image.shape) for image in images]
    return shapes * len(pixels) if isinstance(pixels, Tensor) else shapes


def _chosen(images: Bytes, others: Bytes, flags: Tensor) -> Bytes:
    """`others` where the flag is set. Copies whole images, which `torch.where` does not."""
    index = torch.arange(len(flags)) + len(flags) * flags
    return torch.cat([images, others]).index_select(0, index.to(images.device, non_blocking=True))


# --- random numbers: a function of (key, sample) ------------------------------------------------


def _key(stream: Stream) -> int:
    if isinstance(stream, torch.Generator):
        return int(torch.randint(2**62, (), generator=stream, device=stream.device))
    return derive(stream[0], "crops", stream[1])


def _bits(key: int, samples: Tensor) -> Int[Tensor, "K B"]:
    """31 random bits for every lane and sample: SplitMix64, counted by the sample's number."""
    lane = torch.arange(1, _LANES + 1)[:, None]
    z = (samples.long() * _LANES + lane) * _signed(0x9E3779B97F4A7C15) + _signed(key)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return _shifted(z ^ _shifted(z, 31), 33)


def _signed(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63


def _shifted(z: Tensor, places: int) -> Tensor:
    """Logical shift to the right: torch's own keeps the sign."""
    return (z >> places) & (2 ** (64 - places) - 1)


def _below(bits: Tensor, bound: Tensor) -> Tensor:
    """Uniform whole numbers below `bound`, up to a bias of bound / 2^31."""
    return (bits * bound) >> 31
