"""The runs by name: how the shipped networks were trained (`SHIPPED`), and what each preset trains
(`PRESETS`)."""

from dataclasses import dataclass, replace
from typing import Any

from latentpapers.papers.lsrgan.training import ITERATIONS, VARIANTS, Training

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
