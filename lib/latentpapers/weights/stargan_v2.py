"""The public StarGAN v2 files -> networks of `nets.stargan_v2` and `nets.wing`.

A checkpoint (`100000_nets_ema.ckpt`) is a dict of networks, each a state dict, with or without the
`module.` of DataParallel before its keys. The networks carry the file's own names, so no tensor is
renamed; sizes are read off the tensors. What a file does not say is the weight of the high-pass
branch: it is 1 in the only published network that has one (CelebA-HQ).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentpapers.errors import Corrupt
from latentpapers.nets import stargan_v2, wing
from latentpapers.weights import unpickle
from latentpapers.weights.convert_state import State, check_fit, saved_state

_PARTS = {"generator": "generator", "mapping_network": "mapping", "style_encoder": "style",
          "discriminator": "discriminator", "fan": "fan"}  # fmt: skip
_KINDS = {"generator": "Generator", "mapping": "MappingNetwork", "style": "StyleEncoder",
          "discriminator": "Discriminator"}  # fmt: skip
PUBLISHED = {"stargan_v2_celebahq": (2, 1.0), "stargan_v2_afhq": (3, 0.0)}
"""Domains and high-pass weight of the published networks of 256 px."""


def networks(path: Path) -> tuple[dict[str, State], dict[str, dict[str, Any]]]:
    """State dicts and recipes of a checkpoint's networks: generator, mapping, style, discriminator
    and fan, as far as they are there.

    Args:
        path: `..._nets_ema.ckpt` (averages, without a discriminator) or `..._nets.ckpt`.

    Raises:
        Corrupt: another layout. UserError, Missing: as `unpickle.load`.
    """
    states = _states(path)
    size = 4 << _blocks(states["style"], "shared", path)
    kinds = {name: _recipe(name, state, size, path) for name, state in states.items()}
    for name, state in states.items():
        with torch.device("meta"):
            net = _built(kinds[name])
        check_fit(state, net, f"{path}, {name}")
    return states, kinds


def shipped(path: Path) -> State:
    """Generator, mapping network and style encoder as one state dict: `style.shared.0.weight`, ...

    Raises:
        Corrupt, UserError, Missing: as `networks`.
    """
    states, _ = networks(path)
    kept = ("generator", "mapping", "style")
    return {f"{name}.{key}": v for name in kept for key, v in states[name].items()}


def skeleton(domains: int, high_pass: float, size: int = 256) -> nn.ModuleDict:
    """The three networks of a published file, without storage."""
    with torch.device("meta"):
        return nn.ModuleDict({
            "generator": stargan_v2.Generator(size, high_pass=high_pass),
            "mapping": stargan_v2.MappingNetwork(domains=domains),
            "style": stargan_v2.StyleEncoder(size, domains=domains),
        })  # fmt: skip


def landmark_network(path: Path) -> State:
    """`wing.ckpt` -> `nets.wing.FAN`. What the file holds beyond that network is left out.

    Raises:
        Corrupt: another layout. UserError, Missing: as `unpickle.load`.
    """
    with torch.device("meta"):
        wanted = wing.FAN().state_dict()
    return {key: v for key, v in saved_state(path).items() if key in wanted}


def mean_face(path: Path) -> State:
    """`celeba_lm_mean.npz` -> `nets.wing.MeanFace`.

    Raises:
        Corrupt: it cannot be read, or holds no `mean`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {"mean": torch.from_numpy(file["mean"].astype("float32")).reshape(98, 2)}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise Corrupt(f"{path} holds no mean face ({error}).") from error


# --- reading ------------------------------------------------------------------------------------


def _states(path: Path) -> dict[str, State]:
    content = unpickle.load(path)
    if not isinstance(content, Mapping) or not {"generator", "style_encoder"} <= content.keys():
        raise Corrupt(f"{path} is no file of StarGAN v2: no generator and style_encoder in it.")
    found = {ours: content[theirs] for theirs, ours in _PARTS.items() if theirs in content}
    for name, state in found.items():
        if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
            raise Corrupt(f"{path}: the {name} is no state dict.")
    return {
        name: {k.removeprefix("module."): v.detach() for k, v in state.items()}
        for name, state in found.items()
    }


def _blocks(state: State, room: str, path: Path) -> int:
    """How many residual blocks a network has."""
    found = {key.split(".")[1] for key in state if re.match(rf"{room}\.\d+\.conv2\.", key)}
    if not found:
        raise Corrupt(f"{path}: no residual block of StarGAN v2 below {room!r}.")
    return len(found)


def _recipe(name: str, state: State, size: int, path: Path) -> dict[str, Any]:
    if name == "fan":
        return {"net": "wing.FAN", "options": {}}
    try:
        options = _OPTIONS[name](state, size, path)
    except (KeyError, IndexError) as error:
        raise Corrupt(f"{path}, {name}: {error.args[0]!r} is missing.") from None
    return {"net": f"stargan_v2.{_KINDS[name]}", "options": options}


def _generator(state: State, size: int, path: Path) -> dict[str, Any]:
    halvings = _blocks(state, "encode", path) - 2
    more = halvings - (size.bit_length() - 5)
    if more not in (0, 1):
        raise Corrupt(f"{path}: a generator of {halvings} halvings does not fit {size} px.")
    options = _shape(state["from_rgb.weight"], state["decode.0.conv1.weight"], size)
    return {**options, "style": state["decode.0.norm1.fc.weight"].shape[1],
            "high_pass": float(more)}  # fmt: skip


def _mapping(state: State, size: int, path: Path) -> dict[str, Any]:
    hidden, latent = state["shared.0.weight"].shape
    last = state["unshared.0.6.weight"]
    return {"latent": latent, "style": last.shape[0], "hidden": hidden, "domains": _heads(state)}


def _style(state: State, size: int, path: Path) -> dict[str, Any]:
    last = state["unshared.0.weight"]
    shape = _shape(state["shared.0.weight"], last, size)
    return {**shape, "style": last.shape[0], "domains": _heads(state)}


def _discriminator(state: State, size: int, path: Path) -> dict[str, Any]:
    last = state[f"main.{_blocks(state, 'main', path) + 4}.weight"]
    return {**_shape(state["main.0.weight"], last, size), "domains": last.shape[0]}


_OPTIONS = {"generator": _generator, "mapping": _mapping, "style": _style,
            "discriminator": _discriminator}  # fmt: skip


def _shape(first: Tensor, last: Tensor, size: int) -> dict[str, int]:
    """Widths are doubled up to a cap, so the deepest layer's inputs are the cap that counts."""
    return {"size": size, "width": first.shape[0], "cap": last.shape[1]}


def _heads(state: State) -> int:
    return len({key.split(".")[1] for key in state if key.startswith("unshared.")})


def _built(recipe: dict[str, Any]) -> nn.Module:
    module, _, name = recipe["net"].partition(".")
    return getattr({"stargan_v2": stargan_v2, "wing": wing}[module], name)(**recipe["options"])
