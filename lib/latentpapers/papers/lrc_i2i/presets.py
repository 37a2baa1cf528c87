"""The runs by name: how the shipped networks were trained (`SHIPPED`), and what each preset trains
and measures (`PRESETS`)."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from latentpapers.papers.lrc_i2i.training import BUDGET, Training


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
AFHQ = {"cats": ("afhq-cat", 5153), "dogs": ("afhq-dog", 4739), "wild": ("afhq-wild", 4738)}
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
                for name, (source, n) in AFHQ.items()
            },
            **{
                f"{name}_stargan_v2": Training(
                    "stargan_v2", source, 128, n, 8, **_STYLE_PAPER
                )
                for name, (source, n) in AFHQ.items()
            },
        },
        # 200 x 10 are the 2,000 images of the stand-ins' density and coverage; AFHQ holds
        # out 500 images a domain. The published protocols take all held-out images as targets
        n_eval=200, n_images=200, examples=8, curved=("faces_lrc",), published=True,
    ),
}  # fmt: skip
