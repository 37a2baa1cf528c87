"""LRC-I2I's generator and discriminator (section 3.3, Figures 3 and 4).

The generator encodes a high resolution source once (`encode`); low resolution targets then steer
the decoder (`decode`), through SPAdaIN at every size. What the encoder's positional normalisations
took away goes to the decoder's blocks as moment shortcuts. Written from the paper and the facts
about the authors' code, which does not run as published (lrc_i2i-e17); two halvings, a 32 x 32
target at 128 px, are mended: bottleneck and output follow the last block's width (lrc_i2i-e18).

Images are on [-1, 1]; the generator's output is linear and may leave that range.
"""

import functools
import itertools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers.errors import UnknownName, UserError
from latentpapers.nets import spectral as sn
from latentpapers.nets.pono import DynamicMoments, Moments, pono, restore
from latentpapers.nets.spadain import InstanceNorm, SPAdaIN
from latentpapers.precision import widened
from latentpapers.shapes import Images

SLOPE = 0.2
COLOURS = 3
BOTTOM = 8  # the discriminator's last maps are at most this large before its 4x4 convolution
SHORTCUTS = ("dynamic", "plain", "none")
Maps = Float[Tensor, "N C H W"]
Pair = tuple[Moments, Moments]


def halvings(size: int, low: int) -> int:
    """How often the source is halved: 4 from 128 to 8.

    Raises:
        UserError: sizes that are no powers of two, or a target that is not smaller.
    """
    if min(size, low) < 1 or size & (size - 1) or low & (low - 1) or low >= size or low < 4:
        raise UserError(
            f"size and low must be powers of two with 4 <= low < size, not {size} and {low}."
        )
    return (size // low).bit_length() - 1


def encoder_widths(size: int, low: int, width: int = 64, cap: int = 512) -> list[int]:
    """Channels before the first and after every halving: doubled, never above `cap`."""
    return [min(width << i, cap) for i in range(halvings(size, low) + 1)]


def decoder_widths(size: int, low: int, width: int = 64, cap: int = 512) -> list[int]:
    """Channels before the first and after every doubling: halved, never below the first width."""
    widths = encoder_widths(size, low, width, cap)
    return [max(widths[-1] >> i, widths[0]) for i in range(len(widths))]


def _leaky(x: Maps) -> Maps:
    return F.leaky_relu(x, SLOPE)


def enlarge(x: Maps, side: int) -> Maps:
    """Bilinear with corners aligned, as in the authors' code; the same map where it fits."""
    if x.shape[-1] == side:
        return x
    return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=True)


class Features(NamedTuple):
    """What the encoder keeps of a source.

    Attributes:
        maps: (N, C, low, low), the compressed features.
        moments: of every encoder block in order, at its input's and at its output's size.
    """

    maps: Maps
    moments: tuple[Pair, ...]


class Encoding(nn.Module):
    """A Pono residual block (Figure 4a); sum over sqrt(2)."""

    def __init__(self, inputs: int, outputs: int, *, down: bool, spectral: bool) -> None:
        super().__init__()
        conv = functools.partial(sn.conv, spectral=spectral)
        self.down = down
        self.norm1, self.norm2 = InstanceNorm(inputs), InstanceNorm(outputs)
        self.conv1, self.conv2 = conv(inputs, outputs, 3), conv(outputs, outputs, 3)
        self.shortcut = conv(inputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, x: Maps) -> tuple[Maps, Pair]:
        y, first = pono(self.conv1(_leaky(self.norm1(x))))
        y = F.avg_pool2d(y, 2) if self.down else y
        y, second = pono(self.conv2(_leaky(self.norm2(y))))
        # pooling and a 1x1 convolution commute: pool first, a quarter of the products
        x = F.avg_pool2d(x, 2) if self.down else x
        x = x if self.shortcut is None else self.shortcut(x)
        return (x + y) / math.sqrt(2), (first, second)


class Decoding(nn.Module):
    """A Pono SPAdaIN residual block (Figure 4b); sum over sqrt(2)."""

    def __init__(
        self, inputs: int, outputs: int, *, up: bool, spectral: bool, shortcut: str,
        everywhere: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        conv = functools.partial(sn.conv, spectral=spectral)
        self.up, self.kind = up, shortcut
        norm = functools.partial(SPAdaIN, spectral=spectral and everywhere)
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1, self.conv2 = conv(inputs, outputs, 3), conv(outputs, outputs, 3)
        if shortcut == "dynamic":
            self.moments1, self.moments2 = DynamicMoments(conv), DynamicMoments(conv)
        self.shortcut = conv(inputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, x: Maps, low: Maps, moments: Pair) -> Maps:
        """
        Args:
            x: (N, C, s, s).
            low: (N or 1, 3, s, s).
            moments: of the encoder block that this one mirrors.
        """
        side = x.shape[-1] * (2 if self.up else 1)
        y = self.inject(self.conv1(_leaky(self.norm1(x, low))), moments, 1)
        y = self.conv2(_leaky(self.norm2(enlarge(y, side), enlarge(low, side))))
        y = self.inject(y, moments, 0)
        # enlarging and a 1x1 convolution commute too: the weights of each pixel add up to one
        x = x if self.shortcut is None else self.shortcut(x)
        return (enlarge(x, side) + y) / math.sqrt(2)

    def inject(self, y: Maps, moments: Pair, which: int) -> Maps:
        """The moment shortcut: 1, the small pair, inside; 0, the large pair, at the end."""
        if self.kind == "none":
            return y
        if self.kind == "plain":
            return restore(y, moments[which])
        return (self.moments2 if which else self.moments1)(y, moments[which])


class Generator(nn.Module):
    """G(X, y; theta): source and low resolution target -> image of the source's size (eq 3).

    21,575,999 parameters at 128 px with 8 x 8 targets, 26,372,619 at 256/8 and 128/4, 16,779,379 at
    128/16 and 64/8, 4,115,495 at 128/32.

    Args:
        size, low: pixels a side of source and target, powers of two.
        width, cap: channels at full size, and the most of any layer.
        spectral: normalised convolutions; False: plain ones, to be filled by `spectral.folded`.
        shortcut: of the moments: `dynamic`, `plain` or `none` (ablations).
        everywhere: where `spectral`, normalised convolutions inside SPAdaIN too (lrc_i2i-e11).

    Raises:
        UserError: sizes that do not fit; UnknownName: no such shortcut.
    """

    def __init__(
        self, size: int, low: int, *, width: int = 64, cap: int = 512, spectral: bool = True,
        shortcut: str = "dynamic", everywhere: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if shortcut not in SHORTCUTS:
            raise UnknownName("shortcut", shortcut, SHORTCUTS)
        self.size, self.low = size, low
        down, up = (f(size, low, width, cap) for f in (encoder_widths, decoder_widths))
        first, last, bottom = down[0], up[-1], down[-1]
        encoding = functools.partial(Encoding, spectral=spectral)
        decoding = functools.partial(
            Decoding, spectral=spectral, shortcut=shortcut, everywhere=everywhere
        )
        self.from_rgb = sn.conv(COLOURS, first, 3, spectral=spectral)
        self.encoder = nn.ModuleList(encoding(a, b, down=True) for a, b in itertools.pairwise(down))
        self.encoder.append(encoding(bottom, bottom, down=False))
        self.decoder = nn.ModuleList([decoding(bottom, bottom, up=False)])
        self.decoder.extend(decoding(a, b, up=True) for a, b in itertools.pairwise(up))
        self.norm = InstanceNorm(last)
        self.to_rgb = sn.conv(last, COLOURS, 1, spectral=spectral)

    def encode(self, x: Images) -> Features:
        """The source's features, to be computed once for all its targets.

        Args:
            x: (N, 3, size, size).
        """
        maps, kept = self.from_rgb(x), []
        for block in self.encoder:
            maps, moments = block(maps)
            kept.append(moments)
        return Features(maps, tuple(kept))

    def decode(self, features: Features, low: Images) -> Images:
        """Images of the sources' details in the targets' layout, (N, 3, size, size).

        Args:
            features: of N sources.
            low: (N, 3, low, low), or one target for all of them.
        """
        y = features.maps
        for block, moments in zip(self.decoder, reversed(features.moments), strict=True):
            y = block(y, enlarge(low, y.shape[-1]), moments)
        return widened(self.to_rgb(_leaky(self.norm(y))))

    def forward(self, x: Images, low: Images) -> Images:
        """G(x, low): image n of x in the layout of target n."""
        return self.decode(self.encode(x), low)


class Residual(nn.Module):
    """The discriminator's block: leaky ReLU and convolution twice, no normalisation layer.

    The width changes in the first convolution (in StarGAN v2's block: in the second, lrc_i2i-e10).
    """

    def __init__(self, inputs: int, outputs: int, *, down: bool, spectral: bool = True) -> None:
        super().__init__()
        conv = functools.partial(sn.conv, spectral=spectral)
        self.down = down
        self.conv1, self.conv2 = conv(inputs, outputs, 3), conv(outputs, outputs, 3)
        self.shortcut = conv(inputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, x: Maps) -> Maps:
        y = self.conv1(_leaky(x))
        y = self.conv2(_leaky(F.avg_pool2d(y, 2) if self.down else y))
        x = F.avg_pool2d(x, 2) if self.down else x
        x = x if self.shortcut is None else self.shortcut(x)
        return (x + y) / math.sqrt(2)


class Discriminator(nn.Module):
    """D(X, d): image and low resolution difference -> a map of logits, 5 x 5 for targets of 8 x 8.

    23,224,321 parameters at 128 px with targets of 8, 16 or 32; 27,943,937 at 128/4; 23,452,161 at
    256/8; 22,309,889 at 64/8.

    Args:
        size, low: pixels a side of image and difference.
        width: channels at full size; 0: 2^14 / size, as in StarGAN v2.
        cap: the most channels of any layer.
        spectral: normalised convolutions, or plain ones.

    Raises:
        UserError: sizes that do not fit.
    """

    def __init__(
        self, size: int, low: int, *, width: int = 0, cap: int = 512, spectral: bool = True
    ) -> None:
        super().__init__()
        halvings(size, low)
        width = width or min(2**14 // size, cap)
        widths = encoder_widths(size, low, width, cap)
        block = functools.partial(Residual, spectral=spectral)
        self.from_rgb = sn.conv(COLOURS, min(width, cap), 3, spectral=spectral)
        self.trunk = nn.Sequential(*(block(a, b, down=True) for a, b in itertools.pairwise(widths)))
        rest = [block(widths[-1] + COLOURS, cap, down=False)]
        rest += [
            block(cap, cap, down=True) for _ in range(max(0, (low // BOTTOM).bit_length() - 1))
        ]
        self.joined = nn.Sequential(*rest)
        self.last = sn.conv(cap, cap, 4, padding=0, spectral=spectral)
        self.logits = sn.conv(cap, 1, 1, spectral=spectral)

    def forward(self, image: Images, difference: Images) -> Maps:
        """Logits, (N, 1, h, h).

        Args:
            image: (N, 3, size, size).
            difference: (N, 3, low, low); zeros for real images (eq 6).
        """
        y = self.trunk(self.from_rgb(image))
        y = self.joined(torch.cat([y, difference.to(y.dtype)], 1))
        return widened(self.logits(_leaky(self.last(_leaky(y)))))
