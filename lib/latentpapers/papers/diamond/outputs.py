"""From a network to latents, images and a pair to search; the label of what it makes."""

import torch

from latentpapers import config, models
from latentpapers.latent.pair import Pair, of_networks
from latentpapers.seeds import generator
from latentpapers.shapes import Codes, Images


def latents(n: int, seed: int, latent: int = 512) -> Codes:
    """`n` latents from N(0, I), (n, latent), not projected to the sphere."""
    return torch.randn(n, latent, generator=generator(seed, "sample"))


def sample(
    model: models.Model, n: int, seed: int, *, net: str = "generator", block: int = 250
) -> Images:
    """`n` images, (n, C, H, W) clamped to [-1, 1], of the latents `latents(n, seed, Z)`.

    Args:
        model: a checkpoint of this room.
        net: `generator`, or `generator_raw` where it was kept.
        block: images a forward pass.
    """
    parameter = next(model[net].parameters())
    z = latents(n, seed, model[net].latent).to(parameter)
    with torch.no_grad():
        return torch.cat([model[net](part) for part in z.split(block)]).clamp(-1, 1)


def pair(
    model: models.Model, *, dtype: torch.dtype | None = None, statistics: str = "running",
    average: bool = False, layer: str = "",
) -> Pair:  # fmt: skip
    """Generator and critic of a checkpoint as the searches want them; the generator as trained
    (`generator_raw`) where it was kept, as in the authors' code (diamond-e8).

    Args:
        model: a checkpoint of this room.
        dtype: networks run under autocast to it.
        statistics: of WGAN-GP's batch normalisation: `running`, or `batch` as in the authors' code
            (diamond-e37), which ties the images of a batch together.
        average: the generator's running average even where the other was kept.
        layer: of the critic, as in `of_networks`.
    """
    raw = "generator_raw" in model.parts and not average
    name = "generator_raw" if raw else "generator"
    coupled = statistics == "batch" and model.card["config"]["method"] == "wgan_gp"
    if coupled:
        from latentpapers.nets.wgan_gp import running

        for net in (model[name], model["critic"]):
            running(net, "batch")
    return of_networks(model[name], model["critic"], coupled=coupled, dtype=dtype, layer=layer)


def scale_of(model: models.Model, preset: str, device: str, seeds: tuple[int, ...]) -> config.Scale:
    """The label of what a checkpoint makes: images seen, share of the paper's budget, data."""
    job = model.card["config"]
    width = f"fmap_max {job['fmap_max']}" if job["method"] == "pgan" else f"width {job['width']}"
    split = f", {job['share']:.0%} {job['minority']}" if job["minority"] else ""
    own = ("celeba-pgan", "celeba-hq", "lsun-church")  # the paper's data sets
    return config.Scale(
        preset=preset, images=model.card["images"], budget=model.card["budget"],
        data=f"{job['data']} {job['size']} px{split}, {width}", device=device, seeds=seeds,
        standin=() if job["data"] in own else (job["data"],),
    )  # fmt: skip
