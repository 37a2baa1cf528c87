"""LSRGAN's encoder L: a high-resolution image to a code of the low-resolution image's shape.

The paper describes it in one sentence and its code leaves it out (erratum), so there are two
readings: the first layers of VGG16, then upscaling (`VGGEncoder`, the text of section 3.1), and an
RRDB network that shrinks (`RRDBEncoder`, what the public code's spare block hints at).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from latentpapers.errors import UserError
from latentpapers.nets.rrdb import RRDB

Encoded = Float[Tensor, "N 3 H/4 W/4"]
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, as VGG16 was trained
_VGG16 = ((1, 1), (2, 2), (4, 4, 4), (8,))  # maps of each convolution in units of the width


def _divide(x: torch.Tensor, by: int) -> None:
    if x.shape[-2] % by or x.shape[-1] % by:
        raise UserError(f"this encoder takes sides divisible by {by}, not {tuple(x.shape[-2:])}.")


class VGGEncoder(nn.Module):
    """conv1_1 to conv4_1 of VGG16 with three poolings, then x2 and three convolutions.

    `features` has torchvision's names and shapes, so at width 64 an ImageNet VGG16 fits its start.

    Args:
        width: maps of conv1_1.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for block, wide in enumerate(_VGG16):
            layers += [nn.MaxPool2d(2)] if block else []
            for maps in wide:
                layers += [nn.Conv2d(inputs, maps * width, 3, padding=1), nn.ReLU()]
                inputs = maps * width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(8 * width, 4 * width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(4 * width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, 3, 3, padding=1),
        )  # fmt: skip
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Encoded:
        """Images in [0, 1], sides a multiple of 8.

        Raises:
            UserError: other sides; their code would not have a quarter of them.
        """
        _divide(x, 8)
        return self.head(self.features((x - self.mean) / self.std))


class RRDBEncoder(nn.Module):
    """conv, `blocks` RRDBs, conv and sum, twice a halving with a convolution, two convolutions.

    Args:
        width, blocks, growth: as in `RRDBNet`.
    """

    def __init__(self, width: int = 64, blocks: int = 4, growth: int = 32) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*(RRDB(width, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_down1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_down2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Encoded:
        """Images in [0, 1], sides a multiple of 4.

        Raises:
            UserError: other sides.
        """
        _divide(x, 4)
        first = self.conv_first(x)
        maps = first + self.conv_body(self.body(first))
        for conv in (self.conv_down1, self.conv_down2):
            # nearest by one half keeps every second pixel
            maps = leaky_relu(conv(interpolate(maps, scale_factor=0.5, mode="nearest")), 0.2)
        return self.conv_last(leaky_relu(self.conv_hr(maps), 0.2))
