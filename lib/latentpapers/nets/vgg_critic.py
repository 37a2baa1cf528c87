"""ESRGAN's discriminator, "VGG-128": strided convolutions with batch norm, then two full layers.

From the facts of the public code (BasicSR): convolutions that batch norm follows have no bias.
"""

import itertools

from jaxtyping import Float
from torch import Tensor, nn

from latentpapers.errors import UserError
from latentpapers.shapes import PerImage

_SLOPE = 0.2  # of the leaky ReLU


def _layer(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """3x3, or 4x4 where it halves the maps; batch norm; leaky ReLU."""
    kernel = 3 if stride == 1 else 4
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(_SLOPE)]


class VGGCritic(nn.Module):
    """Images (N, 3, size, size) in [0, 1] -> logits (N,): high for real.

    At size 128 and width 64, 14,499,401 parameters. It stays in training mode, also while the
    generator is updated, so real and fake batches are normalised each by its own statistics.

    Args:
        size: height and width; a power of two from 16 on. The published network is for 128: five
            halvings down to 4 x 4. Smaller sizes drop the last halvings.
        width: maps of the first layer; doubled three times, then kept.

    Raises:
        UserError: a size that is no power of two, or below 16.
    """

    def __init__(self, size: int = 128, width: int = 64, colours: int = 3) -> None:
        super().__init__()
        halvings = size.bit_length() - 3
        if size < 16 or 4 << halvings != size:
            raise UserError(f"this critic takes sizes 16, 32, 64, 128, ..., not {size}.")
        self.size = size
        maps = [width * 2 ** min(k, 3) for k in range(halvings)]
        layers: list[nn.Module] = [nn.Conv2d(colours, width, 3, padding=1), nn.LeakyReLU(_SLOPE)]
        layers += _layer(width, width, 2)
        for before, after in itertools.pairwise(maps):
            layers += [*_layer(before, after, 1), *_layer(after, after, 2)]
        self.features = nn.Sequential(*layers)
        full = nn.Linear(16 * maps[-1], 100)
        self.classifier = nn.Sequential(full, nn.LeakyReLU(_SLOPE), nn.Linear(100, 1))

    def forward(self, x: Float[Tensor, "N 3 S S"]) -> PerImage:
        if x.shape[-2:] != (self.size, self.size):
            raise UserError(
                f"this critic takes {self.size} x {self.size} pixels, not {tuple(x.shape[-2:])}."
            )
        return self.classifier(self.features(x).flatten(1))[:, 0]
