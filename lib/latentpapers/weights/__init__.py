"""Pretrained networks of others: one registry, checked sources, safetensors inside.

`load(name)` gives a state dict, `network(name)` the network that it belongs to. `names()`,
`info()` and `available()` answer without torch, and nothing downloads but `fetch`.
"""

from latentpapers.weights.registry import (
    Info,
    available,
    convert,
    fetch,
    find,
    info,
    load,
    names,
    network,
    verify,
)

__all__ = [
    "Info",
    "available",
    "convert",
    "fetch",
    "find",
    "info",
    "load",
    "names",
    "network",
    "verify",
]
