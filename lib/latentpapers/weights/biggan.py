"""The public BigGAN files (`G_ema.pth`, `D.pth`) -> networks of `nets.biggan`.

The networks carry the file's own names, so nothing is renamed; sizes are read off the tensors.
"""

from pathlib import Path
from typing import Any

import torch

from latentpapers.errors import Corrupt
from latentpapers.nets import biggan
from latentpapers.weights.convert_state import State, check_fit, saved_state

Part = tuple[State, dict[str, Any]]


def generator(path: Path) -> Part:
    """State dict and recipe of a generator file (`G_ema.pth`, or `G.pth`).

    Raises:
        Corrupt: another layout. UserError, Missing: as `unpickle.load`.
    """
    state = saved_state(path)
    classes, shared = _shape(state, "shared.weight", path)
    wide, chunk = _shape(state, "linear.weight", path)
    options = {"width": wide // (16 * biggan.UP[0]), "chunk": chunk, "shared": shared,
               "classes": classes}  # fmt: skip
    return _checked(state, {"net": "biggan.Generator", "options": options}, path)


def discriminator(path: Path) -> Part:
    """State dict and recipe of a discriminator file (`D.pth`).

    Raises:
        Corrupt: another layout. UserError, Missing: as `unpickle.load`.
    """
    state = saved_state(path)
    classes, wide = _shape(state, "embed.weight", path)
    options = {"width": wide // biggan.UP[0], "classes": classes}
    return _checked(state, {"net": "biggan.Discriminator", "options": options}, path)


def _shape(state: State, key: str, path: Path) -> tuple[int, int]:
    if key not in state or state[key].ndim != 2:
        raise Corrupt(f"{path} is no BigGAN file: no {key!r} of two dimensions.")
    rows, columns = state[key].shape
    return rows, columns


def _checked(state: State, recipe: dict[str, Any], path: Path) -> Part:
    kind = getattr(biggan, recipe["net"].removeprefix("biggan."))
    with torch.device("meta"):
        net = kind(**recipe["options"])
    check_fit(state, net, str(path))
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, recipe
