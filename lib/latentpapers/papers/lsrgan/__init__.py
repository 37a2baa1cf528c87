"""LSRGAN: latent space regularisation of a super-resolution GAN (Zhong, Zhou, Zhang, Wang).

ESR, LSR, CESR and CLSR are one sum of terms with some left out: rows of `VARIANTS`. Two stages:
generator and encoder alone with L1 (`stage="psnr"`), then generator, discriminator and encoder
together, from that one file.

============== =======================================================================
file           what lies there
============== =======================================================================
`training.py`  `VARIANTS`; `Training`, all settings of a run; its networks; the budget
`step.py`      `Step`: both stages with their losses
`presets.py`   `SHIPPED` and `PRESETS`: the runs by name
`starts.py`    what a run starts from: a checkpoint, a file, public weights
`pictures.py`  pairs of low and high resolution for training and evaluation
`outputs.py`   enlarged pictures; the scale label
`measuring.py` the paper's measures picture by picture; the bar; learning curves
`comparing.py` paired differences, means, ranges of methods; where they differ most
`scores.py`    rows that ship as numbers: made, packed, read
`rereading.py` the scores under errata's other readings, run and read
`runs.py`      training and export
`commands.py`  the command line
============== =======================================================================

A file imports files that stand above it, never one below, nor this package.
"""

from latentpapers.papers.lsrgan.commands import train_from_cli
from latentpapers.papers.lsrgan.comparing import (
    best_of,
    differences,
    mean_of,
    place_of_largest_difference,
    pooled_groups,
    range_of_means,
    share_of,
    spread_difference,
    worst_sets,
)
from latentpapers.papers.lsrgan.measuring import (
    METRICS,
    evaluate,
    hold_bar,
    measure,
    measured,
    sharpness,
)
from latentpapers.papers.lsrgan.outputs import bicubic, enlarge, enlarged, load_generator, scale_of
from latentpapers.papers.lsrgan.pictures import (
    TITLES,
    evaluation_pairs,
    photographs,
    reduced,
    title_of_set,
)
from latentpapers.papers.lsrgan.presets import KEPT, PRESETS, READINGS, SHIPPED, Preset
from latentpapers.papers.lsrgan.rereading import (
    DECIDED,
    REREAD,
    change_of_range,
    least_favourable,
    reading_scores,
    reading_values,
    score_readings,
)
from latentpapers.papers.lsrgan.runs import RUNS, export, train
from latentpapers.papers.lsrgan.scores import (
    CROPS,
    PUBLISHED_SETS,
    SCORED,
    UNSHIPPED_SEEDS,
    first_stage_scores,
    packed,
    published_scores,
    score,
    score_file,
    scored_pairs,
    scores_only,
    unpacked,
)
from latentpapers.papers.lsrgan.starts import begin_from, start_file
from latentpapers.papers.lsrgan.step import Step
from latentpapers.papers.lsrgan.training import (
    BUDGET,
    VARIANTS,
    Training,
    feature_network,
    networks,
    recipe,
)

# (CPU seconds, MB) of each notebook, measured on one core in a process of its own
EXPECT = {
    "quick/1_derivation": (18, 1000), "quick/2_training": (18, 1000), "quick/3_tables": (18, 1150),
    "quick/4_figures": (18, 1150), "quick/5_explore": (14, 1000),
    "cpu/3_tables": (26, 1000), "cpu/4_figures": (16, 1000),
}  # fmt: skip
ALLOWED = {"gpu/2_training": 480, "gpu/3_tables": 95, "gpu/4_figures": 25}  # seconds of 600

__all__ = [
    "ALLOWED", "BUDGET", "CROPS", "DECIDED", "EXPECT", "KEPT", "METRICS", "PRESETS",
    "PUBLISHED_SETS", "READINGS", "REREAD", "RUNS", "SCORED", "SHIPPED", "TITLES",
    "UNSHIPPED_SEEDS", "VARIANTS", "Preset", "Step", "Training", "begin_from", "best_of", "bicubic",
    "change_of_range", "differences", "enlarge", "enlarged", "evaluate", "evaluation_pairs",
    "export", "feature_network", "first_stage_scores", "hold_bar", "least_favourable",
    "load_generator", "mean_of", "measure", "measured", "networks", "packed", "photographs",
    "place_of_largest_difference", "pooled_groups", "published_scores", "range_of_means",
    "reading_scores", "reading_values", "recipe", "reduced", "scale_of", "score", "score_file",
    "score_readings", "scored_pairs", "scores_only", "share_of", "sharpness", "spread_difference",
    "start_file", "title_of_set", "train", "train_from_cli", "unpacked", "worst_sets",
]  # fmt: skip
