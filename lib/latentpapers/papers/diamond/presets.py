"""The runs by name: how the shipped networks were trained (`SHIPPED`), and what each preset trains,
searches and allows (`PRESETS`)."""

import dataclasses
from dataclasses import dataclass, field

from latentpapers.latent import boundary, method
from latentpapers.papers.diamond.training import Training


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
