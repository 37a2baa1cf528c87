"""LAG: creating high resolution images with a latent adversarial generator (Berthelot et al.).

From a tiny image y and noise z the generator makes a large image; the critic's features are the
space in which the output at z = 0 is drawn to the real image. The baselines of the missing
supplement, the ablations and the paper's two extensions are rows of `METHODS`.

============== ==========================================================================
file           what lies there
============== ==========================================================================
`training.py`  `METHODS`; `Training`, all settings of a run; stages, networks; the budget
`step.py`      `Step`: every method's losses, together or in turn
`presets.py`   `SHIPPED` and `PRESETS`: the runs by name
`outputs.py`   images and codes of a network; the scale label
`measuring.py` distances to the truth, errors of the input, learning curves
`protocol.py`  FID and LPIPS on CelebA-HQ, as printed
`scores.py`    rows that ship as numbers: made, read
`runs.py`      training and export
`commands.py`  the command line
============== ==========================================================================

A file imports files that stand above it, never one below, nor this package.
"""

from latentpapers.papers.lag.commands import train_from_cli
from latentpapers.papers.lag.measuring import answered, measured, to_truth, unit
from latentpapers.papers.lag.outputs import centre, code, encoded, inputs, job_of, samples, scale_of
from latentpapers.papers.lag.presets import KEPT, PRESETS, SHIPPED, TABLE, Preset
from latentpapers.papers.lag.protocol import fid, lpips, published
from latentpapers.papers.lag.runs import RUNS, export, train
from latentpapers.papers.lag.scores import score, score_file, shipped_scores
from latentpapers.papers.lag.step import Step
from latentpapers.papers.lag.training import (
    METHODS,
    PHASE,
    Training,
    budget,
    low_side,
    method_of,
    networks,
    recipe,
    reduce,
    stages_of,
)

# (CPU seconds, MB) of each notebook, measured on one core in a process of its own
EXPECT = {
    "quick/1_derivation": (10, 960), "quick/2_training": (10, 880), "quick/3_tables": (22, 970),
    "quick/4_figures": (13, 850), "quick/5_explore": (8, 740),
    "cpu/3_tables": (250, 1600), "cpu/4_figures": (25, 1260),
}  # fmt: skip
ALLOWED = {"gpu/2_training": 522, "gpu/3_tables": 60, "gpu/4_figures": 18}  # seconds of 600

__all__ = [
    "ALLOWED", "EXPECT", "KEPT", "METHODS", "PHASE", "PRESETS", "RUNS", "SHIPPED", "TABLE",
    "Preset", "Step", "Training", "answered", "budget", "centre", "code", "encoded", "export",
    "fid", "inputs", "job_of", "low_side", "lpips", "measured", "method_of", "networks",
    "published", "recipe", "reduce", "samples", "scale_of", "score", "score_file", "shipped_scores",
    "stages_of", "to_truth", "train", "train_from_cli", "unit",
]  # fmt: skip
