"""A small network of fixed random weights: features without a download, for tests and proofs.

Random convolutions keep what a perceptual loss needs to be exercised (locality, several scales,
gradients); what they find similar says nothing about human eyes. A named stand-in, never a result.
"""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentpapers.errors import UnknownName
from latentpapers.nets.rrdb import initialise


class RandomFeatures(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> maps of half or a quarter of the size, before the ReLU.

    Args:
        layer: `middle` (H/2, 2 width maps) or `deep` (H/4, 4 width maps).
        width: maps of the first convolution.

    Raises:
        UnknownName: another layer.
    """

    LAYERS = ("middle", "deep")

    def __init__(self, layer: str = "deep", width: int = 8) -> None:
        super().__init__()
        if layer not in self.LAYERS:
            raise UnknownName("layer", layer, self.LAYERS)
        maps = [3, width, 2 * width, 4 * width][: 3 + self.LAYERS.index(layer)]
        pairs = itertools.pairwise(maps)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        initialise(self, torch.Generator().manual_seed(0))
        self.eval().requires_grad_(False)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Tensor:
        x = self.convs[0](2 * x - 1)
        for conv in self.convs[1:]:
            x = conv(nn.functional.avg_pool2d(x.relu(), 2))
        return x
