"""What decides a run: the methods (`METHODS`), the settings of a training (`Training`), its stages
and its networks."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from latentpapers import config, data
from latentpapers.errors import UserError
from latentpapers.nets import edsr, lag, srgan
from latentpapers.nets.began import seeded
from latentpapers.seeds import generator
from latentpapers.shapes import Images
from latentpapers.train.schedule import Stage

KIMG = 1024
PAPERS_OWN = ("celeba-lag", "lsun-bedroom", "lsun-church")  # data sets of the paper's figures
PHASE = 2048 * KIMG  # images of one phase of growing in the paper's run


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
