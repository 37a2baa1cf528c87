"""DCGAN generator and critic as WGAN-GP uses them in "Diamond in the rough": 512 latents.

Shapes and initialisation follow facebookresearch/pytorch_GAN_zoo: 4x4 transposed convolutions,
batch normalisation, no biases, no output activation under the Wasserstein loss. Latents are (N, Z)
and not normalised, images (N, C, S, S), scores (N,).
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers.errors import UnknownName, UserError
from latentpapers.precision import widened
from latentpapers.shapes import Codes, Features, Images, PerImage

Statistics = Literal["running", "batch"]
_FORMS = {"statistics": ("running", "batch"), "norm": ("batch", "none")}


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that can use the batch's own statistics in evaluation, moving nothing.

    The authors never put WGAN-GP into evaluation mode, so that each of their images depends on the
    others of its batch (`statistics="batch"`); they also let the running statistics move.
    """

    def __init__(self, channels: int, statistics: Statistics = "running") -> None:
        super().__init__(channels)
        self.statistics = _checked("statistics", statistics)
        nn.init.normal_(self.weight, 1.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.statistics == "running":
            return super().forward(x)
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


def depth(size: int) -> int:
    """Halvings between the image and 4x4, less one: 3 for 64 px, 4 for 128 px.

    Raises:
        UserError: a size that is not a power of two of at least 16.
    """
    out = size.bit_length() - 4
    if size < 16 or size != 8 << out:
        raise UserError(f"image size must be a power of two of at least 16, not {size}.")
    return out


class Generator(nn.Module):
    """Latent (N, Z) -> image (N, channels, size, size), meant for [-1, 1], not squashed.

    Args:
        size: pixels a side.
        width: channels before the last layer; doubled with every halving of the size.
        latent: Z.
        channels: colours.
        statistics: of batch normalisation in evaluation, see `BatchNorm`.
        squash: end with tanh, as DCGAN does; WGAN-GP does not.

    Source: Radford et al. 2016; Diamond, section 4.2. 6,951,808 parameters at 64 px, width 64,
    latent 512; 19,536,768 at 128 px.
    """

    def __init__(
        self, size: int, *, width: int = 64, latent: int = 512, channels: int = 3,
        statistics: Statistics = "running", squash: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.size, self.latent, self.squash = size, latent, squash
        many = width << depth(size)
        # torch's default initialisation here, as in the public code; N(0, 0.02) elsewhere
        self.first = nn.ConvTranspose2d(latent, many, 4, bias=False)
        layers: list[nn.Module] = [BatchNorm(many, statistics), nn.ReLU(inplace=True)]
        for _ in range(depth(size)):
            layers += [_up(many, many // 2), BatchNorm(many // 2, statistics), nn.ReLU(True)]
            many //= 2
        self.layers = nn.Sequential(*layers, _up(many, channels))

    def forward(self, z: Codes) -> Images:
        x = widened(self.layers(self.first(z[:, :, None, None])))
        return x.tanh() if self.squash else x


class Critic(nn.Module):
    """Image (N, channels, size, size) -> score (N,), any number; higher means more real.

    Args:
        size, width, channels, statistics: as of the generator.
        norm: `batch` is the public code's, although the gradient penalty is meant for each image
            by itself; `none` follows Gulrajani et al. 2017, section 4.

    Source: the discriminator of DCGAN. 2,765,568 parameters at 64 px, width 64; 11,164,416 at
    128 px.
    """

    def __init__(
        self, size: int, *, width: int = 64, channels: int = 3, norm: str = "batch",
        statistics: Statistics = "running",
    ) -> None:  # fmt: skip
        super().__init__()
        self.size = size
        layers: list[nn.Module] = [_down(channels, width), nn.LeakyReLU(0.2)]
        for _ in range(depth(size)):
            layers.append(_down(width, 2 * width))
            if _checked("norm", norm) == "batch":
                layers.append(BatchNorm(2 * width, statistics))
            layers.append(nn.LeakyReLU(0.2))
            width *= 2
        self.layers, self.score = nn.Sequential(*layers), nn.Conv2d(width, 1, 4, bias=False)
        nn.init.normal_(self.score.weight, 0.0, 0.02)

    def forward(self, x: Images) -> PerImage:
        return widened(self.score(self.layers(x)).flatten())

    def features(self, x: Images, *, layer: Literal["map"] = "map") -> Features:
        """The flattened last map: (N, 16 * width * 2^depth), 8192 at 64 px.

        Raises:
            UnknownName: no such layer.
        """
        if layer != "map":
            raise UnknownName("critic layer", layer, ("map",))
        return widened(self.layers(x).flatten(1))


def _checked(what: str, value: str) -> str:
    if value not in _FORMS[what]:
        raise UnknownName(what, value, _FORMS[what])
    return value


def _up(inputs: int, outputs: int) -> nn.Module:
    layer = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
    nn.init.normal_(layer.weight, 0.0, 0.02)
    return layer


def _down(inputs: int, outputs: int) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
    nn.init.normal_(layer.weight, 0.0, 0.02)
    return layer


def running(net: nn.Module, statistics: Statistics) -> nn.Module:
    """Sets how all batch normalisations of `net` behave in evaluation; returns `net`.

    Raises:
        UnknownName: neither `running` nor `batch`.
    """
    for module in net.modules():
        if isinstance(module, BatchNorm):
            module.statistics = _checked("statistics", statistics)
    return net
