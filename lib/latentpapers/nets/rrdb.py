"""The generator of ESRGAN and LSRGAN: residual in residual dense blocks, then two doublings.

Layout and names of layers are those of the BasicSR files, so that published weights load as they
are. Every residual branch is scaled by 0.2; there is no normalisation layer anywhere.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

RESIDUAL = 0.2  # weight of every residual branch
_SLOPE = 0.2  # of the leaky ReLU
HALO = 2
"""Low-resolution pixels around a tile that its enlargement depends on.

One convolution at twice the size and three at four times: 3 pixels of x4 and 1 of x2 lie within 2.
"""

Maps = Float[Tensor, "N C H W"]


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees all maps before it; the fifth is linear."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for k in range(1, 6):
            outputs = growth if k < 5 else width
            self.add_module(f"conv{k}", _conv(width + (k - 1) * growth, outputs))

    def forward(self, x: Maps) -> Maps:
        maps = [x]
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            maps.append(leaky_relu(conv(torch.cat(maps, 1)), _SLOPE))
        return x + RESIDUAL * self.conv5(torch.cat(maps, 1))


class RRDB(nn.Module):
    """Three dense blocks in a residual branch."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for k in range(1, 4):
            self.add_module(f"rdb{k}", DenseBlock(width, growth))

    def forward(self, x: Maps) -> Maps:
        return x + RESIDUAL * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(nn.Module):
    """Low-resolution images (N, 3, H, W) in [0, 1] -> (N, 3, 4H, 4W), not clamped.

    23 blocks of 64 maps with growth 32 are the published network: 16,697,987 parameters. The
    submodules stand in the order in which the forward pass uses them; converters rely on it.

    Args:
        width: maps of the trunk.
        blocks: number of RRDBs.
        growth: maps that each convolution of a dense block adds.
    """

    def __init__(
        self, width: int = 64, blocks: int = 23, growth: int = 32, colours: int = 3
    ) -> None:
        super().__init__()
        self.conv_first = _conv(colours, width)
        self.body = nn.Sequential(*(RRDB(width, growth) for _ in range(blocks)))
        self.conv_body = _conv(width, width)
        self.conv_up1 = _conv(width, width)
        self.conv_up2 = _conv(width, width)
        self.conv_hr = _conv(width, width)
        self.conv_last = _conv(width, colours)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C 4*H 4*W"]:
        return self.upsample(self.trunk(x))

    def trunk(self, x: Float[Tensor, "N C H W"]) -> Maps:
        """Everything at low resolution; an output pixel sees 15 pixels a block to each side."""
        first = self.conv_first(x)
        return first + self.conv_body(self.body(first))

    def upsample(self, maps: Maps) -> Float[Tensor, "N C 4*H 4*W"]:
        """The two doublings and the last convolutions; sees `HALO` low-resolution pixels around."""
        for conv in (self.conv_up1, self.conv_up2):
            maps = leaky_relu(conv(interpolate(maps, scale_factor=2, mode="nearest")), _SLOPE)
        return self.conv_last(leaky_relu(self.conv_hr(maps), _SLOPE))


@torch.no_grad()
def tiled(
    net: RRDBNet,
    x: Float[Tensor, "N C H W"],
    *,
    tile: int = 64,
    trunk_tile: int = 0,
    trunk_halo: int = 16,
) -> Float[Tensor, "N C 4*H 4*W"]:
    """`net(x)` with bounded memory: the trunk whole, the upsampler tile by tile.

    The trunk holds width + 4 growth maps at low resolution, the upsampler 16 times as many pixels;
    so only the latter is cut, with the halo that its convolutions read. The result is that of the
    whole network (up to the order of sums inside a convolution).

    Args:
        x: images in [0, 1].
        tile: low-resolution pixels a side of an upsampler's tile.
        trunk_tile: cut the trunk as well, in tiles of so many pixels; 0: not. **Approximate**: a
            trunk sees 15 pixels a block (345 with 23 blocks), more than any useful halo.
            `ci/benchmark_lsrgan.py` prints the error with 23 blocks by halo; notebook 5_explore
            draws that of the shipped network.
        trunk_halo: pixels around a trunk's tile, dropped afterwards.

    Raises:
        ValueError: a tile below 1 or a negative halo.
    """
    if tile < 1 or trunk_tile < 0 or trunk_halo < 0:
        raise ValueError(f"tile {tile} must be positive; {trunk_tile}, {trunk_halo} not negative.")
    if trunk_tile:
        maps = _by_tiles(net.trunk, x, trunk_tile, trunk_halo, 1)
    else:
        maps = net.trunk(x)
    return _by_tiles(net.upsample, maps, tile, HALO, 4)


def _by_tiles(
    layer: Callable[[Tensor], Tensor], x: Maps, tile: int, halo: int, factor: int
) -> Tensor:
    """`layer` on tiles of `x` with their surroundings; the surroundings are cut off again."""
    height, width = x.shape[2:]
    out = None
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            y, y_from, y_to = _span(top, tile, halo, height)
            z, z_from, z_to = _span(left, tile, halo, width)
            part = layer(x[:, :, y_from:y_to, z_from:z_to])
            if out is None:
                out = part.new_empty(len(x), part.shape[1], factor * height, factor * width)
            rows = slice(factor * (top - y_from), factor * (y - y_from))
            columns = slice(factor * (left - z_from), factor * (z - z_from))
            target = out[:, :, factor * top : factor * y, factor * left : factor * z]
            target.copy_(part[:, :, rows, columns])
    return out


def _span(start: int, tile: int, halo: int, length: int) -> tuple[int, int, int]:
    """Where a tile ends, and where its surroundings begin and end."""
    end = min(start + tile, length)
    return end, max(0, start - halo), min(length, end + halo)


def initialise(net: nn.Module, generator: torch.Generator, scale: float = 1.0) -> nn.Module:
    """Kaiming normal (fan-in, gain sqrt 2) times `scale` for every layer with weights, biases 0.

    The base model's code takes scale 0.1 for the generator, 1 for the critic (LSRGAN erratum e40).
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            spread = scale * (2 / fan_in) ** 0.5
            with torch.no_grad():
                layer.weight.normal_(0, spread, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
    return net
