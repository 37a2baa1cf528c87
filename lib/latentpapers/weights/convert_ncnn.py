"""RRDB weights out of ncnn files: a text (`.param`: the graph) and a binary (`.bin`: the numbers).

The binary holds, for every convolution in the order of the text, a 4-byte tag (float16 or
float32), the kernel (out, in, rows, columns) padded to 4 bytes, and the bias in float32. Our
network's submodules stand in the same order (`nets.rrdb.RRDBNet`), which gives the names.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from latentpapers.errors import Corrupt, Missing
from latentpapers.nets.rrdb import RRDBNet

_MAGIC = "7767517"
_TYPES = {0x01306B47: np.dtype("<f2"), 0: np.dtype("<f4")}
_OUTSIDE = 6  # convolutions outside the blocks: first, body, two up, hr, last
_IN_A_BLOCK = 15


@dataclass(frozen=True)
class Convolution:
    """One layer of the text: maps out, side of the kernel, its numbers, whether it has a bias."""

    outputs: int
    kernel: int
    numbers: int
    bias: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(out, in, rows, columns)"""
        inputs = self.numbers // (self.outputs * self.kernel**2)
        return self.outputs, inputs, self.kernel, self.kernel


def rrdb(path: Path) -> dict[str, Tensor]:
    """The state dict of an `RRDBNet` under BasicSR's keys, in the precision of the file.

    Args:
        path: the `.bin`; the `.param` of the same name lies beside it.

    Raises:
        Missing: no text beside the binary.
        Corrupt: not these files, or not an RRDB network.
    """
    text = path.with_suffix(".param")
    if not text.is_file():
        raise Missing(f"{path} needs {text.name} beside it, from the same place.")
    try:
        layers = convolutions(text.read_text())
        names = _names(layers)
        numbers = _numbers(path.read_bytes(), layers)
    except (ValueError, KeyError, struct.error) as error:  # UnicodeDecodeError is a ValueError
        raise Corrupt(f"{path} is no RRDB network of ncnn ({error}).") from error
    pairs = (
        (f"{name}.{part}", value) for name, both in zip(names, numbers) for part, value in both
    )
    return dict(pairs)


def convolutions(text: str) -> list[Convolution]:
    """The convolutions of a graph, in order.

    Raises:
        ValueError: not a graph of ncnn; KeyError: a convolution without its sizes.
    """
    lines = text.splitlines()
    if not lines or lines[0].strip() != _MAGIC:
        raise ValueError("the text does not begin as ncnn's does")
    found = []
    for words in map(str.split, lines[2:]):
        if words[:1] == ["Convolution"]:
            option = dict(word.split("=", 1) for word in words if "=" in word)
            sizes = (int(option["0"]), int(option["1"]), int(option["6"]))
            found.append(Convolution(*sizes, bias=option.get("5") == "1"))
    return found


def _numbers(content: bytes, layers: list[Convolution]) -> list[list[tuple[str, Tensor]]]:
    found, at = [], 0
    for layer in layers:
        (tag,) = struct.unpack_from("<I", content, at)
        if tag not in _TYPES:
            raise ValueError(f"numbers of kind {tag:#x}, neither float16 nor float32")
        kernel, at = _take(content, at + 4, layer.numbers, _TYPES[tag])
        parts = [("weight", kernel.view(layer.shape))]
        if layer.bias:
            bias, at = _take(content, at, layer.outputs, np.dtype("<f4"))
            parts.append(("bias", bias))
        found.append(parts)
    if at != len(content):
        raise ValueError(f"{len(content) - at:,} bytes too many")
    return found


def _take(content: bytes, at: int, count: int, kind: np.dtype) -> tuple[Tensor, int]:
    """`count` numbers from byte `at` on, and where the next ones begin (a multiple of 4)."""
    values = np.frombuffer(content, kind, count, at)  # ValueError if there are fewer
    return torch.from_numpy(values.copy()), at + (values.nbytes + 3) // 4 * 4


def _names(layers: list[Convolution]) -> list[str]:
    """The convolutions of the `RRDBNet` of this depth, checked shape by shape.

    Raises:
        ValueError: the shapes are of another network.
    """
    blocks, rest = divmod(len(layers) - _OUTSIDE, _IN_A_BLOCK)
    if rest or blocks < 1 or layers[0].kernel != 3:
        raise ValueError(f"{len(layers)} convolutions make no RRDB network")
    with torch.device("meta"):
        net = RRDBNet(layers[0].outputs, blocks, layers[1].outputs)
    named = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Conv2d)]
    for (name, conv), layer in zip(named, layers):
        if tuple(conv.weight.shape) != layer.shape:
            raise ValueError(f"{name} would have shape {layer.shape}")
    return [name for name, _ in named]
