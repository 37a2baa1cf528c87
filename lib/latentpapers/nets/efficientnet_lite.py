"""EfficientNet-Lite0: inverted residuals without squeeze-and-excitation, ReLU6, 4.65 M parameters.

Tan and Le 2019, in the "lite" form that their authors published for phones: the stem (32 maps) and
the head (1280) keep the width of B0. TensorFlow's padding and its batch-norm epsilon belong to the
trained weights.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

# (expansion, maps, blocks, stride of the first, kernel) of the seven stages
STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
          (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))  # fmt: skip

Maps = Float[Tensor, "N C H W"]


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow does: the output has ceil(size / stride) pixels, and an
    odd remainder goes to the right and the bottom."""

    def forward(self, x: Maps) -> Maps:
        kernel, stride = self.kernel_size[0], self.stride[0]
        right, bottom = (
            max((-(-size // stride) - 1) * stride + kernel - size, 0)
            for size in (x.shape[3], x.shape[2])
        )
        sides = (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2)
        # padding by nothing would still copy the maps, a fifth of the network's time
        return super().forward(pad(x, sides) if any(sides) else x)


def unit(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution, batch normalisation and, unless `act` is false, ReLU6."""
    conv = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=1e-3)
    return nn.Sequential(conv, norm, *[nn.ReLU6()] * act)


class InvertedResidual(nn.Module):
    """Expand (1x1), filter each map by itself (`kernel`), project (1x1, linear); added to its
    input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expand
        self.expand = unit(inputs, inner) if expand > 1 else nn.Identity()
        self.depthwise = unit(inner, inner, kernel, stride, groups=inner)
        self.project = unit(inner, outputs, act=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Maps) -> Maps:
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


class EfficientNetLite0(nn.Module):
    """Normalised images (N, 3, H, W) -> logits (N, 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 32, 3, 2)
        blocks, inputs = [], 32
        for expand, outputs, count, stride, kernel in STAGES:
            for i in range(count):
                step = stride if i == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, expand, kernel, step))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = unit(inputs, 1280)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(1280, 1000)

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 1000"]:
        return self.fc(self.pool(self.head(self.blocks(self.stem(x)))))
