"""Public PGAN and WGAN-GP files -> networks of `nets.pgan` and `nets.wgan_gp`.

Each function gives `{part: state dict}` and `{part: recipe}`, which is what `models.save` stores
and `models.build` builds; sizes are read off the tensors. The files are pickles that name foreign
classes (a configuration, TensorFlow's network objects); they are read with stubs, never executed.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentpapers.errors import Corrupt
from latentpapers.nets import pgan, wgan_gp
from latentpapers.weights import unpickle
from latentpapers.weights.convert_state import State, check_fit

Parts = tuple[dict[str, State], dict[str, dict[str, Any]]]

# netG is the network as trained, avgG its running average; NVIDIA's G and Gs the same.
_ZOO_PARTS = {"netG": "generator_raw", "avgG": "generator", "netD": "critic"}
_ZOO_NAMES = {
    "formatLayer": "first", "groupScale0.0": "base", "scaleLayers": "blocks",
    "toRGBLayers": "to_rgb", "fromRGBLayers": "from_rgb", "groupScaleZero.0": "base",
    "groupScaleZero.1": "dense", "decisionLayer": "score",
}  # fmt: skip


def zoo(path: Path, *, allow_pickle_stub: bool = False) -> Parts:
    """A PGAN file of facebookresearch/pytorch_GAN_zoo: netG, netD and avgG of one scale.

    Old files and new ones (`.module.` inside their keys) are the same here.

    Args:
        allow_pickle_stub: the file holds an object of the zoo's own class, so this is needed.

    Raises:
        Corrupt: another layout. UserError, Missing: as `unpickle.load`.
    """
    found = _zoo_parts(path, allow_pickle_stub)
    states = {part: {_zoo_key(k, path): v for k, v in s.items()} for part, s in found.items()}
    return _described(states, "zoo", path)


def dcgan(path: Path, *, allow_pickle_stub: bool = False) -> Parts:
    """A DCGAN file of the zoo (the WGAN-GP of the paper): netG and netD of any depth.

    Raises:
        Corrupt: another layout. UserError, Missing: as `unpickle.load`.
    """
    found, states, kinds = _zoo_parts(path, allow_pickle_stub), {}, {}
    for part, state in found.items():
        deep = sum(bool(re.fullmatch(r"main\.convTranspose\d+\.weight", k)) for k in state)
        maker = part.startswith("generator")
        names = _dcgan_names(deep if maker else deep - 1, generator=maker)
        states[part] = {_renamed(k, names, path): v for k, v in state.items()}
        kinds[part] = _dcgan_recipe(states[part], maker, path)
    _check(states, kinds, path)
    return states, kinds


def nvidia(path: Path, *, allow_pickle_stub: bool = False) -> Parts:
    """A TensorFlow file of tkarras/progressive_growing_of_gans: the pickled (G, D, Gs).

    `generator` is Gs, the running average. Convolutions that TensorFlow fuses with enlarging are
    stored as transposed ones, so their kernels are turned; a bias that it adds after reshaping
    becomes one of the linear map.

    Raises:
        Corrupt: another layout. UserError, Missing: as `unpickle.load`.
    """
    content = unpickle.load(path, allow_pickle_stub=allow_pickle_stub)
    if not isinstance(content, tuple | list) or len(content) != 3:
        raise Corrupt(f"{path} does not hold the three networks G, D and Gs.")
    states = {
        part: _from_tensorflow(_variables(network, path), path)
        for part, network in zip(("generator_raw", "critic", "generator"), content, strict=True)
    }
    return _described(states, "nvidia", path)


def flat(states: dict[str, State]) -> State:
    """The state dicts of all parts as one: `critic.base.weight`, ..."""
    return {f"{part}.{key}": v for part, state in states.items() for key, v in state.items()}


def skeleton(size: int) -> torch.nn.ModuleDict:
    """The three networks of a PGAN file of the zoo, without storage."""
    with torch.device("meta"):
        nets = {"generator": pgan.Generator(size), "generator_raw": pgan.Generator(size),
                "critic": pgan.Critic(size)}  # fmt: skip
        return torch.nn.ModuleDict(nets)


# --- the zoo ----------------------------------------------------------------------------------


def _zoo_parts(path: Path, allow: bool) -> dict[str, State]:
    content = unpickle.load(path, allow_pickle_stub=allow)
    if not isinstance(content, Mapping) or not {"netG", "netD"} <= content.keys():
        raise Corrupt(f"{path} is no file of the GAN zoo: it has no netG and netD.")
    parts = {ours: content[theirs] for theirs, ours in _ZOO_PARTS.items() if theirs in content}
    for name, state in parts.items():
        if not isinstance(state, Mapping):
            raise Corrupt(f"{path}: the {name} is no state dict.")
    return {
        name: {key.replace("module.", ""): v.detach().float() if v.is_floating_point() else v
               for key, v in state.items()}
        for name, state in parts.items()
    }  # fmt: skip


def _zoo_key(key: str, path: Path) -> str:
    return _renamed(key, _ZOO_NAMES, path)


def _renamed(key: str, names: Mapping[str, str], path: Path) -> str:
    for theirs, ours in names.items():
        if key.startswith(f"{theirs}."):
            return ours + key[len(theirs) :]
    raise Corrupt(f"{path}: {key!r} is no part of this network.")


def _dcgan_names(deep: int, *, generator: bool) -> dict[str, str]:
    """Names of the zoo's DCGAN -> places in our sequences of (convolution, norm, activation)."""
    if generator:
        names = {"formatLayer": "first", "main.batchNorm0": "layers.0"}
        names["main.outlayer"] = f"layers.{2 + 3 * deep}"
        for i in range(1, deep + 1):
            names[f"main.convTranspose{i}"] = f"layers.{3 * i - 1}"
            names[f"main.batchNorm{i}"] = f"layers.{3 * i}"
        return names
    names = {f"main.convTranspose{deep}": "layers.0", "decisionLayer": "score"}
    for j in range(deep):
        names[f"main.convTranspose{deep - j - 1}"] = f"layers.{2 + 3 * j}"
        names[f"main.batchNorm{deep - j - 1}"] = f"layers.{3 + 3 * j}"
    return names


def _dcgan_recipe(state: State, generator: bool, path: Path) -> dict[str, Any]:
    try:
        if generator:
            latent, most = state["first.weight"].shape[:2]
            last = max(int(k.split(".")[1]) for k in state if k.startswith("layers."))
            options: dict[str, Any] = {"latent": latent, "size": 8 << (last - 2) // 3}
            options["width"] = most >> (last - 2) // 3
        else:
            width = state["layers.0.weight"].shape[0]
            options = {"width": width, "size": 8 * state["score.weight"].shape[1] // width}
    except KeyError as error:
        raise Corrupt(f"{path}: {error.args[0]!r} is missing.") from None
    return {"net": f"wgan_gp.{'Generator' if generator else 'Critic'}", "options": options}


# --- TensorFlow ---------------------------------------------------------------------------------


def _variables(network: Any, path: Path) -> dict[str, Tensor]:
    """Names and arrays of a pickled network: `variables` in what would have been its state."""
    state = getattr(network, "state", None)
    listed = state.get("variables") if isinstance(state, Mapping) else None
    if not isinstance(listed, Iterable):
        raise Corrupt(f"{path}: a network without variables.")
    return {name: torch.as_tensor(value).float() for name, value in listed if name != "lod"}


def _from_tensorflow(found: dict[str, Tensor], path: Path) -> State:
    sizes = [int(name.split("x")[0]) for name in found if re.match(r"\d+x\d+/", name)]
    if not sizes:
        raise Corrupt(f"{path}: no layer of a PGAN among {sorted(found)[:3]}.")
    levels = max(sizes).bit_length() - 2
    out = {}
    for name, value in found.items():
        layer, _, kind = name.rpartition("/")
        key = _tensorflow_layer(layer, levels, path)
        out[f"{key}.{kind}"] = _turned(value, layer) if kind == "weight" else value
    if "first.weight" in out:  # its bias is added to the 4x4 map, channel by channel
        out["first.bias"] = out["first.bias"].repeat_interleave(pgan.BOTTOM**2)
    else:  # labels, where there are any, are not scores
        out["score.weight"], out["score.bias"] = out["score.weight"][:1], out["score.bias"][:1]
    return out


def _tensorflow_layer(layer: str, levels: int, path: Path) -> str:
    image = re.fullmatch(r"(To|From)RGB_lod(\d+)", layer)
    if image:
        return f"{image[1].lower()}_rgb.{levels - 1 - int(image[2])}"
    fixed = {"4x4/Dense": "first", "4x4/Conv": "base", "4x4/Dense0": "dense", "4x4/Dense1": "score"}
    block = re.fullmatch(r"(\d+)x\d+/Conv([01])(_up|_down)?", layer)
    if block:
        return f"blocks.{int(block[1]).bit_length() - 4}.{block[2]}"
    if layer not in fixed:
        raise Corrupt(f"{path}: {layer!r} is no part of PGAN.")
    return fixed[layer]


def _turned(weight: Tensor, layer: str) -> Tensor:
    if weight.ndim == 2:
        return weight.T.contiguous()
    if layer.endswith("_up"):  # (h, w, out, in) of a transposed convolution
        return weight.flip(0, 1).permute(2, 3, 0, 1).contiguous()
    return weight.permute(3, 2, 0, 1).contiguous()


# --- both -------------------------------------------------------------------------------------


def _described(states: dict[str, State], reading: str, path: Path) -> Parts:
    """The recipes that these tensors ask for; checked."""
    kinds = {part: _recipe(state, reading, path) for part, state in states.items()}
    _check(states, kinds, path)
    return states, kinds


def _recipe(state: State, reading: str, path: Path) -> dict[str, Any]:
    generator = "first.weight" in state
    layer = "to_rgb.{}.weight" if generator else "from_rgb.{}.weight"
    axis, widths = (1 if generator else 0), []
    while layer.format(len(widths)) in state:
        widths.append(state[layer.format(len(widths))].shape[axis])
    if len(widths) < 2:
        raise Corrupt(f"{path}: a PGAN of {len(widths)} levels.")
    # any base that gives these widths will do; the published ones have 8192
    bases = [8192, *(w << (i + 1) for i, w in enumerate(widths))]
    size, most = pgan.BOTTOM << (len(widths) - 1), max(widths)
    for base in bases:
        if pgan.widths(size, base, most) == tuple(widths):
            break
    else:
        raise Corrupt(f"{path}: the widths {widths} follow no rule of PGAN.")
    options = {"size": size, "fmap_base": base, "fmap_max": most, "reading": reading}
    if generator:
        options["latent"] = state["first.weight"].shape[1]
    return {"net": f"pgan.{'Generator' if generator else 'Critic'}", "options": options}


def _check(states: dict[str, State], kinds: dict[str, dict[str, Any]], path: Path) -> None:
    for part, state in states.items():
        module, _, name = kinds[part]["net"].partition(".")
        kind = getattr({"pgan": pgan, "wgan_gp": wgan_gp}[module], name)
        with torch.device("meta"):
            net = kind(**kinds[part]["options"])
        check_fit(state, net, f"{path}, {part}")
