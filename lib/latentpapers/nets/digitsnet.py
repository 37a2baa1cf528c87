"""A small classifier of 32 px digits, the stand-in for Inception where the data are digits."""

from torch import nn

from latentpapers.shapes import Images, Logits


class DigitsNet(nn.Sequential):
    """Images (N, 1, 32, 32) in [-1, 1] -> 10 logits. 47,002 parameters."""

    def __init__(self, width: int = 16) -> None:
        def block(inputs: int, outputs: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]

        super().__init__(
            *block(1, width),
            *block(width, 2 * width),
            *block(2 * width, 4 * width),
            nn.Conv2d(4 * width, 4 * width // 2, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(16 * 4 * width // 2, 10),
        )

    def forward(self, x: Images) -> Logits:
        return super().forward(x)
