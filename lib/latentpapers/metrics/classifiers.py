"""What the small classifiers behind stand-in scores share: check of the input, application in
blocks, training loop."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from latentpapers import seeds
from latentpapers.errors import UserError
from latentpapers.shapes import Images, Scalar

SIZE = 32


def checked(images: Images, channels: int, who: str) -> Images:
    """`images`, if a classifier called `who` can take them.

    Args:
        images: (N, channels, 32, 32) in [-1, 1].

    Raises:
        UserError: another shape, or values outside [-1, 1].
    """
    wanted = (channels, SIZE, SIZE)
    if images.ndim != 4 or tuple(images.shape[1:]) != wanted:
        raise UserError(
            f"{who} takes (N, {channels}, {SIZE}, {SIZE}) images, not {tuple(images.shape)}."
        )
    if not bool(((images >= -1) & (images <= 1)).all()):
        raise UserError(f"{who} takes images in [-1, 1]; clamp them first.")
    return images


def logits(net: nn.Module, images: Images, block: int) -> Float[Tensor, "N K"]:
    """The network's outputs, (N, classes), `block` images a forward pass."""
    with torch.no_grad():
        return torch.cat([net(part.float()) for part in images.split(block)])


def shifted(x: Images) -> Images:
    """A batch moved by up to 2 px, so that position is not a cue; drawn from torch's own stream."""
    dy, dx = (int(v) for v in torch.randint(-2, 3, (2,)))
    return torch.roll(x, (dy, dx), dims=(2, 3))


def fit(
    net: nn.Module, n: int, loss: Callable[[Int[Tensor, "B"]], Scalar], *, epochs: int, batch: int,
    rate: float, decay: float, seed: int,
) -> None:  # fmt: skip
    """Trains `net` in place: AdamW with one cycle of the learning rate.

    Args:
        n: training images.
        loss: of the images with these indices; draws its augmentation from torch's own stream.
        rate, decay: AdamW's highest learning rate and its weight decay.
        seed: of the order of the images.
    """
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=epochs * (n // batch)
    )
    for epoch in range(epochs):
        order = torch.randperm(n, generator=seeds.generator(seed, "order", epoch))
        for index in order[: n // batch * batch].split(batch):
            loss(index).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
