"""StyleGAN's generator (Karras et al. 2019) as PULSE takes it: style vectors and noise maps go in.

Written from the paper and the facts of the PyTorch port that PULSE's weights belong to; tensors
carry that port's names, so that they load without renaming. One image layer is left of the
progressive training. Images are (N, 3, S, S) on [-1, 1]; nothing clamps them.
"""

import math
from collections import OrderedDict
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers.errors import UserError
from latentpapers.nets.equalized import SQRT2, pixel_norm
from latentpapers.nets.pgan import SLOPE, widths
from latentpapers.precision import widened
from latentpapers.shapes import Codes, Images

FUSED = 128  # from this side on, enlarging and convolving are one transposed convolution
MAPPING_RATE = 0.01  # learning rate multiplier of the mapping network
Map = Float[Tensor, "N C H W"]
Rows = Float[Tensor, "N R Z"]


class Dense(nn.Module):
    """A linear layer with equalised learning rate: weight and bias are scaled when used.

    Args:
        gain: sqrt(2) before a leaky ReLU, 1 else.
        rate: learning rate multiplier.
    """

    def __init__(self, inputs: int, outputs: int, *, gain: float = 1.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.rate = gain / math.sqrt(inputs) * rate, rate

    def forward(self, x: Codes) -> Codes:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class Conv(nn.Module):
    """A convolution with equalised learning rate; `up` doubles the side first, then blurs.

    From 128 px on, doubling and convolving are one transposed convolution whose kernel is the sum
    of four shifted ones: the same as repeating pixels and convolving with the kernel turned by 180
    degrees, which is how the published weights were trained.
    """

    def __init__(
        self, inputs: int, outputs: int, side: int, *, gain: float = SQRT2, up: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.up = gain / math.sqrt(inputs * side**2), up
        if up:
            line = torch.tensor([0.25, 0.5, 0.25])
            self.intermediate = nn.Module()  # the name of the port's blur and its kernel
            self.intermediate.register_buffer("kernel", torch.outer(line, line)[None, None])

    def forward(self, x: Map) -> Map:
        weight, edge = self.weight * self.scale, self.weight.shape[-1] // 2
        if not self.up:
            return F.conv2d(x, weight, self.bias, padding=edge)
        if 2 * min(x.shape[2:]) >= FUSED:
            x = F.conv_transpose2d(x, _spread(weight), stride=2, padding=1)
        else:
            x = F.conv2d(F.interpolate(x, scale_factor=2), weight, padding=edge)
        kernel = self.intermediate.kernel.to(x).expand(x.shape[1], -1, -1, -1)
        return F.conv2d(x, kernel, padding=1, groups=x.shape[1]) + self.bias.view(1, -1, 1, 1)


def _spread(weight: Float[Tensor, "O I 3 3"]) -> Float[Tensor, "I O 4 4"]:
    """The kernel of the fused layer: four copies of the 3x3 one, a pixel apart."""
    w = F.pad(weight.transpose(0, 1), (1, 1, 1, 1))
    return w[..., 1:, 1:] + w[..., :-1, 1:] + w[..., 1:, :-1] + w[..., :-1, :-1]


class Noise(nn.Module):
    """Adds one map, weighted channel by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Map, noise: Float[Tensor, "N 1 H W"]) -> Map:
        return x + self.weight.view(1, -1, 1, 1) * noise


class Style(nn.Module):
    """x (1 + a) + b with (a, b) linear in the style vector."""

    def __init__(self, latent: int, channels: int) -> None:
        super().__init__()
        self.lin = Dense(latent, 2 * channels)

    def forward(self, x: Map, w: Codes) -> Map:
        scale, shift = self.lin(w)[:, :, None, None].chunk(2, 1)
        return x * (1 + scale) + shift


class Epilogue(nn.Module):
    """What follows every convolution: noise, leaky ReLU, instance norm, style."""

    def __init__(self, latent: int, channels: int) -> None:
        super().__init__()
        self.noise, self.style_mod = Noise(channels), Style(latent, channels)

    def forward(self, x: Map, w: Codes, noise: Tensor) -> Map:
        x = F.instance_norm(F.leaky_relu(self.noise(x, noise), SLOPE))
        return self.style_mod(x, w)


class First(nn.Module):
    """4 x 4: a learned constant, then one convolution."""

    def __init__(self, latent: int, channels: int) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.ones(1, channels, 4, 4))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.epi1, self.epi2 = Epilogue(latent, channels), Epilogue(latent, channels)
        self.conv = Conv(channels, channels, 3)

    def forward(self, rows: Rows, noise: tuple[Tensor, ...]) -> Map:
        x = (self.const + self.bias.view(1, -1, 1, 1)).expand(len(rows), -1, -1, -1)
        x = self.epi1(x, rows[:, 0], noise[0])
        return self.epi2(self.conv(x), rows[:, 1], noise[1])


class Block(nn.Module):
    """Twice the side: an enlarging convolution and a plain one."""

    def __init__(self, inputs: int, channels: int, latent: int) -> None:
        super().__init__()
        self.conv0_up = Conv(inputs, channels, 3, up=True)
        self.epi1, self.epi2 = Epilogue(latent, channels), Epilogue(latent, channels)
        self.conv1 = Conv(channels, channels, 3)

    def forward(self, x: Map, rows: Rows, noise: tuple[Tensor, ...]) -> Map:
        x = self.epi1(self.conv0_up(x), rows[:, 0], noise[0])
        return self.epi2(self.conv1(x), rows[:, 1], noise[1])


class Mapping(nn.Sequential):
    """z (N, latent) -> w: onto the sphere, then eight layers. 2,101,248 parameters at 512."""

    def __init__(self, latent: int = 512, layers: int = 8) -> None:
        parts: list[tuple[str, nn.Module]] = []
        for i in range(layers):
            parts.append((f"dense{i}", Dense(latent, latent, gain=SQRT2, rate=MAPPING_RATE)))
            parts.append((f"dense{i}_act", nn.LeakyReLU(SLOPE)))
        super().__init__(OrderedDict(parts))

    def forward(self, z: Codes) -> Codes:
        return super().forward(pixel_norm(z))


class Synthesis(nn.Module):
    """(style vectors (N, R, latent), R noise maps) -> images; R = 2 log2(size) - 2, 18 at 1024 px.

    24,110,771 parameters at 1024 px; with the mapping network and the eight image layers that
    progressive training leaves behind 26,219,627, the total that NVIDIA's code prints.

    Args:
        size: pixels a side, a power of two of at least 8.
        latent: length of a style vector.
        fmap_base, fmap_max: channels, see `pgan.widths`; 8192 and 512 as published.

    Raises:
        UserError: see `pgan.widths`; another number of rows or maps.
    """

    def __init__(
        self, size: int = 1024, *, latent: int = 512, fmap_base: int = 8192, fmap_max: int = 512
    ) -> None:
        super().__init__()
        w = widths(size, fmap_base, fmap_max)
        self.size, self.latent, self.rows = size, latent, 2 * len(w)
        blocks: list[nn.Module] = [First(latent, w[0])]
        blocks += [Block(a, b, latent) for a, b in pairwise(w)]
        names = (f"{4 << i}x{4 << i}" for i in range(len(w)))
        self.torgb = Conv(w[-1], 3, 1, gain=1.0)
        self.blocks = nn.ModuleDict(OrderedDict(zip(names, blocks, strict=True)))

    @property
    def sides(self) -> tuple[int, ...]:
        """Of the noise maps: two of each size."""
        return tuple(4 << (i // 2) for i in range(self.rows))

    def forward(self, rows: Rows, noise: tuple[Tensor, ...]) -> Images:
        if rows.shape[1] != self.rows or len(noise) != self.rows:
            raise UserError(
                f"this generator takes {self.rows} rows and as many noise maps, not "
                f"{rows.shape[1]} and {len(noise)}."
            )
        x = None
        for i, block in enumerate(self.blocks.values()):
            pair = slice(2 * i, 2 * i + 2)
            own = (rows[:, pair], noise[pair])
            x = block(*own) if x is None else block(x, *own)
        return widened(self.torgb(x))
