"""AVAE: adversarial training of variational auto-encoders (Khan, Hayat, Barnes).

A VAE is the generator, an auto-encoder the discriminator, a controller keeps them in balance.
BEGAN, BEGAN* + LSM and a plain VAE are the same step with terms switched off: rows of `METHODS`.
The other methods of Figures 5 and 7 are games of their own: rows of `BASELINES`.

============== ====================================================================
file           what lies there
============== ====================================================================
`training.py`  `METHODS` of Table 1; `Training`, all settings of a run; the budget
`baselines.py` `BASELINES`: the other methods of Figures 5 and 7
`networks.py`  which networks a run has, and how `lp.models.build` makes each
`step.py`      `Step`: Algorithm 1 with its losses and its controller
`presets.py`   `SHIPPED` and `PRESETS`: the runs by name
`outputs.py`   samples and latents of a network; the scale label
`measuring.py` classifiers, attributes, held-out errors, learning curves
`runs.py`      training, export and the command line
============== ====================================================================

A file imports files that stand above it, never one below, nor this package.
"""

from latentpapers.papers.avae.baselines import BASELINES, NOT_TRAINED, Baseline
from latentpapers.papers.avae.measuring import attributes_of, judge, measured, reproduced
from latentpapers.papers.avae.networks import Networks, recipe, title_of
from latentpapers.papers.avae.outputs import batches, drawn, joint_scale, sample, scale_of
from latentpapers.papers.avae.presets import FIGURE_5, KEPT, PRESETS, SHIPPED, Preset
from latentpapers.papers.avae.runs import RUNS, export, train, train_from_cli
from latentpapers.papers.avae.step import Step, task_of
from latentpapers.papers.avae.training import BUDGET, METHODS, Method, Training

# (CPU seconds, MB) of each notebook, measured on one core in a process of its own
EXPECT = {
    "quick/1_derivation": (15, 970), "quick/2_training": (16, 900), "quick/3_tables": (56, 1050),
    "quick/4_figures": (40, 1550), "quick/5_explore": (12, 940),
    "cpu/3_tables": (104, 1000), "cpu/4_figures": (57, 2300),
}  # fmt: skip
ALLOWED = {"gpu/2_training": 517, "gpu/3_tables": 60, "gpu/4_figures": 23}  # seconds of 600

__all__ = [
    "ALLOWED", "BASELINES", "BUDGET", "EXPECT", "FIGURE_5", "KEPT", "METHODS", "NOT_TRAINED",
    "PRESETS", "RUNS", "SHIPPED", "Baseline", "Method", "Networks", "Preset", "Step", "Training",
    "attributes_of", "batches", "drawn", "export", "joint_scale", "judge", "measured", "recipe",
    "reproduced", "sample", "scale_of", "task_of", "title_of", "train", "train_from_cli",
]  # fmt: skip
