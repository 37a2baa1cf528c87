"""StarGAN v2 (Choi et al. 2020): one generator for all domains, steered by a style code.

A style comes from a latent vector (mapping network) or from a reference image (style encoder);
adaptive instance normalisation carries it into the generator's second half. Written from the facts
of the public code; tensors carry the public checkpoint's names, so that it loads without renaming.
Images are (N, 3, S, S) on [-1, 1]; nothing clamps them. A label picks a domain's head; without
labels every image is of the first domain.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers.errors import UserError
from latentpapers.precision import widened
from latentpapers.shapes import Codes, Images, Labels, PerImage

SLOPE = 0.2
MASKED = (32, 64, 128)  # sides at which details of the source are added back
Map = Float[Tensor, "N C H W"]
Masks = tuple[Float[Tensor, "N 1 H W"], Float[Tensor, "N 1 H W"]]


def widths(size: int, width: int | None = None, cap: int = 512, down: int = 0) -> tuple[int, ...]:
    """Channels at full size and after each of `down` halvings: doubled, at most `cap`.

    Args:
        width: the first; None is 2^14 / size as in the public code (128 at 128 px).

    Raises:
        UserError: a size that is not a power of two of at least 32, or no channels.
    """
    if size < 32 or size & (size - 1):
        raise UserError(f"image size must be a power of two of at least 32, not {size}.")
    first = 2**14 // size if width is None else width
    if min(first, cap) < 1:
        raise UserError(f"width {first} and cap {cap} leave no channels.")
    out = [first]
    for _ in range(down):
        out.append(min(2 * out[-1], cap))
    return tuple(out)


def initialise(net: nn.Module) -> None:
    """He's normal initialisation by inputs, biases zero (the public code)."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ResBlock(nn.Module):
    """(shortcut + residual) / sqrt(2), where the first convolution keeps the channels.

    Args:
        normed: instance norm with scale and shift before both activations (the generator's).
        down: halve the side by averaging, between the convolutions.
    """

    def __init__(self, inputs: int, outputs: int, *, normed: bool = False, down: bool = False):
        super().__init__()
        self.down = down
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1, self.norm2 = (
            nn.InstanceNorm2d(inputs, affine=True) if normed else nn.Identity() for _ in range(2)
        )
        self.conv1x1 = (
            nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        )

    def _halved(self, x: Map) -> Map:
        return F.avg_pool2d(x, 2) if self.down else x

    def forward(self, x: Map) -> Map:
        y = self._halved(self.conv1(_act(self.norm1(x))))
        y = self.conv2(_act(self.norm2(y)))
        return (self._halved(self.conv1x1(x)) + y) / math.sqrt(2)


class AdaIN(nn.Module):
    """(1 + gamma) IN(x) + beta with (gamma, beta) linear in the style."""

    def __init__(self, style: int, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(style, 2 * channels)

    def forward(self, x: Map, style: Codes) -> Map:
        gamma, beta = self.fc(style)[:, :, None, None].chunk(2, 1)
        return (1 + gamma) * F.instance_norm(x) + beta


class AdaINResBlock(nn.Module):
    """The decoder's block: a style before both activations, enlarged by repetition.

    Args:
        up: double the side.
        shortcut: False leaves out the sum and its sqrt(2), as the public code does wherever it
            adds masked details of the source; the shortcut's convolution stays, unused.
    """

    def __init__(
        self, inputs: int, outputs: int, style: int, *, up: bool = False, shortcut: bool = True
    ) -> None:
        super().__init__()
        self.up, self.shortcut = up, shortcut
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm1, self.norm2 = AdaIN(style, inputs), AdaIN(style, outputs)
        self.conv1x1 = (
            nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        )

    def _doubled(self, x: Map) -> Map:
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.up else x

    def forward(self, x: Map, style: Codes) -> Map:
        y = self.conv1(self._doubled(_act(self.norm1(x, style))))
        y = self.conv2(_act(self.norm2(y, style)))
        if not self.shortcut:
            return y
        return (self.conv1x1(self._doubled(x)) + y) / math.sqrt(2)


class Generator(nn.Module):
    """(source image, style) -> the source in that style.

    33,632,003 parameters at 128 px, 43,206,403 with the high-pass branch; 33,892,995 and
    43,467,395 at 256 px.

    Args:
        size: pixels a side, a power of two of at least 32.
        width, cap: see `widths`.
        style: length of a style code.
        high_pass: w_hpf of the public code; 0: no such branch, 1: the CelebA-HQ networks.

    Raises:
        UserError: see `widths`; masks for a network without the branch.
    """

    def __init__(
        self, size: int, *, width: int | None = None, cap: int = 512, style: int = 64,
        high_pass: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.high_pass, plain = high_pass, not high_pass
        w = widths(size, width, cap, down=size.bit_length() - 5 + (not plain))
        pairs = [*pairwise(w), *[(w[-1], w[-1])] * 2]
        halvings = len(w) - 1
        self.from_rgb = nn.Conv2d(3, w[0], 3, padding=1)
        self.encode = nn.ModuleList(
            ResBlock(a, b, normed=True, down=i < halvings) for i, (a, b) in enumerate(pairs)
        )
        self.decode = nn.ModuleList(
            AdaINResBlock(b, a, style, up=i < halvings, shortcut=plain)
            for i, (a, b) in reversed(list(enumerate(pairs)))
        )
        self.to_rgb = nn.Sequential(
            nn.InstanceNorm2d(w[0], affine=True), nn.LeakyReLU(SLOPE), nn.Conv2d(w[0], 3, 1)
        )
        initialise(self)

    def forward(self, x: Images, style: Codes, masks: Masks | None = None) -> Images:
        return self.image(self.features(x), style, masks)

    def features(self, x: Images) -> tuple[Map, ...]:
        """What the first half makes of a source: once, for all its styles. The last comes first."""
        h, seen = self.from_rgb(x), []
        for block in self.encode:
            seen.append(h)
            h = block(h)
        return (h, *seen)

    def image(self, features: tuple[Map, ...], style: Codes, masks: Masks | None = None) -> Images:
        """The second half, from `features` of as many sources as there are styles."""
        if masks is not None and not self.high_pass:
            raise UserError("this generator has no high-pass branch; give it no masks.")
        h, seen = features[0], {f.shape[-1]: f for f in features[1:]}
        for block in self.decode:
            h = block(h, style)
            if masks is not None and h.shape[-1] in MASKED:
                h = h + details(seen[h.shape[-1]], masks, self.high_pass)
        return widened(self.to_rgb(h))


def details(features: Map, masks: Masks, weight: float) -> Map:
    """The high frequencies of a source's features inside a mask, which the decoder adds.

    The kernel has 8 / weight in its middle and -1 / weight around it: nine times the difference to
    the 3x3 mean, zeros beyond the border.

    Args:
        features: of the encoder, at 32, 64 or 128 px.
        masks: on [0, 1] (`wing.FAN.masks`), the first for 32 px, the second for larger maps;
            resized bilinearly.
        weight: w_hpf, which divides.
    """
    side = features.shape[-1]
    mask = masks[0] if side == MASKED[0] else masks[1]
    x = features * F.interpolate(mask.to(features), size=side, mode="bilinear")
    return 9 / weight * (x - F.avg_pool2d(x, 3, stride=1, padding=1))


class MappingNetwork(nn.Module):
    """(latent, domain) -> style: 1,617,472 parameters, 820,800 more for each further domain.

    Args:
        latent, style: lengths of its input and its output.
        hidden: width of its layers.
        domains: heads.
    """

    def __init__(
        self, *, latent: int = 16, style: int = 64, hidden: int = 512, domains: int = 1
    ) -> None:
        super().__init__()
        self.latent = latent
        self.shared = nn.Sequential(*_dense(latent, *[hidden] * 4), nn.ReLU())
        self.unshared = nn.ModuleList(
            nn.Sequential(*_dense(*[hidden] * 4, style)) for _ in range(domains)
        )
        initialise(self)

    def forward(self, z: Codes, labels: Labels | None = None) -> Codes:
        return widened(_picked(self.unshared, self.shared(z), labels))


class StyleEncoder(nn.Module):
    """(reference image, its domain) -> style.

    20,766,912 parameters at 128 px, 20,884,096 at 256 px; 32,832 more for each further domain.

    Args:
        size, width, cap, style: as of the generator.
        domains: heads.
    """

    def __init__(
        self, size: int, *, width: int | None = None, cap: int = 512, style: int = 64,
        domains: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        layers, last = _trunk(size, width, cap)
        self.shared = nn.Sequential(*layers)
        self.unshared = nn.ModuleList(nn.Linear(last, style) for _ in range(domains))
        initialise(self)

    def forward(self, x: Images, labels: Labels | None = None) -> Codes:
        return widened(_picked(self.unshared, self.shared(x).flatten(1), labels))


class Discriminator(nn.Module):
    """(image, its domain) -> logit, high for real.

    20,734,593 parameters at 128 px, 20,851,777 at 256 px; 513 more for each further domain.

    Args:
        size, width, cap: as of the generator.
        domains: logits, of which the label picks one.
    """

    def __init__(
        self, size: int, *, width: int | None = None, cap: int = 512, domains: int = 1
    ) -> None:
        super().__init__()
        layers, last = _trunk(size, width, cap)
        self.main = nn.Sequential(*layers, nn.Conv2d(last, domains, 1))
        initialise(self)

    def forward(self, x: Images, labels: Labels | None = None) -> PerImage:
        logits = widened(self.main(x).flatten(1))
        return logits[:, 0] if labels is None else logits.gather(1, labels[:, None])[:, 0]


def _trunk(size: int, width: int | None, cap: int) -> tuple[list[nn.Module], int]:
    """Down to one position; and how many channels come out."""
    w = widths(size, width, cap, down=size.bit_length() - 3)
    blocks = (ResBlock(a, b, down=True) for a, b in pairwise(w))
    last = nn.Conv2d(w[-1], w[-1], 4)
    first = nn.Conv2d(3, w[0], 3, padding=1)
    return [first, *blocks, nn.LeakyReLU(SLOPE), last, nn.LeakyReLU(SLOPE)], w[-1]


def _dense(*lengths: int) -> list[nn.Module]:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(lengths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return layers[:-1]


def _picked(heads: nn.ModuleList, h: Tensor, labels: Labels | None) -> Tensor:
    """Each row through its label's head; through the first without labels."""
    if labels is None:
        return heads[0](h)
    stacked = torch.stack([head(h) for head in heads])
    return stacked[labels, torch.arange(len(h), device=h.device)]


def _act(x: Map) -> Map:
    return F.leaky_relu(x, SLOPE)
