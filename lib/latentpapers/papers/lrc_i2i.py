"""LRC-I2I: image-to-image translation with low resolution conditioning (Abid et al.).

From a high resolution source X and a tiny target y the generator makes a large image with the
source's details that reduces to y. The compared method, StarGAN v2, trains here too, on the same
data by the same engine.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils import _pytree as pytree  # the only one that knows named tuples

from latentpapers import config, data, ledger, models, weights
from latentpapers.errors import UserError
from latentpapers.latent import pulse
from latentpapers.losses import cycle as C
from latentpapers.losses import logistic, subspace
from latentpapers.losses import style as S
from latentpapers.metrics import entry, full_reference, intervals, translation, walks
from latentpapers.metrics.protocol import Score
from latentpapers.nets import lrc_i2i, stargan_v2
from latentpapers.nets import spectral as sn
from latentpapers.nets.began import seeded
from latentpapers.seeds import generator
from latentpapers.shapes import Bytes, Codes, Images, Labels, PerImage, Scalar
from latentpapers.train import checkpoint
from latentpapers.train.context import Context
from latentpapers.train.distributed import Group
from latentpapers.train.engine import Fit, Given, Task, Update, fit, stepping
from latentpapers.train.runs import Networks as States
from latentpapers.train.runs import Progress, Runs, state_of

# (CPU seconds, MB) of each notebook, measured on one core in a process of its own
EXPECT = {
    "quick/1_derivation": (23, 1100), "quick/2_training": (19, 1000), "quick/3_tables": (36, 1200),
    "quick/4_figures": (34, 1300), "quick/5_explore": (16, 1000),
    "cpu/3_tables": (175, 2400), "cpu/4_figures": (100, 1900),
}  # fmt: skip
ALLOWED = {"gpu/2_training": 540, "gpu/3_tables": 35, "gpu/4_figures": 25}  # seconds of 600
PAPERS_OWN = ("celeba-hq", "afhq-cat", "afhq-dog", "afhq-wild", "cats")  # the paper's own sets
BUDGET = 350_000 * 8  # images of the paper's run: 100 epochs of 28,000 in batches of 8
BUDGETS = {"lrc": BUDGET, "stargan_v2": 100_000 * 8}


@dataclass(frozen=True)
class Method:
    """Which networks a method has.

    Attributes:
        title: the row's name in our tables.
        networks: by name; the first makes the images.
    """

    title: str
    networks: tuple[str, ...]


METHODS: dict[str, Method] = {
    "lrc": Method("LRC-I2I", ("generator", "discriminator")),
    "stargan_v2": Method("StarGAN v2", ("generator", "mapping", "style", "discriminator")),
}


@dataclass(frozen=True)
class Training:
    """One training run: everything that decides its result.

    Attributes:
        method: a row of `METHODS`.
        data, size, images: training set, pixels a side (a power of two), images taken of it.
        low: pixels a side of the target; 8 in the paper.
        steps, batch, seconds: steps, images a step (pairs of neighbours are each other's source and
            target, lrc_i2i-e13), and the time limit that may end it sooner.
        width, cap: channels at full size and the most of any layer; 64 and 512 in the paper.
        discriminator_width: channels at full size; 0: 2^14 / size.
        shortcut: of the moments, `dynamic`; `plain` and `none` are ablations.
        normed: layers of the generator with spectral norm: all convolutions but those of SPAdaIN
            (`code`), or these too (`paper`) (lrc_i2i-e11).
        reading, step: of the difference map, and its colour step, 0: the reading's own
            (lrc_i2i-e1, lrc_i2i-e2).
        epsilon, tolerance: section 5's remedies: the radius of R_y as a mean, and what every value
            of the discriminator's input may be off, both on [-1, 1].
        terms: generated terms of eq 7: one direction (`paper`), `both`, or with cycles (`code`)
            (lrc_i2i-e6).
        saturating: the printed form of eq 7 for the generator (lrc_i2i-e7).
        r1, gamma: reading and weight of the penalty (lrc_i2i-e8, lrc_i2i-e9).
        penalty_every: steps between penalties, each with as many times the weight.
        cycle_weight: lambda_cyc, 1 at 128 px and 0.1 at 256 px (lrc_i2i-e14).
        grey: compare brightness alone, with a grey target (the colour ablation).
        lr, ratio: of Adam (0, 0.99), and how much larger the discriminator's is (TTUR).
        ema: decay of the average that is used for outputs (lrc_i2i-e16).
        flip, log_every, precision, compile: of the engine.
        style, latent, hidden: of StarGAN v2: lengths of its styles and latent vectors, width of its
            mapping network; 64, 16, 512 in its authors' code.
        style_cap: the most channels of its style encoder; 0: `cap`.
        style_weight, diversity_weight: of its losses; the second falls to 0 over `diversity_steps`
            (0: all steps; 100,000 in its authors' code).
        decay: weight decay, 1e-4 in its authors' code.
    """

    method: str
    data: str
    size: int
    images: int
    low: int
    steps: int
    batch: int = 8
    seconds: float | None = None
    width: int = 64
    cap: int = 512
    discriminator_width: int = 0
    shortcut: Literal["dynamic", "plain", "none"] = "dynamic"
    normed: Literal["code", "paper"] = "code"
    reading: Literal["code", "paper", "literal"] = "code"
    step: float = 0.0
    epsilon: float = 0.0
    tolerance: float = 0.0
    terms: Literal["paper", "both", "code"] = "code"
    saturating: bool = False
    r1: Literal["textbook", "code"] = "textbook"
    gamma: float = 0.5
    penalty_every: int = 1
    cycle_weight: float = 1.0
    grey: bool = False
    lr: float = 1e-3
    ratio: float = 4.0
    ema: float = 0.999
    flip: bool = True
    log_every: int = 50
    precision: str = "fp32"
    compile: bool = False
    style: int = 64
    latent: int = 16
    hidden: int = 512
    style_cap: int = 0
    style_weight: float = 1.0
    diversity_weight: float = 1.0
    diversity_steps: int = 0
    decay: float = 0.0


def method_of(job: Training) -> Method:
    """The `METHODS` row of a run.

    Raises:
        UnknownName: no such method.
    """
    return config.named("method", job.method, METHODS)


def checked(job: Training) -> Training:
    """The run itself, if its sizes fit.

    Raises:
        UnknownName: no such method. UserError: sizes or a batch that cannot be.
    """
    method_of(job)
    lrc_i2i.halvings(job.size, job.low)
    if job.batch < 2 or job.batch % 2:
        raise UserError(f"batch must be even: images translate each other in pairs, {job.batch}.")
    if job.method == "stargan_v2" and job.batch % 4:
        raise UserError(f"StarGAN v2 takes references from quartets: batch {job.batch} has none.")
    if job.terms not in TERMS:
        config.named("terms", job.terms, TERMS)
    return job


def networks(job: Training, seed: int) -> dict[str, nn.Module]:
    """The networks of a run, initialised from the seed alone; their norms wait for `iterate`."""
    nets = {}
    for name in method_of(job).networks:
        how = recipe(job, name, spectral=True)
        nets[name] = seeded(lambda: models.build(how), generator(seed, "init", name)).eval()  # noqa: B023
    return nets


def recipe(job: Training, name: str, *, spectral: bool = False) -> dict[str, Any]:
    """How `lp.models.build` makes a network of this run.

    Args:
        spectral: as it is trained; files hold the weights with their norms divided out.
    """
    if job.method == "stargan_v2":
        return _style_recipe(job, name)
    shape = {"size": job.size, "low": job.low, "cap": job.cap, "spectral": spectral}
    own: dict[str, dict[str, Any]] = {
        "generator": {"width": job.width, "shortcut": job.shortcut},
        "discriminator": {"width": job.discriminator_width},
    }
    if job.normed == "paper":
        own["generator"]["everywhere"] = True
    return {"net": f"lrc_i2i.{name.capitalize()}", "options": {**shape, **own[name]}}


def _style_recipe(job: Training, name: str) -> dict[str, Any]:
    """`recipe` of StarGAN v2's networks, which have no spectral norm."""
    shape = {"size": job.size, "width": job.width, "cap": job.cap}
    judge = {**shape, "width": job.discriminator_width or None}
    kinds = {
        "generator": ("Generator", {**shape, "style": job.style}),
        "mapping": ("MappingNetwork", {"latent": job.latent, "style": job.style,
                                       "hidden": job.hidden}),
        "style": ("StyleEncoder", {**shape, "cap": job.style_cap or job.cap, "style": job.style}),
        "discriminator": ("Discriminator", judge),
    }  # fmt: skip
    kind, options = kinds[name]
    # getattr: a misspelled class fails here, and its file is one that a job depends on
    return {"net": f"stargan_v2.{getattr(stargan_v2, kind).__name__}", "options": options}


# --- training ---------------------------------------------------------------------------------

# generated terms of eq 7: which of (x_ab, x_ba, x_aa', x_bb') the discriminator sees
TERMS: dict[str, int] = {"paper": 1, "both": 2, "code": 4}


def exchanged(x: Tensor) -> Tensor:
    """Neighbours 2i and 2i + 1 swapped: each image's partner. Pairs survive any even slice."""
    return x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def sides(x: Tensor) -> list[Tensor]:
    """The first and the second images of all pairs: X and Y of the equations."""
    return [x[0::2], x[1::2]]


@dataclass(frozen=True)
class Passed:
    """The images of one step.

    Attributes:
        x, y: sources and their own reductions.
        translated: G(X, y) and G(Y, x), from one pass over all pairs.
        cycled: both translated back, from a second one.
    """

    x: Images
    y: Images
    translated: Images
    cycled: Images


class Step(Task):
    """LRC-I2I's training step: eqs 3 to 8. Singular vectors are buffers of the networks."""

    def __init__(self, job: Training, seed: int, device: str | torch.device = "cpu") -> None:
        self.job = checked(job)
        self.nets = networks(job, seed)
        self.ema = {"generator": job.ema} if job.ema else {}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam (0, 0.99), the discriminator's rate `ratio` times the generator's."""
        rates = {"generator": self.job.lr, "discriminator": self.job.lr * self.job.ratio}
        how = stepping(self.job.precision)
        return {
            name: torch.optim.Adam(self.nets[name].parameters(), rate, betas=(0.0, 0.99), **how)
            for name, rate in rates.items()
        }

    def blocks(self) -> list[nn.Module]:
        """The residual blocks of both networks."""
        g, d = self.nets["generator"], self.nets["discriminator"]
        return [*g.encoder, *g.decoder, *d.trunk, *d.joined]

    def before_step(self, step: int, images: int) -> float:
        """Refreshes all spectral norms once; every pass of the step then sees the same ones."""
        for net in self.nets.values():
            sn.iterate(net)
        return 1.0

    # -- the images of a step ------------------------------------------------------------------

    def reduced(self, x: Images) -> Images:
        """DS(X) at the target's size."""
        return subspace.reduce(x, self.job.low, grey=self.job.grey)

    def passes(self, x: Images, ctx: Context) -> Passed:
        """The four passes of section 3.2 as two: both translations, then both cycles."""
        y = self.reduced(x)
        with sn.held(self.nets["generator"]) as g, ctx.autocast():
            translated = g(x, exchanged(y))
            return Passed(x, y, translated, g(translated, y))

    def seen(self, p: Passed) -> tuple[Images, Images]:
        """Eqs 5 and 6 of all generated images that take part (`terms`): images and differences."""
        job = self.job
        images, targets = p.translated, exchanged(p.y)
        if job.terms == "paper":
            images, targets = images[0::2], targets[0::2]
        if job.terms == "code":
            images, targets = torch.cat([images, p.cycled]), torch.cat([targets, p.y])
        return subspace.seen(
            images, targets, real=False, grey=job.grey, reading=job.reading, step=job.step or None,
            epsilon=job.epsilon, tolerance=job.tolerance,
        )  # fmt: skip

    def split(self, logits: Tensor) -> list[Tensor]:
        """Logits of `seen` images, one tensor a term of eq 7."""
        if self.job.terms == "paper":
            return [logits]
        return [side for part in logits.split(len(logits) * 2 // TERMS[self.job.terms])
                for side in sides(part)]  # fmt: skip

    # -- losses --------------------------------------------------------------------------------

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        """The discriminator first, then the generator by the same images (lrc_i2i-e15)."""
        like = next(self.nets["generator"].parameters())  # fp32; fp64 where a test asks for it
        x = batch.to(like).div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        passed = self.passes(x, ctx)
        images, differences = self.seen(passed)
        loss, terms = self.discriminator_loss(passed, images.detach(), differences.detach(), ctx)
        yield {"discriminator": loss}
        loss, more = self.generator_loss(passed, images, differences, ctx)
        ctx.log(**terms, **more)
        yield {"generator": loss}

    def discriminator_loss(
        self, p: Passed, images: Images, differences: Images, ctx: Context
    ) -> tuple[Scalar, dict[str, Tensor]]:
        """Eq 7 and the penalty, for the discriminator."""
        job, weight = self.job, self.penalised(ctx)
        with sn.held(self.nets["discriminator"]) as d:
            real, zeros = subspace.seen(p.x.detach(), p.y, real=True)
            if weight:
                real.requires_grad_()
                with ctx.uncompiled():
                    on_real = d(real, zeros)
            else:
                with ctx.autocast():
                    on_real = d(real, zeros)
            with ctx.autocast():
                on_fake = d(images, differences)
        # a real term beside every generated one (code); two in all as printed
        times = max(1, TERMS[job.terms] // 2)
        loss = C.discriminator_loss(sides(on_real) * times, self.split(on_fake))
        terms = {"real": on_real.mean(), "fake": on_fake.mean(), "discriminator": loss}
        if weight:
            terms["penalty"] = C.r1(on_real, real, reading=job.r1, images=ctx.batch // 2)
            # the code adds its penalty with every term of eq 7 (lrc_i2i-e9)
            weight *= TERMS[job.terms] if job.r1 == "code" else 1
            loss = loss + weight * terms["penalty"]
        return loss, terms

    def penalised(self, ctx: Context) -> float:
        """This step's weight of the penalty, gamma / 2 on average; 0: none is computed."""
        every = self.job.penalty_every
        return self.job.gamma / 2 * every if ctx.step % every == 0 else 0.0

    def generator_loss(
        self, p: Passed, images: Images, differences: Images, ctx: Context
    ) -> tuple[Scalar, dict[str, Tensor]]:
        """Eq 4 for the generator: the adversarial terms of eq 7 and the cycles of eq 8."""
        with sn.held(self.nets["discriminator"]) as d, ctx.autocast():
            logits = d(images, differences)
        adversarial = C.generator_loss(self.split(logits), saturating=self.job.saturating)
        (x, y), (x_back, y_back) = sides(p.x), sides(p.cycled)
        cycle = C.cycle_l1(x, x_back, y, y_back)
        error = (self.reduced(p.translated) - exchanged(p.y)).abs().mean()
        terms = {"adversarial": adversarial, "cycle": cycle, "error": error}
        return C.full_objective(adversarial, cycle, weight=self.job.cycle_weight), terms


# --- the compared method: StarGAN v2 ------------------------------------------------------------


def turned(x: Tensor, by: int) -> Tensor:
    """Each quartet of neighbours turned by `by` places: another image of the batch for each.

    Quartets survive any slice of a multiple of four, so shards see what the whole batch sees.
    """
    return x.unflatten(0, (-1, 4)).roll(-by, 1).flatten(0, 1)


class StyleStep(Step):
    """StarGAN v2's training step, reference-guided in one domain (Choi et al. 2020).

    Four updates as in the authors' code: the discriminator with styles of latent vectors, then of
    references; the generator, mapping network and style encoder with two latent vectors; the
    generator alone with two references. References are neighbours in the batch.
    """

    def __init__(self, job: Training, seed: int, device: str | torch.device = "cpu") -> None:
        super().__init__(job, seed, device)
        self.ema = dict.fromkeys(("generator", "mapping", "style"), job.ema) if job.ema else {}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam (0, 0.99) with weight decay; the mapping network learns 100 times more slowly."""
        job, nets = self.job, self.nets
        rates = {"generator": job.lr, "style": job.lr, "mapping": job.lr / 100}
        makers = [{"params": [*nets[n].parameters()], "lr": lr} for n, lr in rates.items()]
        judge = [{"params": [*nets["discriminator"].parameters()], "lr": job.lr * job.ratio}]
        return {
            name: torch.optim.Adam(groups, betas=(0.0, 0.99), weight_decay=job.decay, foreach=True)
            for name, groups in (("generator", makers), ("discriminator", judge))
        }

    def blocks(self) -> list[nn.Module]:
        """The residual blocks of all networks that have any."""
        nets = self.nets
        trunks = [*nets["style"].shared, *nets["discriminator"].main]
        residual = [m for m in trunks if isinstance(m, stargan_v2.ResBlock)]
        return [*nets["generator"].encode, *nets["generator"].decode, *residual]

    def updates(self, batch: Bytes, ctx: Context) -> Iterator[Update]:
        """The four updates; the last one's styles are constants, which changes no gradient of G."""
        like = next(self.nets["generator"].parameters())
        x = batch.to(like).div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        latents = torch.cat([ctx.noise(self.job.latent) for _ in range(2)]).to(like)
        drawn, read = self.coded("mapping", latents, ctx), self.coded("style", x, ctx)
        for style in (drawn.chunk(2)[0], turned(read, 1)):
            loss, terms = self.critic_loss(x, style, ctx)
            ctx.log(**terms)
            yield {"discriminator": loss}
        styles = self.coded("mapping", latents, ctx, learn=True).chunk(2)
        own = self.coded("style", x, ctx, learn=True)
        loss, terms = self.maker_loss(x, styles, own, ctx)
        ctx.log(**terms)
        yield {"generator": loss}
        own = self.coded("style", x, ctx)  # those of the references too: they are the batch, turned
        loss, terms = self.maker_loss(x, (turned(own, 1), turned(own, 2)), own, ctx)
        ctx.log(**terms)
        yield {"generator": self.generator_alone(loss)}

    def coded(self, name: str, x: Tensor, ctx: Context, *, learn: bool = False) -> Codes:
        """F(z) or E(x); a constant unless it is to be learnt."""
        with torch.set_grad_enabled(learn), ctx.autocast():
            return self.nets[name](x)

    def critic_loss(
        self, x: Images, style: Codes, ctx: Context
    ) -> tuple[Scalar, dict[str, Tensor]]:
        """Cross entropy of real and translated images, and the penalty on real ones."""
        judge, weight = self.nets["discriminator"], self.penalised(ctx)
        with torch.no_grad(), ctx.autocast():
            fake = self.nets["generator"](x, style)
        real = x.detach().requires_grad_(bool(weight))
        with ctx.uncompiled() if weight else ctx.autocast():
            on_real = judge(real)
        with ctx.autocast():
            on_fake = judge(fake)
        loss = logistic.discriminator_loss(on_real, on_fake)
        terms = {"real": on_real.mean(), "fake": on_fake.mean(), "discriminator": loss}
        if weight:
            terms["penalty"] = C.r1(on_real, real)
            loss = loss + weight * terms["penalty"]
        return loss, terms

    def maker_loss(
        self, x: Images, styles: tuple[Codes, ...], own: Codes, ctx: Context
    ) -> tuple[Scalar, dict[str, Tensor]]:
        """Eq 5 of StarGAN v2 for a pair of styles, and the sources' own ones."""
        make = self.nets["generator"]
        with ctx.autocast():
            fake = make(x, styles[0])
            logits = self.nets["discriminator"](fake)
            found = self.nets["style"](fake)
            back = make(fake, own)
            with torch.no_grad():
                other = make(x, styles[1])
        job = self.job
        weight = S.diversity_weight(
            ctx.step, job.diversity_steps or job.steps, start=job.diversity_weight
        )
        terms = {
            "adversarial": logistic.generator_loss(logits),
            "style": S.style_reconstruction(styles[0], found),
            "diversity": S.diversification(fake, other), "cycle": S.cycle(x, back),
        }  # fmt: skip
        return S.generator_objective(
            *terms.values(), style_weight=job.style_weight, diversity_weight=weight,
            cycle_weight=job.cycle_weight,
        ), terms  # fmt: skip

    def generator_alone(self, loss: Scalar) -> Given:
        """The gradient of the generator's own parameters; none for the networks beside it."""
        own = list(self.nets["generator"].parameters())
        rest = sum(1 for n in ("style", "mapping") for _ in self.nets[n].parameters())
        gradients = torch.autograd.grad(loss, own, allow_unused=True)
        return Given((*gradients, *[None] * rest))


# --- outputs ------------------------------------------------------------------------------------


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


# --- measures -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measuring:
    """How translations are measured.

    Attributes:
        targets, sources: held-out targets, each with its own sources (ten in the paper).
        pool: held-out images that both come from.
        real: training images that features are compared with.
        side: pixels at which the feature network sees images; 0: its own size.
        components: principal components for the Frechet distance; 0: all features.
        crossed: sources and targets of the grid on which source similarity is measured.
    """

    targets: int = 96
    sources: int = 10
    pool: int = 192
    real: int = 960
    side: int = 64
    components: int = 32
    crossed: int = 48


@dataclass(frozen=True)
class Held:
    """Held-out images.

    Attributes:
        images: the pool on [-1, 1]; its first are the targets.
        chosen: (n, K), each target's sources, by index.
        real: training images on [-1, 1].
    """

    images: Images
    chosen: Int[Tensor, "n K"]
    real: Images


FEWER: dict[str, int] = {"churches": 320}  # images of sets that hold out less than 400


def within(how: Measuring, name: str) -> Measuring:
    """`how` with no larger a pool than a data set holds out."""
    return replace(how, pool=min(how.pool, FEWER.get(name, how.pool)))


def held_out(name: str, size: int, how: Measuring, seed: int) -> Held:
    """Targets, their sources and real images of a data set; all methods get the same ones.

    Raises:
        UserError: fewer held-out images than `pool`.
    """
    test, real = (
        data.to_float(data.load(name, size=size, split=split, n=n).pixels)
        for split, n in (("test", how.pool), ("train", how.real))
    )
    draw = generator(seed, "sources", name)
    chosen = translation.drawn_sources(how.targets, how.sources, len(test), draw)
    return Held(test, chosen, real)


def outputs(
    model: models.Model, held: Held, *, once: bool | None = None
) -> Float[Tensor, "n K C H W"]:  # fmt: skip
    """Every target with its own sources at the model's own size, on the CPU; StarGAN v2's target is
    the image behind it.

    Args:
        once: encode each image of the pool once (`translate_pool`). None: on a GPU; on the CPU,
            where the blocks of committed numbers were others, pair by pair.
    """
    side, (n, k) = job_of(model).size, held.chosen.shape
    where = next(model.parts["generator"].parameters()).device
    own = held.images
    if own.shape[-1] > side:
        own = subspace.reduce(own, side)
    elif own.shape[-1] < side:
        own = nn.functional.interpolate(own, size=side, mode="bilinear")
    wanted = targets(model, data.to_bytes(own[:n]).to(where))
    if where.type != "cpu" if once is None else once:
        made = translate_pool(model, own.to(where), held.chosen, wanted)
    else:
        sources = own[held.chosen.flatten()].to(where)
        made = translate(model, sources, wanted.repeat_interleave(k, 0))
    return made.cpu().unflatten(0, (n, k))


def looker(side: int = 64, device: str = "cpu") -> nn.Module:
    """The stand-in feature network, which sees images at `side` pixels; 0: its own size."""
    net = weights.network("efficientnetlite0")
    net.size = side or net.size  # its own 224 costs twelve times as much as 64
    return net.to(device, memory_format=torch.channels_last)


def measures(
    model: models.Model, held: Held, how: Measuring, look: nn.Module | None = None
) -> dict[str, list[float]]:
    """What tables say of a network, kept so that two networks can be compared target by target.

    Args:
        held: from `held_out` with the same `how`.
        look: from `looker`; made here if None.

    Returns:
        `lr_rmse` (grey levels) and `layout`, means over sources, and `diversity` of each target;
        `fd`, `density`, `coverage` as `walks.left_out` gives them; `similarity` of each source of
        the grid (its own outputs less other sources').
    """
    look = looker(how.side) if look is None else look
    against = translation.Reference.of(translation.pooled(look, held.real), how.components)
    made = outputs(model, held)
    found = _numbers(made, held, how, look, against, job_of(model).low)
    sources, wanted = held.images.split(how.crossed)[:2]
    alike = similarity(model, sources, wanted, look, against.real.mean(0))
    return found | {"similarity": alike.tolist()}


def similarity(
    model: models.Model, sources: Images, wanted: Images, look: nn.Module,
    centre: Float[Tensor, "F"],
) -> PerImage:  # fmt: skip
    """How much of each source its outputs keep, over a grid: likeness to it, less that of the other
    sources' outputs for the same targets.

    Args:
        sources, wanted: on [-1, 1], at the model's size; the targets are reductions of `wanted`.
        look: from `looker`.
        centre: mean of real images' features.
    """
    where = next(model.parts["generator"].parameters()).device
    cells = grid(model, sources.to(where), targets(model, data.to_bytes(wanted).to(where)))
    seen = translation.pooled(look, cells.flatten(0, 1)).unflatten(0, cells.shape[:2])
    own = translation.pooled(look, sources)
    return translation.own_less_others(translation.similarities(seen, own, centre))


def _numbers(
    made: Float[Tensor, "n K C H W"], held: Held, how: Measuring, look: nn.Module,
    against: translation.Reference, low: int,
) -> dict[str, list[float]]:  # fmt: skip
    """`measures` of outputs, whatever made them."""
    n, k = held.chosen.shape
    flat = made.flatten(0, 1)
    lows = subspace.reduce(held.images[:n], low).repeat_interleave(k, 0)
    seen = translation.pooled(look, flat).unflatten(0, (n, k))
    left = walks.left_out(n, lambda rows: against.numbers(seen, rows)).T.tolist()
    return {
        "lr_rmse": full_reference.lr_rmse((flat + 1) / 2, (lows + 1) / 2, kernel="average")
        .view(n, k)
        .mean(1)
        .tolist(),
        "layout": translation.layout(flat, lows).view(n, k).mean(1).tolist(),
        "diversity": translation.diversity(seen).tolist(),
        **dict(zip(("fd", "density", "coverage"), left, strict=True)),
    }


def measures_of_nearest(
    held: Held, how: Measuring, low: int, look: nn.Module | None = None
) -> dict[str, list[float]]:
    """`measures` of the nearest member P(X, y), which needs no network; without `similarity`."""
    look = looker(how.side) if look is None else look
    against = translation.Reference.of(translation.pooled(look, held.real), how.components)
    n, k = held.chosen.shape
    lows = subspace.reduce(held.images[:n], low).repeat_interleave(k, 0)
    made = subspace.nearest(held.images[held.chosen.flatten()], lows).clamp(-1, 1)
    return _numbers(made.unflatten(0, (n, k)), held, how, look, against, low)


# Columns of tables, as `measures` names them
FIELDS: dict[str, str] = {
    "FD": "fd", "density": "density", "coverage": "coverage", "diversity": "diversity",
    "LR error": "lr_rmse", "source similarity": "similarity", "layout": "layout",
}  # fmt: skip


def compared(
    one: dict[str, list[float]], column: str, other: dict[str, list[float]] | None = None
) -> Score:  # fmt: skip
    """A number of `measures` with its interval over targets; with `other`, how much more it is.

    Args:
        column: of `FIELDS`.
        other: of the same targets.
    """
    a, b = (None if v is None else v[FIELDS[column]] for v in (one, other))
    if column in ("FD", "density", "coverage"):
        return translation.kept_difference(a, b or [0.0] * len(a), len(one["diversity"]))
    return intervals.bootstrap_mean(a) if b is None else intervals.paired_difference(a, b)


# --- presets --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preset:
    """One column of the preset table.

    Attributes:
        training: runs by checkpoint name. What a name is for is the same in every preset: those of
            `domain` Tables 1 and 2, Figures 1, 5, 6 and 7, `*_low*` among them Table 4; `cats_*`
            Table 3 and Figure 8; `drawn_*` where the truth is known; `*_epsilon`, `*_tolerance`
            section 5's remedies; `*_grey` the colour ablation. In quick, training only proves
            itself (`proof`) and the names are shipped checkpoints, made by `SHIPPED`.
        domain: what tables, figures and claims are about, as the names of their runs begin.
        n_eval: held-out images that serve as targets behind each number of a table.
        n_sources: other held-out images translated to each of them; ten in the paper.
        n_images: held-out sources, and as many targets, behind each number of a figure; at most 64.
        examples: rows and columns of a figure's grid.
        curved: runs that are measured on the way, for learning curves (`Runs.curve`).
        published: whether `3_tables` also measures by the published protocols (`as_published`).
    """

    training: dict[str, Training]
    n_eval: int = 48
    n_sources: int = 10
    n_images: int = 64
    examples: int = 5
    curved: tuple[str, ...] = ()
    domain: Literal["faces", "cats"] = "faces"
    published: bool = False


# Small enough for one CPU core, with a penalty in every eighth step and a shorter average
_TINY = {"width": 16, "cap": 64, "discriminator_width": 32, "penalty_every": 8, "ema": 0.995,
         "precision": "bf16"}  # fmt: skip
# A run a hundredth as long as the paper's: a pilot with its own weights (lambda 1, gamma 0.5, rates
# 1 to 4) painted ripples over the target; with these the source's details came through
_SHORT = {"cycle_weight": 10.0, "gamma": 10.0, "ratio": 2.0}
_CPU = {**_TINY, **_SHORT}
# StarGAN v2's settings that differ: twice to thrice its rate for a hundredth of its steps
_STYLE = {"ratio": 1.0, "gamma": 1.0, "lr": 3e-4, "decay": 1e-4}
_SMALL = {**_CPU, "width": 12, "cap": 48, "discriminator_width": 24}
_FACES = {"data": "faces-dcgan", "size": 64, "images": 10_000}

# The runs of Table 4: one budget, one width, four target sizes
SWEEP: dict[str, int] = {"faces_low4": 4, "faces_low8": 8, "faces_low16": 16, "faces_low32": 32}

# Beside `faces_low8`, each with one field changed: section 5's two remedies and the colour ablation
REMEDIES: dict[str, dict[str, Any]] = {
    "faces_epsilon": {"epsilon": 16 / 255},  # 8 grey levels, as a mean
    "faces_tolerance": {"tolerance": 32 / 255},  # 16 grey levels, in every value
    "faces_grey": {"grey": True},
}
# what section 3 says of the cycle, of moment shortcuts (none; not fitted) and of rounding
ABLATIONS: dict[str, dict[str, Any]] = {
    "faces_no_cycle": {"cycle_weight": 0.0},
    "faces_no_shortcut": {"shortcut": "none"},
    "faces_plain": {"shortcut": "plain"},
    "faces_exact": {"step": 1e-6},
}
# readings that could flip a verdict, in the position that is not used (lrc_i2i-e6, e7, e9, e11)
READINGS: dict[str, dict[str, Any]] = {
    "faces_saturating": {"saturating": True},
    "faces_one_term": {"terms": "paper"},
    "faces_two_terms": {"terms": "both"},
    "faces_code_r1": {"r1": "code"},
    "faces_all_norms": {"normed": "paper"},
}

# What tables call them, after the name of their domain
ALONE: dict[str, str] = {
    "epsilon": "Ours, larger epsilon", "tolerance": "Ours, tolerance in eq 6",
    "no_cycle": "Ours, no cycle loss", "no_shortcut": "Ours, no shortcuts",
    "plain": "Ours, plain shortcuts", "exact": "Ours, no rounding",
    "grey": "Ours, trained on grey targets",
}  # fmt: skip
READ: dict[str, str] = {
    "saturating": "Ours, saturating", "one_term": "Ours, one generated term",
    "two_terms": "Ours, two generated terms", "code_r1": "Ours, R1 as coded",
    "all_norms": "Ours, all layers normalised",
}  # fmt: skip


def of_cats(name: str) -> str:
    """The name of the same run on cats."""
    return name.replace("faces_", "cats_", 1)


# How the shipped checkpoints were trained, on one CPU core; `latentpapers train lrc_i2i --run
# NAME`. A quarter of the paper's width and less; what the time allowed is in the cards.
SHIPPED: dict[str, Training] = {
    "faces_lrc": Training("lrc", **{**_FACES, **_CPU}, low=8, steps=9000, log_every=25),
    "drawn_lrc": Training("lrc", "drawn-faces", 64, 4000, 8, 900, **_SMALL),
    "cats_lrc": Training("lrc", "cats", 64, 4618, 8, 9000, log_every=25, **_CPU),
    **{
        name: Training("lrc", **{**_FACES, **_SMALL}, low=low, steps=500)
        for name, low in SWEEP.items()
    },
    **{
        name: Training("lrc", **{**_FACES, **_SMALL, **changed}, low=8, steps=500)
        for name, changed in (REMEDIES | ABLATIONS | READINGS).items()
    },
    "churches_lrc": Training("lrc", "churches", 64, 3227, 8, 4500, **_SMALL),
    # as many core-minutes as faces_lrc; its two networks fit 0.7 MB
    "faces_stargan_v2": Training(
        "stargan_v2",
        **{**_FACES, **_TINY, **_STYLE, "cap": 48, "discriminator_width": 16},
        low=8, steps=6000, style=32, hidden=64, style_cap=32,
    ),
    # as many core-minutes as cats_lrc
    "cats_stargan_v2": Training(
        "stargan_v2",
        **{**_TINY, **_STYLE, "cap": 48, "discriminator_width": 16},
        data="cats", size=64, images=4618, low=8, steps=6480, style=32, hidden=64, style_cap=32,
        log_every=25,
    ),
}  # fmt: skip

# Networks that a shipped file keeps, and the files of 8 bits a weight: all but Figure 5's
KEPT: dict[str, tuple[str, ...]] = dict.fromkeys(SHIPPED, ("generator",))
KEPT["faces_stargan_v2"] = ("generator", "style")
# Numbers are all that is asked of these: they ship as cards, with what `measures` found
MEASURED = ("faces_low8", *REMEDIES, *ABLATIONS, *READINGS, "cats_lrc", "cats_stargan_v2",
            "churches_lrc")  # fmt: skip
KEPT |= {
    name: ("no network",)
    for name in MEASURED
    if name not in ("faces_low8", "faces_grey", "cats_lrc")
}
# Runs of gpu whose cards, too, say how the discriminator weighs the map (lrc_i2i-c28)
WEIGHED = ("cats_low8", "cats_exact")
EIGHT = frozenset(SHIPPED) - {"faces_lrc", "faces_stargan_v2"}

# Half the paper's width: its generator is 5.4 MB at 8 bits a weight; StarGAN v2 with 3/8 of its
# own width has a generator of 4.9 MB. Half precision outside the penalty, fp16 for ours: in bf16
# the generator's gradient has a cosine of 0.97 with fp32's (4 images, on a CPU); StarGAN v2's has
# 0.994, and its activations, which no norm bounds, keep bf16's range. A step queues thousands of
# small operations, so a larger batch costs little as long as these are what takes the time.
# 540 s in all: 60 are left for evaluation. The headline runs get 104 s each, others a quarter.
#
# Counted on 4 images of 128 px, a step takes 149 GFLOP an image (595 at full width) and 29 more
# with a penalty; StarGAN v2's 256 and 21. At 40 % of an H200's 990 TFLOP/s in half precision, 104 s
# allow 269,000 images of ours and 159,000 of StarGAN v2's, a quarter 67,000: at best the headline
# runs see a half and a third of the 500,000 that the design asks for; fewer where memory or the
# penalty's fp32 is the limit.
_GPU = {"precision": "fp16", "batch": 128, "steps": 1_000_000, "ema": 0.995, "penalty_every": 8,
        "width": 32, "cap": 256, "discriminator_width": 64}  # fmt: skip
_HEAD = {**_GPU, "seconds": 104.0}
_QUARTER = {**_GPU, **_SHORT, "seconds": 26.0}
_LESS = {**_QUARTER, "discriminator_width": 128, "seconds": 23.0}  # 64 px: half of 256 there
# diversity fades over as many steps as these operations allow
_STYLE_GPU = {**_STYLE, "precision": "bf16", "width": 48, "cap": 192, "discriminator_width": 48,
              "diversity_steps": 1240}  # fmt: skip
_CATS = {"data": "cats", "size": 128, "images": 4618}
_PAPER = {"size": 128, "batch": 8, "steps": BUDGET // 8}
_CELEBA = {**_PAPER, "data": "celeba-hq", "images": 28_000}
_AFHQ = {"cats": ("afhq-cat", 5153), "dogs": ("afhq-dog", 4739), "wild": ("afhq-wild", 4738)}
_STYLE_PAPER = {"ratio": 1.0, "gamma": 1.0, "lr": 1e-4, "decay": 1e-4, "diversity_weight": 2.0,
                "steps": 100_000, "width": 128}  # fmt: skip

_QUICK = Preset(
    training={
        "proof": Training(
            "lrc", "drawn-faces", 16, 64, 4, 20, width=8, cap=16, discriminator_width=8,
            log_every=2,
        ),
        "proof_stargan_v2": Training(
            "stargan_v2", "drawn-faces", 32, 64, 4, 10, width=8, cap=8, style=8, hidden=16,
            discriminator_width=8, log_every=2, **_STYLE,
        ),
    },
    n_eval=24, n_images=16,
)  # fmt: skip

PRESETS: dict[str, Preset] = {
    "quick": _QUICK,
    # 200 targets x 10 sources are the 2,000 images of the published density and coverage; the
    # intervals are a third as wide as quick's
    "cpu": replace(_QUICK, n_eval=200, n_images=48),
    "gpu": Preset(
        training={
            "cats_lrc": Training("lrc", **_CATS, low=8, **_HEAD, **_SHORT),
            "cats_stargan_v2": Training(
                "stargan_v2", **_CATS, low=8,
                **{**_HEAD, **_STYLE_GPU, "diversity_weight": 2.0},  # its authors' for AFHQ
            ),
            **{
                of_cats(name): Training("lrc", **_CATS, low=low, **_QUARTER)
                for name, low in SWEEP.items()
            },
            **{
                of_cats(name): Training("lrc", **_CATS, low=8, **{**_QUARTER, **changed})
                for name, changed in (REMEDIES | ABLATIONS).items()
            },
            "drawn_lrc": Training("lrc", "drawn-faces", 64, 10_000, 8, **_LESS),
            "churches_lrc": Training("lrc", "churches", 64, 3227, 8, **_LESS),
        },
        n_eval=200, n_images=200, examples=8, curved=("cats_lrc",), domain="cats",
    ),
    # CelebA-HQ unsplit and AFHQ a domain at a time, as in sections 4 and 4.1
    "paper": Preset(
        training={
            "faces_lrc": Training("lrc", **_CELEBA, low=8),
            "faces_lrc_256": Training(
                "lrc", **{**_CELEBA, "size": 256}, low=8, cycle_weight=0.1
            ),
            "faces_stargan_v2": Training(
                "stargan_v2", **{**_CELEBA, **_STYLE_PAPER, "diversity_weight": 1.0}, low=8
            ),
            **{name: Training("lrc", **_CELEBA, low=low) for name, low in SWEEP.items()},
            **{
                f"{name}_lrc": Training("lrc", source, 128, n, 8, BUDGET // 8)
                for name, (source, n) in _AFHQ.items()
            },
            **{
                f"{name}_stargan_v2": Training(
                    "stargan_v2", source, 128, n, 8, **_STYLE_PAPER
                )
                for name, (source, n) in _AFHQ.items()
            },
        },
        # 200 x 10 are the 2,000 images of the stand-ins' density and coverage; AFHQ holds
        # out 500 images a domain. The published protocols take all held-out images as targets
        n_eval=200, n_images=200, examples=8, curved=("faces_lrc",), published=True,
    ),
}  # fmt: skip


# --- the published protocols ----------------------------------------------------------------------

# Each held-out image is the target of ten other held-out ones (lrc_i2i-e32); outputs as bytes
SOURCES = 10
# (sources on [-1, 1], the images behind their targets, classes of these) -> outputs
Maker = Callable[[Images, Bytes, Labels | None], Images]


@dataclass(frozen=True)
class Printed:
    """Which printed numbers are about a network.

    Attributes:
        tables, row: of the ledger.
        place: what its columns are called after the quantity.
        data, size: the images of these numbers; Table 3 does not print the size, nor does Table 4
            (lrc_i2i-e35).
    """

    tables: tuple[str, ...]
    row: str
    place: str
    data: str
    size: int = 128


_FIRST = ("table_1", "table_2")
PRINTED: dict[str, Printed] = {
    "faces_lrc": Printed(_FIRST, "Ours", "CelebA-HQ 128", "celeba-hq"),
    "faces_lrc_256": Printed(_FIRST, "Ours", "CelebA-HQ 256", "celeba-hq", 256),
    "faces_stargan_v2": Printed(_FIRST, "StarGAN v2", "CelebA-HQ 128", "celeba-hq"),
    **{
        name: Printed(("table_4",), f"Ours ({low}x{low} target)", "CelebA-HQ", "celeba-hq")
        for name, low in SWEEP.items()
    },
    **{
        f"{name}_{kind}": Printed(("table_3",), row, f"AFHQ {source[5:]}", source)
        for name, (source, _) in _AFHQ.items()
        for kind, row in (("lrc", "Ours"), ("stargan_v2", "StarGAN v2"))
    },
}
# rows of differences: what they are called, and the two networks
VERSUS: tuple[tuple[str, str, str], ...] = (
    *(("Ours - StarGAN v2", f"{of}_lrc", f"{of}_stargan_v2") for of in ("faces", *_AFHQ)),
    ("Ours at 256 px - Ours", "faces_lrc_256", "faces_lrc"),
)


@dataclass(frozen=True)
class Line:
    """A number measured by a published protocol.

    Attributes:
        id, row, column, metric: where it stands, as in the ledger.
        score: the number.
        network, seed: what it is about; of a difference the first of the two.
    """

    id: str
    row: str
    column: str
    metric: str
    score: Score
    network: str
    seed: int


def places(of: Printed) -> list[tuple[str, str, str]]:
    """(table, column, metric) of the ledger's cells that are about a network."""
    book = ledger.load("lrc_i2i")
    return [
        (table, cell.column, cell.metric)
        for table in of.tables
        for cell in book.table(table).cells
        if cell.row == of.row and cell.column.partition(" ")[2] == of.place
    ]


def as_published(
    networks: Mapping[tuple[str, int], models.Model], *, seed: int = 0, device: str = "cpu"
) -> Iterator[Line]:
    """Published numbers of those networks that are made for the paper's own images, and how much
    more one has than the other (`VERSUS`). Metrics whose weights are not here are left out.

    Args:
        networks: by name and training seed; names that are not in `PRINTED` are passed over.
        seed: of the draw of the sources.
        device: where the networks are and features are taken.
    """
    found = {}
    for (name, own), model in networks.items():
        job, of = job_of(model), PRINTED.get(name)
        if of is not None and (job.data, job.size) == (of.data, of.size):
            found[name, own] = published(maker(model), of, seed=seed, device=device)
            yield from _lines(of, of.row, found[name, own], name, own)
    for row, a, b in VERSUS:
        for own in sorted({s for _, s in found}):
            one, other = found.get((a, own)), found.get((b, own))
            if one and other:
                gaps = {k: less(one[k], other[k]) for k in one if k in other}
                lines = _lines(PRINTED[a], row, gaps, a, own)
                yield from (replace(line, id="differences") for line in lines)


def _lines(
    of: Printed, row: str, scores: dict[str, Score], network: str, seed: int
) -> Iterator[Line]:
    for table, column, metric in places(of):
        if metric in scores:
            yield Line(table, row, column, metric, scores[metric], network, seed)


def less(a: Score, b: Score) -> Score:
    """a - b with half widths added in quadrature, as if the two were independent: they are of the
    same targets and sources, so the interval is rather too wide."""
    gap = a.value - b.value
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    method = f"of both numbers, in quadrature: {a.method}"
    return Score(gap, gap - below, gap + above, min(a.n, b.n), method)


def maker(model: models.Model) -> Maker:
    """A network of this project, as the protocols call it."""
    return lambda sources, behind, classes: translate(model, sources, targets(model, behind))


def published(
    make: Maker, of: Printed, *, seed: int = 0, device: str = "cpu"
) -> dict[str, Score]:  # fmt: skip
    """Published metrics of a translator, by id; those whose weights are here.

    Args:
        make: on `device`.
        of: the images, and the cells whose metrics are measured.
        seed, device: as of `as_published`.
    """
    every = list(dict.fromkeys(metric for *_, metric in places(of)))
    here = [metric for metric in every if not lacking([metric])]
    if not here:
        return {}
    made = protocol_outputs(make, of, protocol_targets(every), seed=seed, device=device)
    return {metric: protocol_score(metric, made, of, device) for metric in here}


def protocol_targets(metrics: Iterable[str]) -> int:
    """How many targets fill the sets that these metrics ask for: with ten outputs each for a
    Frechet distance, with one for density and coverage, whose intervals take images as
    independent."""
    found = [entry.find(metric) for metric in metrics]
    return max(p.n // (1 if p.k else SOURCES) for p in found if p.n)


@torch.no_grad()
def protocol_outputs(
    make: Maker, of: Printed, n: int, *, seed: int = 0, device: str = "cpu", block: int = 64
) -> Bytes:
    """(n, 10, 3, S, S): each of n held-out images is the target of ten others. On the CPU, where
    20,000 images of 256 px take 4 GB."""
    held = data.load(of.data, size=of.size, split="test", n=n)
    draw = generator(seed, "sources", of.data)
    order = translation.drawn_sources(n, SOURCES, n, draw).flatten()
    wanted = torch.arange(n).repeat_interleave(SOURCES)
    made = held.pixels.new_empty(len(order), *held.pixels.shape[1:])
    for first in range(0, len(order), block):
        part = slice(first, first + block)
        sources = data.to_float(held.pixels[order[part]]).to(device)
        classes = None if held.labels is None else held.labels[wanted[part]].to(device)
        images = make(sources, held.pixels[wanted[part]].to(device), classes)
        made[part] = data.to_bytes(images).cpu()
    return made.unflatten(0, (n, SOURCES))


def protocol_score(metric: str, made: Bytes, of: Printed, device: str = "cpu") -> Score:
    """A published metric of `protocol_outputs`, against the training images of their set; density
    and coverage take each target's first output and as many real images (lrc_i2i-e34)."""
    protocol = entry.find(metric)
    if protocol.kind == "groups":  # `score` would hold all of them as floats
        blocks = [entry.values(metric, part.to(device), layout="NCHW") for part in made.split(16)]
        return protocol.summary(torch.cat(blocks))
    fake = made[:, 0] if protocol.k else made.flatten(0, 1)
    count = protocol.n if protocol.k else None
    real = data.load(of.data, size=of.size, split="train", n=count).pixels
    return entry.score(metric, fake, real, layout="NCHW", device=device)


def lacking(metrics: Iterable[str]) -> dict[str, list[str]]:
    """Weights that are not on this machine, and which of the metrics need each."""
    out: dict[str, list[str]] = {}
    for metric in metrics:
        for name in entry.find(metric).needs:
            if not weights.available(name):
                out.setdefault(name, []).append(metric)
    return out


def unmeasured() -> str:
    """One sentence: which published metrics lack their weights, and what brings these."""
    every = {metric for of in PRINTED.values() for *_, metric in places(of)}
    missing = lacking(sorted(every))
    if not missing:
        return "The weights of all published protocols are here."
    parts = [
        f"{', '.join(metrics)} (`python -m latentpapers weights fetch {name}`)"
        for name, metrics in missing.items()
    ]
    return f"Not measured, weights are missing: {'; '.join(parts)}."


# The authors' StarGAN v2: its weights, the images, and the class of all references where they have
# no label (the two networks count women and men, cats, dogs and wild animals in this order)
AUTHORS = "StarGAN v2, authors' weights"
OFFICIAL: tuple[tuple[tuple[str, ...], Printed, int | None], ...] = (
    (
        ("stargan_v2_celebahq", "wing"),
        Printed(_FIRST, "StarGAN v2", "CelebA-HQ 256", "celeba-hq", 256),
        None,
    ),
    *(
        (
            ("stargan_v2_afhq",),
            Printed(("table_3",), "StarGAN v2", f"AFHQ {source[5:]}", source, 256),
            number,
        )
        for number, (source, _) in enumerate(_AFHQ.values())
    ),
)


def authors_lines(*, seed: int = 0, device: str = "cpu") -> Iterator[Line]:
    """Published numbers of the authors' networks that are here, on the targets and sources that
    ours get: reference-guided within one set of images."""
    for needed, of, number in OFFICIAL:
        if all(map(weights.available, needed)):
            make = authors_maker(needed, number, device)
            scores = published(make, of, seed=seed, device=device)
            yield from _lines(of, AUTHORS, scores, needed[0], seed)


def authors_maker(needed: tuple[str, ...], number: int | None, device: str = "cpu") -> Maker:
    """The authors' generator and style encoder, as the protocols call them.

    Args:
        needed: names of the weights: the networks, then the landmark network if its generator adds
            masked details of the source.
        number: the class of all references; None: each has its own.
    """
    nets = weights.network(needed[0]).to(device)
    faces = weights.network(needed[1]).to(device) if len(needed) > 1 else None

    def make(sources: Images, behind: Bytes, classes: Labels | None) -> Images:
        if number is not None:
            classes = torch.full((len(sources),), number, device=sources.device)
        style = nets["style"](data.to_float(behind), classes)
        return nets["generator"](sources, style, faces.masks(sources) if faces else None)

    return make


def authors_scale(line: Line, preset: str, device: str) -> config.Scale:
    """The label of an `authors_lines` number."""
    where = line.column.partition(" ")[2].removesuffix(" 256")
    made = f"{where}, 256 px, trained by its authors, not here"
    return config.Scale(preset, 0, None, made, device, ())


def authors_missing() -> list[str]:
    """A sentence for each of the authors' files that is not here: what it is and how it comes."""
    names = dict.fromkeys(name for needed, *_ in OFFICIAL for name in needed)
    return [str(weights.registry.missing(n)) for n in names if not weights.available(n)]


# --- PULSE's own generator ------------------------------------------------------------------------

STYLEGAN = ("stylegan_ffhq_synthesis", "stylegan_ffhq_mapping")


def stylegan_space(
    device: str = "cpu", *, seed: int = 0, count: int = 1_000_000
) -> pulse.Space | None:  # fmt: skip
    """What PULSE's authors search: StyleGAN for faces at 1024 px; None where it is not here.

    Args:
        device: where it runs.
        seed, count: of the latent vectors that its space is fitted on.
    """
    if not all(map(weights.available, STYLEGAN)):
        return None
    synthesis, mapping = (weights.network(name).to(device) for name in STYLEGAN)
    latent = next(mapping.parameters()).shape[1]
    draw = generator(seed, "stylegan", "space")
    fitted = pulse.fitted(lambda z: mapping(z.to(device)).cpu(), latent, draw, count=count)
    return pulse.of_styles(synthesis, *fitted)


def pulse_space(
    instead: pulse.Space, *, own: bool = False, device: str = "cpu"
) -> tuple[pulse.Space, int, str]:
    """What PULSE searches in Figure 7, how many images at once, and a line that says so.

    Args:
        instead: of a GAN of this project, where StyleGAN is not asked for or not here.
        own: whether StyleGAN is asked for.
        device: as of `stylegan_space`.
    """
    space = stylegan_space(device) if own else None
    if space is not None:  # 1024 px: a few images fill the memory with what gradients need
        return space, 2, "PULSE searches StyleGAN (FFHQ), as its authors did."
    absent = [name for name in STYLEGAN if own and not weights.available(name)]
    told = [str(weights.registry.missing(name)) for name in absent]
    return instead, 64, "\n".join(["PULSE searches this project's PGAN.", *told])


# --- runs -----------------------------------------------------------------------------------------

STEPS: dict[str, type[Step]] = {"lrc": Step, "stargan_v2": StyleStep}


def _fit(
    job: Training, seed: int, path: Path, device: str, group: Group | None,
    progress: Progress | None,
) -> None:  # fmt: skip
    checked(job)
    pixels = data.load(job.data, size=job.size, split="train", n=job.images).pixels
    plan = Fit(
        steps=job.steps, batch=job.batch, seconds=job.seconds, log_every=job.log_every,
        flip=job.flip, precision=job.precision, compile=job.compile,
    )  # fmt: skip
    fit(STEPS[job.method](job, seed, device), pixels, plan, seed=seed, config=job,
        path=state_of(path), device=device, group=group, progress=progress)  # fmt: skip


def _card(job: Training, path: Path, images: int, nets: States) -> dict[str, Any]:
    title = f"{method_of(job).title} on {job.data}, {job.low} to {job.size} px"
    card: dict[str, Any] = {"title": title, "budget": images / BUDGETS[job.method]}
    name = path.name.rpartition("_s")[0]
    if name in MEASURED and job == SHIPPED[name]:
        card["measures"] = _measured(job, nets)
    if name == "churches_lrc" and job == SHIPPED[name]:
        card["averaging"] = averaging(job, path)
    if (name in MEASURED or path.stem in WEIGHED) and job.method == "lrc":
        card["critic_weights"] = map_weights(nets["discriminator"])
        card["critic_weight"] = statistics.fmean(w * w for w in card["critic_weights"]) ** 0.5
    return card


def _model(job: Training, nets: States, device: str = "cpu") -> models.Model:
    """The networks of a run that make its outputs, from their state dicts."""
    parts = {n: models.build(recipe(job, n)) for n in nets if n in ("generator", "style")}
    for name, net in parts.items():
        net.load_state_dict(nets[name])
        net.to(device).eval().requires_grad_(False)
    return models.Model(parts, {"config": config.as_dict(job)})


def _measured(job: Training, nets: States) -> dict[str, Any]:
    """`measures` of a run's networks with how they were made. Where no picture of the data ships,
    those of its nearest members too, and of cats the similarity of sources under drawn targets."""
    how = Measuring()
    held, look, model = held_out(job.data, job.size, how, 0), looker(how.side), _model(job, nets)
    found = {"how": config.as_dict(how), "ours": measures(model, held, how, look)}
    if job.data in ("cats", "churches"):
        found["nearest"] = measures_of_nearest(held, how, job.low, look)
    if job.data == "cats":
        drawn = data.load("drawn-faces", size=job.size, split="test", n=how.crossed).pixels
        centre = translation.pooled(look, held.real).mean(0)
        sources = held.images[: how.crossed]
        alike = similarity(model, sources, data.to_float(drawn), look, centre)
        found["similarity_to_drawings"] = alike.tolist()
    return found


def averaging(
    job: Training, path: Path, how: Measuring = Measuring(48, 4, pool=96, real=384)
) -> dict[str, list[float | None]]:  # fmt: skip
    """What averaging the weights changes (lrc_i2i-e16): the numbers of the averaged network less
    those of the last step's, for the same targets, each with the ends of its interval."""
    state, look = state_of(path), looker(how.side)
    held = held_out(job.data, job.size, how, 0)
    against = translation.Reference.of(translation.pooled(look, held.real), how.components)
    models_ = (_model(job, _networks(state, averaged=yes)) for yes in (True, False))
    a, b = (_numbers(outputs(m, held), held, how, look, against, job.low) for m in models_)
    gaps = {"fd": translation.kept_difference(a["fd"], b["fd"], how.targets)}
    for name in ("lr_rmse", "diversity"):
        gaps[name] = intervals.paired_difference(torch.tensor(a[name]), torch.tensor(b[name]))
    return {name: [gap.value, gap.low, gap.high] for name, gap in gaps.items()}


def map_weights(discriminator: dict[str, Tensor]) -> list[float]:
    """Root mean square weight on the difference map of each output channel of the convolution that
    takes it, from a state dict with its norms divided out."""
    weight = discriminator["joined.0.conv1.weight"]
    return weight[:, -3:].square().mean((1, 2, 3)).sqrt().tolist()


def _networks(path: Path, *, averaged: bool = True) -> States:
    """State dicts of a training's networks, with their norms divided out."""
    nets = checkpoint.networks(path, averaged=averaged)
    return {name: sn.folded(state) for name, state in nets.items()}


# Seconds of one core at 64 px: 160 outputs, ten for each target as for the published diversity
_ON_THE_WAY = Measuring(targets=16, sources=10, pool=64, real=192)


def measured(
    job: Training, path: Path, *, device: str = "cpu", how: Measuring = _ON_THE_WAY
) -> dict[str, Score]:
    """What a learning curve shows: how far outputs miss their targets, how real they look and how
    much those for one target differ. From the training's state: a shipped file may keep no network.

    Args:
        job, path: the run as far as it came, and its checkpoint.
        device: where networks run.
        how: few held-out images. The numbers of a curve can be compared with each other alone.
    """
    model, look = _model(job, _networks(state_of(path)), device), looker(how.side, device)
    held = held_out(job.data, job.size, how, 0)
    against = translation.Reference.of(translation.pooled(look, held.real), how.components)
    found = _numbers(outputs(model, held), held, how, look, against, job.low)
    return {
        "lr_rmse": intervals.bootstrap_mean(torch.tensor(found["lr_rmse"])),
        "fd_efficientnetlite0_small": translation.kept_difference(
            found["fd"], [0.0] * len(found["fd"]), how.targets
        ),
        "featdist_efficientnetlite0_small": intervals.bootstrap_mean(
            torch.tensor(found["diversity"])
        ),
    }


RUNS = Runs(
    "lrc_i2i", Training, _fit, _card, recipe,
    {"shipped": SHIPPED, **{name: preset.training for name, preset in PRESETS.items()}}, KEPT,
    eight=EIGHT, networks=_networks, measure=measured,
)  # fmt: skip
train, export, train_from_cli = RUNS.train, RUNS.export, RUNS.train_from_cli
