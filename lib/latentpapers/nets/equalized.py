"""Layers with an equalised learning rate, pixel normalisation, the minibatch standard deviation.

Weights are drawn from N(0, 1) and scaled when they are used, by gain / sqrt(fan in). So all weights
have the same size, and Adam, whose steps do not depend on it, trains all layers at one speed.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers.errors import UserError
from latentpapers.precision import widened

SQRT2 = math.sqrt(2.0)


def he_gain(slope: float = 0.0) -> float:
    """The gain sqrt(2 / (1 + slope^2)) that keeps the variance through a leaky ReLU.

    0 for ReLU: sqrt(2); 0.2 for the usual leaky ReLU; 1 for no activation: 1.

    Source: He et al. 2015, eq 15.
    """
    return math.sqrt(2.0 / (1.0 + slope * slope))


class EqualizedLinear(nn.Linear):
    """Linear map of weight `weight * scale`, scale = gain / sqrt(inputs); bias starts at 0.

    Args:
        inputs, outputs: features.
        gain: sqrt(2) is He's for ReLU; see `he_gain`.
        bias: with a bias.
        scale_bias: the bias is multiplied by `scale` as well, which slows it down. So does the
            public PyTorch PGAN (facebookresearch/pytorch_GAN_zoo); Karras et al. and LAG do not.
        deviation: of the initial weights; a smaller one starts smaller at the same speed.

    Source: Karras et al. 2018, "Progressive growing of GANs", section 4.1.
    """

    def __init__(
        self, inputs: int, outputs: int, *, gain: float = SQRT2, bias: bool = True,
        scale_bias: bool = False, deviation: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(inputs, outputs, bias=bias)
        self.scale, self.scale_bias = gain / math.sqrt(inputs), scale_bias
        _initialise(self, deviation)

    def forward(self, x: Float[Tensor, "... F"]) -> Float[Tensor, "... O"]:
        return F.linear(x, self.weight * self.scale, _bias(self))


class EqualizedConv2d(nn.Conv2d):
    """Convolution of stride 1 with weight `weight * scale`, scale = gain / sqrt(inputs * kernel^2).

    Args:
        inputs, outputs: channels.
        kernel: side; odd kernels keep the size with `padding=None`.
        padding: zeros on each side; None: (kernel - 1) / 2.
        gain, bias, scale_bias, deviation: see `EqualizedLinear`.

    Source: Karras et al. 2018, section 4.1; LAG, authors' code (`scale_bias=False`).
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, padding: int | None = None,
        gain: float = SQRT2, bias: bool = True, scale_bias: bool = False, deviation: float = 1.0,
    ) -> None:  # fmt: skip
        padding = (kernel - 1) // 2 if padding is None else padding
        super().__init__(inputs, outputs, kernel, padding=padding, bias=bias)
        self.scale = gain / math.sqrt(inputs * kernel * kernel)
        self.scale_bias = scale_bias
        _initialise(self, deviation)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N O _H _W"]:
        return F.conv2d(x, self.weight * self.scale, _bias(self), padding=self.padding)


def _initialise(layer: nn.Linear | nn.Conv2d, deviation: float) -> None:
    nn.init.normal_(layer.weight, std=deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _bias(layer: EqualizedLinear | EqualizedConv2d) -> Tensor | None:
    scaled = layer.bias is not None and layer.scale_bias
    return layer.bias * layer.scale if scaled else layer.bias


def pixel_norm(x: Float[Tensor, "N C ..."], eps: float = 1e-8) -> Float[Tensor, "N C ..."]:
    """x / sqrt(mean of x^2 over channels + eps): every pixel's vector gets length sqrt(C).

    A latent (N, Z) is projected to the sphere of radius sqrt(Z). Computed in fp32.

    Source: Karras et al. 2018, section 4.2.
    """
    wide = widened(x)
    return (wide * torch.rsqrt(wide.square().mean(1, keepdim=True) + eps)).to(x.dtype)


def minibatch_stddev(
    x: Float[Tensor, "N C H W"],
    group: int = 4,
    reading: Literal["zoo", "nvidia"] = "zoo",
    eps: float = 1e-8,
) -> Float[Tensor, "N 1 1 1"]:
    """One number an image: how much the images of its group differ, on average over (C, H, W).

    The groups have `group` images where that divides N; otherwise the whole batch is one. A
    critic that sees this number scores a batch of similar images low. One image alone gets 0.

    Args:
        x: feature maps.
        group: images a group.
        reading: `zoo`: consecutive images, unbiased variance (facebookresearch/pytorch_GAN_zoo);
            `nvidia`: images n, n + N/group, ..., biased variance (Karras et al., published code).
        eps: under the root; identical images get sqrt(eps).

    Returns:
        The statistic of each image's group, fp32.

    Raises:
        UserError: a group of no images.

    Source: Karras et al. 2018, section 3.
    """
    if group < 1:
        raise UserError(f"a group needs at least 1 image, not {group}.")
    n = len(x)
    size = group if n % group == 0 else n
    wide = widened(x)
    if size == 1:
        return wide.new_zeros(n, 1, 1, 1)
    together = reading == "zoo"
    groups = wide.unflatten(0, (n // size, size) if together else (size, n // size))
    variance = groups.var(1 if together else 0, correction=int(together))
    each = (variance + eps).sqrt().mean((1, 2, 3))
    spread = each.repeat_interleave(size) if together else each.repeat(size)
    return spread.view(n, 1, 1, 1)
