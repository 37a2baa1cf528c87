"""From a network to images and latents, and the label of what it makes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from latentpapers import config, models
from latentpapers.papers.avae.baselines import BASELINES
from latentpapers.papers.avae.training import METHODS
from latentpapers.seeds import generator
from latentpapers.shapes import Codes, Images


def sample(model: models.Model, n: int, seed: int, *, block: int = 250) -> Images:
    """`n` images from the prior, (n, C, H, W) clamped to [-1, 1]; image i depends on seed and i's
    block alone."""
    return torch.cat([*batches(model, n, seed, block=block)])


def batches(model: models.Model, n: int, seed: int, *, block: int = 250) -> Iterator[Images]:
    """The images of `sample` block by block, for counts that do not fit into memory."""
    for part in drawn(model, n, generator(seed, "sample")).split(block):
        with torch.no_grad():
            images = model["decoder"](part).clamp(-1, 1)
        yield images


def drawn(model: models.Model, n: int, g: torch.Generator) -> Codes:
    """`n` latents (n, Z) from the prior of the model's method, in its decoder's type."""
    job = model.card["config"]
    method = config.named("method", job["method"], METHODS | BASELINES)
    uniform = method.prior == "uniform"
    z = (torch.rand if uniform else torch.randn)(n, job["latent"], generator=g)
    return (z * 2 - 1 if uniform else z).to(next(model["decoder"].parameters()))


def scale_of(model: models.Model, preset: str, device: str, seeds: tuple[int, ...]) -> config.Scale:
    """The label of what a checkpoint makes: images seen, share of the paper's budget, data."""
    job = model.card["config"]
    return config.Scale(
        preset=preset, images=model.card["images"], budget=model.card["budget"],
        data=f"{job['data']} {job['size']} px, width {job['width']}", device=device, seeds=seeds,
        standin=() if job["data"] in ("celeba", "cifar10") else (job["data"],),
    )  # fmt: skip


def joint_scale(scales: Sequence[config.Scale]) -> config.Scale:
    """One label for a figure of several networks: all data and seeds, the fewest images seen."""
    least = min(scales, key=lambda s: s.images)
    return replace(
        least, data=" and ".join(dict.fromkeys(s.data for s in scales)),
        seeds=tuple(sorted({seed for s in scales for seed in s.seeds})),
        standin=tuple(dict.fromkeys(name for s in scales for name in s.standin)),
    )  # fmt: skip
