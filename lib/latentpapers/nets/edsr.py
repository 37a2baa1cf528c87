"""EDSR, a regression baseline: residual blocks at low resolution, one sub-pixel enlargement.

Written from Lim et al. 2017 with the settings of LAG's authors' code: 16 blocks of 256 channels,
residuals divided by the number of blocks, and the nearest-enlarged input added at the end.
"""

from torch import nn
from torch.nn import functional as F

from latentpapers.precision import widened
from latentpapers.shapes import Images


class Block(nn.Module):
    """y + conv(ReLU(conv(y))) * scale."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.scale = scale

    def forward(self, y: Images) -> Images:
        return y + self.scale * self.second(F.relu(self.first(y)))


class EDSR(nn.Module):
    """Low resolution image -> image `factor` times as large, both on [-1, 1]; no noise enters.

    Args:
        factor: any whole number.
        width, blocks: 256 and 16 in LAG's repository.
    """

    def __init__(self, factor: int, *, width: int = 256, blocks: int = 16) -> None:
        super().__init__()
        self.factor = factor
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width, 1 / blocks) for _ in range(blocks)))
        self.last = nn.Conv2d(width, 3 * factor * factor, 3, padding=1)

    def forward(self, y: Images) -> Images:
        detail = F.pixel_shuffle(self.last(self.blocks(self.first(y))), self.factor)
        return widened(detail) + F.interpolate(y, scale_factor=self.factor, mode="nearest")
