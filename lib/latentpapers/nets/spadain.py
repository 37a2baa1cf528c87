"""Spatially adaptive instance normalisation (LRC-I2I section 3.3; Wang et al., SPAdaIN).

AdaIN gives every channel one scale and shift, so it can pass on a style but no layout. Here a 1x1
convolution of the (enlarged) low resolution image gives a scale and a shift for every *position*.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers.nets import spectral as sn

Maps = Float[Tensor, "N C H W"]


class InstanceNorm(nn.Module):
    """Each image's channels to mean 0, variance 1, then a learned scale and shift for each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Maps) -> Maps:
        return F.instance_norm(x, weight=self.weight, bias=self.bias)


class SPAdaIN(nn.Module):
    """w(low) * IN(x) + b(low), with w and b 1x1 convolutions of the low resolution image.

    No `1 +` before w, and unless asked for no spectral norm on w and b (lrc_i2i-e11); both start
    from Kaiming's normal law with zero bias (lrc_i2i-e12).

    Args:
        channels: of x.
        colours: of the low resolution image.
        spectral: normalised w and b, "all the layers" of section 4.1 read to the letter.
    """

    def __init__(self, channels: int, colours: int = 3, *, spectral: bool = False) -> None:
        super().__init__()
        self.weight = nn.Conv2d(colours, channels, 1)
        self.bias = nn.Conv2d(colours, channels, 1)
        for conv in (self.weight, self.bias):
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)
            if spectral:
                sn.bounded(conv)

    def forward(self, x: Maps, low: Maps) -> Maps:
        """
        Args:
            x: (N, channels, H, W).
            low: (N, colours, H, W), or one image for all of x.
        """
        return self.weight(low) * F.instance_norm(x) + self.bias(low)
