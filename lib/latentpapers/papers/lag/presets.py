"""The runs by name: how the shipped networks were trained (`SHIPPED`), and what each preset trains
and measures (`PRESETS`)."""

from dataclasses import dataclass, replace
from typing import Any

from latentpapers.nets import lag
from latentpapers.papers.lag.training import PHASE, Training, budget


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
