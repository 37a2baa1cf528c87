"""The progressively grown GAN (Karras et al. 2018), in its two public readings.

`zoo` is facebookresearch/pytorch_GAN_zoo, whose checkpoints "Diamond in the rough" uses; `nvidia`
is the authors' TensorFlow code. They share shapes and differ in details (see `Reading`), so that a
checkpoint needs the network of its own reading. Latents are (N, Z), images (N, C, S, S), scores
(N,). All levels exist from the start; `grow` says how many take part.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers.errors import UnknownName, UserError
from latentpapers.nets.equalized import (
    SQRT2,
    EqualizedConv2d,
    EqualizedLinear,
    minibatch_stddev,
    pixel_norm,
)
from latentpapers.precision import widened
from latentpapers.shapes import Codes, Features, Images, PerImage

BOTTOM = 4  # side of the first feature map
SLOPE = 0.2


@dataclass(frozen=True)
class Reading:
    """Where the two public codes differ.

    Attributes:
        scale_bias: biases are multiplied by the layer's scale, like weights.
        first_gain, rgb_gain, last_gain: of the generator's linear map, its image layers, and the
            critic's last layer.
        pool_first: the critic pools between convolution and activation, not after both.
        spread: how the minibatch standard deviation forms groups, and its variance.
    """

    scale_bias: bool
    first_gain: float
    rgb_gain: float
    last_gain: float
    pool_first: bool
    spread: Literal["zoo", "nvidia"]


READINGS = {
    "zoo": Reading(True, SQRT2, SQRT2, SQRT2, pool_first=False, spread="zoo"),
    "nvidia": Reading(False, SQRT2 / 4, 1.0, 1.0, pool_first=True, spread="nvidia"),
}


def widths(size: int, base: int = 8192, most: int = 512) -> tuple[int, ...]:
    """Channels at 4, 8, ..., size pixels: base / 2, base / 4, ..., at most `most`.

    512, 512, 512, 512, 256, 128, 64, 32, 16 for 1024 pixels with the defaults.

    Raises:
        UserError: a size that is not a power of two of at least 8, or a width below 1.
    """
    levels = size.bit_length() - 2
    if size < 8 or size != BOTTOM << (levels - 1):
        raise UserError(f"image size must be a power of two of at least 8, not {size}.")
    out = tuple(min(base >> (i + 1), most) for i in range(levels))
    if min(out) < 1:
        raise UserError(f"fmap_base {base} and fmap_max {most} leave no channels at {size} pixels.")
    return out


class _Progressive(nn.Module):
    """Levels 1 (4 px) to `levels`; the newest is blended in with weight `blend`."""

    def __init__(self, size: int, base: int, most: int, reading: str) -> None:
        super().__init__()
        if reading not in READINGS:
            raise UnknownName("reading of PGAN", reading, READINGS)
        self.size, self.reading = size, READINGS[reading]
        self.widths = widths(size, base, most)
        self.levels = self.level = len(self.widths)
        self.blend = 1.0

    def grow(self, level: int, blend: float = 1.0) -> None:
        """Sets how many levels take part and the weight of the newest one.

        The public PyTorch code counts the other way: its alpha is the weight of the old branch.

        Raises:
            UserError: no such level, or a weight outside [0, 1].
        """
        if not 1 <= level <= self.levels or not 0.0 <= blend <= 1.0:
            what = f"level {level}, weight {blend}"
            raise UserError(f"PGAN of {self.size} px has levels 1 to {self.levels}, not {what}.")
        self.level, self.blend = level, blend

    def _conv(self, inputs: int, outputs: int, kernel: int = 3, gain: float = SQRT2) -> nn.Module:
        return EqualizedConv2d(
            inputs, outputs, kernel, gain=gain, scale_bias=self.reading.scale_bias
        )

    def _dense(self, inputs: int, outputs: int, gain: float = SQRT2) -> nn.Module:
        return EqualizedLinear(inputs, outputs, gain=gain, scale_bias=self.reading.scale_bias)


class Generator(_Progressive):
    """Latent (N, Z) of any length -> image (N, channels, s, s) of s = 4 * 2^(level - 1) px.

    The latent is projected to the sphere of radius sqrt(Z) first, so only its direction counts.
    Images are meant for [-1, 1], but nothing clamps them.

    Args:
        size: pixels a side when fully grown, a power of two.
        fmap_base, fmap_max: see `widths`.
        latent: Z; None is `fmap_max`.
        channels: colours.
        reading: `zoo` or `nvidia`.

    Source: Karras et al. 2018, table 2; Diamond, section 4. 22,941,074 parameters at 128 px,
    23,086,795 at 1024 px.

    Raises:
        UserError, UnknownName: see `widths`, `READINGS`.
    """

    def __init__(
        self, size: int, *, fmap_base: int = 8192, fmap_max: int = 512, latent: int | None = None,
        channels: int = 3, reading: str = "zoo",
    ) -> None:  # fmt: skip
        super().__init__(size, fmap_base, fmap_max, reading)
        w, self.latent = self.widths, latent or fmap_max
        self.first = self._dense(self.latent, BOTTOM * BOTTOM * w[0], self.reading.first_gain)
        self.base = self._conv(w[0], w[0])
        self.blocks = nn.ModuleList(
            nn.ModuleList([self._conv(a, b), self._conv(b, b)]) for a, b in pairwise(w)
        )
        self.to_rgb = nn.ModuleList(
            self._conv(a, channels, 1, gain=self.reading.rgb_gain) for a in w
        )

    def forward(self, z: Codes) -> Images:
        x = _act(self.first(pixel_norm(z))).view(-1, self.widths[0], BOTTOM, BOTTOM)
        x = pixel_norm(x.contiguous(memory_format=torch.channels_last))
        x, before = pixel_norm(_act(self.base(x))), None
        for pair in self.blocks[: self.level - 1]:
            before, x = x, F.interpolate(x, scale_factor=2, mode="nearest")
            for conv in pair:
                x = pixel_norm(_act(conv(x)))
        image = widened(self.to_rgb[self.level - 1](x))
        if self.blend < 1.0 and before is not None:
            old = F.interpolate(widened(self.to_rgb[self.level - 2](before)), scale_factor=2)
            image = old.lerp(image, self.blend)
        return image


class Critic(_Progressive):
    """Image (N, channels, s, s) -> score (N,), any number; higher means more real.

    Its next to last layer sees how much the images of a group differ (`minibatch_stddev`), so the
    score of an image depends on the other images of its group.

    Args:
        size, fmap_base, fmap_max, channels, reading: as of the generator.
        group: images of a group of the minibatch standard deviation.

    Source: Karras et al. 2018, table 2. 22,941,313 parameters at 128 px, 23,087,249 at 1024 px.
    """

    def __init__(
        self, size: int, *, fmap_base: int = 8192, fmap_max: int = 512, channels: int = 3,
        group: int = 4, reading: str = "zoo",
    ) -> None:  # fmt: skip
        super().__init__(size, fmap_base, fmap_max, reading)
        w, self.group = self.widths, group
        self.from_rgb = nn.ModuleList(self._conv(channels, a, 1) for a in w)
        self.blocks = nn.ModuleList(
            nn.ModuleList([self._conv(b, b), self._conv(b, a)]) for a, b in pairwise(w)
        )
        self.base = self._conv(w[0] + 1, w[0])
        self.dense = self._dense(BOTTOM * BOTTOM * w[0], w[0])
        self.score = self._dense(w[0], 1, self.reading.last_gain)

    def forward(
        self,
        x: Images,
        *,
        spread: Float[Tensor, "N 1 1 1"] | None = None,
        group: int | None = None,
    ) -> PerImage:
        return widened(self.score(self.features(x, spread=spread, group=group)).flatten())

    def features(
        self,
        x: Images,
        *,
        layer: Literal["dense", "map"] = "dense",
        spread: Float[Tensor, "N 1 1 1"] | None = None,
        group: int | None = None,
    ) -> Features:
        """What the critic sees in an image: its penultimate layer (`dense`, (N, width)), or the
        flattened 4x4 map before it (`map`, (N, 16 width)).

        Args:
            spread: stands for the minibatch standard deviation, measured elsewhere (`spread_of`).
            group: images a group of that statistic, None for the critic's own; 1 judges each alone.

        Raises:
            UnknownName: no such layer.
        """
        if layer not in ("dense", "map"):
            raise UnknownName("critic layer", layer, ("dense", "map"))
        x = self._bottom(x)
        if spread is None:
            spread = minibatch_stddev(x, group or self.group, self.reading.spread)
        plane = spread.to(x).expand(-1, 1, BOTTOM, BOTTOM)
        # plain order before flattening: features are (C, H, W), whatever the memory format
        flat = _act(self.base(torch.cat((x, plane), 1))).flatten(1)
        return widened(flat if layer == "map" else _act(self.dense(flat)))

    def spread_of(self, x: Images) -> Float[Tensor, "N 1 1 1"]:
        """The minibatch standard deviation of these images, as the critic would measure it."""
        return minibatch_stddev(self._bottom(x), self.group, self.reading.spread)

    def _bottom(self, x: Images) -> Float[Tensor, "N C 4 4"]:
        level = self.level
        new = _act(self.from_rgb[level - 1](x))
        for index in range(level - 2, -1, -1):
            new = self._down(self.blocks[index], new)
            if index == level - 2 and self.blend < 1.0:
                old = _act(self.from_rgb[index](F.avg_pool2d(x, 2)))
                new = old.lerp(new, self.blend)
        return new

    def _down(self, pair: nn.ModuleList, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
        x = pair[1](_act(pair[0](x)))
        if self.reading.pool_first:
            return _act(F.avg_pool2d(x, 2))
        return F.avg_pool2d(_act(x), 2)


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


def count(size: int, base: int, most: int, latent: int, channels: int = 3) -> tuple[int, int]:
    """Parameters of generator and critic, by arithmetic.

    Args:
        size, base, most, latent, channels: as of the networks.
    """
    w = widths(size, base, most)
    blocks = sum(9 * (a * b + b * b) + 2 * b for a, b in pairwise(w))
    mirrored = sum(9 * (b * b + b * a) + a + b for a, b in pairwise(w))
    first = (latent + 1) * 16 * w[0] + 9 * w[0] ** 2 + w[0]
    last = 9 * (w[0] + 1) * w[0] + w[0] + (16 * w[0] + 1) * w[0] + w[0] + 1
    rgb = sum(channels * (a + 1) for a in w)
    return first + blocks + rgb, last + mirrored + sum(a * (channels + 1) for a in w)


def radius(latent: int) -> float:
    """sqrt(Z), the length of a typical latent and of every projected one."""
    return math.sqrt(latent)
