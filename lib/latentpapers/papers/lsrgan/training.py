"""What decides a run: the variants of the paper (`VARIANTS`), the settings of a training
(`Training`) and its networks."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from latentpapers import weights
from latentpapers.nets import latent_encoder, rrdb
from latentpapers.nets.random_features import RandomFeatures
from latentpapers.nets.rrdb import RRDBNet, initialise
from latentpapers.nets.vgg_critic import VGGCritic
from latentpapers.seeds import generator

FACTOR = 4
BATCH, ITERATIONS = 16, 500_000  # of each stage, section 4.1
BUDGET = 2 * BATCH * ITERATIONS  # images of both stages of the paper's run
PAPERS_OWN = ("div2k",)


@dataclass(frozen=True)
class Variant:
    """Which terms a generator's loss has.

    Attributes:
        title: the row's name in the paper's tables.
        perceptual: L1 between features (eqs 1, 11) or the contextual loss (eqs 13, 14).
        latent: there is an encoder L, and its term enters with weight mu.
    """

    title: str
    perceptual: Literal["features", "contextual"] = "features"
    latent: bool = False


VARIANTS: dict[str, Variant] = {
    "esr": Variant("ESR"),
    "lsr": Variant("LSR", latent=True),
    "cesr": Variant("CESR", perceptual="contextual"),
    "clsr": Variant("CLSR", perceptual="contextual", latent=True),
}


@dataclass(frozen=True)
class Training:
    """One training run: everything that decides its result.

    Attributes:
        stage: `psnr` (generator and encoder alone, L1) or `joint`.
        data, images: training photographs and how many of them; 0: all.
        crop: high-resolution pixels a side of a training crop.
        steps, batch, seconds: steps, images a step, and the time limit that may end it sooner.
        variant: a row of `VARIANTS` (joint stage).
        start: the run whose networks this one starts from, the name of RRDB weights
            (`latentpapers.weights`) or a file of them (`.pth`, `.safetensors`, any of the three
            key layouts); empty: from noise.
        width, blocks, growth: of the generator; 64, 23, 32 are the published ones.
        critic_width, encoder_width: of the discriminator and of L.
        encoder: L as section 3.1 has it (`vgg16`) or as the public code hints (`rrdb_down`).
        init: Kaiming's spread times 0.1 for all of the generator (`v00`) or for its dense blocks
            alone (`v01`): lsrgan-e40.
        lr, halve_at: Adam's rate, halved at these steps.
        lam, eta, mu: weights of adversarial, pixel and latent term.
        adversary: `relativistic`, or `standard` (section 5 compares them).
        features: the perceptual network, by name; `random` needs no file and is for proofs.
        bandwidth: h of eq 12: lsrgan-e10.
        distance: 1 - cos, or half of it: see `losses.contextual`.
        relu: compare features after the ReLU of their layer: lsrgan-e11.
        log_every, precision, compile: of the engine.
    """

    stage: Literal["psnr", "joint"]
    data: str
    crop: int
    steps: int
    batch: int = BATCH
    seconds: float | None = None
    images: int = 0
    variant: Literal["esr", "lsr", "cesr", "clsr"] = "esr"
    start: str = ""
    width: int = 64
    blocks: int = 23
    growth: int = 32
    critic_width: int = 64
    encoder_width: int = 64
    encoder: Literal["vgg16", "rrdb_down"] = "vgg16"
    init: Literal["v00", "v01"] = "v00"
    lr: float = 1e-4
    halve_at: tuple[int, ...] = ()
    lam: float = 5e-3
    eta: float = 1e-2
    mu: float = 1e-3
    adversary: Literal["relativistic", "standard"] = "relativistic"
    features: Literal["vgg19", "vgg16hed", "random"] = "vgg19"
    bandwidth: float = 0.5
    distance: Literal["cosine", "half"] = "cosine"
    relu: bool = False
    log_every: int = 50
    precision: str = "fp32"
    compile: bool = False


# the layers of `percep` and of the contextual loss, before their ReLU
LAYERS: dict[str, dict[str, str]] = {
    "vgg19": {"features": "conv5_4", "contextual": "conv3_4"},
    "vgg16hed": {"features": "conv5_3", "contextual": "conv3_3"},
    "random": {"features": "deep", "contextual": "middle"},
}


def feature_network(job: Training, device: str | torch.device = "cpu") -> nn.Module | None:
    """What the perceptual term looks through; none in the first stage.

    Raises:
        Missing: its weights are not here.
    """
    if job.stage == "psnr":
        return None
    layer = LAYERS[job.features][VARIANTS[job.variant].perceptual]
    if job.features == "random":
        return RandomFeatures(layer).to(device)
    net = weights.network(job.features, layer=layer)
    return net.to(device, memory_format=torch.channels_last)


def recipe(job: Training, name: str) -> dict[str, Any]:
    """How `lp.models.build` makes a network of this run."""
    if name == "generator":
        sizes = {"width": job.width, "blocks": job.blocks, "growth": job.growth}
        return {"net": "rrdb.RRDBNet", "options": sizes}
    if name == "critic":
        sizes = {"size": job.crop, "width": job.critic_width}
        return {"net": "vgg_critic.VGGCritic", "options": sizes}
    kind = "VGGEncoder" if job.encoder == "vgg16" else "RRDBEncoder"
    return {"net": f"latent_encoder.{kind}", "options": {"width": job.encoder_width}}


def names_of(job: Training) -> tuple[str, ...]:
    """The networks of a run."""
    if job.stage == "psnr":
        return ("generator", "encoder")
    return ("generator", "critic", *(["encoder"] if VARIANTS[job.variant].latent else []))


def title_of(job: Training) -> str:
    """The row of the paper's tables that a run fills."""
    if job.stage == "psnr":
        return "L1 stage"
    title = VARIANTS[job.variant].title
    title += f" (mu = {job.mu:g})" if VARIANTS[job.variant].latent and job.mu != 1e-3 else ""
    return title + (", standard GAN" if job.adversary == "standard" else "")


KINDS: dict[str, type[nn.Module]] = {
    "rrdb.RRDBNet": RRDBNet, "vgg_critic.VGGCritic": VGGCritic,
    "latent_encoder.VGGEncoder": latent_encoder.VGGEncoder,
    "latent_encoder.RRDBEncoder": latent_encoder.RRDBEncoder,
}  # fmt: skip


def networks(job: Training, seed: int) -> dict[str, nn.Module]:
    """The networks of a run, initialised from the seed alone."""
    return {name: _made(recipe(job, name), job, generator(seed, "init", name))
            for name in names_of(job)}  # fmt: skip


def _made(how: dict[str, Any], job: Training, g: torch.Generator) -> nn.Module:
    net = initialise(KINDS[how["net"]](**how["options"]), g)
    scaled = [net] if job.init == "v00" and how["net"] == "rrdb.RRDBNet" else []
    scaled += [m for m in net.modules() if isinstance(m, rrdb.DenseBlock) and not scaled]
    for part in scaled:
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.data.mul_(0.1)
    return net
