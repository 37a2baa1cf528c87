"""SRGAN's generator and discriminator, a baseline with a pixel, a feature and an adversarial loss.

Written from Ledig et al. 2017 with the changes of LAG's authors' code: leaky ReLU in place of
PReLU, weights drawn from N(0, 0.02), and a discriminator that judges each of 4 x 4 positions.
"""

from torch import nn

from latentpapers.errors import UserError
from latentpapers.nets.gans import BatchNorm  # over the images of all processes
from latentpapers.precision import widened
from latentpapers.shapes import Images, PerImage

SLOPE = 0.2


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class Block(nn.Module):
    """y + BN(conv(lrelu(BN(conv(y)))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), BatchNorm(width), nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, width, 3, padding=1), BatchNorm(width),
        )  # fmt: skip

    def forward(self, y: Images) -> Images:
        return y + self.layers(y)


class Generator(nn.Module):
    """Low resolution image -> image `factor` times as large, tanh; no noise enters.

    Args:
        factor: a power of two of at least 2.
        width, blocks: 64 and 16 in print.

    Raises:
        UserError: another factor.
    """

    def __init__(self, factor: int, *, width: int = 64, blocks: int = 16) -> None:
        super().__init__()
        if factor < 2 or factor & (factor - 1):
            raise UserError(f"the factor must be a power of two of at least 2, not {factor}.")
        self.first = nn.Sequential(nn.Conv2d(3, width, 9, padding=4), nn.LeakyReLU(SLOPE))
        self.blocks = nn.Sequential(
            *(Block(width) for _ in range(blocks)),
            nn.Conv2d(width, width, 3, padding=1), BatchNorm(width),
        )  # fmt: skip
        up: list[nn.Module] = []
        for _ in range(factor.bit_length() - 1):
            up += [nn.Conv2d(width, 4 * width, 3, padding=1), nn.LeakyReLU(SLOPE),
                   nn.PixelShuffle(2)]  # fmt: skip
        self.up = nn.Sequential(*up, nn.Conv2d(width, 3, 9, padding=4), nn.Tanh())
        self.apply(_initialise)

    def forward(self, y: Images) -> Images:
        first = self.first(y)
        return widened(self.up(first + self.blocks(first)))


class Discriminator(nn.Module):
    """Image -> one logit, the mean over 4 x 4 positions; the training loss may take `positions`.

    Args:
        size: pixels a side, a power of two of at least 8.
        width: channels of the first stage; they double to at most 8 times that.

    Raises:
        UserError: another size.
    """

    def __init__(self, size: int, *, width: int = 64) -> None:
        super().__init__()
        if size < 8 or size & (size - 1):
            raise UserError(f"the size must be a power of two of at least 8, not {size}.")
        layers: list[nn.Module] = []
        last = 3
        for k in range(size.bit_length() - 3):
            now = min(width << k, 8 * width)
            layers += [nn.Conv2d(last, now, 3, padding=1)]
            layers += [BatchNorm(now)] if k else []
            layers += [nn.LeakyReLU(SLOPE), nn.Conv2d(now, now, 3, stride=2, padding=1),
                       BatchNorm(now), nn.LeakyReLU(SLOPE)]  # fmt: skip
            last = now
        layers += [nn.Conv2d(last, 16 * width, 1), nn.LeakyReLU(SLOPE), nn.Conv2d(16 * width, 1, 1)]
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, x: Images) -> PerImage:
        return self.positions(x).flatten(1).mean(1)

    def positions(self, x: Images) -> Images:
        """Logits, (N, 1, 4, 4)."""
        return widened(self.layers(x))
