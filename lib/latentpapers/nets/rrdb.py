"""The generator of ESRGAN and LSRGAN: residual in residual dense blocks, then two doublings.

Layout and names of layers are those of the BasicSR files, so that published weights load as they
are. Every residual branch is scaled by 0.2; there is no normalisation layer anywhere.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

RESIDUAL = 0.2  # weight of every residual branch
_SLOPE = 0.2  # of the leaky ReLU

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
        first = self.conv_first(x)
        maps = first + self.conv_body(self.body(first))
        for conv in (self.conv_up1, self.conv_up2):
            maps = leaky_relu(conv(interpolate(maps, scale_factor=2, mode="nearest")), _SLOPE)
        return self.conv_last(leaky_relu(self.conv_hr(maps), _SLOPE))
