"""Nested dicts of tensors and JSON values in one safetensors file.

No pickle in or out. A file is complete (atomic rename) and intact: hashes over the tensors and over
everything else are in its header (safetensors itself notices truncation, not a flipped bit).
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
from latentpapers.storage import sha256, write_bytes

Tree = dict[str, Any]
_MARK = "\x00tensor"  # stands for a tensor inside the JSON skeleton


def save(path: Path, tree: Tree, *, about: Tree | None = None) -> None:
    """Writes a nested dict of tensors and JSON values, atomically.

    Args:
        path: the `.safetensors` file.
        tree: nested dicts and lists; leaves are tensors or JSON values.
        about: free header, readable without the tensors (`header`).

    Raises:
        ValueError: two keys that would be one in the file (1 and "1", "a/b" and "a" with "b").
    """
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_split(tree, "", tensors))
    texts = {"tree": skeleton, "about": json.dumps(about or {}, sort_keys=True)}
    header = {**texts, "sha256": tensor_hash(tensors), "sha256_header": _text_digest(texts)}
    write_bytes(Path(path), _ordered(serialise(tensors, metadata=header)))


def load(path: Path, *, device: str | torch.device = "cpu") -> Tree:
    """Reads what `save` wrote.

    Raises:
        Missing: no such file.
        Corrupt: truncated, altered, or not one of our files.
    """
    with _open(path) as file:
        header = _checked_header(path, file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.get("sha256") != tensor_hash(tensors):
        raise Corrupt(f"{path} has been altered: its tensors do not match its hash; restore it.")
    return _join(json.loads(header["tree"]), "", {k: v.to(device) for k, v in tensors.items()})


def header(path: Path) -> Tree:
    """The `about` of a file, without reading its tensors.

    Raises:
        Missing, Corrupt: as `load`.
    """
    with _open(path) as file:
        return json.loads(_checked_header(path, file)["about"])


def _ordered(content: bytes) -> bytes:
    """The same file with its header's keys sorted: safetensors leaves their order to chance, and
    equal trees must make equal files."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors start at a multiple of 8
    return b"".join([len(header).to_bytes(8, "little"), header, memoryview(content)[8 + length :]])


def _checked_header(path: Path, file: Any) -> dict[str, str]:
    header = file.metadata() or {}
    if not {"tree", "about"} <= header.keys():
        raise Corrupt(f"{path} is a safetensors file without our header; it is not a checkpoint.")
    # files written before this hash existed have the tensors' hash alone
    if header.get("sha256_header", _text_digest(header)) != _text_digest(header):
        raise Corrupt(f"{path} has been altered: its header does not match its hash; restore it.")
    return header


def _open(path: Path) -> Any:
    try:
        if Path(path).is_file():
            return safe_open(str(path), framework="pt")
    # torch maps the file by itself, and says RuntimeError of one that went away in between
    except (SafetensorError, OSError, RuntimeError) as error:
        if not Path(path).is_file():
            raise _missing(path) from error
        remedy = "delete it and train or fetch it again"
        raise Corrupt(f"{path} cannot be read ({error}); {remedy}.") from error
    raise _missing(path)


def _missing(path: Path) -> Missing:
    return Missing(f"no checkpoint {path}; run the training that writes it.")


def _split(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        if path in tensors:
            raise ValueError(f"two tensors would be named {path!r}")
        # a copy: safetensors refuses tensors that share memory
        tensors[path] = node.detach().to("cpu", copy=True).contiguous()
        return _MARK
    if isinstance(node, dict):
        out = {str(k): [_kind(k), _split(v, f"{path}/{k}", tensors)] for k, v in node.items()}
        if len(out) < len(node):
            raise ValueError(f"two keys of {path!r} are written alike: {sorted(map(str, node))}")
        return {"dict": out}
    if isinstance(node, list | tuple):
        return {"list": [_split(v, f"{path}/{i}", tensors) for i, v in enumerate(node)]}
    return {"value": node}


def _kind(key: str | int) -> str:
    return "i" if isinstance(key, int) else "s"


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


def tensor_hash(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values of a state dict."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _text_digest(header: dict[str, str]) -> str:
    return sha256(f"{header['tree']}\n{header['about']}".encode())
