"""The encoder that starts an inversion: image -> latent on the sphere.

After the hybrid encoder of ganseeing, which "Diamond in the rough" uses for churches and trains: a
ResNet-18 without its pooling, then one block for each layer of the generator, in reverse order.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers.errors import UnknownName, UserError
from latentpapers.nets.equalized import pixel_norm
from latentpapers.precision import widened
from latentpapers.shapes import Codes, Images

TRUNKS = ("resnet18", "plain")


class PixelNorm(nn.Module):
    """`equalized.pixel_norm` as a layer."""

    def forward(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C ..."]:
        return pixel_norm(x)


class Inverter(nn.Module):
    """Image (N, channels, size, size) in [-1, 1] -> latent (N, Z) of length sqrt(Z).

    Args:
        size: pixels a side, a power of two of at least 32 (`plain`: 16).
        latent: Z.
        width: channels of the blocks after the trunk.
        trunk: `resnet18`, or `plain`: strided convolutions, for small images.
        channels: colours.

    Source: Diamond, section 4.1; ganseeing's published encoder (`resnet18`, width 512, 256 px).

    Raises:
        UserError: a size that does not reach 8x8.
        UnknownName: no such trunk.
    """

    def __init__(
        self, size: int, *, latent: int = 512, width: int = 512, trunk: str = "plain",
        channels: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        self.latent = latent
        if trunk not in TRUNKS:
            raise UnknownName("trunk", trunk, TRUNKS)
        smallest = 16 if trunk == "plain" else 256
        if size < smallest or size & (size - 1):
            raise UserError(f"{trunk} wants a power of two of at least {smallest}, not {size}.")
        layers, found = _plain(size, width, channels) if trunk == "plain" else _resnet(channels)
        self.trunk = nn.Sequential(*layers, nn.Conv2d(found, width, 1))
        self.inv4 = nn.Sequential(*_pair(width), nn.Conv2d(width, width, 1))
        self.inv3 = nn.Sequential(*_pair(width), nn.Conv2d(width, width, 1, stride=2))
        self.inv2 = nn.Sequential(*_pair(width))
        self.inv1 = nn.Sequential(
            PixelNorm(), nn.Conv2d(width, width, 4), nn.BatchNorm2d(width), nn.LeakyReLU(0.2),
            nn.Conv2d(width, latent, 1), PixelNorm(),
        )  # fmt: skip

    def forward(self, x: Images) -> Codes:
        x = F.leaky_relu(self.trunk(x), 0.2)
        x = F.adaptive_avg_pool2d(x, 8) if x.shape[-1] > 8 else x
        return widened(self.inv1(self.inv2(self.inv3(self.inv4(x)))).flatten(1))


def _pair(width: int) -> list[nn.Module]:
    """Pixel norm, then twice a 3x3 convolution with batch normalisation and leaky ReLU."""
    out: list[nn.Module] = [PixelNorm()]
    for _ in range(2):
        out += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
    return out


def _plain(size: int, width: int, channels: int) -> tuple[list[nn.Module], int]:
    out: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2)]
    while size > 8:
        out += [nn.Conv2d(width, width, 4, 2, 1), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
        size //= 2
    return out, width


def _resnet(channels: int) -> tuple[list[nn.Module], int]:
    from torchvision.models import resnet18  # imported here: it takes a second

    net = resnet18(weights=None)
    if channels != 3:
        raise UserError(f"resnet18 takes 3 colours, not {channels}.")
    stem = [net.conv1, net.bn1, net.relu, net.maxpool]
    return [*stem, net.layer1, net.layer2, net.layer3, net.layer4], 512
