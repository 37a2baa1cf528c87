"""Measures of a set of possible images: how far from the truth, how far from each other.

LAG's text prints no number. Its code logs one, the root mean square error of the output at z = 0 in
grey levels (section 4 puts the rest into a supplement that the text does not contain); the others
are this project's own. Images are floats on [-1, 1].
"""

import functools
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers.shapes import Images, PerImage

GREY = 127.5  # grey levels of 255 per unit on [-1, 1]
LAYERS = ("stem", "block2", "block4", "block10")
SIDE = 64  # side to which smaller images are enlarged before the features are taken


def rmse_grey(images: Images, reference: Images) -> PerImage:
    """Root mean square difference in grey levels, image by image (LAG, authors' code)."""
    return GREY * (images - reference).square().flatten(1).mean(1).sqrt()


def spread_grey(samples: Float[Tensor, "K N C H W"]) -> PerImage:
    """How much the K outputs for one input differ: root of their mean variance, in grey levels.

    The variance is taken pixel by pixel over the outputs (with K - 1), then averaged over pixels.
    For independent pixels it is the standard deviation of one of them.
    """
    return GREY * samples.var(0).flatten(1).mean(1).sqrt()


def spread_share(samples: Float[Tensor, "K N C H W"], images: Images) -> PerImage:
    """`spread_grey` as a share of the spread of different real images: 1 is no information left."""
    return spread_grey(samples) / spread_grey(images[:, None])


def perceptual(
    images: Images, reference: Images, network: nn.Module, layers: Iterable[str] = LAYERS
) -> PerImage:
    """Distance of feature maps, unit-normalised at every position: LPIPS without learned weights.

    Mean over positions of |a - b|^2 of the unit vectors, averaged over the layers; between 0 and
    4. Protocol `perceptual_efficientnetlite0` with `efficientnet()`.

    Args:
        images, reference: on [-1, 1]; below 64 px both are enlarged bilinearly to 64 px.
        network: has `maps(x, layers)` for x on [0, 1], at the image's own size.
    """
    both = (torch.cat([images, reference]).clamp(-1, 1) + 1) / 2
    if both.shape[-1] < SIDE:
        both = F.interpolate(both, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    with torch.no_grad():
        maps = network.maps(both, tuple(layers))
    total = images.new_zeros(len(images))
    for found in maps.values():
        a, b = F.normalize(found, dim=1).chunk(2)
        total += (a - b).square().sum(1).flatten(1).mean(1)
    return total / len(maps)


@functools.cache
def efficientnet() -> nn.Module:
    """EfficientNet-Lite0 up to the deepest of `LAYERS`, for images of any size."""
    from latentpapers import weights
    from latentpapers.nets import features

    return features.build("efficientnetlite0", weights.load("efficientnetlite0"), LAYERS[-1])
