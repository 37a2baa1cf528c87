"""From a network to translated images; the label of what it makes."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree

from latentpapers import config, data, models
from latentpapers.losses import subspace
from latentpapers.papers.lrc_i2i.training import PAPERS_OWN, Training
from latentpapers.shapes import Bytes, Images, PerImage


def job_of(model: models.Model) -> Training:
    """The run that made a checkpoint."""
    return Training(**model.card["config"])


def targets(model: models.Model, pixels: Bytes) -> Images:
    """The low resolution images, (N, 3, low, low) on [-1, 1], that this model's generator takes;
    for StarGAN v2 the images themselves, its references.

    Args:
        pixels: uint8, (N, 3, S, S), S a multiple of `low`.
    """
    job = job_of(model)
    if job.method == "stargan_v2":
        return data.to_float(pixels)
    return subspace.reduce(data.to_float(pixels), job.low, grey=job.grey)


@torch.no_grad()
def translate(model: models.Model, sources: Images, lows: Images, *, block: int = 64) -> Images:
    """G(source n, target n), clamped to [-1, 1]; `block` images at a time.

    Args:
        sources: (N, 3, S, S) on [-1, 1].
        lows: (N, ...) from `targets`.
    """
    if job_of(model).method == "stargan_v2":
        return translate_style(model, sources, lows, block=block)
    net = model["generator"]
    parts = [net(x, y) for x, y in zip(sources.split(block), lows.split(block), strict=True)]
    return torch.cat(parts).clamp(-1, 1)


@torch.no_grad()
def translate_pool(
    model: models.Model, pool: Images, chosen: Int[Tensor, "n K"], lows: Images, *, block: int = 64
) -> Images:  # fmt: skip
    """`translate` of each target's own sources, target by target: every source and every target is
    encoded once, however often it serves. Equal to `translate` up to rounding.

    Args:
        pool: (P, 3, S, S) on [-1, 1].
        chosen: each target's sources, by index.
        lows: (n, ...) from `targets`.
    """
    net, (wanted, decode) = model["generator"], (lows, model["generator"].decode)
    encode = net.encode
    if job_of(model).method == "stargan_v2":
        encode, decode = (lambda x: net.features(x)[:1]), net.image
        wanted = torch.cat([model["style"](y) for y in lows.split(block)])
    known = pytree.tree_map(lambda *v: torch.cat(v), *[encode(x) for x in pool.split(block)])
    order = chosen.flatten().to(pool.device)
    wanted = wanted.repeat_interleave(chosen.shape[1], 0)
    parts = [
        decode(pytree.tree_map(lambda v: v[which], known), y)  # noqa: B023
        for which, y in zip(order.split(block), wanted.split(block), strict=True)
    ]
    return torch.cat(parts).clamp(-1, 1)


@torch.no_grad()
def grid(model: models.Model, sources: Images, lows: Images) -> Float[Tensor, "S T C H W"]:
    """Every source in the layout of every target, (S, T, 3, H, W), clamped to [-1, 1].

    Sources are encoded once; each target's part of SPAdaIN is computed once for all sources.
    """
    if job_of(model).method == "stargan_v2":
        return grid_style(model, sources, lows)
    net = model["generator"]
    features = net.encode(sources)
    columns = [net.decode(features, low.unsqueeze(0)) for low in lows]
    return torch.stack(columns, 1).clamp(-1, 1)


@torch.no_grad()
def translate_style(
    model: models.Model, sources: Images, references: Images, *, block: int = 64
) -> Images:
    """StarGAN v2: source n in the style of reference n, clamped to [-1, 1]."""
    make, find = model["generator"], model["style"]
    pairs = zip(sources.split(block), references.split(block), strict=True)
    return torch.cat([make(x, find(y)) for x, y in pairs]).clamp(-1, 1)


@torch.no_grad()
def grid_style(
    model: models.Model, sources: Images, references: Images
) -> Float[Tensor, "S T C H W"]:
    """StarGAN v2: every source in every reference's style, (S, T, 3, H, W), clamped to [-1, 1].

    Sources and references are each encoded once.
    """
    features, styles = model["generator"].features(sources), model["style"](references)
    columns = [model["generator"].image(features, s.expand(len(sources), -1)) for s in styles]
    return torch.stack(columns, 1).clamp(-1, 1)


def low_error(images: Images, lows: Images) -> PerImage:
    """How far each image's reduction is from its target, mean of absolute grey levels of 255."""
    return 127.5 * subspace.distance(subspace.reduce(images, lows.shape[-1]), lows)


def scale_of(model: models.Model, preset: str, device: str, seeds: tuple[int, ...]) -> config.Scale:
    """The label of what a checkpoint makes: images seen, share of the paper's budget, data."""
    job = model.card["config"]
    return config.Scale(
        preset=preset, images=model.card["images"], budget=model.card["budget"],
        data=f"{job['data']} {job['low']} to {job['size']} px, width {job['width']}",
        device=device, seeds=seeds,
        standin=() if job["data"] in PAPERS_OWN else (job["data"],),
    )  # fmt: skip


def where_celeba(scale: config.Scale, data: str) -> config.Scale:
    """The label of a number whose printed counterpart is one on CelebA-HQ: other data stand in."""
    return scale if data == "celeba-hq" else replace(scale, standin=(data,))
