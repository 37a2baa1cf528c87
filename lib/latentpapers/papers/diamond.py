"""Diamond in the rough (Wen et al. 2021): the GANs whose latent spheres are walked.

The paper changes no network: it takes trained GANs. This room makes them: PGAN, grown level by
level, WGAN-GP, and the encoder that starts an inversion. The walk itself is in `latent`.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers import config, data, models, paths, tensorfile, weights
from latentpapers.errors import Missing, UserError
from latentpapers.latent import attributes, boundary, found, inversion, method, walk
from latentpapers.latent.descent import Plan
from latentpapers.latent.pair import Pair, of_networks
from latentpapers.latent.pair import sample as starting_points
from latentpapers.latent.sphere import project
from latentpapers.losses import wgan
from latentpapers.metrics import drawn_judge, projected, walks
from latentpapers.metrics.protocol import Score
from latentpapers.nets import pgan
from latentpapers.nets.began import seeded
from latentpapers.nets.biggan import OfClass
from latentpapers.nets.equalized import pixel_norm
from latentpapers.nets.features import folded
from latentpapers.seeds import generator
from latentpapers.shapes import Bytes, Codes, Features, Images, PerImage
from latentpapers.train import checkpoint
from latentpapers.train.context import Context
from latentpapers.train.distributed import Group
from latentpapers.train.engine import Fit, Task, Update, fit
from latentpapers.train.runs import Networks as States
from latentpapers.train.runs import Progress, Runs, state_of
from latentpapers.train.schedule import Stage, stage_at

# (CPU seconds, MB) of each notebook, measured on one core in a process of its own
EXPECT = {
    "quick/1_derivation": (18, 1000), "quick/2_training": (20, 900), "quick/3_tables": (32, 1200),
    "quick/4_figures": (38, 1300), "quick/5_explore": (13, 1000),
    "cpu/3_tables": (197, 1250), "cpu/4_figures": (77, 1400),
}  # fmt: skip
ALLOWED = {"gpu/2_training": 525, "gpu/3_tables": 45, "gpu/4_figures": 30}  # seconds of 600

# Images of the trainings behind the paper's networks. PGAN: celebaCropped_s5_i83000 of the GAN
# zoo, 48k steps at 4 px, 96k at each of 8 to 64 px, 83k at 128 px, of 16 images. WGAN-GP: 10
# epochs of CelebA (section 4.2). The encoder's training is not described.
BUDGET: dict[str, int | None] = {
    "pgan": (48_000 + 4 * 96_000 + 83_000) * 16,
    "wgan_gp": 10 * 202_599,
    "inverter": None,
}
TITLES = {"pgan": "PGAN", "wgan_gp": "WGAN-GP", "inverter": "Inversion encoder"}


@dataclass(frozen=True)
class Training:
    """One training run: everything that decides its result.

    Attributes:
        method: `pgan`, `wgan_gp`, or `inverter` (an encoder for the generator of `source`).
        data, size, images: training set, pixels a side, images taken of it.
        steps, seconds: updates of each network, and the time limit that may end it sooner.
        fmap_base, fmap_max: PGAN's widths, see `nets.pgan.widths`.
        width: of WGAN-GP's and the encoder's layers.
        latent: Z.
        reading: of PGAN, `zoo` or `nvidia`.
        norm: of WGAN-GP's critic, `batch` or `none`.
        batch, lr, betas: images a step, Adam.
        penalty, drift: weights of the gradient penalty and of the mean square of real scores.
        average: decay of the generator's running average.
        start: pixels of the first level; images of it (`start_images`), of every fade to the next
            level (`fade_images`) and of every grown level (`hold_images`). The last one lasts.
        minority, share: attribute of the data set, and the share of images that have it; "" takes
            the images as they come.
        source: checkpoint of the generator that `inverter` inverts.
        log_every, save_every, precision: of the engine.
        penalty_precision: `bf16` doubles the speed on a CPU; the paper's is fp32.
    """

    method: Literal["pgan", "wgan_gp", "inverter"]
    data: str
    size: int
    images: int
    steps: int
    seconds: float | None = None
    fmap_base: int = 8192
    fmap_max: int = 512
    width: int = 64
    latent: int = 512
    reading: Literal["zoo", "nvidia"] = "zoo"
    norm: Literal["batch", "none"] = "batch"
    batch: int = 16
    lr: float = 1e-3
    betas: tuple[float, float] = (0.0, 0.99)
    penalty: float = 10.0
    drift: float = 1e-3
    average: float = 0.999
    start: int = 4
    start_images: int = 768_000
    fade_images: int = 307_200
    hold_images: int = 1_228_800
    minority: str = ""
    share: float = 0.1
    source: str = ""
    log_every: int = 50
    save_every: int = 500
    precision: Literal["fp32", "bf16"] = "fp32"
    penalty_precision: Literal["fp32", "bf16"] = "fp32"


def recipes(job: Training) -> dict[str, dict[str, Any]]:
    """How `lp.models.build` makes each network of a run."""
    if job.method == "inverter":
        options = {"size": job.size, "latent": job.latent, "width": job.width,
                   "trunk": "resnet18" if job.size >= 256 else "plain"}  # fmt: skip
        return {"encoder": {"net": "inverter.Inverter", "options": options}}
    if job.method == "pgan":
        shared = {"size": job.size, "fmap_base": job.fmap_base, "fmap_max": job.fmap_max,
                  "reading": job.reading}  # fmt: skip
        own: dict[str, Any] = {}
    else:
        shared, own = {"size": job.size, "width": job.width}, {"norm": job.norm}
    return {
        "generator": {
            "net": f"{job.method}.Generator",
            "options": {**shared, "latent": job.latent},
        },
        "critic": {"net": f"{job.method}.Critic", "options": shared | own},
    }


def networks(job: Training, seed: int) -> dict[str, nn.Module]:
    """The networks of a run, initialised from the seed alone."""
    return {
        name: seeded(lambda r=recipe: models.build(r), generator(seed, "init", name))
        for name, recipe in recipes(job).items()
    }


def stages(job: Training) -> tuple[Stage, ...]:
    """The levels of PGAN over the images seen: hold, then fade and hold at every further size.

    Raises:
        UserError: a start that is larger than the images.
    """
    first, last = (size.bit_length() - 2 for size in (job.start, job.size))
    if first > last or job.start < pgan.BOTTOM:
        raise UserError(f"growth starts between 4 and {job.size} pixels, not at {job.start}.")
    out = [Stage(first, job.start_images)]
    for level in range(first + 1, last + 1):
        out += [Stage(level, job.fade_images, fade=True), Stage(level, job.hold_images)]
    return tuple(out)


def shrunk(x: Images, size: int, blend: float = 1.0) -> Images:
    """Real images at the generator's present size, in a fade as blurred as its output.

    Area averages; with `blend` < 1 a mixture with the image averaged once more and enlarged, as
    the generator mixes its two levels.

    Source: Karras et al. 2018, figure 2.
    """
    x = F.avg_pool2d(x, x.shape[-1] // size) if x.shape[-1] > size else x
    if blend >= 1.0 or size <= pgan.BOTTOM:
        return x
    return F.interpolate(F.avg_pool2d(x, 2), scale_factor=2).lerp(x, blend)


class Adversarial(Task):
    """Critic, then generator, each once a step: PGAN and WGAN-GP."""

    def __init__(self, job: Training, seed: int, device: str | torch.device = "cpu") -> None:
        self.job, self.nets = job, networks(job, seed)
        self.ema = {"generator": job.average}
        self.stages = stages(job) if job.method == "pgan" else ()
        self.level, self.blend = 0, 1.0

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            name: torch.optim.Adam(
                net.parameters(), lr=self.job.lr, betas=self.job.betas, foreach=True
            )
            for name, net in self.nets.items()
        }

    def before_step(self, step: int, images: int) -> float:
        if self.stages:
            _, stage, self.blend = stage_at(images, self.stages)
            self.level = stage.level
            for net in self.nets.values():
                net.grow(stage.level, self.blend)
        return 1.0

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        real = self.real(batch)
        like = real.dtype
        with ctx.autocast():
            with torch.no_grad():
                fake = self.nets["generator"](ctx.noise(self.job.latent).to(like))
            scores, scores_fake = self.nets["critic"](real), self.nets["critic"](fake)
        steep = self.penalty(real, fake, ctx)
        drift = scores.square().mean()
        distance = wgan.critic_loss(scores, scores_fake)
        ctx.log(C_real=scores.mean(), C_fake=scores_fake.mean(), W=-distance, penalty=steep,
                drift=drift)  # fmt: skip
        yield {"critic": distance + self.job.penalty * steep + self.job.drift * drift}
        with ctx.autocast():
            fake = self.nets["generator"](ctx.noise(self.job.latent).to(like))
            loss = wgan.generator_loss(self.nets["critic"](fake))
        ctx.log(L_G=loss)
        yield {"generator": loss}

    def real(self, batch: Bytes) -> Images:
        """Training images in [-1, 1], at the size and sharpness of the present level."""
        like = next(self.nets["generator"].parameters())  # fp32; fp64 where a test asks for it
        x = batch.to(like).div(127.5).sub(1)
        if self.stages:
            x = shrunk(x, pgan.BOTTOM << (self.level - 1), self.blend)
        return x.contiguous(memory_format=torch.channels_last)

    def penalty(self, real: Images, fake: Images, ctx: Context) -> Tensor:
        """The gradient penalty of WGAN-GP, on a mixture of each real image with a fake one.

        The minibatch standard deviation makes an image's score depend on its neighbours; as in the
        public code, the slope is that of the sum of all scores.
        """
        critic: Callable[[Images], PerImage] = self.nets["critic"]
        if self.job.penalty_precision == "bf16":

            def critic(x: Images) -> PerImage:
                with torch.autocast(x.device.type, torch.bfloat16):
                    return self.nets["critic"](x)

        return wgan.gradient_penalty(critic, real, fake, ctx.uniform().to(real.dtype))

    def after_step(self, terms: dict[str, Tensor]) -> None:
        if self.stages and terms:
            like = next(iter(terms.values()))
            terms["pixels"] = like.new_tensor(float(pgan.BOTTOM << (self.level - 1)))
            terms["blend"] = like.new_tensor(self.blend)


class Inversion(Task):
    """The encoder that starts an inversion: image -> latent on the sphere.

    The generator is frozen, images are its own, so no data are needed: each is drawn from a fresh
    latent, and both the latent and the image are to come back. Section 4.1 names the procedure and
    gives no loss; this is our reading of it.
    """

    def __init__(self, job: Training, seed: int, device: str | torch.device = "cpu") -> None:
        self.job, self.nets, self.ema = job, networks(job, seed), {}
        if not job.source:
            raise UserError(
                "an inversion encoder needs the generator it inverts: --set source=FILE, a "
                "checkpoint in the form of `latentpapers.models`."
            )
        path = Path(job.source)
        self.frozen = models.load(path if path.suffix else job.source)["generator"].to(device)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parameters = self.nets["encoder"].parameters()
        return {"encoder": torch.optim.Adam(parameters, lr=self.job.lr, foreach=True)}

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        z = pixel_norm(ctx.noise(self.job.latent))
        with ctx.autocast():
            with torch.no_grad():
                x = self.frozen(z)
            found = self.nets["encoder"](x)
            again = self.frozen(found)
        terms = {"L_z": (found - z).square().mean(), "L_x": (again - x).abs().mean()}
        ctx.log(**terms)
        yield {"encoder": terms["L_z"] + terms["L_x"]}


@dataclass(frozen=True)
class Limit:
    """How long the searches of a run may take, where a preset trains and searches its own.

    Attributes:
        seconds: of wall clock for the starts of a headline (`HEADLINES`); the others get their
            share of it and of the starts. None: as long as it takes, all starts for every run.
        edited: starts that are searched again with the attribute added, and subtracted; whoever
            has it is searched, too.
    """

    seconds: float | None = None
    edited: int = 40


@dataclass(frozen=True)
class Preset:
    """One column of the preset table.

    Attributes:
        training: runs by checkpoint name, the same in every preset: `faces_pgan` (the paper's
            CelebA), `cats_pgan` (a second domain, as its churches), `drawn_pgan` (who is the
            majority?), `faces_wgan_gp`, `cifar_pgan` (data without common structure). In quick,
            training only proves itself (`proof`) and the names are shipped checkpoints, made by
            `SHIPPED`.
        seeds: training seeds behind the tables.
        n_score: generated images behind each distribution score of Table 1; as many starts are
            searched, as far as `limit` lets them.
        n_latents: latents that are inverted and walked for the other numbers.
        examples: images in a figure's row.
        search: readings, weights and schedules of the latent searches, for PGAN; `wgan_gp` for
            the critic without a minibatch statistic.
        sigmas, pushes: weights of eq 8 and steps along the boundary that Table 1 tries.
        n_labels: labelled images behind the boundary, half of them to check it.
        splits: random halves of the protocol that chooses on one and reports on the other.
        curved: runs whose learning curve is measured on the way.
        limit: of the searches that notebook 2 makes, for every training seed.
    """

    training: dict[str, Training] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    n_score: int = 512
    n_latents: int = 16
    examples: int = 8
    search: method.Search = field(default_factory=method.Search)
    wgan_gp: method.Search = field(default_factory=lambda: method.SEARCHES["wgan_gp"])
    sigmas: tuple[float, ...] = (0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
    pushes: tuple[float, ...] = boundary.STEPS
    n_labels: int = 4000
    splits: int = 8
    curved: tuple[str, ...] = ()
    limit: Limit = field(default_factory=Limit)


_SMALL = {"fmap_base": 1024, "fmap_max": 64, "precision": "bf16", "penalty_precision": "bf16",
          "size": 32, "start": 8, "start_images": 12_000, "fade_images": 12_000,
          "hold_images": 12_000, "average": 0.99}  # fmt: skip

_SHORTER = {**_SMALL, "start_images": 6_000, "fade_images": 8_000, "hold_images": 6_000}

# How the shipped checkpoints were trained, on a CPU core; `latentpapers train diamond --run NAME`.
# What the time allowed is in their cards: one to five percent of the paper's budget.
SHIPPED: dict[str, Training] = {
    "faces_pgan": Training("pgan", "faces-dcgan", images=16_000, steps=23_500, **_SMALL),
    "drawn_pgan": Training(
        "pgan", "drawn-faces", images=10_000, steps=8_000, minority="hat", **_SHORTER
    ),
    "faces_wgan_gp": Training(
        "wgan_gp", "faces-dcgan", size=32, images=16_000, steps=6_000, width=20, latent=256,
        norm="none", lr=5e-4, betas=(0.5, 0.999), average=0.99, precision="bf16",
        penalty_precision="bf16",
    ),
    "cats_pgan": Training(
        "pgan", "cats", images=4_618, steps=8_000, latent=128,
        **{**_SMALL, "fmap_base": 768, "fmap_max": 48, "average": 0.998,
           "start_images": 16_000, "fade_images": 16_000, "hold_images": 24_000},
    ),
    # what the paper calls extremely unstructured data; half the width, for it ships in 8 bits
    "cifar_pgan": Training(
        "pgan", "cifar10-jpeg", images=50_000, steps=8_000, latent=128,
        **{**_SHORTER, "fmap_base": 512, "fmap_max": 32, "average": 0.998},
    ),
}  # fmt: skip

# Section 4.1: the start of the inversion on churches. No preset trains it, for none makes the
# generator that it inverts.
ENCODERS: dict[str, Training] = {
    "church_encoder": Training(
        "inverter", "lsun-church", size=256, images=0, steps=100_000, width=512
    ),
}

# Networks that a shipped file keeps; the paper takes the generator as trained, not its average.
KEPT: dict[str, tuple[str, ...]] = {
    "faces_pgan": ("generator", "generator_raw", "critic"),
    "drawn_pgan": ("generator_raw", "critic"),  # nothing here shows its average
    "faces_wgan_gp": ("generator", "critic"),
    "cats_pgan": ("generator", "critic"),  # its file is to stay below a megabyte
    "cifar_pgan": ("generator", "critic"),
}

# 64, 128, 256, 256, 256 channels at 64 to 4 px; images a phase for a run of 180 s, and of 45 s
_GPU = {"size": 64, "fmap_base": 2048, "fmap_max": 256, "batch": 64, "precision": "bf16",
        "steps": 1_000_000, "start": 8, "log_every": 100, "save_every": 2000}  # fmt: skip
_PHASES = {"start_images": 50_000, "fade_images": 50_000, "hold_images": 50_000}
_SHORT = {name: images // 4 for name, images in _PHASES.items()}
_PAPER_WGAN_GP = {"lr": 2e-4, "betas": (0.5, 0.999)}

_QUICK = Preset(
    training={
        "proof": Training(
            "pgan", "faces-dcgan", size=16, images=192, steps=48, fmap_base=128, fmap_max=16,
            latent=32, start_images=128, fade_images=128, hold_images=128, log_every=2,
        )
    },
    n_score=32, n_latents=40, pushes=(0.5, 1.0, 2.0, 5.0), n_labels=120, splits=3,
)  # fmt: skip

PRESETS: dict[str, Preset] = {
    "quick": _QUICK,
    # As many starts as half an hour of one core found (`--search NAME --n N --small`): ten times
    # quick's for the distances of faces, and 240 of drawn faces, which can tell a share of 3 % from
    # none. A boundary in 512 dimensions needs more labels than dimensions.
    "cpu": dataclasses.replace(
        _QUICK, n_score=320, n_latents=320, pushes=boundary.STEPS, n_labels=4000, splits=8
    ),
    # 600 s a seed: 320 of training (2 x 120, 2 x 30, 20), 205 of searches by notebook 2 (2 x 72,
    # 36, 18, 7, whole parts by the clock; seconds a latent: `ci/benchmark_gpu.py`), the rest for
    # tables and figures. 16 MB a latent are kept for the backward pass of the inversion, so that
    # 360 at once need 5.8 GB of 8; the figures' intervals do with 400 starts.
    "gpu": Preset(
        training={
            "faces_pgan": Training(
                "pgan", "faces-dcgan", images=50_000, seconds=120.0, **_GPU, **_PHASES
            ),
            "cats_pgan": Training("pgan", "cats", images=4_618, seconds=120.0, **_GPU, **_PHASES),
            "drawn_pgan": Training(
                "pgan", "drawn-faces", images=10_000, seconds=30.0, minority="hat", **_GPU, **_SHORT
            ),
            "faces_wgan_gp": Training(
                "wgan_gp", "faces-dcgan", size=64, images=50_000, steps=1_000_000, seconds=30.0,
                norm="none", batch=64, precision="bf16", log_every=100, save_every=2000,
                **_PAPER_WGAN_GP,
            ),
            "cifar_pgan": Training(
                "pgan", "cifar10-jpeg", images=50_000, seconds=20.0, latent=128,
                **{**_GPU, "size": 32, "fmap_base": 1024, "fmap_max": 128}, **_SHORT,
            ),
        },
        n_score=2000, n_latents=400, splits=4, curved=("faces_pgan",),
        search=method.Search(chunk=360),
        wgan_gp=dataclasses.replace(method.SEARCHES["wgan_gp"], chunk=360),
        limit=Limit(72.0),
    ),
    # CelebA alone (its official training images; the budgets count all 202,599): the networks of
    # the other rows of Table 1 are files of others, and no training here makes them: `weights`
    # loads PGAN of CelebA-HQ at 256 and 512 px and converts NVIDIA's (church, train, 1024 px). The
    # church encoder needs the generator it inverts: `latentpapers train diamond --run
    # church_encoder --set source=FILE`, with a converted church PGAN as FILE.
    "paper": Preset(
        training={
            "faces_pgan": Training("pgan", "celeba-pgan", size=128, images=162_770, steps=515_000),
            "faces_wgan_gp": Training(
                "wgan_gp", "celeba-pgan", size=64, images=162_770, steps=126_624, **_PAPER_WGAN_GP
            ),
        },
        n_score=10_000, n_latents=1000,
        search=method.Search(chunk=40),  # 128 MB a latent for the backward pass: fits into 8 GB
    ),
}  # fmt: skip


def task(job: Training, seed: int, device: str | torch.device = "cpu") -> Any:
    """The engine's task of a run."""
    return (Inversion if job.method == "inverter" else Adversarial)(job, seed, device)


def pixels(job: Training) -> Bytes:
    """The training images of a run, (images, C, size, size).

    With `minority` set the first images with that attribute and the first without it, in the
    wanted proportion, are taken; their order does not matter, training shuffles.

    Raises:
        UserError: the data set cannot give that many of either kind, or has no such attribute.
    """
    if job.method == "inverter":  # it draws its own images; the engine still wants some
        return torch.zeros(job.batch, 3, 1, 1, dtype=torch.uint8)
    if not job.minority:
        return data.load(job.data, size=job.size, split="train", n=job.images).pixels
    pool = data.load(job.data, size=job.size, split="train", n=2 * job.images)
    if job.minority not in pool.attribute_names or pool.attributes is None:
        raise UserError(f"data set {job.data!r} has no attribute {job.minority!r}.")
    has = pool.attributes[:, pool.attribute_names.index(job.minority)]
    wanted = round(job.share * job.images)
    few, many = has.nonzero().flatten()[:wanted], (~has).nonzero().flatten()[: job.images - wanted]
    if len(few) + len(many) < job.images:
        raise UserError(f"{job.data!r} has too few images for {job.share:.0%} {job.minority!r}.")
    return pool.pixels[torch.cat((few, many)).sort().values]


def _fit(
    job: Training, seed: int, path: Path, device: str, group: Group | None,
    progress: Progress | None,
) -> None:  # fmt: skip
    plan = Fit(
        steps=job.steps, batch=job.batch, seconds=job.seconds, log_every=job.log_every,
        save_every=job.save_every, flip=job.data not in ("digits", "drawn-faces"),
        precision=job.precision,
    )  # fmt: skip
    fit(task(job, seed, device), pixels(job), plan, seed=seed, config=job, path=state_of(path),
        device=device, group=group, progress=progress)  # fmt: skip


def _networks(state: Path) -> States:
    """`generator` is the running average; `generator_raw` the network as trained, which the paper
    takes."""
    nets = checkpoint.networks(state)
    if "generator" in nets:
        nets["generator_raw"] = checkpoint.load(state)["nets"]["generator"]
    return nets


def _recipe(job: Training, name: str) -> dict[str, Any]:
    return recipes(job)[name.removesuffix("_raw")]


def _card(job: Training, path: Path, images: int, nets: States) -> dict[str, Any]:
    total = BUDGET[job.method]
    title = f"{TITLES[job.method]} on {job.data}, {job.size} px"
    return {"title": title, "budget": images / total if total else None}


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


def supervised(
    searched: Pair, look: Callable[[Images], Features], real: Features, n: int, seed: int,
    *, device: str = "cpu",
) -> tuple[Float[Tensor, "Z"], float]:  # fmt: skip
    """Our boundary in place of the one of [30], and how well it orders other codes.

    The label is automatic: of `n` generated images the half that is nearer to real ones is good.

    Args:
        searched: whose images are labelled.
        look: images on [-1, 1] -> features; `real` are those of real images.
        n, seed: labels, of which one half teaches and the other is ordered; their stream.
        device: where codes are.
    """
    z = starting_points(n, searched.latent, generator(seed, "labels"), device=device)
    far = walks.realism(look(searched.images(z)), real)
    good, half = (far < far.median()).to(device), n // 2
    normal = boundary.normal(z[:half], good[:half], cost=1e-3)
    return normal, boundary.accuracy(z[half:], good[half:], normal)


# 300 steps of 0.02: enough to reach either end of [0, 1] many times over
FREE = Plan(0.02, 300, 0, 0.0)


def search(
    model: models.Model, how: method.Search, n: int, seed: int, *, device: str = "cpu",
    extras: int = 20, seconds: float | None = None, part: int | None = None,
) -> found.Found:  # fmt: skip
    """Inversion, protoimage and weight of `n` starts from the stream `search` of the seed.

    Networks run in bfloat16; the codes stay in single precision. `extra` holds, for the first
    `extras` starts, what claims about the settings need: weights without bounds, pulled to 0
    (`free`) or raised (`highest`), and for WGAN-GP the protoimages of eq 6 alone
    (`without_spreads`).

    Args:
        model, how, n, seed, device: of the search.
        extras: starts of `extra`; 0 for none.
        seconds: of wall clock: a further part begins only if one as slow as the last would end in
            time, so fewer than `n` starts may come back, but at least one part.
        part: starts of a part, which changes no result; all where there is no limit.
    """
    began, done, g = time.perf_counter(), [], generator(seed, "search")
    searched = pair(model, dtype=torch.bfloat16)
    z0, candidates = (z.to(device) for z in method.starts(n, searched, how, g))
    for rows in z0.split(part or n):
        last = time.perf_counter()
        result = method.search(searched, rows, candidates, how)
        if extras and not done:
            extra = _extras(searched, result.first(extras), how)
            result = dataclasses.replace(result, extra=extra)
        done.append(result)
        float(result.sigma.sum())  # waits for the device, so that the clock is right
        now = time.perf_counter()
        if seconds is not None and 2 * now - last - began > seconds:
            break
    return found.joined(done)


def _extras(searched: Pair, few: found.Found, how: method.Search) -> dict[str, Tensor]:
    """The first starts under the other settings that claims compare."""
    extra, size = {}, {"batch": how.batch, "chunk": how.chunk}
    free = dataclasses.replace(how.sigma, start=0.5, low=0.0, high=1.0, descent=FREE)
    for name, aim in (("free", "target"), ("highest", "highest")):
        sought = dataclasses.replace(free, aim=aim)
        extra[name] = walk.weights(searched, few.z0, few.zp, sought, **size).variable
    if how.proto.cosine_spread or how.proto.score_spread:
        plain = dataclasses.replace(how.proto, score_spread=0.0, cosine_spread=0.0)
        found_plain = walk.protoimages(searched, few.z0, few.z1, plain, **size)
        extra["without_spreads"] = found_plain.variable
    return extra


def shows(images: Images, attribute: str) -> PerImage:
    """1 for each drawing in which the judge, who looks at 32 px, sees the attribute; on the CPU."""
    images = images.clamp(-1, 1).cpu()
    if images.shape[-1] > 32:
        images = data.downscale((images + 1) / 2, images.shape[-1] // 32, kernel="average") * 2 - 1
    return (drawn_judge.probability(images.clamp(-1, 1), attribute) > 0.5).double()


def attribute_vector(
    model: models.Model, seed: int, *, n: int = 2000, device: str = "cpu"
) -> Float[Tensor, "Z"] | None:
    """Mean latent of `n` generated drawings with the minority's attribute minus that of those
    without it (appendix E), or None where all or none of them have it."""
    z = project(latents(n, seed + 1, pair(model).latent)).to(device)
    has = shows(pair(model).images(z), model.card["config"]["minority"]).bool().to(device)
    some = bool(has.any()) and not bool(has.all())
    return attributes.mean_difference(z, has) if some else None


# Errata of the search whose other reading can be run: what it sets, the rest being as coded. Those
# of the networks are options of `pair`; `diamond-e21` aims at a measured score (`search_again`).
SINGLE: dict[str, dict[str, Any]] = {
    "e1": {"inversion.reading": "paper", "inversion.shell": "code"},
    "e2": {"inversion.descent.rate": 0.01, "inversion.descent.decay_every": 0},
    "e3": {"inversion.shell": "paper"},
    "e5": {},
    "e6": {"inversion.statistic": "alone"},
    "e8": {},
    "e9": {"proto.step": "paper"},
    "e10": {"proto.start": "forward"},
    "e11": {"proto.descent.stop": "below", "proto.descent.tolerance": 1e-3},
    "e12": {"proto.cosine": "absolute"},
    "e20": {"sigma.start": 0.7, "sigma.low": 0.0, "sigma.high": 1.0},
    "e21": {},
    "e36": {"batch": 10},
}
OF_NETWORKS: dict[str, dict[str, Any]] = {"e5": {"layer": "map"}, "e8": {"average": True}}


def search_again(
    model: models.Model, first: found.Found, candidates: Codes, how: method.Search, name: str
) -> found.Found:
    """The search of the same starts with one reading in the other position (`SINGLE`). Stages
    before the one that it concerns are taken from `first`.

    Args:
        model: the network, a PGAN.
        first, candidates, how: the first starts of a search, its random candidates, its settings.
        name: of the erratum, for example `e9`.

    Raises:
        Missing: `e21` needs real images.
    """
    own = dict(SINGLE[name])
    if name == "e21":  # the middle of the scores of real images and of the starts' images
        own["sigma.target"] = middle_score(model, first.z0)
    searched = pair(model, dtype=torch.bfloat16, **OF_NETWORKS.get(name, {}))
    stage = next((word.partition(".")[0] for word in own), "inversion")
    z1 = first.z1 if stage in ("proto", "sigma") else None
    zp = first.zp if stage == "sigma" else None
    return method.search(searched, first.z0, candidates, config.resolve(how, own), z1=z1, zp=zp)


def middle_score(model: models.Model, z0: Codes) -> float:
    """Half way between the critic's mean scores of a network's training images and of the images of
    `z0`, judged in groups of four, as many of either.

    Raises:
        Missing: no training images.
    """
    job, both = model.card["config"], pair(model)
    images = data.load(job["data"], size=job["size"], split="train", n=len(z0)).pixels
    made = (data.to_float(images).to(z0), both.images(z0))
    return sum(float(both.scores(x, group=4).mean()) for x in made) / 2


# Who gets the whole of `Limit.seconds` and of the starts; of the others, which part of either.
# Drawn faces are searched twice, as they are and with their attribute changed.
HEADLINES = ("faces_pgan", "cats_pgan")
PARTS = {"drawn_pgan": (4, 2), "faces_wgan_gp": (4, 4), "cifar_pgan": (10, 10)}
FEWEST = 16  # starts: two for each group of the tables' jackknife
EXTRAS = ("faces_pgan", "faces_wgan_gp")  # whose other settings claims compare


def share_of(preset: Preset, name: str) -> tuple[int, float | None]:
    """(starts, seconds) of the search of a run; without a limit all starts for every run."""
    if preset.limit.seconds is None or name in HEADLINES:
        return preset.n_score, preset.limit.seconds
    starts, seconds = PARTS[name]
    return max(preset.n_score // starts, FEWEST), preset.limit.seconds / seconds


def search_run(
    preset: Preset, name: str, checkpoint: Path, seed: int, *, device: str = "cpu"
) -> found.Found:
    """Searches the latents of a network that a preset trained, and keeps what it finds beside it
    (`NAME_search.safetensors`; of edited starts `NAME_edited.safetensors`), so that the tables and
    the figures read one search. A file of this very network and these settings is not made again.

    Args:
        preset: its search settings, numbers of starts and `limit`.
        name, checkpoint, seed: the run, its file, its training seed.
        device: where networks run.
    """
    model, (n, seconds) = models.load(checkpoint, device=device), share_of(preset, name)
    how = preset.wgan_gp if model.card["config"]["method"] == "wgan_gp" else preset.search
    card = {"title": f"Search of latents, {model.card['title']}", "network": name, "n_wanted": n,
            "images": model.card["images"], "search": config.as_dict(how), "seed": seed,
            "limit": config.as_dict(preset.limit)}  # fmt: skip
    path, wanted = run_file(checkpoint, "search"), config.as_dict(card)
    if path.is_file() and {k: tensorfile.header(path).get(k) for k in wanted} == wanted:
        return found.load(path)[0]
    began = time.perf_counter()
    # a whole part must fit into a share of the time; a third of a chunk still fills a GPU
    part = None if seconds is None else how.chunk if name in HEADLINES else max(how.chunk // 3, 1)
    extras = 40 if name in EXTRAS else 0
    if model.card["config"]["minority"]:
        _edit_run(model, how, preset, checkpoint, seed, device)
    left = None if seconds is None else seconds - (time.perf_counter() - began)
    result = search(model, how, n, seed, device=device, extras=extras, seconds=left, part=part)
    found.save(path, result, card | {"n": len(result.z0), "seconds": time.perf_counter() - began})
    return found.load(path)[0]


def _edit_run(
    model: models.Model, how: method.Search, preset: Preset, checkpoint: Path, seed: int,
    device: str,
) -> None:  # fmt: skip
    file, n = run_file(checkpoint, "edited"), share_of(preset, checkpoint.stem)[0]
    direction = attribute_vector(model, seed, device=device)
    if direction is None:  # a young generator may never draw the attribute
        file.unlink(missing_ok=True)
        return
    z0 = method.starts(n, pair(model), how, generator(seed, "search"))[0].to(device)
    z0 = z0[: preset.n_latents]
    both = edited_rows(model, z0, preset.limit.edited, preset.limit.edited)
    edited = search_edited(model, how, z0, direction, *both, seed)
    card = {"title": f"Search of edited latents, {model.card['title']}", "n": len(edited.rows)}
    found.save_edited(file, edited, card)


def edited_rows(
    model: models.Model, z0: Codes, added: int, subtracted: int
) -> tuple[list[int], list[int]]:
    """Rows of the starts that are edited: the first ones, and whoever has the attribute."""
    has = shows(pair(model).images(z0), model.card["config"]["minority"])
    who = has.nonzero().flatten().tolist()
    both = [sorted({*range(min(n, len(z0))), *who}) for n in (added, subtracted)]
    return both[0], both[1]


def run_file(checkpoint: Path, what: str) -> Path:
    """Beside a run's checkpoint: its `search`, or that of `edited` starts."""
    return checkpoint.with_name(f"{checkpoint.stem}_{what}.safetensors")


def search_edited(
    model: models.Model, how: method.Search, z0: Codes, direction: Float[Tensor, "Z"],
    added: list[int], subtracted: list[int], seed: int,
) -> found.Edited:  # fmt: skip
    """The whole method *from edited starts*: the attribute first, then inversion, protoimage and
    weight of what came of it (appendix E: "applying our method on the resulting images").

    Args:
        model, how: as in `search`.
        z0: (N, Z) the starts, on the networks' device.
        direction: (Z,) the attribute's vector.
        added, subtracted: rows of `z0` to which it is added, from which it is subtracted.
        seed: of the inversion's random candidates.
    """
    searched, parts = pair(model, dtype=torch.bfloat16), []
    candidates = starting_points(how.inversion.candidates, searched.latent,
                                 generator(seed, "edited"), reading="paper").to(z0)  # fmt: skip
    for sign, chosen in ((1.0, added), (-1.0, subtracted)):
        if not chosen:
            continue
        rows = torch.tensor(chosen, device=z0.device)
        edited = project(z0[rows] + sign * direction)
        got = method.search(searched, edited, candidates, how)
        parts.append((rows, torch.full_like(got.sigma, sign), got.zp, got.sigma))
    return found.Edited(*(torch.cat(column) for column in zip(*parts)), direction)


def walk_of_weights(
    name: str, how: method.Search, n: int, seed: int, *, device: str, steps: int = 9
) -> list[Images]:
    """Section 3.2's walk of `n` starts with public weights, for figures at 512 px and more.

    Args:
        name: of `weights`, for example `pgan_celebahq512`.
        how: its inversion and batch are used, alpha as tuned for that data set (`method.TUNED`).
        device: of more than 128 px not the CPU, where one start would take an hour.

    Returns:
        The images (n, 3, S, S) of each step.

    Raises:
        Missing: the weights are not here. UserError: no GPU.
    """
    nets = weights.network(name)
    if torch.device(device).type == "cpu" and nets["generator_raw"].size > 128:
        raise UserError(f"a walk with {name!r} needs a GPU.")
    nets, tuned = nets.to(device), name.removeprefix("pgan_")
    how = method.tuned(how, tuned) if tuned in method.TUNED["code"] else how
    far = of_networks(nets["generator_raw"], nets["critic"], dtype=torch.bfloat16)
    return _walked(far, how, n, generator(seed, name), device, steps)


def _walked(
    far: Pair, how: method.Search, n: int, g: torch.Generator, device: str, steps: int
) -> list[Images]:
    """Inversion and walk, few images at once."""
    z0, candidates = (z.to(device) for z in method.starts(n, far, how, g))
    size = {"batch": how.batch, "chunk": how.chunk}
    x0 = far.images(z0, block=4)
    z1 = inversion.invert(far, x0, candidates, how.inversion, **size).variable
    return [far.images(z, block=4) for z in walk.walk(z0, z1, steps)]


def biggan_row(
    how: method.Search, seed: int, *, device: str, label: int = 963, steps: int = 7
) -> list[tuple[str, Images | str]]:
    """Figure 4's rows of BigGAN, (label, images), and of [30]; without files or GPU the reason.

    As in the authors' code, BigGAN is only walked (diamond-e34): original, recovered image and the
    steps after it, of one class of ImageNet.

    Args:
        how: its inversion is used, alpha as for BigGAN (`method.TUNED`).
        seed, device: of the start, and where it is searched.
        label: class; 963 is the authors' default.
        steps: of the walk, the inversion included.
    """
    absent = ("[30] on CelebA-HQ", "needs PGAN weights at 1024 px and the published boundary")
    try:
        nets = [weights.network(f"biggan128_{part}") for part in ("generator", "discriminator")]
    except Missing:
        return [("BigGAN", "needs its public files, G_ema.pth and D.pth"), absent]
    if torch.device(device).type == "cpu":
        return [("BigGAN", "needs a GPU"), absent]
    far = of_networks(*(OfClass(net, label).to(device) for net in nets), dtype=torch.bfloat16)
    how = method.tuned(how, "biggan")
    x = _walked(far, how, 1, generator(seed, "biggan"), device, steps)
    return [(f"BigGAN, class {label}", torch.cat(x).clamp(-1, 1)), absent]


def searches(name: str, seed: int = 0, *, many: bool = False) -> Path:
    """Where the search results of a shipped checkpoint are: `searches/NAME_sSEED.safetensors`,
    some dozens of starts, and `searches/NAME_many_sSEED.safetensors`, some hundreds in the small
    form (`latent.found`)."""
    stem = f"{name}_many_s{seed}" if many else f"{name}_s{seed}"
    return paths.checkpoints() / "diamond" / "searches" / f"{stem}.safetensors"


def edited_file(name: str, seed: int = 0) -> Path:
    """Where the search from edited starts of a shipped checkpoint is."""
    return searches(name, seed).with_name(f"{name}_edited_s{seed}.safetensors")


def dozens(name: str, seed: int = 0) -> tuple[found.Found, dict[str, Any]]:
    """The shipped search of some dozens of starts, which are drawn again, and its card.

    Raises:
        Missing: none is shipped of that network.
    """
    path = searches(name, seed)
    return found.load(path, _starts_of(tensorfile.header(path)))


def readings(name: str, seed: int = 0) -> dict[str, found.Found]:
    """Shipped searches with one reading each in the other position, by erratum (`SINGLE`): of the
    first starts of `dozens`.

    Raises:
        Missing: none are shipped of that network.
    """
    path = searches(name, seed).with_name(f"{name}_readings_s{seed}.safetensors")
    return found.load_readings(path, dozens(name, seed)[0].first(tensorfile.header(path)["n"]))


def shipped_search(name: str, n: int, seed: int = 0) -> found.Found:
    """The first `n` results of a shipped search: of the file of dozens where that has as many, else
    of the file of hundreds; fewer where neither has as many.

    Raises:
        Missing: no search of that network is shipped.
    """
    few, many = searches(name, seed), searches(name, seed, many=True)
    if not many.is_file() or (few.is_file() and tensorfile.header(few)["n"] >= n):
        return dozens(name, seed)[0].first(n)
    return found.load_small(many, _starts_of(tensorfile.header(many)))[0].first(n)


def printed_search(name: str, seed: int = 0) -> found.Found:
    """A shipped search with every setting as the paper prints it, but for the starts, which are on
    the sphere (`method.SEARCHES`).

    Raises:
        Missing: none is shipped of that network.
    """
    path = searches(name, seed).with_name(f"{name}_paper_s{seed}.safetensors")
    return found.load_small(path, _starts_of(tensorfile.header(path)))[0]


def _starts_of(card: dict[str, Any]) -> Codes:
    """The starts of a search, drawn again from its card."""
    g = generator(card["seed"], "search")
    return starting_points(card["n"], card["latent"], g, reading=card["search"]["start"])


def eyes(device: str = "cpu") -> nn.Module:
    """The stand-in that looks at many small images: EfficientNet-Lite0, its normalisations folded,
    images enlarged to 64 px (its own 224 would cost twelve times as much)."""
    net = folded(weights.network("efficientnetlite0")).to(device)
    net.size = 64
    return net


@torch.no_grad()
def seen(net: nn.Module, images: Images, *, block: int = 32) -> Features:
    """Pooled features, on the CPU, of images on [-1, 1], which are clamped.

    Args:
        net: of images on [0, 1], for example `eyes()`.
        block: images at once.
    """
    like = next(net.parameters())
    return torch.cat([net((p.to(like).clamp(-1, 1) + 1) / 2).cpu() for p in images.split(block)])


def least_of_all(scores: list[Score]) -> Score:
    """The least value, the least lower and the least upper end of several intervals, for a claim
    about *all* of them: it lies above a limit only if every one does, below it if any one does.

    Args:
        scores: with intervals, at least one.
    """
    ends = [min(getattr(s, name) for s in scores) for name in ("value", "low", "high")]
    return Score(*ends, min(s.n for s in scores), f"least of {len(scores)} pairs, end by end; each "
                 f"a {scores[0].method}")  # fmt: skip


def measured(
    job: Training, path: Path, *, device: str = "cpu", n: int = 256
) -> dict[str, Score]:  # fmt: skip
    """What a learning curve shows: the Frechet distance of `n` draws from four times as many
    held-out images, on the stand-in's features, with a jackknife over draws. A network that is
    still growing draws at its present size.

    Args:
        job, path: the run as far as it came, and its checkpoint.
        device: where networks run.
        n: draws. Distances of other numbers of images cannot be compared.
    """
    model = models.load(path, device=device)
    net = "generator" if "generator" in model.parts else "generator_raw"
    if job.method == "pgan":
        _, stage, blend = stage_at(model.card["images"], stages(job))
        model[net].grow(stage.level, blend)
    x = sample(model, n, 0, net=net)
    held = data.load(job.data, size=job.size, split="test", n=4 * n).pixels
    net = eyes(device)
    real, made = seen(net, data.to_float(held)), seen(net, F.interpolate(x, job.size))
    sets = walks.Sets(("draws",), *walks.principal(made[None], real))
    return {"fd_efficientnetlite0_small": walks.jackknife(n, sets.distances)[0]}


def real_file(name: str, size: int) -> Path:
    """Where the projected features of a data set's real images are, if that cannot ship."""
    return paths.checkpoints() / "diamond" / "real" / f"{name}_{size}.safetensors"


def real(job: dict[str, Any], n: int, net: nn.Module, *, shipped: bool) -> Features:
    """Projected features (`metrics.projected`) of the first `n` training images of a network.

    Args:
        job: `config` of its card.
        n: images; a file may have fewer.
        net: `eyes()`, which looked at those in the file too.
        shipped: read the file, where there is one: the same result with and without the images.

    Raises:
        Missing: neither a file nor the images.
    """
    file = real_file(job["data"], job["size"])
    if shipped and file.is_file():
        return projected.load(file)[0][:n]
    images = data.load(job["data"], size=job["size"], split="train", n=min(n, job["images"]))
    return projected.project(seen(net, data.to_float(images.pixels)))


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


RUNS = Runs(
    "diamond", Training, _fit, _card, _recipe,
    {"shipped": SHIPPED | ENCODERS,
     **{name: preset.training for name, preset in PRESETS.items()}}, KEPT,
    eight=frozenset({"cifar_pgan"}), networks=_networks, measure=measured,
)  # fmt: skip
train, export = RUNS.train, RUNS.export


def train_from_cli(arguments: list[str]) -> int:
    """`Runs.train_from_cli`; `--search NAME --n N [--small] --out FOLDER` searches the latents of a
    shipped network, `--readings NAME --out FOLDER` those of its first starts with one reading
    each in the other position, `--edited NAME --out FOLDER` those of its starts with the attribute
    added and subtracted, `--pack cats_pgan --out FOLDER` draws the set `cats-generated`, `--real
    NAME --n N --out FOLDER` keeps projected features of the images that a shipped run trains on."""
    named = {word.partition("=")[0] for word in arguments}
    if "--edited" in named:
        return _edited_from_cli(arguments)
    if "--readings" in named:
        return _readings_from_cli(arguments)
    if "--pack" in named:
        return _pack_from_cli(arguments)
    if "--real" in named:
        return _real_from_cli(arguments)
    return _search_from_cli(arguments) if "--search" in named else RUNS.train_from_cli(arguments)


def _pack_from_cli(arguments: list[str]) -> int:
    import argparse

    from latentpapers.data import cats_generated

    parser = argparse.ArgumentParser("latentpapers train diamond", allow_abbrev=False)
    parser.add_argument("--pack", required=True, choices=["cats_pgan"], help="who draws")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    model = models.load(f"diamond/{args.pack}_s0")
    drawn = {
        split: data.to_bytes(sample(model, n, cats_generated.SEEDS[split]))
        for split, n in cats_generated.SHIPPED.items()
    }
    source = f"diamond/{args.pack}_s0, {model.card['title']}, {model.card['images']:,} images seen"
    print(cats_generated.write(drawn, args.out, source).name, flush=True)
    return 0


def _real_from_cli(arguments: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("latentpapers train diamond", allow_abbrev=False)
    parser.add_argument("--real", required=True, choices=[*SHIPPED], help="whose training images")
    parser.add_argument("--n", type=int, default=240)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    job = config.as_dict(SHIPPED[args.real])
    rows = real(job, args.n, eyes(), shipped=False)
    card = {"data": job["data"], "size": job["size"], "n": len(rows), "split": "train",
            "network": "efficientnetlite0 at 64 px"}  # fmt: skip
    path = args.out / real_file(job["data"], job["size"]).name
    projected.save(path, rows, card)
    print(f"{path.name}: features of {len(rows)} images", flush=True)
    return 0


def _edited_from_cli(arguments: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("latentpapers train diamond", allow_abbrev=False)
    parser.add_argument("--edited", required=True, metavar="NAME", help="of a shipped search")
    parser.add_argument("--n", type=int, default=40, help="first starts that get the attribute")
    parser.add_argument("--subtract", type=int, default=8, help="first starts that lose it")
    parser.add_argument("--of", type=int, default=240, help="whoever has it among so many, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    name, seed, preset = args.edited, args.seed, PRESETS["quick"]
    model, start = models.load(f"diamond/{name}_s{seed}"), time.perf_counter()
    z0, direction = shipped_search(name, args.of, seed).z0, attribute_vector(model, seed)
    if direction is None:
        raise UserError(f"{name} draws nothing with, or nothing without, the attribute.")
    both = edited_rows(model, z0, args.n, args.subtract)
    direction = direction.half().float()  # as it is kept
    edited = search_edited(model, preset.search, z0, direction, *both, seed)
    card = {
        "title": f"Search of {len(edited.rows)} edited latents, {model.card['title']}",
        "network": f"{name}_s{seed}", "images": model.card["images"], "n": len(edited.rows),
        "search": config.as_dict(preset.search), "seed": seed, "of": len(z0),
        "latent": len(direction), "seconds": time.perf_counter() - start,
    }  # fmt: skip
    found.save_edited(args.out / edited_file(name, seed).name, edited, card)
    print(f"{card['title']}: {card['seconds']:.0f} s", flush=True)
    return 0


def _readings_from_cli(arguments: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("latentpapers train diamond", allow_abbrev=False)
    parser.add_argument("--readings", required=True, metavar="NAME", help="of a shipped search")
    parser.add_argument("--n", type=int, default=20, help="first starts")
    parser.add_argument("--only", nargs="+", default=list(SINGLE), choices=list(SINGLE))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    name, seed, start = args.readings, args.seed, time.perf_counter()
    model, how = models.load(f"diamond/{name}_s{seed}"), PRESETS["quick"].search
    whole, was = dozens(name, seed)
    first, others = whole.first(args.n), {}
    g = generator(was["seed"], "search")
    candidates = method.starts(was["n"], pair(model), how, g)[1]  # those of that search
    for erratum in args.only:
        others[erratum] = search_again(model, first, candidates, how, erratum)
        print(f"{erratum}: {time.perf_counter() - start:.0f} s, steps {others[erratum].steps}",
              flush=True)  # fmt: skip
    card = {"title": f"Searches of {args.n} latents, one reading each, {model.card['title']}",
            "network": f"{name}_s{seed}", "images": model.card["images"], "n": args.n,
            "search": config.as_dict(how), "seed": seed, "latent": first.z0.shape[1],
            "seconds": time.perf_counter() - start}  # fmt: skip
    found.save_readings(args.out / f"{name}_readings_s{seed}.safetensors", first, others, card)
    return 0


def _search_from_cli(arguments: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("latentpapers train diamond", allow_abbrev=False)
    parser.add_argument("--search", required=True, metavar="NAME", help="of a shipped network")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--extras", type=int, default=20, help="starts for the claims on settings")
    parser.add_argument("--small", action="store_true", help="write NAME_many in the small form")
    parser.add_argument("--paper", action="store_true", help="as printed: NAME_paper, small form")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    args = parser.parse_args(arguments)
    name, n, seed, out = args.search, args.n, args.seed, args.out
    model, preset = models.load(f"diamond/{name}_s{seed}"), PRESETS["quick"]
    how = preset.wgan_gp if model.card["config"]["method"] == "wgan_gp" else preset.search
    if args.paper:
        how = dataclasses.replace(method.SEARCHES["paper"], start=how.start)
    how = config.resolve(how, config.parse(args.set))
    start = time.perf_counter()
    result = search(model, how, n, seed, extras=args.extras)
    card = {
        "title": f"Search of {n} latents, {model.card['title']}", "network": f"{name}_s{seed}",
        "images": model.card["images"], "search": config.as_dict(how), "n": n, "seed": seed,
        "latent": result.z0.shape[1], "seconds": time.perf_counter() - start,
    }  # fmt: skip
    write, tag = functools.partial(found.save, starts=False), ""
    if args.small or args.paper:
        write, tag = found.save_small, "paper_" if args.paper else "many_"
    write(out / f"{name}_{tag}s{seed}.safetensors", result, card)
    print(f"{card['title']}: {card['seconds']:.0f} s, steps {result.steps}", flush=True)
    return 0
