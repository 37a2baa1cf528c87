"""What decides a run: the methods of Table 1 (`METHODS`) and the settings of a run (`Training`)."""

from dataclasses import dataclass, field
from typing import Literal

from latentpapers.losses.equilibrium import Gains

BUDGET = 300_000 * 16  # images of the paper's run: 300k iterations (section 4), BEGAN's batch of 16


@dataclass(frozen=True)
class Method:
    """Which terms a method has.

    Attributes:
        title: the row's name in the paper's Table 1.
        encoder: the generator is a VAE (else a decoder alone).
        critic: there is a discriminator.
        similarity: eq 9 paired (`paired`), without an x_v to pair with (`unpaired`, read as
            `Training.unpaired` says), or `none`.
        gains: of the controller; BEGAN's has the integral part alone.
        prior: of z_g; BEGAN draws from U(-1, 1), AVAE from N(0, I).
    """

    title: str
    encoder: bool = True
    critic: bool = True
    similarity: Literal["paired", "unpaired", "none"] = "paired"
    gains: Gains = field(default_factory=Gains)
    prior: Literal["normal", "uniform"] = "normal"


METHODS: dict[str, Method] = {
    "vae": Method("VAE", critic=False, similarity="none"),
    "began": Method("BEGAN", encoder=False, similarity="none",
                    gains=Gains(1e-3, 0.0, 0.0), prior="uniform"),
    "began_lsm": Method("Ours (BEGAN* + LSM)", encoder=False, similarity="unpaired"),
    "avae": Method("Ours (VAE + BEGAN* + LSM)"),
}  # fmt: skip


@dataclass(frozen=True)
class Training:
    """One training run: everything that decides its result.

    Attributes:
        method: a row of `METHODS` or of `BASELINES`.
        data, size, channels, images: training set, pixels a side, colours, images taken of it.
        width, latent: n and N of the BEGAN backbone; the paper gives neither (errata). Of a
            baseline: channels of its generator's widest image, Z.
        batch, steps, seconds: images a step, steps, and the time limit that may end it sooner.
        lr, halve_every: Adam's rate, halved every so many steps (0: never); a baseline has its own
            paper's rates times `speed`.
        alpha, beta, gamma, eta: section 4.
        kl: reduction of eq 3; the paper gives none.
        eq11: `corrected` or `printed` (erratum).
        eq12: k `clamped` to [0, 1], `free`, or by `positional` parts and clamped (erratum).
        unpaired: what eq 9 compares where there is no x_v: the batches' `means`, or random `pairs`
            of a real image and a sample (erratum).
        gains_scale: multiplies the controller's gains; short runs need a faster controller.
        gains: instead of the method's: integral, proportional, derivative (empty: the method's).
        cap: most channels of a baseline's generator, 0: as its paper; BEGAN's has `width` all over.
        speed: multiplies a baseline's learning rates; short runs need faster ones.
        log_every, precision, compile: of the engine.
    """

    method: str
    data: str
    size: int
    images: int
    width: int
    latent: int
    steps: int
    channels: int = 3
    batch: int = 16
    seconds: float | None = None
    lr: float = 5e-5
    halve_every: int = 0
    alpha: float = 0.3
    beta: float = 0.1
    gamma: float = 0.1
    eta: float = 0.5
    kl: Literal["mean", "sum", "pixels"] = "pixels"
    eq11: Literal["corrected", "printed"] = "corrected"
    eq12: Literal["clamped", "free", "positional"] = "clamped"
    unpaired: Literal["means", "pairs"] = "means"
    gains_scale: float = 1.0
    gains: tuple[float, ...] = ()
    cap: int = 0
    speed: float = 1.0
    log_every: int = 50
    precision: str = "fp32"
    compile: bool = False
