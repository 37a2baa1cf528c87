"""The BEGAN encoder and decoder: pairs of 3x3 convolutions with ELU, nothing else.

No normalisation, dropout or transposed convolution (AVAE, section 4). Shapes follow BEGAN's public
TensorFlow reading, which is the only one whose counts are known (see errata `avae-e*`): r =
log2(size) - 2 levels, so that every size ends in an 8x8 map.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers.errors import UserError
from latentpapers.precision import widened
from latentpapers.shapes import Codes, Images

BOTTOM = 8  # side of the last feature map


def levels(size: int) -> int:
    """Number of resolutions: 3 for 32 px, 4 for 64 px, 5 for 128 px.

    Raises:
        UserError: a size that is not a power of two of at least 16.
    """
    r = size.bit_length() - 3
    if size < 16 or size != 1 << (r + 2):
        raise UserError(f"image size must be a power of two of at least 16, not {size}.")
    return r


class Downsample(nn.Conv2d):
    """3x3 convolution of stride 2 with TensorFlow's 'same' padding: 0 before, 1 after.

    torch's symmetric `padding=1` would shift the sampling grid by one pixel.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H//2 W//2"]:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ELU(inplace=True)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


class Encoder(nn.Module):
    """Image (N, channels, size, size) in [-1, 1] -> code (N, latent), no activation.

    Level i has i * width channels: one convolution that widens, one that keeps, one of stride 2
    (not at the last level). With `heads=2` the code is (mean, log-variance), see `moments`.

    Source: BEGAN's encoder; AVAE section 4. 11,688,768 parameters at 64 px, width 128, latent 64.
    """

    def __init__(
        self, size: int, width: int, latent: int, *, channels: int = 3, heads: int = 1
    ) -> None:
        super().__init__()
        self.latent, self.heads = latent, heads
        layers, r = _conv(channels, width), levels(size)
        for i in range(1, r + 1):
            layers += _conv(max(i - 1, 1) * width, i * width) + _conv(i * width, i * width)
            if i < r:
                layers += [Downsample(i * width), nn.ELU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.code = nn.Linear(BOTTOM * BOTTOM * r * width, heads * latent)
        self.apply(_initialise)

    def forward(self, x: Images) -> Codes:
        return widened(self.code(self.features(x).flatten(1)))

    def moments(self, x: Images) -> tuple[Codes, Codes]:
        """Mean and log-variance of q(z | x); needs `heads=2`."""
        mean, log_variance = self(x).chunk(2, dim=1)
        return mean, log_variance


class Decoder(nn.Module):
    """Code (N, latent) -> image (N, channels, size, size), linear output (not clamped).

    A linear map to 8x8, then per level two convolutions of constant width, nearest upsampling
    between levels, and one convolution to the image.

    Source: BEGAN's decoder and generator; AVAE section 4. 1,716,611 parameters at 64 px, width
    128, latent 64.
    """

    def __init__(self, size: int, width: int, latent: int, *, channels: int = 3) -> None:
        super().__init__()
        self.width, self.latent = width, latent
        self.code = nn.Linear(latent, BOTTOM * BOTTOM * width)
        layers, r = [], levels(size)
        for i in range(1, r + 1):
            layers += _conv(width, width) + _conv(width, width)
            if i < r:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        layers.append(nn.Conv2d(width, channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, z: Codes) -> Images:
        x = self.code(z).view(-1, self.width, BOTTOM, BOTTOM)
        return widened(self.layers(x.contiguous(memory_format=torch.channels_last)))


def seeded(make: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """`make()` with its initialisation drawn from `generator`, the global stream untouched."""
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed: that would seed the accelerators' streams too
        number = int(torch.randint(2**62, (1,), generator=generator))
        torch.default_generator.manual_seed(number)
        return make()
