"""What decides a run: the methods (`METHODS`), the settings of a training (`Training`) and its
networks."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from latentpapers import config, models
from latentpapers.errors import UserError
from latentpapers.nets import lrc_i2i, stargan_v2
from latentpapers.nets.began import seeded
from latentpapers.seeds import generator

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


# generated terms of eq 7: which of (x_ab, x_ba, x_aa', x_bb') the discriminator sees
TERMS: dict[str, int] = {"paper": 1, "both": 2, "code": 4}


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
