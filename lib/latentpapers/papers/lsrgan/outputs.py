"""From a network to enlarged pictures; the label of what it makes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from latentpapers import config, data, models
from latentpapers.errors import UserError
from latentpapers.nets.rrdb import RRDBNet, tiled
from latentpapers.papers.lsrgan.training import FACTOR, PAPERS_OWN


def enlarge(net: RRDBNet, lr: Tensor, *, tile: int = 64) -> Tensor:
    """One picture, uint8 (3, H, W), four times larger: clamped, rounded, uint8 (3, 4H, 4W).

    The whole picture goes through the trunk at once; only the upsampler is tiled, exactly.

    Raises:
        UserError: anything but bytes of three colours; values in [0, 1] would come out black.
    """
    if lr.dtype != torch.uint8 or lr.ndim != 3 or lr.shape[0] != 3:
        raise UserError(
            f"a picture is uint8 of shape (3, H, W), not {lr.dtype} of {tuple(lr.shape)}."
        )
    like = next(net.parameters())
    x = lr[None].to(like).div(255).contiguous(memory_format=torch.channels_last)
    return tiled(net, x, tile=tile)[0].float().clamp(0, 1).mul(255).round().to(torch.uint8)


def load_generator(model: models.Model, device: str = "cpu") -> RRDBNet:
    """The generator of a checkpoint, laid out for fast inference."""
    return model["generator"].to(device, memory_format=torch.channels_last)


def bicubic(lr: Tensor) -> Tensor:
    """The plain enlargement that every network should beat: MATLAB's bicubic, in bytes."""
    return data.imresize(lr[None], (FACTOR * lr.shape[1], FACTOR * lr.shape[2]))[0]


def enlarged(net: RRDBNet, pairs: list[data.Pair], device: str = "cpu") -> list[Tensor]:
    """`enlarge` of every low-resolution picture, in order, on the CPU."""
    return [enlarge(net, pair.lr.to(device)).cpu() for pair in pairs]


ORIGINS = {"realsr_df2k": "RealSR-DF2K"}


def stopped_early(card: Mapping[str, Any]) -> str:
    """What a label adds where the time limit ended a run before its steps; else nothing."""
    done, planned = card.get("steps"), card["config"]["steps"]
    if done is None or done >= planned:
        return ""
    return f", ended by its time limit after {done} of {planned} steps"


def scale_of(
    model: models.Model, preset: str, device: str, seeds: tuple[int, ...], tested: str = "",
    unshipped: tuple[int, ...] = (),
) -> config.Scale:  # fmt: skip
    """The label of what a checkpoint makes: images seen, share of the paper's budget, data.

    Args:
        tested: what the number was measured on.
        unshipped: seeds among those it will be pooled with that ship as scores alone.
    """
    job = model.card["config"]
    standin = () if job["data"] in PAPERS_OWN else (job["data"],)
    if job["stage"] == "joint" and job["features"] != "vgg19":
        standin += (job["features"],)
    standin += ("photos",) if tested == "photos" else ()
    origin = model.card.get("origin", "")
    start = f", initialised from {ORIGINS.get(origin, origin)}" if origin else ""
    start += stopped_early(model.card)
    sizes = f"{job['width']} x {job['blocks']}"
    on = f", tested on {tested}" if tested else ""
    if unshipped:
        named = f"seed{'s' * (len(unshipped) > 1)} {', '.join(map(str, unshipped))}"
        on += f" ({named}: scores only)"
    return config.Scale(
        preset=preset, images=model.card["images"], budget=model.card["budget"],
        data=f"{job['data']} {job['crop']} px, RRDB {sizes}{start}{on}", device=device,
        seeds=seeds, standin=standin,
    )  # fmt: skip
