"""What decides a run: the settings of a training (`Training`), its networks and its stages."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from latentpapers import models
from latentpapers.errors import UserError
from latentpapers.nets import pgan
from latentpapers.nets.began import seeded
from latentpapers.seeds import generator
from latentpapers.train.schedule import Stage

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
