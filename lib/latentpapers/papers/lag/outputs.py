"""From a network to images and codes; the label of what it makes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentpapers import config, data, models
from latentpapers.errors import UserError
from latentpapers.losses.low_resolution import difference_map
from latentpapers.papers.lag.training import PAPERS_OWN, Training, reduce
from latentpapers.seeds import generator
from latentpapers.shapes import Bytes, Images


def job_of(model: models.Model) -> Training:
    """The run that made a checkpoint."""
    return Training(**model.card["config"])


def inputs(model: models.Model, pixels: Bytes, *, kernel: str | None = None) -> Images:
    """The low resolution images, (N, 3, h, h) on [-1, 1], that this model's generator takes.

    Args:
        pixels: uint8 at the model's size.
        kernel: another way to reduce than the one it was trained with.
    """
    job = job_of(model)
    x = data.to_float(pixels)
    return reduce(x, job.factor, kernel or job.kernel, job.shifted and kernel is None)


@torch.no_grad()
def by_blocks(net: nn.Module, *given: Tensor, block: int = 64) -> Tensor:
    """What a network says of a batch, a block of it at a time on the network's own device; the
    result is where the batch is."""
    there, here = next(net.parameters()).device, given[0].device
    parts = zip(*(v.split(block) for v in given), strict=True)
    return torch.cat([net(*(v.to(there) for v in part)).to(here) for part in parts])


def centre(model: models.Model, y: Images) -> Images:
    """The output at z = 0 (of a baseline: its one output), clamped to [-1, 1], where `y` is."""
    net = model["generator"]
    given = (y, net.zeros(y)) if hasattr(net, "zeros") else (y,)
    return by_blocks(net, *given).clamp(-1, 1)


def samples(
    model: models.Model, y: Images, n: int, seed: int, *, std: float = 1.0, block: int = 64
) -> Float[Tensor, "K N C H W"]:
    """`n` outputs for every input, clamped to [-1, 1]: (n, N, 3, H, W), where `y` is.

    Args:
        y: inputs, (N, 3, h, h).
        std: of z; the authors' sheets let it rise from 0 to 1 (lag-e25).
        block: inputs a pass.

    Raises:
        UserError: a baseline without noise, or no outputs asked for.
    """
    net = model["generator"]
    if not hasattr(net, "zeros"):
        raise UserError("this method has one output for an input; use `centre`.")
    if n < 1:
        raise UserError(f"ask for 1 sample or more, not {n}.")
    g, shape = generator(seed, "sample"), net.zeros(y).shape
    noise = (std * torch.randn(shape, generator=g).to(y) for _ in range(n))
    return torch.stack([by_blocks(net, y, z, block=block).clamp(-1, 1) for z in noise])


def encoded(model: models.Model, pixels: Bytes) -> Images:
    """G(y, E(x)) of a network trained with an encoder, clamped to [-1, 1]: the answer for images
    that are known. `pixels`: uint8 at the model's size."""
    z = by_blocks(model["encoder"], data.to_float(pixels))
    return by_blocks(model["generator"], inputs(model, pixels), z).clamp(-1, 1)


def code(model: models.Model, x: Images, y: Images) -> Tensor:
    """P(x, d) of images against the inputs y, in full resolution; zeros for d where x is real.

    A generated image's d is its own difference map, as in training.
    """
    job = job_of(model)
    reduced = reduce(x, job.factor, job.kernel, job.shifted)
    d = difference_map(y, reduced, reading=job.reading, step=job.step or None)
    return by_blocks(model["critic"], x, d)


def scale_of(model: models.Model, preset: str, device: str, seeds: tuple[int, ...]) -> config.Scale:
    """The label of what a checkpoint makes: images seen, share of the paper's budget, data."""
    job = model.card["config"]
    side = job["size"] // job["factor"]
    return config.Scale(
        preset=preset, images=model.card["images"], budget=model.card["budget"],
        data=f"{job['data']} {side} to {job['size']} px, width {job['width']}", device=device,
        seeds=seeds,
        standin=() if job["data"] in PAPERS_OWN else (job["data"],),
    )  # fmt: skip
