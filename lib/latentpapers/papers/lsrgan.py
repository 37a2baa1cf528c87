"""LSRGAN: latent space regularisation of a super-resolution GAN (Zhong, Zhou, Zhang, Wang).

ESR, LSR, CESR and CLSR are one sum of terms with some left out: rows of `VARIANTS`. Two stages:
generator and encoder alone with L1 (`stage="psnr"`), then generator, discriminator and encoder
together, from that one file.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from latentpapers import config, data, models, paths, storage, tensorfile, weights
from latentpapers.errors import Corrupt, Missing, UserError
from latentpapers.losses import contextual as C
from latentpapers.losses import latent_regularisation as R
from latentpapers.losses import logistic, relativistic
from latentpapers.metrics import intervals
from latentpapers.metrics.protocol import Score
from latentpapers.nets import latent_encoder, rrdb
from latentpapers.nets.random_features import RandomFeatures
from latentpapers.nets.rrdb import RRDBNet, initialise, tiled
from latentpapers.nets.vgg_critic import VGGCritic
from latentpapers.precision import widened
from latentpapers.seeds import generator, numpy
from latentpapers.shapes import Bytes, Images, PerImage
from latentpapers.train.context import Context
from latentpapers.train.distributed import Group
from latentpapers.train.engine import Fit, Task, Update, fit, stepping
from latentpapers.train.runs import Networks as States
from latentpapers.train.runs import Progress, Runs, state_of
from latentpapers.train.schedule import halved_at
from latentpapers.weights import rrdb as layouts

# (CPU seconds, MB) of each notebook, measured on one core in a process of its own
EXPECT = {
    "quick/1_derivation": (18, 1000), "quick/2_training": (18, 1000), "quick/3_tables": (18, 1150),
    "quick/4_figures": (18, 1150), "quick/5_explore": (14, 1000),
    "cpu/3_tables": (26, 1000), "cpu/4_figures": (16, 1000),
}  # fmt: skip
ALLOWED = {"gpu/2_training": 480, "gpu/3_tables": 95, "gpu/4_figures": 25}  # seconds of 600
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


def networks(job: Training, seed: int) -> dict[str, nn.Module]:
    """The networks of a run, initialised from the seed alone."""
    return {name: _made(recipe(job, name), job, generator(seed, "init", name))
            for name in names_of(job)}  # fmt: skip


KINDS: dict[str, type[nn.Module]] = {
    "rrdb.RRDBNet": RRDBNet, "vgg_critic.VGGCritic": VGGCritic,
    "latent_encoder.VGGEncoder": latent_encoder.VGGEncoder,
    "latent_encoder.RRDBEncoder": latent_encoder.RRDBEncoder,
}  # fmt: skip


def _made(how: dict[str, Any], job: Training, g: torch.Generator) -> nn.Module:
    net = initialise(KINDS[how["net"]](**how["options"]), g)
    scaled = [net] if job.init == "v00" and how["net"] == "rrdb.RRDBNet" else []
    scaled += [m for m in net.modules() if isinstance(m, rrdb.DenseBlock) and not scaled]
    for part in scaled:
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.data.mul_(0.1)
    return net


# --- the step ---------------------------------------------------------------------------------


class Step(Task):
    """Both stages of section 4.1.

    The batch that the engine hands over says nothing: crops come from a bank of photographs of
    different sizes, sample by sample from (seed, step, number of the sample), so that processes
    and micro-batches that share a step see what one process would.
    """

    def __init__(
        self, job: Training, seed: int, bank: data.PairBank, features: nn.Module | None = None
    ) -> None:
        self.job, self.variant, self.seed = job, VARIANTS[job.variant], seed
        self.nets, self.bank, self.features = networks(job, seed), bank, features
        self.ema: dict[str, float] = {}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam (0.9, 0.999), eps 1e-8, no decay (section 4.1)."""
        how = stepping(self.job.precision)
        return {
            name: torch.optim.Adam(net.parameters(), lr=self.job.lr, **how)
            for name, net in self.nets.items()
        }

    def before_step(self, step: int, images: int) -> float:
        """Section 4.1: halved at fixed steps."""
        return halved_at(step, self.job.halve_at)

    def blocks(self) -> list[nn.Module]:
        """The generator's trunk: nine tenths of a step's operations."""
        return [*self.nets["generator"].body]

    def crops(self, ctx: Context) -> tuple[Images, Images]:
        """This micro-batch's high and low resolution crops, in [0, 1]."""
        stream = (self.seed, ctx.step)
        samples = torch.arange(ctx.start, ctx.stop)
        index = self.bank.hr.choose(samples, stream)
        both = self.bank.crops(index, self.job.crop, stream, samples=samples, turn=True)
        like = next(self.nets["generator"].parameters())  # fp32; fp64 where a test asks for it
        hr, lr = (x.to(like).div(255).contiguous(memory_format=torch.channels_last) for x in both)
        return hr, lr

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        """Stage 1: G and L apart. Stage 2: G, then D and L on the same output (lsrgan-e39)."""
        hr, lr = self.crops(ctx)
        if self.job.stage == "psnr":
            yield self.separate(hr, lr, ctx)
            return
        with ctx.autocast():
            fake = self.nets["generator"](lr)
        # in fp32, or the gradients of the four terms would be added in bf16 and mu's be rounded off
        fake = widened(fake)
        with ctx.autocast():
            losses, terms = self.generator_loss(fake, hr)
        yield {"generator": losses}
        with ctx.autocast():
            judges, more = self.judge_losses(fake.detach(), hr)
        ctx.log(**terms, **more)
        yield judges

    def separate(self, hr: Images, lr: Images, ctx: Context) -> Update:
        """Section 4.1: G maps low to high resolution and L high to low, both with L1."""
        with ctx.autocast():
            pixel = (self.nets["generator"](lr) - hr).abs().mean()
            code = (self.nets["encoder"](hr) - lr).abs().mean()
        ctx.log(pixel=pixel, code=code)
        return {"generator": pixel, "encoder": code}

    def generator_loss(self, fake: Images, hr: Images) -> tuple[Tensor, dict[str, Tensor]]:
        """Eqs 1, 11, 13, 14: the sum of this variant's terms, and the terms."""
        job = self.job
        terms = {"percep": self.perceptual(fake, hr), "pixel": (fake - hr).abs().mean()}
        with torch.no_grad():
            real = self.nets["critic"](hr)
        judged = self.nets["critic"](fake)
        if job.adversary == "relativistic":
            terms["adversarial"] = relativistic.generator_loss(widened(real), widened(judged))
        else:
            terms["adversarial"] = logistic.generator_loss(widened(judged))
        if self.variant.latent:
            with torch.no_grad():
                code = self.nets["encoder"](hr)
            terms["latent"] = R.latent_distance(widened(code), widened(self.nets["encoder"](fake)))
        total = R.generator_objective(
            terms["percep"], terms["adversarial"], terms["pixel"], terms.get("latent", 0.0),
            lam=job.lam, eta=job.eta, mu=job.mu if self.variant.latent else 0.0,
        )  # fmt: skip
        return total, terms

    def perceptual(self, fake: Images, hr: Images) -> Tensor:
        """L1 between features, or the contextual loss; targets carry no gradient."""
        with torch.no_grad():
            target = self.features(hr)
        found = self.features(fake)
        if self.job.relu:
            found, target = found.relu(), target.relu()
        if self.variant.perceptual == "contextual":
            with torch.autocast(found.device.type, enabled=False):
                how = {"bandwidth": self.job.bandwidth, "distance": self.job.distance}
                return C.contextual(found, target, **how)
        return (widened(found) - widened(target)).abs().mean()

    def judge_losses(self, fake: Images, hr: Images) -> tuple[Update, dict[str, Tensor]]:
        """D's loss, and eq 10 for L."""
        real, judged = widened(self.nets["critic"](hr)), widened(self.nets["critic"](fake))
        kind = relativistic.critic_loss
        if self.job.adversary == "standard":
            kind = logistic.discriminator_loss
        losses: Update = {"critic": kind(real, judged)}
        if self.variant.latent:
            encoder = self.nets["encoder"]
            losses["encoder"] = R.latent_distance(widened(encoder(hr)), widened(encoder(fake)))
        gap = {"gap": real.mean() - judged.mean()}
        return losses, gap | {f"{name}_loss": value for name, value in losses.items()}


# --- presets ----------------------------------------------------------------------------------

VALUES_OF_MU = {"mu_1e-7": 1e-7, "mu_1e-5": 1e-5, "mu_1e-2": 1e-2}


@dataclass(frozen=True)
class Preset:
    """One column of the preset table.

    Attributes:
        training: runs by checkpoint name, in the order in which they can be trained. In quick,
            training only proves itself and the names are shipped checkpoints, made by `SHIPPED`.
        tests: sets that Tables 1 to 4 are measured on.
        niqe: those on which NIQE (and PI, which takes seconds a picture) are measured.
        figures: the set that figures are cut from.
        crops: crops a figure shows.
        each: crops a photograph where a test set is `photos`; 0: all that fit side by side.
        side: pixels of the crops in which figures look for their places.
        table_seeds: seeds of the tables where networks are shipped; elsewhere those that trained.
        curved: runs that are measured on the way, for learning curves (`Runs.curve`).
        bar: the set on every picture of which a first stage must beat bicubic before anything
            starts from it (`hold_bar`); empty: none.
    """

    training: dict[str, Training]
    tests: tuple[str, ...]
    niqe: tuple[str, ...]
    figures: str
    crops: int = 4
    each: int = 2
    side: int = 208
    table_seeds: tuple[int, ...] = (0,)
    curved: tuple[str, ...] = ()
    bar: str = ""


def fine_tuning(steps: int) -> dict[str, Any]:
    """Section 4.1's second stage in fewer steps: its rate is halved after the same shares of the
    run, a tenth, a fifth, two and three fifths. Without, the last network is one sample of an
    oscillation that Adam keeps up at the full rate."""
    return {"steps": steps, "halve_at": tuple(round(s * steps) for s in (0.1, 0.2, 0.4, 0.6))}


def _runs(
    first: dict[str, Any], joint: dict[str, Any], *, standard: bool = False
) -> dict[str, Training]:
    """The first stage and everything that starts from it. `esr` is also `lsr` at mu = 0: what L
    says then reaches nobody (a test holds the two equal)."""
    runs = {"psnr": Training("psnr", **first)}
    for name in VARIANTS:
        runs[name] = Training("joint", variant=name, start="psnr", **joint)
    for name, mu in VALUES_OF_MU.items():
        runs[name] = Training("joint", variant="lsr", start="psnr", mu=mu, **joint)
    for name in ("esr", "lsr") if standard else ():
        runs[f"{name}_standard"] = Training(
            "joint", variant=name, start="psnr", adversary="standard", **joint
        )
    return runs


_SMALL = {"width": 32, "blocks": 2, "growth": 16, "critic_width": 16, "encoder_width": 8,
          "init": "v01", "crop": 64, "batch": 8}  # fmt: skip

# How the shipped checkpoints were trained, on one CPU core; `latentpapers train lsrgan --run NAME`
SHIPPED: dict[str, Training] = _runs(
    {"data": "sr-photos", "images": 120, "steps": 1600, "lr": 1e-3, "precision": "bf16",
     "halve_at": (800, 1200, 1400), **_SMALL},
    {"data": "sr-photos", "images": 120, **fine_tuning(300), "features": "vgg16hed",
     "precision": "bf16", "log_every": 20, **_SMALL},
    standard=True,
)  # fmt: skip
# The gpu preset's first stage, reduced to what ten minutes of one core allow: the whole generator,
# a small L, an eighth of its pictures, and the rate halved after the same shares of the run.
SHIPPED["psnr_df2k"] = Training(
    "psnr", data="sr-photos", images=120, start="realsr_df2k", crop=64, batch=4, steps=400,
    lr=1e-4, halve_at=(200, 300, 350), encoder_width=8, precision="bf16", log_every=20,
)  # fmt: skip

# Readings that could flip a verdict, in the position that is not used: the runs that a reading
# touches, and what it changes in them. Their networks do not ship; what a reading moves does
# (`score_readings`).
READINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "cesr_tenth": ("cesr", {"bandwidth": 0.1}),  # lsrgan-e10
    "cesr_rectified": ("cesr", {"relu": True}),  # lsrgan-e11
    "lsr_plus": ("lsr", {"mu": -1e-3}),  # lsrgan-e21: G too minimises the distance of the codes
    "esr_sum": ("esr", {"lam": 1e-2}),  # lsrgan-e45: the sum of both cross entropies, not half
    "cesr_sum": ("cesr", {"lam": 1e-2}),
    "lsr_sum": ("lsr", {"lam": 1e-2}),
}
SHIPPED |= {name: replace(SHIPPED[of], **changed) for name, (of, changed) in READINGS.items()}

# Networks that a shipped file keeps; the encoder only where a notebook looks through it.
KEPT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(SHIPPED, ("generator",)),
    "psnr": ("generator", "encoder"),
    "lsr": ("generator", "encoder"),
}

_PROOF = {"data": "photos", "width": 8, "blocks": 1, "growth": 4, "critic_width": 4,
          "encoder_width": 2, "crop": 32, "batch": 4, "steps": 24, "log_every": 2,
          "init": "v01"}  # fmt: skip
# Full width, from public RRDB weights. The joint runs are equally long in steps, or an encoder's
# cost would be counted against the method that has it; their time limit is a guard.
# In bf16 the critic's gradient, a difference between two batches that look alike, drowns in
# rounding: cosine 0.91 with fp32's at full width (4 crops, on a CPU). fp16 costs the same: emulated
# on 12 crops, 0.98 and the generator's 0.96; PyTorch's default, TF32, has 0.99 and 0.96.
_GPU = {"data": "sr-photos", "crop": 128, "precision": "fp16"}
_PAPER = {"data": "div2k", "crop": 128, "steps": ITERATIONS}

_QUICK = Preset(
    training={
        "proof_psnr": Training("psnr", lr=2e-3, **_PROOF),
        "proof_clsr": Training("joint", variant="clsr", start="proof_psnr", features="random",
                               **_PROOF),
    },
    tests=("photos",), niqe=("photos",), figures="photos", table_seeds=(0, 1, 2),
)  # fmt: skip

PRESETS: dict[str, Preset] = {
    "quick": _QUICK,
    # the same networks on every crop of 208 px that the six photographs hold without overlap,
    # three times as many as in quick; figures look for their places in larger crops
    "cpu": replace(_QUICK, each=0, side=296),
    # 600 s in all: 75 + 9 x 45 of training, 120 of evaluation, a third of it NIQE. Both stages
    # have stated steps, the first with the shipped one's shares, and the seconds are guards: how
    # fast a machine is must not decide where all variants start
    "gpu": Preset(
        training=_runs(
            {**_GPU, "start": "realsr_df2k", "steps": 1000, "halve_at": (500, 750, 875),
             "seconds": 75.0, "lr": 2e-4},
            {**_GPU, "features": "vgg16hed", **fine_tuning(450), "seconds": 45.0},
            standard=True,
        ),
        tests=("set5", "set14", "bsd100", "urban100"),
        niqe=("set5", "set14", "bsd100", "urban100"), figures="photos", curved=("lsr",),
        bar="set5",
    ),
    "paper": Preset(
        training=_runs(
            {**_PAPER, "lr": 2e-4, "halve_at": (200_000, 400_000)},
            {**_PAPER, **fine_tuning(ITERATIONS)},
            standard=True,
        ),
        tests=("set14", "pirm", "urban100", "bsd100"),
        niqe=("set14", "pirm", "urban100", "bsd100"), figures="photos", curved=("lsr",),
    ),
}  # fmt: skip


# --- training ---------------------------------------------------------------------------------


def pairs_for(job: Training) -> tuple[list[Tensor], list[Tensor]]:
    """Training photographs and their low resolution, reduced whole (lsrgan-e38).

    Returns:
        uint8 (3, H, W) each, sides multiples of 4, and (3, H / 4, W / 4).

    Raises:
        UnknownName, Missing, Corrupt: as `data.pictures`.
    """
    found = data.pictures(job.data, "train", job.images or None)
    high = [p[:, : p.shape[1] // 4 * 4, : p.shape[2] // 4 * 4].contiguous() for p in found]
    return high, [reduced(p) for p in high]


def reduced(hr: Tensor) -> Tensor:
    """(3, H, W) -> (3, H / 4, W / 4), bytes: MATLAB's bicubic `imresize`.

    Raises:
        UserError: sides that 4 does not divide: such a picture would be stretched.
    """
    if hr.shape[1] % FACTOR or hr.shape[2] % FACTOR:
        raise UserError(f"{tuple(hr.shape[1:])} px do not divide by {FACTOR}; cut the picture.")
    size = hr.shape[1] // FACTOR, hr.shape[2] // FACTOR
    return data.imresize(hr[None], size)[0]


def _fit(
    job: Training, seed: int, path: Path, device: str, group: Group | None,
    progress: Progress | None,
) -> None:  # fmt: skip
    bank = data.PairBank(*pairs_for(job), FACTOR, device)
    step = Step(job, seed, bank, feature_network(job, device))
    digest = begin_from(step.nets, job, path)
    plan = Fit(
        steps=job.steps, batch=job.batch, seconds=job.seconds, log_every=job.log_every,
        precision=job.precision, compile=job.compile,
    )  # fmt: skip
    tickets = torch.zeros(job.batch, 1, 1, 1, dtype=torch.uint8)  # crops come from the bank
    about = {**config.as_dict(job), "start_sha256": digest}
    fit(step, tickets, plan, seed=seed, config=about, device=device, group=group,
        path=state_of(path), progress=progress)  # fmt: skip


def begin_from(nets: dict[str, nn.Module], job: Training, path: Path) -> str:
    """Loads the networks that the run starts from; returns the SHA-256 of their file.

    Raises:
        Missing: no such run beside `path`, nor such a file, nor weights of that name.
        Corrupt: a file without RRDB weights.
        UserError: networks of other sizes.
    """
    if not job.start:
        return ""
    states, digest = _start(job, path)
    for name in nets.keys() & states.keys():
        try:
            nets[name].load_state_dict(states[name])
        except RuntimeError as error:
            raise UserError(
                f"{job.start}: its {name} has other sizes than this run's ({error}); give both "
                "runs the same width, blocks and growth."
            ) from error
    return digest


def _start(job: Training, path: Path) -> tuple[States, str]:
    """The networks that a run starts from, and the SHA-256 of their file."""
    if job.start in weights.names():
        states = {"generator": weights.load(job.start)}
        return states, storage.sha256_file(weights.find(job.start))
    if is_file(job.start):
        file = Path(job.start)
        return {"generator": rrdb_weights(file)}, storage.sha256_file(file)
    file = start_file(job, path)
    found = models.load(file)
    return {name: net.state_dict() for name, net in found.parts.items()}, storage.sha256_file(file)


def is_file(start: str) -> bool:
    """Whether a run's `start` is the path of a file of weights, not a name."""
    return Path(start).suffix in (".pth", ".pt", ".safetensors")


def rrdb_weights(file: Path) -> dict[str, Tensor]:
    """The RRDB weights of a file in any of the three key layouts, under our keys.

    Raises:
        Missing: no such file; Corrupt, UserError: as `weights.rrdb.read`.
    """
    if not file.is_file():
        raise Missing(
            f"there is no file {file} to start from; start takes a file of RRDB weights (.pth or "
            f".safetensors), a run trained before, or one of {', '.join(weights.names())}."
        )
    return layouts.read(file)


def start_file(job: Training, path: Path) -> Path:
    """The file of the run that `job` starts from, in the folder of `path`.

    Raises:
        Missing: it was not trained there.
    """
    ending = path.stem.rpartition("_")[2]
    tried = [path.with_name(f"{job.start}_{ending}.safetensors"),
             path.with_name(f"{job.start}.safetensors")]  # fmt: skip
    for file in tried:
        if file.is_file():
            return file
    raise Missing(f"this run starts from {tried[-1].name}, which is not in {path.parent}; train "
                  f"{job.start!r} there first.")  # fmt: skip


def _card(job: Training, path: Path, images: int, nets: States) -> dict[str, Any]:
    """`images` and `budget` count those of the run it started from too; `origin` names the weights
    of others, or the file, that one began with, if any."""
    public = job.start in weights.names()
    origin = job.start if public else Path(job.start).name if is_file(job.start) else ""
    if job.start and not origin:
        first = models.load(start_file(job, path)).card
        images, origin = images + first["images"], first.get("origin", "")
    title = f"{title_of(job)} on {job.data}, crops of {job.crop} px"
    return {"title": title, "images": images, "budget": images / BUDGET, "origin": origin}


def title_of(job: Training) -> str:
    """The row of the paper's tables that a run fills."""
    if job.stage == "psnr":
        return "L1 stage"
    title = VARIANTS[job.variant].title
    title += f" (mu = {job.mu:g})" if VARIANTS[job.variant].latent and job.mu != 1e-3 else ""
    return title + (", standard GAN" if job.adversary == "standard" else "")


# --- inference and evaluation -----------------------------------------------------------------


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


def outputs(net: RRDBNet, pairs: list[data.Pair], device: str = "cpu") -> list[Tensor]:
    """`enlarge` of every low-resolution picture, in order, on the CPU."""
    return [enlarge(net, pair.lr.to(device)).cpu() for pair in pairs]


def hold_bar(file: Path, name: str, device: str = "cpu") -> dict[str, float]:
    """What a first stage gains over bicubic, in dB of PSNR, on each picture of a set.

    Run between the stages: a common start below plain enlargement is no start for a comparison.

    Args:
        file: the first stage's networks.
        name: the test set.

    Raises:
        UserError: it does not gain on every picture; names those.
        Missing: networks or pictures.
    """
    pairs = evaluation_pairs(name)
    net = load_generator(models.load(file), device)
    made = outputs(net, pairs, device), [bicubic(pair.lr) for pair in pairs]
    new, old = (evaluate(found, pairs, ("PSNR",))["PSNR"] for found in made)
    gains = {pair.name: float(g) for pair, g in zip(pairs, new - old, strict=True)}
    below = [f"{picture} ({g:+.2f} dB)" for picture, g in gains.items() if not g > 0]
    if below:
        raise UserError(
            f"the first stage in {file.name} does not beat bicubic on every picture of "
            f"{TITLES[name]}: {', '.join(below)}; no variant may start from it. Train it longer "
            "(training.psnr.steps) or from other weights (training.psnr.start)."
        )
    return gains


TITLES = {
    "set5": "Set5", "set14": "Set14", "bsd100": "BSD100", "urban100": "Urban100", "pirm": "PIRM",
    "photos": "photos",
}  # fmt: skip


def title_of_set(name: str, count: int, table: str = "") -> str:
    """How a table's column calls a test set: the paper's name, or ours where it is not whole.

    Args:
        count: pictures that were measured.
        table: Tables 1 and 2 say BSD where the others say BSD100.
    """
    whole = {"set5": 5, "set14": 14}.get(name, 100)
    if name != "photos" and count != whole:
        return f"{TITLES[name]} ({count} of {whole})"
    return "BSD" if (name, table[-1:]) in (("bsd100", "1"), ("bsd100", "2")) else TITLES[name]


_PUBLISHABLE = ("chelsea", "china", "coffee", "flower", "hubble", "rocket")  # free licences


def evaluation_pairs(name: str, *, crop: int = 208, each: int = 2) -> list[data.Pair]:
    """Pictures of a test set; for `photos` crops of the photographs inside scikit-image and
    scikit-learn, on which no shipped network was trained.

    Args:
        name: `photos`, or a super-resolution set.
        crop, each: side and number of crops a photograph; they lie evenly on its diagonal, or are
            all that fit side by side where `each` is 0. The whole photograph is reduced before it
            is cut.

    Raises:
        UnknownName, Missing, Corrupt: as `data.pairs`.
        UserError: a crop that 4 does not divide, or larger than a photograph.
    """
    if name != "photos":
        return list(data.pairs(name, FACTOR, "test"))
    out = []
    for photo, whole in data.photos().items():
        if photo in _PUBLISHABLE:
            out += _cut(photo, whole, crop, each)
    return out


def _cut(photo: str, whole: Tensor, crop: int, each: int) -> list[data.Pair]:
    hr = whole[:, : whole.shape[1] // 4 * 4, : whole.shape[2] // 4 * 4]
    if crop < FACTOR or crop % FACTOR or crop > min(hr.shape[1:]):
        raise UserError(
            f"crops of {crop} px: take a multiple of {FACTOR} that fits {tuple(hr.shape[1:])}."
        )
    lr, small, out = reduced(hr.contiguous()), crop // FACTOR, []
    for i, (top, left) in enumerate(_places(lr.shape[1], lr.shape[2], small, each)):
        high = hr[:, 4 * top : 4 * top + crop, 4 * left : 4 * left + crop]
        low = lr[:, top : top + small, left : left + small]
        out.append(data.Pair(f"{photo} {i + 1}", high.contiguous(), low.contiguous()))
    return out


def _places(height: int, width: int, side: int, each: int) -> list[tuple[int, int]]:
    """Tops and lefts of crops: `each` on the diagonal, or (0) a grid without overlap, centred."""
    if each:
        shares = [(i + 1) / (each + 1) for i in range(each)]
        return [(int(s * (height - side)), int(s * (width - side))) for s in shares]
    tops, lefts = (range(n % side // 2, n - side + 1, side) for n in (height, width))
    return [(top, left) for top in tops for left in lefts]


METRICS = {
    "PSNR": "psnr_y_b4_u8", "SSIM": "ssim_y_7x7_b4", "L1": "l1_y", "wrapped L1": "l1_y_uint8wrap",
    "NIQE": "niqe_pirm", "PI": "pi_pirm",
}  # fmt: skip
"""Columns of our tables and their protocols."""


def evaluate(found: list[Tensor], pairs: list[data.Pair], wanted: tuple[str, ...]) -> dict[
    str, PerImage
]:  # fmt: skip
    """One value per picture for each of the columns of `METRICS`.

    Args:
        found: enlarged pictures, uint8 (3, H, W), in the order of `pairs`.
        wanted: names of columns; those without a reference (NIQE, PI) take none.

    Raises:
        Missing: PI without the model of Ma et al.
    """
    from latentpapers import metrics

    mine = [x.permute(1, 2, 0) for x in found]
    real = [pair.hr.permute(1, 2, 0) for pair in pairs]
    alone = ("NIQE", "PI")
    return {
        column: metrics.values(METRICS[column], mine, None if column in alone else real)
        for column in wanted
    }


def sharpness(found: list[Tensor]) -> PerImage:
    """Mean absolute difference of neighbouring pixels of each picture (image range [-1, 1])."""
    from latentpapers.metrics.images import gradient_energy

    return torch.cat([gradient_energy(data.to_float(x[None])) for x in found])


Values = dict[str, dict[str, PerImage]]
"""Test set -> column -> one value a picture."""


def measure(
    make: Callable[[data.Pair], Tensor], sets: dict[str, list[data.Pair]], niqe: tuple[str, ...]
) -> Values:
    """Every column of every picture of every set.

    Args:
        make: gives the enlarged picture, uint8 (3, H, W), on the CPU.
        sets: pictures by set.
        niqe: sets on which NIQE, and PI where its model is present, are measured.
    """
    out: Values = {}
    for name, pairs in sets.items():
        found = [make(pair) for pair in pairs]
        wanted = ("PSNR", "SSIM", "L1", "wrapped L1")
        wanted += (("NIQE", "PI") if has_ma() else ("NIQE",)) if name in niqe else ()
        truth = sharpness([pair.hr for pair in pairs]).mean()
        out[name] = {**evaluate(found, pairs, wanted), "sharpness": sharpness(found) / truth}
    return out


# --- shipped scores ---------------------------------------------------------------------------

# Test sets whose pictures do not ship, so that quick and cpu read scores of the shipped networks
PUBLISHED_SETS = ("set5", "set14", "bsd100", "urban100")
SCORED = ("psnr", *VARIANTS, *VALUES_OF_MU)
# With the standard loss: no network ships, and scores of the crops alone; they decide one claim
STANDARD = ("esr_standard", "lsr_standard")

# Seeds 1 and 2 of the joint runs ship as scores alone: their networks would take 12 MB. All start
# from seed 0's first stage, so what differs is the critic's first weights and the order of crops.
# Settled before either was measured: a verdict about a training method reads the t interval over
# the seeds' values of its paired difference (`ledger.verdicts`, as for every paper), on the same
# pictures; rules and margins stay those of one seed. That interval does not cover other pictures:
# beside it, tables show one that does (`intervals.seeds_and_images`), and notes say where the two
# disagree.
UNSHIPPED_SEEDS = (1, 2)
# and these are the crops on which quick and cpu show them, by `each` of `evaluation_pairs`
CROPS = {"photos_2": 2, "photos_0": 0}


def score_file(seed: int = 0, kind: str = "published") -> Path:
    """Where the scores of a seed's networks are; `kind`: published | standard |
    first_stage | readings."""
    return paths.checkpoints() / "lsrgan" / "scores" / f"{kind}_s{seed}.safetensors"


def scored_pairs(name: str) -> list[data.Pair]:
    """Pictures behind shipped scores: of a published set, or the crops of a key of `CROPS`."""
    if name in CROPS:
        return evaluation_pairs("photos", each=CROPS[name])
    return evaluation_pairs(name)


def score(
    names: tuple[str, ...], sets: tuple[str, ...], out: Path, seed: int = 0,
    niqe: tuple[str, ...] = (), folder: Path | None = None, kind: str = "published",
) -> None:  # fmt: skip
    """Measures networks, and bicubic enlargement, on whole test sets, and writes what was measured
    of every picture with the hashes of networks and pictures.

    Args:
        niqe: those of `sets` on which NIQE is measured too: pictures of 200 px a side at least.
        folder: of networks that do not ship; their cards are then written too. None: shipped ones.
        kind: as in `score_file`.

    Raises:
        Missing, UnknownName: a network or a set that is not here.
    """
    found = {name: scored_pairs(name) for name in sets}
    tree = {"bicubic": measure(lambda pair: bicubic(pair.lr), found, niqe)}
    card: dict[str, Any] = {"sets": {}, "networks": {}, "seed": seed, "shipped": folder is None}
    for name, pairs in found.items():
        pixels = ((pair.name, pair.hr.numpy()) for pair in pairs)
        card["sets"][name] = {"pictures": len(pairs), "sha256": data.known.digest(pixels)}
    if folder is not None:
        card |= {"cards": {}, "start": "", "commands": remaking(names, seed, kind)}
    for name in names:
        file = (folder or paths.checkpoints() / "lsrgan") / f"{name}_s{seed}.safetensors"
        model = models.load(file)
        net = load_generator(model)
        tree[name] = measure(lambda pair, net=net: enlarge(net, pair.lr), found, niqe)
        card["networks"][name] = storage.sha256_file(file)
        if folder is not None:
            card["cards"][name] = {k: v for k, v in model.card.items() if k not in _LONG}
            card["start"] = storage.sha256_file(start_file(Training(**model.card["config"]), file))
        print(f"{name}: measured", flush=True)
    tensorfile.save(out / score_file(seed, kind).name, packed(tree), about=card)


def packed(tree: dict[str, Values]) -> dict[str, Any]:
    """One tensor a network, set and type in place of one a metric, whose names fill a third of a
    file; its key names the metrics."""

    def one(found: dict[str, Tensor]) -> dict[str, Tensor]:
        kinds = dict.fromkeys(v.dtype for v in found.values())
        alike = [{k: v for k, v in found.items() if v.dtype == kind} for kind in kinds]
        return {",".join(part): torch.stack(list(part.values())) for part in alike}

    return {net: {name: one(v) for name, v in sets.items()} for net, sets in tree.items()}


def unpacked(tree: dict[str, Any]) -> dict[str, Values]:
    """The inverse of `packed`."""

    def one(parts: dict[str, Tensor]) -> dict[str, Tensor]:
        pairs = (zip(key.split(","), v, strict=True) for key, v in parts.items())
        return dict(itertools.chain.from_iterable(pairs))

    return {net: {name: one(v) for name, v in sets.items()} for net, sets in tree.items()}


_LONG = ("history", "curve", "parts")  # of a card: what a score has no use for


def remaking(names: tuple[str, ...], seed: int, kind: str = "published") -> list[str]:
    """Commands that train the networks of a seed that does not ship, from the shipped first stage,
    and measure them."""
    home = "results/checkpoints/lsrgan"
    train = "latentpapers train lsrgan"
    return [
        f"cp {home}/psnr_s0.safetensors FOLDER/psnr.safetensors",
        *(f"{train} --run {name} --seed {seed} --out FOLDER" for name in names),
        f"{train} --score --what {kind} --seed {seed} --networks FOLDER --out {home}/scores",
    ]


def score_first_stage(folder: Path, out: Path) -> None:
    """Measures what the reduced first stage makes of public weights, on Set5: bicubic, the weights
    as they come, and `psnr_df2k` in `folder`, a network of 33 MB that does not ship.

    Raises:
        Missing, UnknownName: networks or pictures that are not here.
    """
    pairs = scored_pairs("set5")
    file = folder / "psnr_df2k_s0.safetensors"
    model = models.load(file)
    raw = weights.network("realsr_df2k").to(memory_format=torch.channels_last)
    nets = {"realsr_df2k": raw, "psnr_df2k": load_generator(model)}
    tree = {"bicubic": measure(lambda p: bicubic(p.lr), {"set5": pairs}, ())}
    for name, net in nets.items():
        tree[name] = measure(lambda p, net=net: enlarge(net, p.lr), {"set5": pairs}, ())
    about = {
        "pictures": [pair.name for pair in pairs],
        "sha256": data.known.digest((pair.name, pair.hr.numpy()) for pair in pairs),
        "card": {k: v for k, v in model.card.items() if k not in _LONG},
        "networks": {"psnr_df2k": storage.sha256_file(file),
                     "realsr_df2k": storage.sha256_file(weights.find("realsr_df2k"))},
        "commands": ["latentpapers train lsrgan --run psnr_df2k --out FOLDER",
                     "latentpapers train lsrgan --score --what first_stage --networks FOLDER --out "
                     "results/checkpoints/lsrgan/scores"],
    }  # fmt: skip
    tensorfile.save(out / score_file(0, "first_stage").name, tree, about=about)


# Who is compared, and where the claims that are decided look: columns and sets of each comparison
COMPARED = {"CESR against ESR": ("cesr", "esr"), "LSR against ESR": ("lsr", "esr")}
LOOKED_AT: dict[str, dict[str, tuple[str, ...]]] = {
    "CESR against ESR": {"PSNR": (*CROPS,), "SSIM": (*CROPS, *PUBLISHED_SETS[1:]),
                         "NIQE": PUBLISHED_SETS},
    "LSR against ESR": {"PSNR": (*CROPS,), "L1": (*CROPS,)},
}  # fmt: skip
# Claims that are decided and rest on a training: comparison, column, sets, limits of the claim
DECIDED: dict[str, tuple[str, str, tuple[str, ...], float, float]] = {
    "c25a": ("CESR against ESR", "PSNR", ("photos",), 0.0, math.inf),
    "c25b": ("CESR against ESR", "SSIM", ("photos",), 0.0, math.inf),
    "c25c": ("CESR against ESR", "SSIM", PUBLISHED_SETS[1:], 0.0, math.inf),
    "c25n": ("CESR against ESR", "NIQE", PUBLISHED_SETS, -math.inf, 0.0),
    "c30": ("LSR against ESR", "L1", ("photos",), -0.001, 0.001),
    "c34": ("LSR against ESR", "PSNR", ("photos",), -math.inf, 0.2),  # the range of their means
}
# erratum -> the same comparisons with other networks, or (second) with another measure of a column
REREAD: dict[str, tuple[dict[str, tuple[str, str]], dict[str, str]]] = {
    "lsrgan-e10": ({"CESR against ESR": ("cesr_tenth", "esr")}, {}),
    "lsrgan-e11": ({"CESR against ESR": ("cesr_rectified", "esr")}, {}),
    "lsrgan-e21": ({"LSR against ESR": ("lsr_plus", "esr")}, {}),
    "lsrgan-e33": ({"CESR against ESR": ("cesr", "esr")}, {"SSIM": "SSIM 11 x 11"}),
    "lsrgan-e34": (COMPARED, {"PSNR": "PSNR of RGB"}),
    "lsrgan-e45": ({"CESR against ESR": ("cesr_sum", "esr_sum"),
                    "LSR against ESR": ("lsr_sum", "esr_sum")}, {}),
}  # fmt: skip


def reading_values(name: str, folder: Path, sets: Mapping[str, list[data.Pair]]) -> Values:
    """What `score_readings` asks of a network: the columns of `LOOKED_AT`, and other measures.

    Args:
        folder: of the networks of `READINGS`; the others are the shipped ones.
        sets: pictures by the names that `LOOKED_AT` uses.

    Raises:
        Missing: no such network.
    """
    home = folder if name in READINGS else paths.checkpoints() / "lsrgan"
    net = load_generator(models.load(home / f"{name}_s0.safetensors"))
    asking = [(row, of) for by, of in REREAD.values() for row, pair in by.items() if name in pair]
    out: Values = {}
    for place, pairs in sets.items():
        looked = [(c, of) for row, of in asking for c in LOOKED_AT[row]
                  if place in LOOKED_AT[row][c]]  # fmt: skip
        if looked:
            made = outputs(net, pairs)
            out[place] = evaluate(made, pairs, tuple(dict.fromkeys(c for c, _ in looked)))
            for other in {of[c] for c, of in looked if c in of}:
                out[place][other] = _otherwise(other, made, pairs)
    return out


def _otherwise(column: str, found: list[Tensor], pairs: list[data.Pair]) -> PerImage:
    """PSNR of all pixels of the three colours (lsrgan-e34), or SSIM with Gauss's window (e33)."""
    from latentpapers.metrics import full_reference

    both = [(x[None], pair.hr[None]) for x, pair in zip(found, pairs, strict=True)]
    if column == "SSIM 11 x 11":
        return torch.cat([full_reference.ssim_y_11x11_b4(*one) for one in both])
    errors = torch.stack([(x.double() - y.double()).square().mean() for x, y in both])
    return 20 * torch.log10(255 / errors.sqrt())


def score_readings(
    folder: Path, out: Path, measured: Callable[..., Values] = reading_values
) -> None:  # fmt: skip
    """Writes by how much each reading of `REREAD` moves the paired difference of every picture.

    Args:
        folder: of the networks of `READINGS`.
        measured: as `reading_values`.

    Raises:
        Missing, UnknownName: a network or a set that is not here.
    """
    sets = {name: scored_pairs(name) for name in (*CROPS, *PUBLISHED_SETS)}
    names = {n for by, _ in REREAD.values() for row in by for n in (*by[row], *COMPARED[row])}
    found = {name: measured(name, folder, sets) for name in sorted(names)}

    def moved(row: str, pair: tuple[str, str], column: str, other: str) -> Tensor:
        (new, old), (used_new, used_old) = ([found[n] for n in p] for p in (pair, COMPARED[row]))
        return torch.cat([
            (new[place][other] - old[place][other])
            - (used_new[place][column] - used_old[place][column])
            for place in LOOKED_AT[row][column]
        ]).float()  # fmt: skip

    tree = {
        erratum: {row: {column: moved(row, pair, column, of.get(column, column))
                        for column in LOOKED_AT[row] if not of or column in of}
                  for row, pair in by.items() if not of or of.keys() & LOOKED_AT[row].keys()}
        for erratum, (by, of) in REREAD.items()
    }  # fmt: skip
    home = paths.checkpoints() / "lsrgan"
    files = {n: (folder if n in READINGS else home) / f"{n}_s0.safetensors" for n in sorted(names)}
    card = {
        "pictures": {name: len(pairs) for name, pairs in sets.items()},
        "readings": {name: [of, changed] for name, (of, changed) in READINGS.items()},
        "networks": {n: storage.sha256_file(file) for n, file in files.items()},
        "commands": remaking((*READINGS,), 0, "readings"),
    }  # fmt: skip
    tensorfile.save(out / score_file(0, "readings").name, tree, about=card)


def reading_scores() -> dict[str, dict[str, dict[str, dict[str, PerImage]]]]:
    """erratum -> comparison -> column -> set -> what it adds to the difference of every picture.

    Raises:
        Missing, Corrupt: no such file, an altered one, or one of networks that no longer ship.
    """
    file = score_file(0, "readings")
    card, tree = tensorfile.header(file), tensorfile.load(file)
    for name, known in card["networks"].items():
        network = paths.checkpoints() / "lsrgan" / f"{name}_s0.safetensors"
        if name not in READINGS and storage.sha256_file(network) != known:
            raise Corrupt(f"{file.name} was measured with another {network.name}; measure again "
                          f"with `{'` and `'.join(card['commands'])}`.")  # fmt: skip

    def parted(places: tuple[str, ...], values: Tensor) -> dict[str, PerImage]:
        return dict(zip(places, values.split([card["pictures"][p] for p in places]), strict=True))

    return {e: {row: {c: parted(LOOKED_AT[row][c], v) for c, v in columns.items()}
                for row, columns in rows.items()} for e, rows in tree.items()}  # fmt: skip


def least_favourable(
    scores: Mapping[str, Score], changes: Mapping[str, Score], high: float
) -> Score:
    """Of several sets the number that favours a claim least, each moved by its change, if any.

    Args:
        high: up to where the claim holds; infinite: more is better.
    """
    found = [intervals.added(v, changes[k]) if changes else v for k, v in scores.items()]
    return min(found, key=lambda v: v.low if high == math.inf else -v.high)


def change_of_range(
    difference: PerImage, moved: PerImage, *, groups: intervals.Groups = None,
    resamples: int = 2000, seed: int = 0,
) -> Score:  # fmt: skip
    """By how much the range of two networks' means grows if their difference moves by `moved`."""
    x, m = (v.double().numpy() for v in (difference, moved))
    weights = intervals.drawn(groups, len(x), resamples, numpy(seed, "bootstrap", "range"))
    draws = abs(weights @ (x + m)) - abs(weights @ x)
    value = float(abs((x + m).mean()) - abs(x.mean()))
    return _score(value, draws, len(x), intervals.method(groups))


def first_stage_scores() -> tuple[dict[str, dict[str, float]], models.Model]:
    """PSNR by network and picture of Set5, as `score_first_stage` wrote it, and its card.

    Raises:
        Missing, Corrupt: no such file, or an altered one.
    """
    file = score_file(0, "first_stage")
    about, tree = tensorfile.header(file), tensorfile.load(file)
    found = {
        name: dict(zip(about["pictures"], values["set5"]["PSNR"].tolist(), strict=True))
        for name, values in tree.items()
    }
    return found, models.Model({}, about["card"])


def published_scores(
    seed: int = 0, kind: str = "published"
) -> tuple[dict[str, Values], dict[str, Any]]:
    """Shipped scores by network, and their card.

    Raises:
        Missing, Corrupt: the file, or one of networks that are no longer the shipped ones or no
            longer start from the shipped first stage.
    """
    file = score_file(seed, kind)
    card, tree = tensorfile.header(file), unpacked(tensorfile.load(file))
    shipped = card.get("shipped", True)
    behind = card["networks"] if shipped else {"psnr": card["start"]}
    for name, known in behind.items():
        network = paths.checkpoints() / "lsrgan" / f"{name}_s{seed * shipped}.safetensors"
        if storage.sha256_file(network) != known:
            again = f"latentpapers train lsrgan --score --out {file.parent.name}"
            again = again if shipped else "` and `".join(card["commands"])
            raise Corrupt(
                f"{file.name} was measured with another {network.name}; measure again with "
                f"`{again}`."
            )
    return tree, card


def scores_only(
    seed: int, tests: tuple[str, ...], each: int, kind: str = "published"
) -> dict[str, tuple[Values, models.Model]]:
    """What ships of a seed whose networks do not: name -> scores of every picture, and the card.

    Args:
        tests, each: test sets and crops a photograph, as in `Preset`.
        kind: as in `score_file`.

    Raises:
        Missing, Corrupt: no such scores, with the remedy; as `published_scores`.
    """
    tree, card = published_scores(seed, kind)
    keys = {name: f"photos_{each}" if name == "photos" else name for name in tests}
    for key in keys.values():
        if key not in card["sets"]:
            raise Missing(
                f"the networks of seed {seed} do not ship, and of their scores there are none on "
                f"{key!r} (known: {', '.join(card['sets'])}); set table_seeds=[0], or train them: "
                f"{'; '.join(card['commands'][:2])} ..."
            )
    return {
        name: ({test: tree[name][key] for test, key in keys.items()}, models.Model({}, about))
        for name, about in card["cards"].items()
    }


def has_ma() -> bool:
    """Whether the model of Ma et al., half of PI, is on this machine."""
    from latentpapers.metrics import ma

    try:
        ma.published()
    except Missing:
        return False
    return True


def photographs(pairs: list[data.Pair]) -> tuple[str, ...] | None:
    """What each picture was cut from; None where every picture is whole."""
    whole = tuple(pair.name.rpartition(" ")[0] for pair in pairs)
    return whole if all(whole) else None


def pooled_groups(
    groups: Mapping[str, intervals.Groups], counts: Mapping[str, int]
) -> tuple[str, ...] | None:
    """Photographs of several sets' pictures, set after set; None where every picture is whole.

    Args:
        groups: set -> the photographs that its pictures were cut from (`photographs`).
        counts: set -> number of its pictures, in the order of pooling.
    """
    if not any(groups.get(name) is not None for name in counts):
        return None
    of = {name: groups.get(name) or range(n) for name, n in counts.items()}
    return tuple(f"{name} {photograph}" for name in counts for photograph in of[name])


def differences(
    first: Values, second: Values, column: str, *, spread: bool = False, percent: bool = False,
    groups: Mapping[str, intervals.Groups] | None = None,
) -> dict[str, Score]:  # fmt: skip
    """`first` less `second` on the same pictures: a set each, and `all images` pooled.

    Args:
        spread: of the standard deviations over pictures, not of the means.
        percent: of the second's mean.
        groups: set -> the photographs that its pictures were cut from (`photographs`).
    """
    both = {name: (first[name][column], second[name][column]) for name in first}
    of = {name: (groups or {}).get(name) for name in both}
    of["all images"] = pooled_groups(of, {name: len(old) for name, (_, old) in both.items()})
    both["all images"] = tuple(torch.cat([pair[i] for pair in both.values()]) for i in (0, 1))
    how = spread_difference if spread else intervals.paired_difference
    found = {name: how(a, b, groups=of[name]) for name, (a, b) in both.items()}
    if not percent:
        return found
    return {name: share_of(score, float(both[name][1].mean())) for name, score in found.items()}


def share_of(score: Score, base: float) -> Score:
    """A difference in per cent of `base`, interval and all."""
    return replace(score, **{k: 100 * getattr(score, k) / base for k in ("value", "low", "high")})


def mean_of(several: Sequence[Values], column: str) -> Values:
    """Several networks' values of a column, averaged picture by picture."""
    return {
        name: {column: torch.stack([values[name][column] for values in several]).mean(0)}
        for name in several[0]
    }


def best_of(rivals: Mapping[str, Values], columns: Mapping[str, bool]) -> dict[str, str]:
    """Who has the best mean, comparison by comparison: a set and a column each (Appendix C).

    Args:
        rivals: name -> its values.
        columns: column -> whether more is better.

    Returns:
        `column set` -> name; of equal ones the first. What was not measured is left out.
    """
    out = {}
    for place, found in next(iter(rivals.values())).items():
        for column, higher in columns.items():
            if column in found:
                means = {who: float(v[place][column].mean()) for who, v in rivals.items()}
                out[f"{column} {place}"] = (max if higher else min)(means, key=means.__getitem__)
    return out


def worst_sets(
    found: Sequence[Mapping[Any, Score]], *, higher: bool, leave: tuple[str, ...] = ()
) -> list[Score]:
    """The test set that favours a claim least: a claim about every set holds if it holds there.

    It is one set for all trainings, that whose interval reaches furthest against the claim: the
    interval over seeds where there are several, for that is what verdicts read. A set chosen for
    each training by itself, by its interval over pictures, may leave out the one that decides.

    Args:
        found: from `differences`, one a training.
        higher: whether the claim says that the difference is positive.
        leave: sets that the claim leaves out.

    Returns:
        That set's difference, one a training.

    Raises:
        UserError: no set is left.
    """

    def bound(name: Any) -> float:
        scores = [one[name] for one in found]
        whole = intervals.over_seeds([s.value for s in scores]) if scores[1:] else scores[0]
        low, high = (whole.value if b is None else b for b in (whole.low, whole.high))  # of 2 seeds
        return low if higher else -high

    names = [name for name in found[0] if name not in ("all images", *leave)]
    if not names:
        raise UserError("a claim about every test set needs one that it does not leave out.")
    worst = min(names, key=bound)
    return [one[worst] for one in found]


def spread_difference(
    a: PerImage, b: PerImage, *, groups: intervals.Groups = None, resamples: int = 2000,
    seed: int = 0,
) -> Score:  # fmt: skip
    """Population standard deviation of `a` less that of `b`; pictures are resampled together."""
    x, y = (v.double().numpy() for v in (a, b))
    weights = intervals.drawn(groups, len(x), resamples, numpy(seed, "bootstrap", "spread"))
    draws = intervals.weighted_std(x, weights) - intervals.weighted_std(y, weights)
    how = intervals.method(groups, paired=True)
    return _score(float(x.std() - y.std()), draws, len(x), how)


def range_of_means(
    several: list[PerImage], *, groups: intervals.Groups = None, resamples: int = 2000,
    seed: int = 0,
) -> Score:  # fmt: skip
    """Largest less smallest mean of several networks; pictures are resampled together."""
    x = torch.stack([v.double() for v in several]).numpy()
    weights = intervals.drawn(groups, x.shape[1], resamples, numpy(seed, "bootstrap", "range"))
    means = x @ weights.T
    value = float(x.mean(1).max() - x.mean(1).min())
    return _score(value, means.max(0) - means.min(0), x.shape[1], intervals.method(groups))


def _score(value: float, draws: Any, n: int, how: str) -> Score:
    import numpy as np

    low, high = np.quantile(draws, [0.025, 0.975])
    return Score(value, float(low), float(high), n, how)


def place_of_largest_difference(
    first: Tensor, second: Tensor, crop: int, *, stride: int = 4
) -> tuple[int, int]:
    """The rule that figures choose their crops by: where two methods differ most in structure.

    The measure is the standard deviation of their difference inside the crop, so that a mere shift
    of brightness or colour counts for nothing.

    Args:
        first, second: uint8 (3, H, W).
        crop: side of the crop in pixels; a multiple of `stride`.

    Returns:
        Top and left of the crop with the largest measure; the first such in reading order.
        Multiples of `stride`, so that low-resolution pixels are not cut.

    Raises:
        UserError: pictures of two sizes, or smaller than the crop.
    """
    if first.shape != second.shape or not 0 < crop <= min(first.shape[1:]) or crop % stride:
        raise UserError(
            f"cannot cut {crop} px in steps of {stride} from {tuple(first.shape)} and "
            f"{tuple(second.shape)}."
        )
    gap = (first.double() - second.double()).mean(0)[None, None]
    mean, square = (nn.functional.avg_pool2d(x, crop, stride)[0, 0] for x in (gap, gap.square()))
    spread = square - mean.square()
    best = int(spread.argmax())
    return best // spread.shape[1] * stride, best % spread.shape[1] * stride


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


# --- its runs ---------------------------------------------------------------------------------


def measured(job: Training, path: Path, *, device: str = "cpu") -> dict[str, Score]:
    """What a learning curve of LSRGAN shows, on the crops of quick: likeness to the truth (PSNR,
    SSIM), naturalness without it (NIQE), detail (gradient energy as a share of the truth's)."""
    pairs = evaluation_pairs("photos")
    net, groups = load_generator(models.load(path), device), photographs(pairs)
    found = outputs(net, pairs, device)
    values = evaluate(found, pairs, ("PSNR", "SSIM", "NIQE"))
    values["sharpness"] = sharpness(found) / sharpness([pair.hr for pair in pairs]).mean()
    ids = {**METRICS, "sharpness": "gradient_energy_ratio"}
    return {ids[k]: intervals.bootstrap_mean(v, groups=groups) for k, v in values.items()}


RUNS = Runs(
    "lsrgan", Training, _fit, _card, recipe,
    {"shipped": SHIPPED, **{name: preset.training for name, preset in PRESETS.items()}}, KEPT,
    measure=measured,
)  # fmt: skip
train, export = RUNS.train, RUNS.export


def train_from_cli(arguments: list[str]) -> int:
    """`Runs.train_from_cli`; `--score --out FOLDER` measures shipped networks (`score`), with
    `--networks FOLDER` those of a seed that does not ship, or (`--what`) those with the standard
    loss, those of other readings, or the first stage from public weights."""
    if "--score" not in arguments:
        return RUNS.train_from_cli(arguments)
    import argparse

    parser = argparse.ArgumentParser("latentpapers train lsrgan", allow_abbrev=False)
    parser.add_argument("--score", action="store_true", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--what", default="published",
                        choices=["published", "standard", "first_stage", "readings"])  # fmt: skip
    args = parser.parse_args(arguments)
    if args.what != "published" and args.networks is None:
        parser.error(f"--what {args.what} needs --networks: those networks do not ship")
    alone = {"first_stage": score_first_stage, "readings": score_readings}
    if args.what in alone:
        alone[args.what](args.networks, args.out)
        return 0
    names, sets = SCORED, PUBLISHED_SETS
    if args.networks is not None:  # the first stage is seed 0's; and no network is there for crops
        names, sets = SCORED[1:], (*PUBLISHED_SETS, *CROPS)
    if args.what == "standard":
        names, sets = STANDARD, (*CROPS,)
    score(names, sets, args.out, args.seed, sets, args.networks, args.what)
    return 0
