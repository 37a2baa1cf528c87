"""Shipped networks by name, without their paper's room: `lp.models.load("avae/faces_avae")`.

A checkpoint is one safetensors file with a card in its header: which networks it holds and how to
build them, what they were trained on, for how long, and what to expect of them. Weights are in half
precision, or, where a table needs many networks, in 8 bits a weight with one scale an output
channel.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from latentpapers import paths
from latentpapers.errors import Corrupt, Missing, UnknownName

if TYPE_CHECKING:
    from torch import Tensor, nn

_FEW = 1024  # weights below which a tensor's scales would cost as much as they save


@dataclass(frozen=True)
class Model:
    """Networks of one checkpoint, in fp32, evaluation mode, without gradients.

    Attributes:
        parts: networks by name (`encoder`, `decoder`, `critic_encoder`, ...).
        card: what the checkpoint says of itself.
    """

    parts: "dict[str, nn.Module]"
    card: dict[str, Any]

    def __getitem__(self, name: str) -> "nn.Module":
        if name not in self.parts:
            raise UnknownName("network", name, self.parts)
        return self.parts[name]


def names(paper: str | None = None) -> list[str]:
    """Ids of the shipped checkpoints, `paper/name`."""
    folder = paths.checkpoints()
    files = sorted(folder.glob(f"{paper or '*'}/*.safetensors"))
    return [f.relative_to(folder).with_suffix("").as_posix() for f in files]


def load(which: str | Path, *, device: str = "cpu") -> Model:
    """The networks of a shipped checkpoint (`paper/name`) or of a file in the same form.

    Raises:
        UnknownName: no shipped checkpoint of that name; Missing: no such file.
        Corrupt: truncated, altered or not in this form.
    """
    from latentpapers import tensorfile

    path = which if isinstance(which, Path) else paths.checkpoints() / f"{which}.safetensors"
    if not path.exists() and not isinstance(which, Path):
        raise UnknownName("checkpoint", which, names())
    card = tensorfile.header(path)
    if "parts" not in card:
        raise Corrupt(f"{path} holds no card that says how to build its networks.")
    state = tensorfile.load(path).get("parts", {})
    parts = {name: build(recipe) for name, recipe in card["parts"].items()}
    for name, net in parts.items():
        try:
            net.load_state_dict({k: _unpacked(v) for k, v in state[name].items()})
        except (KeyError, RuntimeError) as error:
            raise Corrupt(
                f"{path}: the tensors of {name!r} do not fit its card: {error}."
            ) from error
        net.to(device).eval().requires_grad_(False)
    return Model(parts, card)


def build(recipe: dict[str, Any]) -> "nn.Module":
    """A network from `{"net": "began.Decoder", "options": {...}}`, looked up in `nets` alone.

    Raises:
        Corrupt: a recipe that names anything else.
    """
    from torch.nn import Module

    module, _, name = str(recipe.get("net")).partition(".")
    if not module.isidentifier() or not name.isidentifier():
        raise Corrupt(f"{recipe.get('net')!r} does not name a network of this library.")
    try:
        kind = getattr(importlib.import_module(f"latentpapers.nets.{module}"), name)
        if not (isinstance(kind, type) and issubclass(kind, Module)):
            raise TypeError(f"{name} is not a network")
        return kind(**recipe.get("options", {}))
    except (ImportError, AttributeError, TypeError) as error:
        raise Corrupt(f"network {recipe['net']!r} cannot be built: {error}.") from error


def save(
    path: Path,
    parts: dict[str, Any],
    recipes: dict[str, Any],
    card: dict[str, Any],
    *,
    bits: Literal[16, 8] = 16,
) -> None:
    """Writes networks with their card.

    Args:
        path: the `.safetensors` file.
        parts: state dicts by network name.
        recipes: how to build each (see `build`).
        card: data, steps, images, seconds, expected metrics, ...
        bits: 16 for half precision; 8 for levels of -127 to 127 times the channel's scale, in
            tensors of at least two axes and 1,024 weights (error of a weight: at most 1/254 of its
            channel's largest).

    Raises:
        Missing: a network without a recipe.
    """
    from latentpapers import tensorfile

    if parts.keys() != recipes.keys():
        raise Missing(f"recipes for {sorted(parts.keys() ^ recipes.keys())} are missing.")
    pack = _halved if bits == 16 else _levels
    packed = {name: {k: pack(v) for k, v in state.items()} for name, state in parts.items()}
    tensorfile.save(path, {"parts": packed}, about={**card, "parts": recipes, "bits": bits})


def _halved(value: "Tensor") -> "Tensor":
    return value.half() if value.is_floating_point() else value


def _levels(value: "Tensor") -> "Tensor | dict[str, Tensor]":
    """8 bits a weight and a scale for each channel of the first axis; small tensors halved."""
    import torch

    if not value.is_floating_point() or value.ndim < 2 or value.numel() < _FEW:
        return _halved(value)
    largest = value.float().flatten(1).abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
    scale = (largest / 127).view(-1, *[1] * (value.ndim - 1))
    return {"levels": (value.float() / scale).round().to(torch.int8), "scale": scale}


def _unpacked(value: "Tensor | dict[str, Tensor]") -> "Tensor":
    """A stored tensor in fp32."""
    return value["levels"] * value["scale"] if isinstance(value, dict) else value.float()
