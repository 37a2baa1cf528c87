"""Rounding to colour steps and the difference map that the critic sees (LAG section 3.1).

Images are on [-1, 1], so one grey level of 255 is 2/255.
"""

from typing import Literal

import torch
from torch import Tensor

from latentpapers.errors import UnknownName
from latentpapers.ledger import implements
from latentpapers.shapes import Images

Reading = Literal["code", "paper", "literal"]
STEPS: dict[str, float] = {"code": 8 / 255, "paper": 2 / 255, "literal": 2 / 255}


@implements("lag", eq="11")
def straight_through(x: Tensor) -> Tensor:
    """sg(round(x) - x) + x: the nearest integer, with the gradient of the identity.

    Halves go to the even neighbour, as in the authors' code. Any shape.
    """
    return (x.round() - x).detach() + x


@implements("lag", eq="10")
def difference_map(
    target: Images, reduced: Images, *, reading: Reading = "code", step: float | None = None
) -> Images:
    """What the critic sees of a generated image beside the image itself; of a real one: zeros.

    Args:
        target: y, the low resolution image.
        reduced: H(x_z), the reduced output, of the same shape.
        reading: `code` rounds the difference, s round(|y - H| / s); `paper` rounds the output to
            its colour step, |y - r round(H / r)| / r; `literal` is the print, |y - round(r H)| / r,
            which is |y| / r whatever the output is (lag-e12).
        step: s or r; by default 8/255 for `code`, 2/255 else (lag-e13).

    Returns:
        Non-negative, the shape of `target`. Gradients pass the rounding straight through.

    Raises:
        UnknownName: not a reading.
    """
    if reading not in STEPS:
        raise UnknownName("reading", reading, STEPS)
    s = STEPS[reading] if step is None else step
    if reading == "code":
        return s * straight_through((target - reduced).abs() / s)
    if reading == "paper":
        return (target - s * straight_through(reduced / s)).abs() / s
    return (target - straight_through(s * reduced)).abs() / s


def no_difference(target: Images) -> Images:
    """The map of a real image: zeros of the low resolution image's shape."""
    return torch.zeros_like(target)
