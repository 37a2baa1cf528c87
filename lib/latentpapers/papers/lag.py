"""LAG: creating high resolution images with a latent adversarial generator (Berthelot et al.).

From a tiny image y and noise z the generator makes a large image; the critic's features are the
space in which the output at z = 0 is drawn to the real image. The baselines of the missing
supplement, the ablations and the paper's two extensions are rows of `METHODS`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentpapers import config, data, models, paths, storage, tensorfile
from latentpapers.errors import Missing, UserError
from latentpapers.losses import centre as Z
from latentpapers.losses import logistic, relativistic
from latentpapers.losses import wgan as W
from latentpapers.losses.low_resolution import difference_map, no_difference
from latentpapers.metrics import frechet, full_reference, intervals, possibilities, translation
from latentpapers.metrics.protocol import Score
from latentpapers.nets import edsr, lag, srgan
from latentpapers.nets.began import seeded
from latentpapers.seeds import generator
from latentpapers.shapes import Bytes, Images, PerImage
from latentpapers.train.context import Context, Sampler
from latentpapers.train.distributed import Group, gathered
from latentpapers.train.engine import Fit, Given, Task, Update, fit, stepping
from latentpapers.train.runs import Networks as States
from latentpapers.train.runs import Progress, Runs, state_of
from latentpapers.train.schedule import Stage, stage_at

# (CPU seconds, MB) of each notebook, measured on one core in a process of its own
EXPECT = {
    "quick/1_derivation": (10, 960), "quick/2_training": (10, 880), "quick/3_tables": (22, 970),
    "quick/4_figures": (13, 850), "quick/5_explore": (8, 740),
    "cpu/3_tables": (250, 3100), "cpu/4_figures": (25, 1260),
}  # fmt: skip
ALLOWED = {"gpu/2_training": 522, "gpu/3_tables": 60, "gpu/4_figures": 18}  # seconds of 600
KIMG = 1024
PAPERS_OWN = ("celeba-lag", "lsun-bedroom", "lsun-church")  # data sets of the paper's figures
PHASE = 2048 * KIMG  # images of one phase of growing in the paper's run
# What SRGAN's features are divided by in its loss: 1000 in the authors' code, whose network takes
# images on 0 to 255; torchvision's takes them divided by 255 * 0.226 on average
FEATURE_SCALE = {"vgg16hed": 1000.0, "vgg19": 17.4}


def budget(factor: int) -> int:
    """Images of the paper's run: phases of 2048 kimg, two a doubling less one (authors' code)."""
    return (2 * lag.stages(factor) - 1) * PHASE


@dataclass(frozen=True)
class Method:
    """Which networks and losses a method has.

    Attributes:
        title: the row's name in our table.
        network: of the generator: `lag`, `edsr`, `srgan`.
        adversary: `wgan` (with penalty), `logistic` (eq 9), `relativistic`, `srgan`, or `none`.
        centre: the centre loss of eq 6.
        latent: what takes the place of z = 0: `zero`, a learned `embedding` of each training
            image, or an `encoder` (section 2.1).
    """

    title: str
    network: Literal["lag", "edsr", "srgan"] = "lag"
    adversary: Literal["wgan", "logistic", "relativistic", "srgan", "none"] = "wgan"
    centre: bool = True
    latent: Literal["zero", "embedding", "encoder"] = "zero"

    @property
    def samples(self) -> bool:
        """Whether noise enters, so that one input has many outputs."""
        return self.network == "lag"


METHODS: dict[str, Method] = {
    "lag": Method("LAG"),
    "lag_no_centre": Method("LAG without centre loss", centre=False),
    "cgan": Method("conditional GAN (eq 9)", adversary="logistic", centre=False),
    "lag_relativistic": Method("LAG, relativistic + spectral norm", adversary="relativistic"),
    "lag_embedding": Method("LAG, embedding z_i", latent="embedding"),
    "lag_encoder": Method("LAG, encoder E(x)", latent="encoder"),
    "edsr": Method("EDSR", network="edsr", adversary="none", centre=False),
    "srgan": Method("SRGAN", network="srgan", adversary="srgan", centre=False),
}  # fmt: skip


@dataclass(frozen=True)
class Training:
    """One training run: everything that decides its result.

    Attributes:
        method: a row of `METHODS`.
        data, size, images: training set, pixels a side (a power of two), images taken of it.
        factor: how many times smaller the input is.
        steps, batch, seconds: steps, images a step, and the time limit that may end it sooner.
        width, floor, blocks, noise: of the networks; 256, 64, 8, 64 in the authors' code.
        kernel: how the input is made, `average` or `bicubic`; `shifted` adds the authors'
            off-centre window (lag-e21).
        phase: images of one phase of growing; 0: full size from the start.
        lr: of Adam (0, 0.99); `critic_ratio` multiplies the critic's (a real ratio of rates,
            lag-e18), `latent_ratio` that of z_i or E: each z_i moves only when its image comes.
        centre_weight, penalty_weight: 10 and 10 in the authors' code, 1 and 1 in print.
        pixel_weight: of an L1 between G(y, 0) and the real image, an ablation: the paper has no
            pixel loss (lag-c28). At z = 0 alone, where closeness is asked for anyway: at a random z
            its minimum would be one image for every z.
        norm, target: of the gradient penalty (lag-e6).
        slope_of: the scalar whose slope it is: the code's sum over `positions` (authors' code), or
            the critic's `value`, as eq 5 prints (lag-e30).
        penalty_every: steps between penalties, each with as many times the weight; 1: every step.
        reading: of the difference map; `step` is its colour step, 0 its own (lag-e12, lag-e13).
        centre_reading: of eq 6 (lag-e9).
        updates: `joint`, from one forward pass, or `alternate` (lag-e17).
        ema: decay of the average that is used for samples.
        prior_weight: draws z_i or E(x) to N(0, 1).
        feature_weight, adversarial_weight, features: of SRGAN; the feature network by name, or
            `none`.
        flip, log_every, precision, compile: of the engine.
    """

    method: str
    data: str
    size: int
    images: int
    factor: int
    steps: int
    batch: int = 16
    seconds: float | None = None
    width: int = 256
    floor: int = 64
    blocks: int = 8
    noise: int = 64
    kernel: Literal["average", "bicubic"] = "average"
    shifted: bool = False
    phase: int = 0
    lr: float = 1e-3
    critic_ratio: float = 1.0
    latent_ratio: float = 1.0
    centre_weight: float = 10.0
    penalty_weight: float = 10.0
    pixel_weight: float = 0.0
    norm: Literal["rms", "l2"] = "rms"
    target: float = 1.0
    slope_of: Literal["positions", "value"] = "positions"
    penalty_every: int = 1
    reading: Literal["code", "paper", "literal"] = "code"
    step: float = 0.0
    centre_reading: Literal["mean", "sum"] = "mean"
    updates: Literal["joint", "alternate"] = "joint"
    ema: float = 0.999
    prior_weight: float = 1.0
    feature_weight: float = 1.0
    adversarial_weight: float = 1e-3
    features: str = "none"
    flip: bool = True
    log_every: int = 50
    precision: str = "fp32"
    compile: bool = False


def method_of(job: Training) -> Method:
    """The `METHODS` row of a run.

    Raises:
        UnknownName: no such method.
    """
    return config.named("method", job.method, METHODS)


def low_side(job: Training) -> int:
    """Pixels a side of the low resolution image.

    Raises:
        UserError: a size that is not a power of two, or one that the factor does not divide.
    """
    if job.size & (job.size - 1) or job.size < job.factor:
        raise UserError(
            f"size must be a power of two of at least {job.factor} for a factor of "
            f"{job.factor}, not {job.size}."
        )
    return job.size // job.factor


def reduce(x: Images, factor: int, kernel: str = "average", shifted: bool = False) -> Images:
    """H(x): the low resolution image, differentiable, neither rounded nor clipped."""
    if kernel == "average":
        return lag.box_down(x, factor)
    return data.downscale(x, factor, kernel="bicubic_lag" if shifted else kernel)


def stages_of(job: Training) -> tuple[Stage, ...]:
    """Growing from x2 (authors' code): hold, fade, hold, ..., and the last stage for ever."""
    top = lag.stages(job.factor)
    if job.phase == 0:
        return (Stage(top, 0),)
    out = [Stage(1, job.phase)]
    for level in range(2, top + 1):
        out += [Stage(level, job.phase, fade=True), Stage(level, job.phase)]
    return tuple(out)


def networks(job: Training, seed: int) -> dict[str, nn.Module]:
    """The networks of a run, initialised from the seed alone."""
    method, nets = method_of(job), {}
    names = ["generator"]
    names += ["critic"] if method.adversary != "none" else []
    names += [method.latent] if method.latent != "zero" else []
    for name in names:
        how = recipe(job, name)
        kind, options = KINDS[how["net"]], how["options"]
        nets[name] = seeded(lambda: kind(**options), generator(seed, "init", name))  # noqa: B023
    return nets


KINDS: dict[str, type[nn.Module]] = {
    "lag.Generator": lag.Generator, "lag.Critic": lag.Critic, "lag.Encoder": lag.Encoder,
    "lag.Embedding": lag.Embedding, "edsr.EDSR": edsr.EDSR, "srgan.Generator": srgan.Generator,
    "srgan.Discriminator": srgan.Discriminator,
}  # fmt: skip


def recipe(job: Training, name: str) -> dict[str, Any]:
    """How `lp.models.build` makes a network of this run."""
    method = method_of(job)
    shape = {"factor": job.factor, "width": job.width, "floor": job.floor}
    if name == "embedding":
        options = {"images": job.images, "noise": job.noise, "side": low_side(job)}
        return {"net": "lag.Embedding", "options": options}
    if name == "encoder":
        return {"net": "lag.Encoder", "options": {**shape, "noise": job.noise}}
    if name == "critic" and method.adversary == "srgan":
        return {"net": "srgan.Discriminator", "options": {"size": job.size, "width": job.width}}
    if name == "critic":
        conv = "equalised" if method.adversary == "wgan" else "spectral"
        return {"net": "lag.Critic", "options": {**shape, "blocks": job.blocks, "conv": conv}}
    plain = {"factor": job.factor, "width": job.width, "blocks": job.blocks}
    nets = {"lag": {"net": "lag.Generator", "options": {**shape, "blocks": job.blocks,
                                                        "noise": job.noise}},
            "edsr": {"net": "edsr.EDSR", "options": plain},
            "srgan": {"net": "srgan.Generator", "options": plain}}  # fmt: skip
    return nets[method.network]


Losses = dict[str, Tensor]
SCALARS = {"positions": lag.position_sum, "value": lag.value}  # what the penalty differentiates


class Step(Task):
    """The training step of every row of `METHODS`. The stage of growing follows from the step."""

    def __init__(
        self, job: Training, seed: int, device: str | torch.device = "cpu",
        features: nn.Module | None = None,
    ) -> None:  # fmt: skip
        self.job, self.method = job, method_of(job)
        low_side(job)
        config.named("scalar", job.slope_of, SCALARS)
        if job.penalty_every < 1:
            raise UserError(f"penalty_every must be at least 1, not {job.penalty_every}.")
        self.nets = networks(job, seed)
        self.ema = {"generator": job.ema} if job.ema else {}
        self.stages = stages_of(job)
        self.level, self.fade = self.stages[0].level, 1.0
        self.features = features.to(device) if features is not None else None
        self.sampler = Sampler(job.images, job.batch, seed)  # tells which z_i a batch needs

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam (0, 0.99), eps 1e-8; the baselines use their own papers' momentum."""
        ours = self.method.network == "lag"
        betas = (0.0, 0.99) if ours else (0.9, 0.999)
        how = stepping(self.job.precision)
        ratio = {"critic": self.job.critic_ratio, "latent": self.job.latent_ratio}
        parts = {"generator": ["generator"], "critic": ["critic"],
                 "latent": ["encoder", "embedding"]}  # fmt: skip
        return {
            name: torch.optim.Adam(
                [p for n in nets if n in self.nets for p in self.nets[n].parameters()],
                lr=self.job.lr * ratio.get(name, 1.0), betas=betas, **how,
            )
            for name, nets in parts.items()
            if any(n in self.nets for n in nets)
        }  # fmt: skip

    def blocks(self) -> list[nn.Module]:
        """The generator's blocks and stages and the critic's stages; the baselines have none."""
        if self.method.network != "lag":
            return []
        generator, critic = self.nets["generator"], self.nets["critic"]
        return [*generator.blocks, *generator.stages, *critic.trunk.stages]

    def before_step(self, step: int, images: int) -> float:
        """Sets the stage of growing. Each stage's Adam starts when its first gradient comes."""
        _, stage, self.fade = stage_at(images, self.stages)
        self.level = stage.level
        return 1.0

    # -- the images of a step ------------------------------------------------------------------

    def reduced(self, x: Images) -> Images:
        """H(x) in full precision."""
        return reduce(x, self.job.factor, self.job.kernel, self.job.shifted)

    def real(self, x: Images) -> Images:
        """The real image with the details of the present stage alone, at the full size."""
        times = self.job.factor >> self.level
        small = lag.box_down(x, times)
        small = lag.blended(small, self.fade) if self.fade < 1 else small
        return lag.nearest_up(small, times)

    def fake(self, y: Images, z: Tensor, ctx: Context) -> Images:
        """G(y, z) of the present stage, enlarged to the full size."""
        with ctx.autocast():
            image = self.nets["generator"](y, z, level=self.level, fade=self.fade)
        return lag.nearest_up(image, self.job.factor >> self.level)

    def code(self, x: Images, difference: Images, ctx: Context | None = None) -> Tensor:
        """P(x, d) of the present stage; in full precision without a context."""
        if ctx is None:
            return self.nets["critic"](x, difference, level=self.level, fade=self.fade)
        with ctx.autocast():
            return self.nets["critic"](x, difference, level=self.level, fade=self.fade)

    def difference(self, y: Images, x: Images) -> Images:
        """The difference map of a generated (or mixed) image."""
        step = self.job.step or None
        return difference_map(y, self.reduced(x), reading=self.job.reading, step=step)

    # -- losses --------------------------------------------------------------------------------

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        """Joint: both gradients from one forward pass. Alternate: critic first."""
        like = next(self.nets["generator"].parameters())  # fp32; fp64 where a test asks for it
        x = batch.to(like).div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        y = self.reduced(x)
        if self.method.network != "lag":
            yield from self.baseline(x, y, ctx)
            return
        noise = ctx.noise(self.job.noise, *y.shape[2:]).to(like)
        if self.method.adversary == "wgan" and self.job.updates == "joint":
            yield self.shared(x, y, noise, ctx)
            return
        if self.job.updates == "joint":
            losses, terms = self.objectives(x, y, noise, ctx)
            ctx.log(**terms)
            yield losses
            return
        losses, terms = self.objectives(x, y, noise, ctx)
        yield {"critic": losses["critic"]}
        mine, again = self.objectives(x, y, noise, ctx, penalty=False)
        ctx.log(**{**terms, **{k: v for k, v in again.items() if k != "penalty"}})
        yield {name: loss for name, loss in mine.items() if name != "critic"}

    def latent(self, x: Images, y: Images, ctx: Context) -> Tensor:
        """What takes the place of z = 0 in the centre loss."""
        if self.method.latent == "encoder":
            with ctx.autocast():
                return self.nets["encoder"](x)
        if self.method.latent == "embedding":
            which = self.sampler.indices(ctx.step)[ctx.start : ctx.stop]
            return self.nets["embedding"](which.to(x.device, non_blocking=True))
        return self.nets["generator"].zeros(y)

    def pair(
        self, x: Images, y: Images, noise: Tensor, ctx: Context
    ) -> tuple[Images, Images, Tensor]:
        """G(y, z), G(y, centre) from one pass of the generator, and the centre's latent."""
        latent = self.latent(x, y, ctx)
        if not self.method.centre:
            return (image := self.fake(y, noise, ctx)), image, latent
        both = self.fake(torch.cat([y, y]), torch.cat([noise, latent]), ctx)
        random, central = both.chunk(2)
        return random, central, latent

    def penalised(self, ctx: Context) -> float:
        """This step's weight of the gradient penalty; 0: none is computed."""
        every = self.job.penalty_every
        return self.job.penalty_weight * every if ctx.step % every == 0 else 0.0

    def penalty(self, real: Images, fake: Images, y: Images, ctx: Context) -> Tensor:
        """Eq 5 for LAG's critic: the slope of one scalar an image, through both inputs."""
        scalar = SCALARS[self.job.slope_of]

        def critic(mixed: Images) -> Tensor:
            return scalar(self.code(mixed, self.difference(y, mixed)))

        rho = ctx.uniform().to(real)
        job = self.job
        with ctx.uncompiled():
            return W.gradient_penalty(critic, real, fake, rho, norm=job.norm, target=job.target)

    def shared(self, x: Images, y: Images, noise: Tensor, ctx: Context) -> Update:
        """Eqs 7 and 8 with the critic's pass over G(y, z) differentiated once.

        It serves the critic's parameters (weight 1) and the image (weight -1) together; a test
        holds the result equal to plain autograd of `objectives`.
        """
        job, params = self.job, list(self.nets["critic"].parameters())
        real = self.real(x)
        random, central, latent = self.pair(x, y, noise, ctx)
        p_real = self.code(real, no_difference(y), ctx)
        leaf, zero = random.detach().requires_grad_(), y.new_zeros(())
        p_fake = self.code(leaf, self.difference(y, leaf), ctx)
        c_real, c_fake = lag.value(p_real), lag.value(p_fake)
        by_real = _gradients(ctx.scaled(W.generator_loss(c_real)), params)
        *by_fake, pull = _gradients(ctx.scaled(c_fake.mean()), [*params, leaf])
        losses: Update = {"generator": -(random * ctx.unscaled(pull)).sum()}
        terms = {"real": c_real.mean(), "fake": c_fake.mean(), "centre": zero}
        if self.method.centre:
            middle = central.detach().requires_grad_()
            p_centre = self.code(middle, self.difference(y, middle), ctx)
            terms["centre"] = Z.centre_loss(p_real.detach(), p_centre, reading=job.centre_reading)
            (pull,) = _gradients(ctx.scaled(terms["centre"]), [middle])
            toward = job.centre_weight * (central * ctx.unscaled(pull)).sum()
            losses["generator"] = losses["generator"] + toward
            self.add_latent(losses, terms, toward, latent)
        losses["generator"] = self.with_pixels(losses["generator"], terms, central, real)
        critic = [_sum(a, b) for a, b in zip(by_real, by_fake, strict=True)]
        weight = self.penalised(ctx)
        if weight:
            terms["penalty"] = self.penalty(real, random, y, ctx)
            slopes = _gradients(ctx.scaled(terms["penalty"]), params)
            critic = [_sum(a, b, weight) for a, b in zip(critic, slopes, strict=True)]
        ctx.log(**terms)
        return losses | {"critic": Given(tuple(critic), scaled=True)}

    def add_latent(self, losses: Update, terms: Losses, toward: Tensor, latent: Tensor) -> None:
        """The extensions' own update: closeness of the centre, and z ~ N(0, 1) in the batch."""
        if self.method.latent == "zero":
            return
        terms["prior"] = Z.prior_moments(gathered(latent))
        losses["latent"] = toward + self.job.prior_weight * terms["prior"]

    def with_pixels(self, loss: Tensor, terms: Losses, central: Images, real: Images) -> Tensor:
        """The generator's loss, with the ablation's pixel loss where it has a weight."""
        if not self.job.pixel_weight:
            return loss
        terms["pixels"] = (central - real).abs().mean()
        return loss + self.job.pixel_weight * terms["pixels"]

    def objectives(
        self, x: Images, y: Images, noise: Tensor, ctx: Context, *, penalty: bool = True
    ) -> tuple[Losses, Losses]:
        """Each network's loss as printed, to be differentiated by its own parameters alone.

        Returns:
            The losses by update, and the terms to log.
        """
        job, real = self.job, self.real(x)
        random, central, latent = self.pair(x, y, noise, ctx)
        p_real = self.code(real, no_difference(y), ctx)
        p_fake = self.code(random, self.difference(y, random), ctx)
        adversarial, critic, terms = self.adversary(p_real, p_fake)
        terms["centre"] = y.new_zeros(())
        if self.method.centre:
            p_centre = self.code(central, self.difference(y, central), ctx)
            terms["centre"] = Z.centre_loss(p_real.detach(), p_centre, reading=job.centre_reading)
        weight = self.penalised(ctx) if penalty and self.method.adversary == "wgan" else 0.0
        if weight:
            terms["penalty"] = self.penalty(real, random, y, ctx)
            critic = critic + weight * terms["penalty"]
        loss = Z.generator_objective(adversarial, terms["centre"], weight=job.centre_weight)
        loss = self.with_pixels(loss, terms, central, real)
        losses: Losses = {"generator": loss, "critic": critic}
        self.add_latent(losses, terms, job.centre_weight * terms["centre"], latent)
        return losses, terms

    def adversary(self, p_real: Tensor, p_fake: Tensor) -> tuple[Tensor, Tensor, Losses]:
        """(generator's, critic's) adversarial losses, and the means to watch."""
        if self.method.adversary == "wgan":
            real, fake = lag.value(p_real), lag.value(p_fake)
            losses = W.generator_loss(fake), W.critic_loss(real, fake)
        else:
            real, fake = lag.logits(p_real), lag.logits(p_fake)
            if self.method.adversary == "logistic":
                losses = logistic.generator_loss(fake), logistic.discriminator_loss(real, fake)
            else:  # each image against the average of the whole batch, of all processes
                every = gathered(real), gathered(fake)
                losses = relativistic.generator_loss(*every), relativistic.critic_loss(*every)
        return *losses, {"real": real.mean(), "fake": fake.mean()}

    def baseline(self, x: Images, y: Images, ctx: Context) -> Iterator[Update]:
        """EDSR: pixels alone. SRGAN: pixels, features and a discriminator."""
        with ctx.autocast():
            fake = self.nets["generator"](y)
        loss = pixels = (fake - x).square().mean()
        terms, losses = {"pixels": pixels}, {}
        if self.method.adversary == "srgan":
            with ctx.autocast():
                real, made = (self.nets["critic"].positions(v) for v in (x, fake))
            losses["critic"] = logistic.discriminator_loss(real, made)
            loss = loss + self.job.adversarial_weight * logistic.generator_loss(made)
            terms["critic"] = losses["critic"]
        if self.features is not None:
            with ctx.autocast():
                a, b = (self.features((v + 1) / 2).float() for v in (x, fake))
            scale = FEATURE_SCALE.get(self.job.features, 1.0)
            terms["features"] = ((a.detach() - b) / scale).square().mean()
            loss = loss + self.job.feature_weight * terms["features"]
        ctx.log(**terms)
        yield {"generator": loss, **losses}


def _gradients(loss: Tensor, inputs: list[Tensor]) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)


def _sum(a: Tensor | None, b: Tensor | None, weight: float = 1.0) -> Tensor | None:
    """a + weight * b, where a stage that takes no part has no gradient."""
    if a is None or b is None:
        return a if b is None else weight * b
    return a + weight * b


@dataclass(frozen=True)
class Preset:
    """One column of the preset table.

    Attributes:
        training: runs by checkpoint name. What a name is for is the same in every preset: `faces_*`
            Figures 1, 2, 5, 6 and 7, `bedrooms_x8` and `churches_x8` Figures 3 and 4, `cats_x8` a
            set of its own, `drawn_x8` where the truth is known, `table_*` equal runs for table S1
            and the ablations. In quick, training only proves itself (`proof`) and the names are
            shipped checkpoints, made by `SHIPPED`.
        n_eval: held-out images behind each number of a table.
        n_samples: outputs for each input where diversity is measured.
        n_images: held-out images behind each number of a figure.
        examples: rows of a figure.
        curved: runs that are measured on the way, for learning curves (`Runs.curve`).
        published: whether table S1 has the metrics of `PUBLISHED` beside the stand-ins.
    """

    training: dict[str, Training]
    n_eval: int = 40
    n_samples: int = 5
    n_images: int = 48
    examples: int = 5
    curved: tuple[str, ...] = ()
    published: bool = False


# The runs of table S1: what each changes. All have one size, one data set and one budget.
TABLE: dict[str, dict[str, Any]] = {
    "table_lag_x8": {"method": "lag"},
    "table_lag_x4": {"method": "lag", "factor": 4},
    "table_lag_x16": {"method": "lag", "factor": 16},
    "table_no_centre_x8": {"method": "lag_no_centre"},
    "table_edsr_x8": {"method": "edsr", "lr": 3e-4, "ema": 0.0, "phase": 0},
    "table_flat_x8": {"method": "lag", "phase": 0},
    "table_cgan_x8": {"method": "cgan", "lr": 2e-4},
    "table_bicubic_x8": {"method": "lag", "kernel": "bicubic"},
    "table_exact_x8": {"method": "lag", "step": 1e-6},
    "table_rms_x8": {"method": "lag", "norm": "rms"},
    "table_relativistic_x8": {"method": "lag_relativistic", "lr": 2e-4},
    "table_srgan_x8": {"method": "srgan", "lr": 3e-4, "ema": 0.0, "phase": 0,
                       "features": "vgg16hed"},
    # A pixel loss at the weight of the centre loss, set before the run
    "table_pixel_x8": {"method": "lag", "pixel_weight": 10.0},
    "table_encoder_x8": {"method": "lag_encoder"},
    # A z_i moves only when its image comes: fewer images, which come more often, and larger steps
    "table_embedding_x8": {"method": "lag_embedding", "images": 1000, "latent_ratio": 10.0},
}  # fmt: skip
# A row that ships as numbers: no network fits beside the others (`score`). It is not among gpu's
# runs, whose 600 s are full: their x32 is `faces_x32`
AS_NUMBERS: dict[str, dict[str, Any]] = {"table_lag_x32": {"method": "lag", "factor": 32}}
# With and without rounding in the difference map (lag-c11): one size below, three seeds each
ROUNDING: dict[str, dict[str, Any]] = {"rounded_x4": {}, "exact_x4": {"step": 1e-6}}


def _table(names: tuple[str, ...], common: dict[str, Any], growing: int) -> dict[str, Training]:
    """Equal runs; `growing` images of each go into the phases before the last."""
    out = {}
    for name in names:
        options = {"factor": 8, **common, **(TABLE | AS_NUMBERS)[name]}
        phases = 2 * lag.stages(options["factor"]) - 2
        out[name] = Training(**{"phase": growing // phases, **options})
    return out


_SMALL = {"width": 64, "floor": 16, "blocks": 4, "noise": 16, "penalty_every": 4,
          "norm": "l2", "precision": "bf16"}  # fmt: skip
_FACES = {"data": "faces-dcgan", "size": 64, "images": 10_000}
_QUICK = {**_SMALL, "size": 32}

# How the shipped checkpoints were trained, on one CPU core; `latentpapers train lag --run NAME`.
# A quarter of the paper's width. Two settings were chosen in short pilot runs, by eye: a penalty in
# every fourth step, and the Euclidean norm of eq 5 in place of the authors' root mean square
# (lag-e6; an equal run with theirs is in table S1), of the authors' scalar: for 4 x 4 positions a
# slope of 1/16 of the critic itself (lag-e30). What the time allowed is in the cards.
SHIPPED: dict[str, Training] = {
    "faces_x8": Training("lag", **_FACES | _QUICK, factor=8, phase=2000, steps=42_000),
    "faces_x32": Training("lag", **_FACES | _QUICK, factor=32, phase=4000, steps=42_000),
    "drawn_x8": Training("lag", "drawn-faces", images=4000, factor=8, steps=6000, phase=3000,
                         **_QUICK),
    "bedrooms_x8": Training("lag", "photos", images=4000, factor=8, steps=24_000, phase=2000,
                            **_QUICK),
    **_table(
        ("table_lag_x8", "table_lag_x4", "table_lag_x16", "table_no_centre_x8", "table_edsr_x8",
         "table_flat_x8", "table_cgan_x8", "table_bicubic_x8", "table_exact_x8",
         "table_relativistic_x8", "table_rms_x8", "table_encoder_x8", "table_embedding_x8",
         "table_pixel_x8", "table_lag_x32"),
        {**_FACES, **_QUICK, "steps": 6000}, 12_000,
    ),
    # Half the channels: its convolutions to sub-pixels are wide, and the file stays small
    **_table(("table_srgan_x8",), {**_FACES, **_QUICK, "steps": 6000, "width": 32}, 0),
    # Too short for an average over 1,000 steps
    **{name: Training("lag", **{**_FACES, **_SMALL, "size": 16, "width": 32, "floor": 8,
                                "blocks": 2, "precision": "fp32", "ema": 0.99, **change}, factor=4,
                      steps=2000)
       for name, change in ROUNDING.items()},
}  # fmt: skip

# Networks that a shipped file keeps: the critic too where distances in its space are measured.
KEPT: dict[str, tuple[str, ...]] = {
    name: () if name.startswith("faces") else ("generator",) for name in SHIPPED
}
# The critic's weight is all that is asked of these (lag-c11), of the embedding's run its errors on
# images that it has a z_i of, so they ship as cards alone
KEPT |= dict.fromkeys(("table_exact_x8", "table_embedding_x8", *ROUNDING), ("no network",))
KEPT["table_encoder_x8"] = ("generator", "encoder")
KEPT["faces_x32"] = ("generator",)  # no distance in its critic's space is asked for
# The others are many: 8 bits a weight (about 1 grey level of an output, root mean square)
EIGHT = frozenset(name for name in SHIPPED if name != "faces_x8")

# The settings of the authors' code, at half its width and with fp16 outside the penalty: bf16 moves
# the critic's output by 1.6 % (x8) and 8.6 % (x32) of its spread, fp16 by 0.3 and 0.4 % (32 images,
# untrained, on a CPU)
_GPU = {"width": 128, "floor": 32, "blocks": 8, "noise": 32, "norm": "l2", "precision": "fp16",
        "batch": 64, "steps": 1_000_000}  # fmt: skip
# A phase counts images, a run ends by the clock: growth must end early on a slow GPU too. At 1,500
# images/s it takes half of a run: 60,000 images of 78 s, 12,000 of 16 s. The average is as long as
# the steps allow (64 images each): a quarter run has from 375, of whose start 0.999 would keep 69 %
# and 0.99 keeps 2 %; a headline run has from 900 after its growth, of which 0.999 would keep 41 %
# and 0.995 keeps 1 %.
_HEAD = {**_GPU, "seconds": 78.0, "phase": 60_000 // 4, "ema": 0.995}
_QUARTER = {**_GPU, "seconds": 16.0, "ema": 0.99}
_SOON = {**_QUARTER, "phase": 12_000 // 4}
_PAPER = {"size": 128, "phase": PHASE}
_CELEBA = {"data": "celeba-lag", "images": 182_637}
_REGRESSION = {"phase": 0, "lr": 1e-4, "ema": 0.0, "blocks": 16}


def _published(method: str, factor: int, **options: Any) -> Training:
    """A run at full width and length; the defaults of `Training` are the published ones."""
    return Training(method, factor=factor, steps=budget(factor) // 16, **{**_PAPER, **options})


_PROOF = Preset(
    training={
        "proof": Training(
            "lag", "drawn-faces", 16, 64, 4, 30, width=8, floor=4, blocks=2, noise=4,
            norm="l2", phase=120, log_every=2, batch=8,
        )
    }
)  # fmt: skip

PRESETS: dict[str, Preset] = {
    "quick": _PROOF,
    # As many held-out images as halve the widths of 40 images five times over (1 / sqrt(n)), and as
    # many outputs of each input as `gpu` takes
    "cpu": replace(_PROOF, n_eval=1000, n_samples=10, n_images=500),
    # 600 s in all: 3 x 78 + 18 x 16 of training, 78 of evaluation
    "gpu": Preset(
        training={
            "faces_x8": Training("lag", **_FACES, factor=8, **_HEAD),
            "faces_x32": Training("lag", **_FACES, factor=32, **{**_HEAD, "phase": 60_000 // 8}),
            "cats_x8": Training("lag", "cats", 64, 4618, 8, **_HEAD),
            "churches_x8": Training("lag", "churches", 64, 3227, 8, **_SOON),
            "bedrooms_x8": Training("lag", "photos", 64, 4000, 8, **_SOON),
            "drawn_x8": Training("lag", "drawn-faces", 64, 10_000, 8, **_SOON),
            **_table(tuple(TABLE), {**_FACES, **_QUARTER}, 12_000),
        },
        n_eval=2000, n_samples=10, n_images=500, curved=("faces_x8",),
    ),
    # CelebA, cut and resized as in the authors' code; LSUN squeezed to squares (lag-e20)
    "paper": Preset(
        training={
            "faces_x8": _published("lag", 8, **_CELEBA),
            "faces_x32": _published("lag", 32, **_CELEBA),
            "bedrooms_x8": _published("lag", 8, data="lsun-bedroom", images=3_033_042),
            "churches_x8": _published("lag", 8, data="lsun-church", images=126_227),
            "table_lag_x4": _published("lag", 4, **_CELEBA),
            "table_lag_x8": _published("lag", 8, **_CELEBA),
            "table_lag_x16": _published("lag", 16, **_CELEBA),
            "table_bicubic_x8": _published("lag", 8, **_CELEBA, kernel="bicubic"),
            "table_edsr_x8": _published("edsr", 8, **_CELEBA, **_REGRESSION),
            "table_srgan_x8": _published("srgan", 8, **_CELEBA, **_REGRESSION, width=64,
                                         features="vgg19"),
        },
        n_eval=10_000, n_samples=10, n_images=2000, curved=("faces_x8",), published=True,
    ),
}  # fmt: skip


def _fit(
    job: Training, seed: int, path: Path, device: str, group: Group | None,
    progress: Progress | None,
) -> None:  # fmt: skip
    low_side(job)
    pixels = data.load(job.data, size=job.size, split="train", n=job.images).pixels
    plan = Fit(
        steps=job.steps, batch=job.batch, seconds=job.seconds, log_every=job.log_every,
        # an embedding belongs to one image, not to its mirror image
        flip=job.flip and method_of(job).latent != "embedding", precision=job.precision,
        compile=job.compile,
    )  # fmt: skip
    fit(Step(job, seed, device, _features(job)), pixels, plan, seed=seed, config=job,
        path=state_of(path), device=device, group=group, progress=progress)  # fmt: skip


def _features(job: Training) -> nn.Module | None:
    """SRGAN's feature network, cut at conv2_2 as in the authors' code; Missing names what to
    fetch."""
    if method_of(job).network != "srgan" or job.features == "none":
        return None
    from latentpapers import weights

    return weights.network(job.features, layer="conv2_2")


def _card(job: Training, path: Path, images: int, nets: States) -> dict[str, Any]:
    title = f"{method_of(job).title} on {job.data}, {low_side(job)} to {job.size} px"
    card = {"title": title, "budget": images / budget(job.factor)}
    if "critic" in nets and method_of(job).network == "lag":
        card["critic_weight"] = map_weight(nets["critic"])
    if "embedding" in nets:
        card["own_errors"], card["central_errors"] = own_errors(job, nets)
    return card


def own_errors(job: Training, nets: States, n: int = 200) -> tuple[list[float], list[float]]:
    """Errors of G(y_i, z_i), and of G(y_i, 0), on the first `n` training images, in grey levels.

    The maps z_i are too many to ship, and no other image has one, so the card keeps these.
    """
    net = models.build(recipe(job, "generator"))
    net.load_state_dict(nets["generator"])
    pixels = data.load(job.data, size=job.size, split="train", n=job.images).pixels[:n]
    x, z = data.to_float(pixels), nets["embedding"]["maps"][:n].float()
    y = reduce(x, job.factor, job.kernel, job.shifted)
    made = (_by_blocks(net, y, at).clamp(-1, 1) for at in (z, torch.zeros_like(z)))
    own, central = ([round(float(e), 2) for e in possibilities.rmse_grey(v, x)] for v in made)
    return own, central


def map_weight(critic: dict[str, Tensor]) -> float:
    """Root mean square of the critic's weights on its second input, from its state dict."""
    name = next(
        n for n in critic if n.startswith("blocks.0.") and n.endswith(("weight", "original"))
    )
    return float(critic[name][:, -lag.COLOURS :].square().mean().sqrt())


def job_of(model: models.Model) -> Training:
    """The run that made a checkpoint."""
    return Training(**model.card["config"])


def encoded(model: models.Model, pixels: Bytes) -> Images:
    """G(y, E(x)) of a network trained with an encoder, clamped to [-1, 1]: the answer for images
    that are known. `pixels`: uint8 at the model's size."""
    z = _by_blocks(model["encoder"], data.to_float(pixels))
    return _by_blocks(model["generator"], inputs(model, pixels), z).clamp(-1, 1)


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
def _by_blocks(net: nn.Module, *given: Tensor, block: int = 64) -> Tensor:
    """What a network says of a batch, a block of it at a time on the network's own device; the
    result is where the batch is."""
    there, here = next(net.parameters()).device, given[0].device
    parts = zip(*(v.split(block) for v in given), strict=True)
    return torch.cat([net(*(v.to(there) for v in part)).to(here) for part in parts])


def centre(model: models.Model, y: Images) -> Images:
    """The output at z = 0 (of a baseline: its one output), clamped to [-1, 1], where `y` is."""
    net = model["generator"]
    given = (y, net.zeros(y)) if hasattr(net, "zeros") else (y,)
    return _by_blocks(net, *given).clamp(-1, 1)


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
    return torch.stack([_by_blocks(net, y, z, block=block).clamp(-1, 1) for z in noise])


def code(model: models.Model, x: Images, y: Images) -> Tensor:
    """P(x, d) of images against the inputs y, in full resolution; zeros for d where x is real.

    A generated image's d is its own difference map, as in training.
    """
    job = job_of(model)
    reduced = reduce(x, job.factor, job.kernel, job.shifted)
    d = difference_map(y, reduced, reading=job.reading, step=job.step or None)
    return _by_blocks(model["critic"], x, d)


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


def measured(
    job: Training, path: Path, *, device: str = "cpu", n: int = 400
) -> dict[str, Score]:  # fmt: skip
    """What a learning curve of LAG shows, on `n` held-out images: the answer at z = 0 against the
    truth, the spread of answers, and the Frechet distance of one answer each at random z."""
    from latentpapers import weights
    from latentpapers.nets.features import folded

    model = models.load(path, device=device)
    pixels = data.load(job.data, size=job.size, split="test", n=n).pixels
    real = data.load(job.data, size=job.size, split="train", n=4 * n).pixels
    y, look = inputs(model, pixels), folded(weights.network("efficientnetlite0"))
    look.to(device).size = max(job.size, 64)
    middle = centre(model, y)
    drawn = samples(model, y, 2, seed=0) if method_of(job).samples else middle[None]
    features = [translation.pooled(look, images) for images in (data.to_float(real), drawn[0])]
    psnr = full_reference.psnr_y_b4_u8(data.to_bytes(middle), pixels)
    scores = {"psnr_y_b4_u8": intervals.bootstrap_mean(psnr)}
    if len(drawn) > 1:
        scores["spread_grey"] = intervals.bootstrap_mean(possibilities.spread_grey(drawn))
    return scores | {"fd_efficientnetlite0_small": frechet.on_components(*features)}


# --- table S1 ------------------------------------------------------------------------------------

PUBLISHED = {"LPIPS": "lpips_alex", "FID": "fid_tf2015_n10000"}
Distances = dict[str, Callable[[Images, Images], PerImage]]


def published(preset: Preset) -> tuple[dict[str, str], list[str]]:
    """Which columns of `PUBLISHED` table S1 can have here, and a sentence for each other one.

    Both are empty where the preset keeps to the stand-ins.
    """
    from latentpapers import weights
    from latentpapers.metrics import entry

    here, absent = {}, []
    for column, name in PUBLISHED.items() if preset.published else ():
        protocol = entry.find(name)
        missing = [w for w in protocol.needs if not weights.available(w)]
        if missing:
            fetch = f"python -m latentpapers weights fetch {missing[0]}"
            absent.append(f"No {column}: the weights {missing[0]} are not here; run `{fetch}`.")
        elif protocol.n not in (None, preset.n_eval):
            absent.append(
                f"No {column}: {name} is defined on {protocol.n:,} images, not {preset.n_eval:,}."
            )
        else:
            here[column] = name
    return here, absent


def lpips(images: Images, reference: Images, *, device: str = "cpu") -> PerImage:
    """LPIPS of images on [-1, 1] to their truth, 64 at a time on the device.

    Raises:
        Missing: AlexNet's weights are not here.
    """
    from latentpapers.metrics import entry

    pairs = zip(unit(images).split(64), unit(reference).split(64), strict=True)
    metric = PUBLISHED["LPIPS"]
    return torch.cat([entry.values(metric, a.to(device), b.to(device)) for a, b in pairs])


def fid(model: models.Model, images: Images, *, device: str = "cpu") -> Score:
    """FID of 10,000 outputs on [-1, 1] to equally many images that the network was trained on.

    Raises:
        Missing: Inception's weights are not here. UserError: another number of outputs.
    """
    from latentpapers.metrics import entry

    job = job_of(model)
    real = data.load(job.data, size=job.size, split="train", n=len(images)).pixels
    fake = data.to_bytes(images)
    return entry.score(PUBLISHED["FID"], fake, real, layout="NCHW", device=device)


def unit(images: Images) -> Images:
    """From [-1, 1], clamped, to [0, 1]."""
    return (images.clamp(-1, 1) + 1) / 2


def to_truth(
    pixels: Bytes, images: Images, what: str, distances: Distances
) -> dict[str, PerImage]:  # fmt: skip
    """Table S1's columns of one answer for each image: error, and distances to the truth.

    Args:
        pixels: the truth.
        what: which answer it is; distances at `z = 0` are named without it.
        distances: (images, truth) on [-1, 1] -> a value an image, by column.
    """
    x, at = data.to_float(pixels), "" if what == "z = 0" else f" at {what}"
    far = {f"{name}{at}": distance(images, x) for name, distance in distances.items()}
    return {f"error at {what}": possibilities.rmse_grey(images, x), **far}


def answered(
    model: models.Model, pixels: Bytes, n: int, seed: int, distances: Distances
) -> tuple[dict[str, PerImage], Images]:
    """Table S1's columns of a network, per image, and one output an image (at random z if it can).

    Args:
        pixels: held-out images at the model's size.
        n: outputs an image, where noise enters.
        seed: of the noise.
        distances: as in `to_truth`.
    """
    job, y = job_of(model), inputs(model, pixels)
    middle = centre(model, y)

    def fit(images: Images) -> PerImage:
        return full_reference.lr_rmse(unit(images), (y + 1) / 2, kernel=job.kernel)

    out = {**to_truth(pixels, middle, "z = 0", distances), "LR RMSE": fit(middle),
           "PSNR": full_reference.psnr_y_b4_u8(data.to_bytes(middle), pixels)}  # fmt: skip
    if "encoder" in model.parts:
        out |= to_truth(pixels, encoded(model, pixels), "E(x)", distances)
    if not method_of(job).samples:
        return out, middle
    drawn = samples(model, y, n, seed)
    out |= {"spread over z": possibilities.spread_grey(drawn),
            "LR RMSE at random z": fit(drawn[0]),
            **to_truth(pixels, drawn[0], "random z", distances)}  # fmt: skip
    return out, drawn[0].clone()  # a part would keep the whole alive


# --- a row that ships as numbers -----------------------------------------------------------------


def score_file(name: str, seed: int = 0) -> Path:
    """Where the numbers of a network of `AS_NUMBERS` are."""
    return paths.checkpoints() / "lag" / "scores" / f"{name}_s{seed}.safetensors"


def score(file: Path, out: Path) -> None:
    """Writes what table S1 holds of a network that does not ship: for quick and for cpu its
    columns per image, in half precision, and its Frechet distance; its card; its file's hash.

    Args:
        file: the network, as `train` writes it.
        out: folder.
    """
    from latentpapers import weights
    from latentpapers.nets.features import folded

    model, tree, fd = models.load(file), {}, {}
    job, look = job_of(model), folded(weights.network("efficientnetlite0"))
    look.size = max(job.size, 64)

    def seen(images: Images) -> Tensor:
        return translation.pooled(look, images)

    for name in ("quick", "cpu"):
        preset = PRESETS[name]
        pixels = data.load(job.data, size=job.size, split="test", n=preset.n_eval).pixels
        tree[name], drawn = answered(model, pixels, preset.n_samples, 0, {
            "perceptual distance": _perceptual})  # fmt: skip
        real = data.load(job.data, size=job.size, split="train", n=4 * preset.n_eval).pixels
        fd[name] = config.as_dict(frechet.on_components(seen(data.to_float(real)), seen(drawn)))
    packed = {name: {",".join(v): torch.stack([*v.values()]).half()} for name, v in tree.items()}
    card = {k: v for k, v in model.card.items() if k not in ("history", "parts", "bits")}
    about = {"card": card, "fd": fd, "network": storage.sha256_file(file), "seed": 0}
    tensorfile.save(out / file.name, packed, about=about)


def _perceptual(images: Images, reference: Images) -> PerImage:
    from latentpapers.nets.features import folded

    judge = folded(possibilities.efficientnet())
    pairs = zip(images.split(64), reference.split(64), strict=True)
    return torch.cat([possibilities.perceptual(a, b, judge) for a, b in pairs])


def shipped_scores(
    name: str, preset: str, n: int, seed: int = 0
) -> tuple[dict[str, PerImage], Score, models.Model]:
    """What `score` wrote for a preset: columns per image, Frechet distance, and the card.

    Args:
        name: of `AS_NUMBERS`.
        n: held-out images that the table measures.

    Raises:
        Missing: no such file, or none for this preset or this many images; it says how to make it.
        Corrupt: an altered file.
    """
    file = score_file(name, seed)
    about, tree = tensorfile.header(file), tensorfile.load(file)
    columns = {}
    for key, values in tree.get(preset, {}).items():
        columns |= dict(zip(key.split(","), values.double(), strict=True))
    if not columns or len(columns["PSNR"]) != n:
        raise Missing(
            f"{name} ships as numbers of quick's and cpu's images, not of {n:,} of {preset}; train "
            f"it: `latentpapers train lag --run {name} --out FOLDER`."
        )
    return columns, Score(**about["fd"][preset]), models.Model({}, about["card"])


RUNS = Runs(
    "lag", Training, _fit, _card, recipe,
    {"shipped": SHIPPED, **{name: preset.training for name, preset in PRESETS.items()}}, KEPT,
    eight=EIGHT, measure=measured,
)  # fmt: skip
train, export = RUNS.train, RUNS.export


def train_from_cli(arguments: list[str]) -> int:
    """`Runs.train_from_cli`; `--score FILE --out FOLDER` measures a network that ships as numbers
    (`score`)."""
    if "--score" not in arguments:
        return RUNS.train_from_cli(arguments)
    import argparse

    parser = argparse.ArgumentParser("latentpapers train lag", allow_abbrev=False)
    parser.add_argument("--score", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    score(args.score, args.out)
    return 0
