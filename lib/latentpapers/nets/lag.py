"""LAG's generator and critic, in stages that double the size, and the encoder it leaves to others.

Written from the facts about the authors' code; the paper gives no architecture of its own (section
3.1). Stage 0 works at the size of the low resolution image, stage k at 2^k times that; `level` is
the highest stage that takes part. Images are on [-1, 1]; the generator's output is linear and may
leave that range (lag-e26).

Every convolution is 3x3 with an equalised learning rate; there is no normalisation layer.
"""

import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from latentpapers.errors import UserError
from latentpapers.nets.equalized import EqualizedConv2d, he_gain
from latentpapers.precision import widened
from latentpapers.shapes import Images, PerImage

SLOPE = 0.2
COLOURS = 3
Maps = Float[Tensor, "N C H W"]


def stages(factor: int) -> int:
    """Number of doublings: 3 for 8x.

    Raises:
        UserError: a factor that is not a power of two of at least 2.
    """
    if factor < 2 or factor & (factor - 1):
        raise UserError(f"the factor must be a power of two of at least 2, not {factor}.")
    return factor.bit_length() - 1


def filters(factor: int, width: int = 256, floor: int = 64) -> list[int]:
    """Channels of stage 0, 1, ...: half at each stage, never below `floor`."""
    return [max(floor, width >> k) for k in range(stages(factor) + 1)]


def _level(asked: int | None, top: int) -> int:
    """The highest stage that takes part; all of them by default."""
    if asked is not None and not 1 <= asked <= top:
        raise UserError(f"the level must be one of 1 to {top}, not {asked}.")
    return top if asked is None else asked


def box_down(x: Images, times: int) -> Images:
    """Mean over blocks of `times` x `times` pixels."""
    return F.avg_pool2d(x, times) if times > 1 else x


def nearest_up(x: Images, times: int = 2) -> Images:
    """Every pixel becomes a block."""
    return F.interpolate(x, scale_factor=times, mode="nearest") if times > 1 else x


def blended(x: Images, weight: float) -> Images:
    """An image with its finest details at `weight`: what real images look like in a fade."""
    coarse = nearest_up(box_down(x, 2))
    return coarse + weight * (x - coarse)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


class Residual(nn.Module):
    """y + conv(ReLU(conv(y))) * scale; LAG's scale is 1 / blocks, EDSR's 0.1. No ReLU after it."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.first = EqualizedConv2d(width, width, gain=he_gain(0))
        self.second = EqualizedConv2d(width, width, gain=he_gain(1))

    def forward(self, y: Maps) -> Maps:
        return y + self.scale * self.second(F.relu(self.first(y)))


class Doubling(nn.Module):
    """One stage of the generator: nearest x2, two convolutions, and an image of its own.

    The image of a stage is added to the enlarged image of the stages below (a skip-type output):
    each stage draws only what is finer than the one before it.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = EqualizedConv2d(inputs, outputs, gain=he_gain(SLOPE))
        self.second = EqualizedConv2d(outputs, outputs, gain=he_gain(SLOPE))
        self.to_rgb = EqualizedConv2d(outputs, COLOURS, gain=he_gain(1))

    def forward(self, y: Maps) -> tuple[Maps, Images]:
        y = _leaky(self.second(_leaky(self.first(nearest_up(y)))))
        return y, self.to_rgb(y)


class Generator(nn.Module):
    """G(y, z): low resolution image and noise map -> image `factor` times as large (eq 1).

    10,154,438 / 10,230,025 / 10,305,612 / 10,381,199 parameters at factor 4 / 8 / 16 / 32.

    Args:
        factor: 2, 4, 8, ...
        width, floor: channels of stage 0, and the least of any stage.
        blocks: residual blocks at low resolution.
        noise: channels of the noise map.
    """

    def __init__(
        self, factor: int, *, width: int = 256, floor: int = 64, blocks: int = 8, noise: int = 64
    ) -> None:
        super().__init__()
        self.factor, self.noise = factor, noise
        channels = filters(factor, width, floor)
        self.first = EqualizedConv2d(COLOURS + noise, width, gain=he_gain(1))
        self.blocks = nn.Sequential(*(Residual(width, 1 / blocks) for _ in range(blocks)))
        self.stages = nn.ModuleList(Doubling(a, b) for a, b in itertools.pairwise(channels))

    def forward(self, y: Images, z: Maps, *, level: int | None = None, fade: float = 1.0) -> Images:
        """The image of stage `level`, (N, 3, h 2^level, w 2^level).

        Args:
            y: (N, 3, h, w).
            z: (N, noise, h, w), N(0, 1); zeros for the centre.
            level: the highest stage that takes part; all by default.
            fade: weight of that stage's own image.

        Raises:
            UserError: no such level.
        """
        level = _level(level, len(self.stages))
        maps = self.blocks(self.first(torch.cat([y, z], 1)))
        image: Images | None = None
        for k, stage in enumerate(self.stages[:level], 1):
            maps, own = stage(maps)
            own = widened(own)
            if image is None:
                image = own
            else:
                image = nearest_up(image) + (fade if k == level else 1.0) * own
        return image

    def zeros(self, y: Images) -> Maps:
        """The noise map of the centre, z = 0."""
        return y.new_zeros(len(y), self.noise, *y.shape[2:])


Conv = Callable[..., nn.Module]


def equalised(inputs: int, outputs: int) -> nn.Module:
    """LAG's own convolution."""
    return EqualizedConv2d(inputs, outputs, gain=he_gain(SLOPE))


def normalised(inputs: int, outputs: int) -> nn.Module:
    """A convolution of spectral norm 1, for the relativistic alternative of section 3.1."""
    return spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1))


CONVOLUTIONS: dict[str, Conv] = {"equalised": equalised, "spectral": normalised}


class Halving(nn.Module):
    """One stage of the critic: takes in the image at its own size, then halves the size.

    `from_rgb` is added at every stage, so the critic sees the image at all sizes at once.
    """

    def __init__(self, inputs: int, outputs: int, conv: Conv) -> None:
        super().__init__()
        self.from_rgb = conv(COLOURS, inputs)
        self.first = conv(inputs, inputs)
        self.second = conv(4 * inputs, outputs)

    def forward(self, image: Images, above: Maps | None) -> Maps:
        y = _leaky(self.from_rgb(image))
        y = y if above is None else y + above
        return _leaky(self.second(F.pixel_unshuffle(_leaky(self.first(y)), 2)))


class Trunk(nn.Module):
    """The stages of the critic, from the image down to the low resolution size."""

    def __init__(self, factor: int, width: int, floor: int, conv: Conv) -> None:
        super().__init__()
        self.factor = factor
        channels = filters(factor, width, floor)
        self.stages = nn.ModuleList(Halving(b, a, conv) for a, b in itertools.pairwise(channels))

    def forward(self, x: Images, level: int | None = None, fade: float = 1.0) -> Maps:
        level = _level(level, len(self.stages))
        y: Maps | None = None
        for k in range(level, 0, -1):
            if k == level - 1 and fade != 1:
                y = fade * y
            y = self.stages[k - 1](box_down(x, self.factor >> k), y)
        return y


class SignedHead(nn.Module):
    """Features times a fixed pattern -1, +1, -1, ... over the channels: the perceptual code P.

    The critic is the plain mean of P (eq 3), so F has no parameters: a leaky ReLU gives features
    that are mostly positive, and the signs let half of them speak against the image.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        signs = torch.ones(1, channels, 1, 1)
        signs[:, ::2] = -1
        self.register_buffer("signs", signs, persistent=False)

    def forward(self, features: Maps) -> Maps:
        return features * self.signs


class Critic(nn.Module):
    """P(x, d): image and difference map -> perceptual code, (N, width, h, w) (eq 2).

    6,392,384 / 6,578,624 / 6,764,864 / 6,951,104 parameters at factor 4 / 8 / 16 / 32.

    Args:
        factor, width, floor: as the generator's.
        blocks: plain convolutions at low resolution (no residual connections, lag-e14).
        conv: `equalised` or `spectral`.
    """

    def __init__(
        self, factor: int, *, width: int = 256, floor: int = 64, blocks: int = 8,
        conv: str = "equalised",
    ) -> None:  # fmt: skip
        super().__init__()
        make = CONVOLUTIONS[conv]
        self.trunk = Trunk(factor, width, floor, make)
        sizes = [width + COLOURS, *[width] * blocks]
        self.blocks = nn.ModuleList(make(a, b) for a, b in itertools.pairwise(sizes))
        self.head = SignedHead(width)

    def forward(
        self, x: Images, difference: Images, *, level: int | None = None, fade: float = 1.0
    ) -> Maps:
        """The code P.

        Args:
            x: (N, 3, H, W) at the full size, also while not grown.
            difference: (N, 3, H / factor, W / factor).
            level, fade: as the generator's.
        """
        y = torch.cat([self.trunk(x, level, fade), difference], 1)
        for block in self.blocks:
            y = _leaky(block(y))
        return widened(self.head(y))


def value(code: Maps) -> PerImage:
    """C = F(P): the mean of the code (eq 3)."""
    return code.flatten(1).mean(1)


def position_sum(code: Maps) -> PerImage:
    """The scalar whose slope the authors' code penalises: channel means, summed over positions.

    It is h * w times `value`.
    """
    return code.mean(1).flatten(1).sum(1)


def logits(code: Maps) -> PerImage:
    """Channel sums at every position, as one list of logits for the logarithmic losses.

    A spectrally normalised critic has small features; their mean would be no logit to speak of.
    """
    return code.sum(1).flatten()


class Encoder(nn.Module):
    """E(x): image -> noise map of the size that G takes, the second extension of section 2.1.

    The critic's trunk and one linear convolution; the paper says nothing of its form.
    """

    def __init__(self, factor: int, *, width: int = 256, floor: int = 64, noise: int = 64) -> None:
        super().__init__()
        self.trunk = Trunk(factor, width, floor, equalised)
        self.code = EqualizedConv2d(width, noise, gain=he_gain(1))

    def forward(self, x: Images) -> Maps:
        return widened(self.code(self.trunk(x)))


class Embedding(nn.Module):
    """One noise map z_i per training image, the first extension of section 2.1.

    Only the maps of the images in a batch get a gradient.
    """

    def __init__(self, images: int, noise: int, side: int) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.randn(images, noise, side, side))

    def forward(self, which: Tensor) -> Maps:
        return self.maps[which]
