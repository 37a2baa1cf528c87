"""A small network that reads binary attributes off 32 px images."""

from torch import nn

from latentpapers.shapes import Images, Logits


class AttributeNet(nn.Sequential):
    """Images (N, 3, 32, 32) in [-1, 1] -> one logit an attribute, (N, attributes).

    Three blocks of convolution, normalisation and pooling, then a linear map of the 4x4 map.

    Args:
        attributes: how many.
        width: channels of the first block, doubled twice.
    """

    def __init__(self, attributes: int, width: int = 16) -> None:
        def block(inputs: int, outputs: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]

        super().__init__(
            *block(3, width),
            *block(width, 2 * width),
            *block(2 * width, 4 * width),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(16 * 4 * width, attributes),
        )

    def forward(self, x: Images) -> Logits:
        return super().forward(x)
