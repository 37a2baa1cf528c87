"""Training checkpoints: the files of `latentpapers.tensorfile`, and the networks inside them."""

from pathlib import Path

from torch import Tensor

from latentpapers.tensorfile import Tree, header, load, save

__all__ = ["Tree", "header", "load", "networks", "save"]


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
