"""BigGAN at 128 px (Brock et al. 2019), laid out as the public PyTorch checkpoint.

Names of modules and buffers are those of ajbrock/BigGAN-PyTorch's files, so that `G_ema` and `D`
load as they are. Latents are (N, 120), images (N, 3, 128, 128) in [-1, 1], scores (N,).
"""

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers.precision import widened
from latentpapers.shapes import Codes, Features, Images, PerImage

UP = (16, 16, 8, 4, 2, 1)  # channels at 4, 8, 16, 32, 64, 128 px, in units of the base width
ATTENTION = 64  # px, in both networks
SN_EPS = 1e-6


class _Spectral(nn.Module):
    """Divides a weight by its largest singular value, found by one power iteration a forward pass.

    In training the iteration goes on from the vector `u0` of the step before; in evaluation it
    starts from the stored one and moves nothing.
    """

    weight: nn.Parameter

    def prepare(self) -> None:
        """Adds the buffers; called once the weight exists."""
        nn.init.orthogonal_(self.weight)
        self.register_buffer("u0", torch.randn(1, self.weight.shape[0]))
        self.register_buffer("sv0", torch.ones(1))

    def normalised(self) -> Tensor:
        """The weight over its singular value."""
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(self.u0 @ matrix, eps=SN_EPS)
            u = F.normalize(v @ matrix.T, eps=SN_EPS)
        sigma = (v @ matrix.T @ u.T).squeeze()
        if self.training:
            with torch.no_grad():
                self.u0.copy_(u)
                self.sv0.fill_(float(sigma.detach()))
        return self.weight / sigma


class SpectralConv(nn.Conv2d, _Spectral):
    """Convolution that keeps the size, spectrally normalised."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self.prepare()

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N O H W"]:
        return F.conv2d(x, self.normalised(), self.bias, padding=self.padding)


class SpectralLinear(nn.Linear, _Spectral):
    """Linear map, spectrally normalised."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.prepare()

    def forward(self, x: Float[Tensor, "N F"]) -> Float[Tensor, "N O"]:
        return F.linear(x, self.normalised(), self.bias)


class SpectralEmbedding(nn.Embedding, _Spectral):
    """Table of class vectors, spectrally normalised."""

    def __init__(self, classes: int, features: int) -> None:
        super().__init__(classes, features)
        self.prepare()

    def forward(self, y: Int[Tensor, "N"]) -> Float[Tensor, "N F"]:
        return F.embedding(y, self.normalised())


class _Stored(nn.Module):
    """Batch normalisation without affine part, under the public code's buffer names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def normed(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        return F.batch_norm(
            x, self.stored_mean, self.stored_var, training=self.training, momentum=0.1, eps=1e-5
        )


class ConditionalNorm(_Stored):
    """Batch normalisation whose gain and bias are linear in a condition: 1 + W y and V y."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__(channels)
        self.gain = SpectralLinear(condition, channels, bias=False)
        self.bias = SpectralLinear(condition, channels, bias=False)

    def forward(
        self, x: Float[Tensor, "N C H W"], y: Float[Tensor, "N F"]
    ) -> Float[Tensor, "N C H W"]:
        gain, bias = 1 + self.gain(y)[:, :, None, None], self.bias(y)[:, :, None, None]
        return self.normed(x) * gain + bias


class AffineNorm(_Stored):
    """Batch normalisation with learned gain and bias."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        return self.normed(x) * self.gain[:, None, None] + self.bias[:, None, None]


class Attention(nn.Module):
    """Self-attention over positions: x + gamma * o(softmax(theta^T phi) g), gamma starting at 0.

    Keys and values are max-pooled 2x2; nothing divides by the square root of their length.

    Source: Zhang et al. 2019, as in the public BigGAN.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = SpectralConv(channels, channels // 8, 1, bias=False)
        self.phi = SpectralConv(channels, channels // 8, 1, bias=False)
        self.g = SpectralConv(channels, channels // 2, 1, bias=False)
        self.o = SpectralConv(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        queries = self.theta(x).flatten(2)
        keys, values = (F.max_pool2d(f(x), 2).flatten(2) for f in (self.phi, self.g))
        weights = (queries.transpose(1, 2) @ keys).softmax(-1)
        found = (values @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        return self.gamma * self.o(found) + x


class GBlock(nn.Module):
    """Residual block that doubles the size, conditioned twice."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = SpectralConv(inputs, outputs), SpectralConv(outputs, outputs)
        self.conv_sc = SpectralConv(inputs, outputs, 1)
        self.bn1 = ConditionalNorm(inputs, condition)
        self.bn2 = ConditionalNorm(outputs, condition)

    def forward(
        self, x: Float[Tensor, "N C H W"], y: Float[Tensor, "N F"]
    ) -> Float[Tensor, "N O _H _W"]:
        h = F.interpolate(F.relu(self.bn1(x, y)), scale_factor=2)
        h = self.conv2(F.relu(self.bn2(self.conv1(h), y)))
        return h + self.conv_sc(F.interpolate(x, scale_factor=2))


class DBlock(nn.Module):
    """Residual block that halves the size (`down`); the first one has no activation before it."""

    def __init__(self, inputs: int, outputs: int, *, first: bool, down: bool) -> None:
        super().__init__()
        self.first, self.down = first, down
        self.conv1, self.conv2 = SpectralConv(inputs, outputs), SpectralConv(outputs, outputs)
        self.conv_sc = SpectralConv(inputs, outputs, 1) if down or inputs != outputs else None

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N O _H _W"]:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        pool = (lambda t: F.avg_pool2d(t, 2)) if self.down else (lambda t: t)
        if self.conv_sc is None:
            return pool(h) + x
        # the same numbers either way; the order is that of the public code
        return pool(h) + (self.conv_sc(pool(x)) if self.first else pool(self.conv_sc(x)))


class Generator(nn.Module):
    """Latent (N, 6 * chunk) and class -> image (N, 3, 128, 128) in [-1, 1].

    The first chunk makes the 4x4 map; each further one conditions a block, beside the
    class vector.

    Args:
        width: base channels (`ch`).
        chunk: latents a level; Z is six times as many.
        shared: length of the class vector that all blocks share.
        classes: number of classes.

    Source: Brock et al. 2019, appendix B; 70,433,988 parameters with the defaults.
    """

    def __init__(
        self, *, width: int = 96, chunk: int = 20, shared: int = 128, classes: int = 1000
    ) -> None:
        super().__init__()
        self.chunk, self.latent, self.classes = chunk, 6 * chunk, classes
        channels = [width * factor for factor in UP]
        self.shared = nn.Embedding(classes, shared)
        self.linear = SpectralLinear(chunk, channels[0] * 16)
        blocks = []
        for i, (a, b) in enumerate(pairwise(channels)):
            here = [GBlock(a, b, shared + chunk)]
            blocks.append(nn.ModuleList(here + [Attention(b)] * (8 << i == ATTENTION)))
        self.blocks = nn.ModuleList(blocks)
        self.output_layer = nn.Sequential(
            AffineNorm(channels[-1]), nn.ReLU(inplace=True), SpectralConv(channels[-1], 3)
        )

    def forward(self, z: Codes, y: Int[Tensor, "N"]) -> Images:
        first, *rest = z.split(self.chunk, 1)
        classes = self.shared(y)
        x = self.linear(first).unflatten(1, (-1, 4, 4))
        for (block, *attention), part in zip(self.blocks, rest, strict=True):
            x = block(x, torch.cat((classes, part), 1))
            for layer in attention:
                x = layer(x)
        return widened(self.output_layer(x)).tanh()


class Discriminator(nn.Module):
    """Image (N, 3, 128, 128) and class -> score (N,): a linear map plus the class projection.

    Args:
        width, classes: as of the generator.

    Source: Brock et al. 2019, appendix B; Miyato & Koyama 2018. 87,982,370 parameters with the
    defaults.
    """

    def __init__(self, *, width: int = 96, classes: int = 1000) -> None:
        super().__init__()
        channels = [3, *(width * factor for factor in reversed(UP)), width * UP[0]][:7]
        blocks = []
        for i, (a, b) in enumerate(pairwise(channels)):
            here = [DBlock(a, b, first=i == 0, down=i < 5)]
            blocks.append(nn.ModuleList(here + [Attention(b)] * (64 >> i == ATTENTION)))
        self.blocks = nn.ModuleList(blocks)
        self.linear = SpectralLinear(channels[-1], 1)
        self.embed = SpectralEmbedding(classes, channels[-1])

    def forward(self, x: Images, y: Int[Tensor, "N"]) -> PerImage:
        h = self.features(x)
        return widened(self.linear(h).flatten() + (self.embed(y) * h).sum(1))

    def features(self, x: Images) -> Features:
        """Positions summed after the last ReLU: (N, 16 * width), 1536 with the defaults."""
        for block in self.blocks:
            for layer in block:
                x = layer(x)
        return widened(F.relu(x).sum((2, 3)))


class OfClass(nn.Module):
    """A conditional network with its class held fixed, as the search over latents keeps it.

    Args:
        net: `Generator` or `Discriminator`.
        label: the class of every image.

    Source: Diamond, section 4.2.
    """

    def __init__(self, net: nn.Module, label: int) -> None:
        super().__init__()
        self.net, self.label = net, label
        if hasattr(net, "latent"):
            self.latent = net.latent

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, torch.full((len(x),), self.label, device=x.device))

    def features(self, x: Images) -> Features:
        """The discriminator's features, which know no class."""
        return self.net.features(x)
