"""Networks of the GANs that AVAE is compared with: strided convolutions and batch normalisation.

Latents are (N, Z) and not normalised, images (N, C, S, S) in [-1, 1], scores (N,) logits. Widths
follow each paper's public code; `cap` limits the doubling of channels where a training is small.
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from latentpapers.errors import UnknownName, UserError
from latentpapers.precision import widened
from latentpapers.shapes import Codes, Features, Images, PerImage

Squash = Literal["tanh", "sigmoid"]
_SQUASHES = ("tanh", "sigmoid")


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of maps or vectors over the images of *all* processes of a training.

    torch's own sees one process's share, so that two processes would train another network than
    one. Micro-batches stay apart.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or _world() == 1:
            return super().forward(x)
        places, shape = [d for d in range(x.ndim) if d != 1], [1, -1] + [1] * (x.ndim - 2)
        wide = widened(x)
        mean = _everyone(wide.mean(places))
        variance = _everyone((wide - mean.view(shape)).square().mean(places))
        self._move(mean.detach(), variance.detach(), x.numel() // x.shape[1] * _world())
        scale = self.weight * (variance + self.eps).rsqrt()
        return (wide * scale.view(shape) + (self.bias - mean * scale).view(shape)).to(x.dtype)

    def _move(self, mean: Tensor, variance: Tensor, n: int) -> None:
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * n / (n - 1), self.momentum)


def _world() -> int:
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def _everyone(tensor: Tensor) -> Tensor:
    """The mean over processes; gradients flow to all of them."""
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(tensor) / _world()


def halvings(size: int, bottom: int) -> int:
    """How often `size` is halved to reach `bottom`.

    Raises:
        UserError: not a power of two times `bottom`, or less than twice it.
    """
    times = (size // bottom).bit_length() - 1
    if size < 2 * bottom or size != bottom << times:
        raise UserError(f"image size must be a power of two of at least {2 * bottom}, not {size}.")
    return times


def _capped(width: int, cap: int) -> int:
    return min(width, cap) if cap else width


def _up(inputs: int, outputs: int, kernel: int) -> nn.Module:
    return nn.ConvTranspose2d(
        inputs, outputs, kernel, 2, (kernel - 1) // 2, output_padding=kernel % 2, bias=False
    )


def _down(inputs: int, outputs: int, kernel: int, *, bias: bool = False) -> nn.Module:
    return nn.Conv2d(inputs, outputs, kernel, 2, (kernel - 1) // 2, bias=bias)


def _active(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)


def _initialise(net: nn.Module, deviation: float) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, BatchNorm):
            nn.init.normal_(module.weight, 1.0, deviation)


def _squashed(x: Tensor, squash: Squash) -> Images:
    """(-1, 1); a sigmoid to (0, 1), moved to the image range, is tanh of half the argument."""
    return (x if squash == "tanh" else x / 2).tanh()


class Generator(nn.Module):
    """Latent (N, Z) -> image (N, channels, size, size): 4x4 maps, then doublings (DCGAN).

    Args:
        size: pixels a side, a power of two of at least 16.
        width: channels of the last hidden map; doubled at every halving of the size.
        latent: Z.
        channels: colours.
        kernel: of the transposed convolutions: 4 (public code), 5 (BGAN).
        slope: of the leaky ReLU; 0: ReLU.
        cap: most channels of a map; 0: no limit.
        squash: `tanh`, or `sigmoid` with a bias (ALI), moved to the image range.
        deviation: of the initial weights.

    Source: Radford et al. 2016 as in pytorch_GAN_zoo: 3,576,704 parameters at 64 px, width 64,
    latent 100. The EBGAN of that size has width 128.
    """

    def __init__(
        self, size: int, width: int, latent: int, *, channels: int = 3, kernel: int = 4,
        slope: float = 0.0, cap: int = 0, squash: Squash = "tanh", deviation: float = 0.02,
    ) -> None:  # fmt: skip
        super().__init__()
        if squash not in _SQUASHES:
            raise UnknownName("squash", squash, _SQUASHES)
        widths = [_capped(width << k, cap) for k in reversed(range(halvings(size, 8) + 1))]
        self.latent, self.squash, self.many = latent, squash, widths[0]
        self.first = nn.Linear(latent, 16 * self.many, bias=False)
        layers: list[nn.Module] = [BatchNorm(self.many), _active(slope)]
        for inputs, outputs in pairwise(widths):
            layers += [_up(inputs, outputs, kernel), BatchNorm(outputs), _active(slope)]
        self.layers = nn.Sequential(*layers, _up(widths[-1], channels, kernel))
        self.bias = nn.Parameter(torch.zeros(channels)) if squash == "sigmoid" else None
        _initialise(self, deviation)

    def forward(self, z: Codes) -> Images:
        x = self.first(z).view(-1, self.many, 4, 4)
        x = widened(self.layers(x.contiguous(memory_format=torch.channels_last)))
        return _squashed(x if self.bias is None else x + self.bias.view(-1, 1, 1), self.squash)


class Critic(nn.Module):
    """Image (N, channels, size, size) -> logit (N,) that it is real: halvings to 4x4 (DCGAN).

    Args:
        size, width, channels, kernel, deviation: as of the generator.

    Source: 2,765,568 parameters at 64 px, width 64.
    """

    def __init__(
        self, size: int, width: int, *, channels: int = 3, kernel: int = 4,
        deviation: float = 0.02,
    ) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = [_down(channels, width, kernel), _active(0.2)]
        for _ in range(halvings(size, 8)):
            layers += [_down(width, 2 * width, kernel), BatchNorm(2 * width), _active(0.2)]
            width *= 2
        self.layers = nn.Sequential(*layers)
        self.score = nn.Linear(16 * width, 1, bias=False)
        _initialise(self, deviation)

    def forward(self, x: Images) -> PerImage:
        return widened(self.score(self.layers(x).flatten(1)))[:, 0]


class Encoder(nn.Module):
    """Image (N, channels, size, size) -> mean and log-variance of q(z | x), see `moments`.

    Args:
        size, width, latent, channels, kernel, slope, cap, deviation: as of the generator; channels
            double from `width` on.
        bottom: side of the last map: 8 (VAE-GAN), 4 (ALI).
        hidden: features of a fully connected layer before the moments; 0: none.

    Source: VAE-GAN's public code: 18,071,360 parameters at 64 px, width 64, latent 128, kernel 5,
    bottom 8, hidden 1024.
    """

    def __init__(
        self, size: int, width: int, latent: int, *, channels: int = 3, kernel: int = 5,
        slope: float = 0.0, cap: int = 0, bottom: int = 8, hidden: int = 0,
        deviation: float = 0.02,
    ) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        for k in range(halvings(size, bottom)):
            outputs = _capped(width << k, cap)
            layers += [_down(channels, outputs, kernel), BatchNorm(outputs), _active(slope)]
            channels = outputs
        layers, features = [*layers, nn.Flatten()], channels * bottom * bottom
        if hidden:
            layers += [nn.Linear(features, hidden, bias=False), BatchNorm(hidden), _active(slope)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden or features, 2 * latent))
        _initialise(self, deviation)

    def forward(self, x: Images) -> Codes:
        return widened(self.layers(x))

    def moments(self, x: Images) -> tuple[Codes, Codes]:
        """Mean and log-variance of q(z | x)."""
        mean, log_variance = self(x).chunk(2, dim=1)
        return mean, log_variance


class SimilarityDecoder(nn.Module):
    """VAE-GAN's decoder: latent -> 8x8 maps, 5x5 doublings of 4, 2 and 1/2 times `width` channels.

    Args:
        size, width, latent, channels, cap, deviation: as of `Generator`.

    Source: VAE-GAN's public code: 4,693,155 parameters at 64 px, width 64, latent 128.
    """

    def __init__(
        self, size: int, width: int, latent: int, *, channels: int = 3, cap: int = 0,
        deviation: float = 0.02,
    ) -> None:  # fmt: skip
        super().__init__()
        kept = [_capped(4 * width >> k, cap) for k in range(halvings(size, 8) - 1)]
        widths = [_capped(4 * width, cap), *kept, width // 2]
        self.latent, self.many = latent, widths[0]
        self.first = nn.Sequential(
            nn.Linear(latent, 64 * self.many, bias=False), BatchNorm(64 * self.many), _active(0)
        )
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [_up(inputs, outputs, 5), BatchNorm(outputs), _active(0)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], channels, 5, padding=2))
        _initialise(self, deviation)

    def forward(self, z: Codes) -> Images:
        x = self.first(z).view(-1, self.many, 8, 8)
        return widened(self.layers(x.contiguous(memory_format=torch.channels_last))).tanh()


class SimilarityCritic(nn.Module):
    """VAE-GAN's discriminator: image -> logit (N,) that it is real, and features to compare.

    The features are the last 8x8 map before its normalisation.

    Args:
        size, width, channels, deviation: as of `SimilarityDecoder`.

    Source: VAE-GAN's public code: 10,953,857 parameters at 64 px, width 64.
    """

    def __init__(
        self, size: int, width: int, *, channels: int = 3, deviation: float = 0.02
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width // 2, 5, padding=2), _active(0)]
        inputs = width // 2
        for k in range(halvings(size, 8)):
            layers += [BatchNorm(inputs), _active(0)] if k else []
            layers.append(_down(inputs, width * (4 if k else 2), 5))
            inputs = width * (4 if k else 2)
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(
            BatchNorm(inputs), nn.ReLU(), nn.Flatten(),
            nn.Linear(64 * inputs, 8 * width, bias=False), BatchNorm(8 * width), _active(0),
            nn.Linear(8 * width, 1),
        )  # fmt: skip
        _initialise(self, deviation)

    def forward(self, x: Images) -> tuple[PerImage, Features]:
        maps = self.layers(x)
        return widened(self.head(maps))[:, 0], widened(maps.flatten(1))


class EnergyCritic(nn.Module):
    """EBGAN's discriminator: image -> its reproduction and the code between, three halvings deep.

    Args:
        size, width, channels, deviation: as of `Critic`; codes are 4 * width maps.

    Source: Zhao et al. 2017 as in EBGAN-pytorch.
    """

    def __init__(
        self, size: int, width: int, *, channels: int = 3, deviation: float = 0.02
    ) -> None:
        super().__init__()
        halvings(size, 8)
        self.encode = nn.Sequential(
            _down(channels, width, 4), _active(0.2),
            _down(width, 2 * width, 4), BatchNorm(2 * width), _active(0.2),
            _down(2 * width, 4 * width, 4),
        )  # fmt: skip
        self.decode = nn.Sequential(
            BatchNorm(4 * width), nn.LeakyReLU(0.2),
            _up(4 * width, 2 * width, 4), BatchNorm(2 * width), _active(0.2),
            _up(2 * width, width, 4), BatchNorm(width), _active(0.2),
            _up(width, channels, 4),
        )  # fmt: skip
        _initialise(self, deviation)

    def forward(self, x: Images) -> tuple[Images, Features]:
        code = self.encode(x)
        return widened(self.decode(code)).tanh(), widened(code.flatten(1))


class PairCritic(nn.Module):
    """ALI's discriminator: (image, code) -> logit (N,) that the pair comes from the encoder.

    A branch of convolutions for the image, two layers for the code, three for both together.

    Args:
        size, width, latent, channels, deviation: as of the encoder.
        slope: of the leaky ReLU.
        dropout: of every layer's inputs.

    Source: Dumoulin et al. 2017, public code. Its layers for CelebA are of kernel 2 to 7 and stride
    1 and 2; these are DCGAN's.
    """

    def __init__(
        self, size: int, width: int, latent: int, *, channels: int = 3, slope: float = 0.02,
        dropout: float = 0.2, deviation: float = 0.01,
    ) -> None:  # fmt: skip
        super().__init__()
        image: list[nn.Module] = [
            nn.Dropout(dropout), _down(channels, width, 4, bias=True), _active(slope)
        ]  # fmt: skip
        for _ in range(halvings(size, 8)):
            image += [nn.Dropout(dropout), _down(width, 2 * width, 4), BatchNorm(2 * width)]
            image.append(_active(slope))
            width *= 2
        many = 2 * width
        image += [nn.Flatten(), nn.Dropout(dropout), nn.Linear(16 * width, many, bias=False)]

        def dense(inputs: int, outputs: int, *, bias: bool) -> list[nn.Module]:
            linear = nn.Linear(inputs, outputs, bias=bias)
            return [nn.Dropout(dropout), linear, _active(slope)]

        self.image = nn.Sequential(*image, BatchNorm(many), _active(slope))
        code = dense(latent, many, bias=False) + dense(many, many, bias=False)
        both = dense(2 * many, 2 * many, bias=True) + dense(2 * many, 2 * many, bias=True)
        self.code = nn.Sequential(*code)
        self.both = nn.Sequential(*both, nn.Dropout(dropout), nn.Linear(2 * many, 1))
        _initialise(self, deviation)

    def forward(self, x: Images, z: Codes) -> PerImage:
        branches = self.image(x), self.code(z)
        return widened(self.both(torch.cat([b.to(branches[0].dtype) for b in branches], 1)))[:, 0]
