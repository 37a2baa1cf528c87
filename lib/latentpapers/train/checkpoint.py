"""Checkpoints as safetensors: tensors as tensors, everything else as JSON in the header.

No pickle in or out. A file is complete (atomic rename) and intact (a hash over the tensors is in
the header: safetensors itself notices truncation, not a flipped bit).
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from latentpapers.errors import Corrupt, Missing
from latentpapers.storage import write_bytes

Tree = dict[str, Any]
_MARK = "\x00tensor"  # stands for a tensor inside the JSON skeleton


def save(path: Path, tree: Tree, *, about: Tree | None = None) -> None:
    """Writes a nested dict of tensors and JSON values, atomically.

    Args:
        path: the `.safetensors` file.
        tree: nested dicts and lists; leaves are tensors or JSON values.
        about: free header, readable without the tensors (`header`).
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _split(tree, "", tensors)
    header = {
        "tree": json.dumps(skeleton),
        "about": json.dumps(about or {}, sort_keys=True),
        "sha256": _digest(tensors),
    }
    write_bytes(Path(path), serialise(tensors, metadata=header))


def load(path: Path, *, device: str | torch.device = "cpu") -> Tree:
    """Reads what `save` wrote.

    Raises:
        Missing: no such file.
        Corrupt: truncated, altered, or not one of our files.
    """
    with _open(path) as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if "tree" not in header:
        raise Corrupt(f"{path} is a safetensors file without our header; it is not a checkpoint.")
    if header.get("sha256") != _digest(tensors):
        raise Corrupt(f"{path} has been altered: its tensors do not match its hash; restore it.")
    return _join(json.loads(header["tree"]), "", {k: v.to(device) for k, v in tensors.items()})


def header(path: Path) -> Tree:
    """The `about` of a checkpoint, without reading its tensors."""
    with _open(path) as file:
        return json.loads((file.metadata() or {}).get("about", "{}"))


def _open(path: Path) -> Any:
    if not Path(path).is_file():
        raise Missing(f"no checkpoint {path}; run the training that writes it.")
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise Corrupt(f"{path} cannot be read ({error}); delete it and train or fetch it again.") from error


def _split(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        # a copy: safetensors refuses tensors that share memory
        tensors[path] = node.detach().to("cpu", copy=True).contiguous()
        return _MARK
    if isinstance(node, dict):
        keys = {str(k): ("i" if isinstance(k, int) else "s") for k in node}
        return {"dict": {str(k): [keys[str(k)], _split(v, f"{path}/{k}", tensors)] for k, v in node.items()}}
    if isinstance(node, list | tuple):
        return {"list": [_split(v, f"{path}/{i}", tensors) for i, v in enumerate(node)]}
    return {"value": node}


def _join(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if node == _MARK:
        return tensors[path]
    if "dict" in node:
        return {
            (int(k) if kind == "i" else k): _join(v, f"{path}/{k}", tensors)
            for k, (kind, v) in node["dict"].items()
        }
    if "list" in node:
        return [_join(v, f"{path}/{i}", tensors) for i, v in enumerate(node["list"])]
    return node["value"]


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def networks(path: Path, *, averaged: bool = True) -> dict[str, dict[str, Tensor]]:
    """State dicts of the networks in a training checkpoint; the running average where there is one.

    Args:
        path: a checkpoint of `train.fit`.
        averaged: prefer the EMA.
    """
    state = load(path)
    nets = dict(state["nets"])
    for name, average in state["ema"].items() if averaged else ():
        prefix = "module."
        nets[name] = {k.removeprefix(prefix): v for k, v in average.items() if k.startswith(prefix)}
    return nets
