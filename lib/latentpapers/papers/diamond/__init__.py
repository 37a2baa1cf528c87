"""Diamond in the rough (Wen et al. 2021): the GANs whose latent spheres are walked.

The paper changes no network: it takes trained GANs. This room makes them: PGAN, grown level by
level, WGAN-GP, and the encoder that starts an inversion. The walk itself is in `latent`.

===================== =======================================================================
file                  what lies there
===================== =======================================================================
`training.py`         `Training`, all settings of a run; its networks and stages; the budgets
`step.py`             `Adversarial`: a GAN's step; `Inversion`: the encoder's
`presets.py`          `SHIPPED`, `ENCODERS` and `PRESETS`: the runs by name
`outputs.py`          samples, latents and pairs of networks; the scale label
`public_networks.py`  BigGAN's public weights: walks and a row of figures
`measuring.py`        the supervised boundary, features of real images, learning curves
`editing.py`          appendix E: attribute vectors, the search of edited starts
`searching.py`        the search of a checkpoint, and of a run within its preset's time
`shipped_searches.py` the searches that ship as files, and how each is read
`rereading.py`        the search under errata's other readings, run and read
`runs.py`             training and export
`commands.py`         the command line
===================== =======================================================================

A file imports files that stand above it, never one below, nor this package.
"""

from latentpapers.papers.diamond.commands import train_from_cli
from latentpapers.papers.diamond.editing import attribute_vector, search_edited, shows
from latentpapers.papers.diamond.measuring import (
    eyes,
    least_of_all,
    measured,
    real,
    real_file,
    seen,
    supervised,
)
from latentpapers.papers.diamond.outputs import latents, pair, sample, scale_of
from latentpapers.papers.diamond.presets import ENCODERS, KEPT, PRESETS, SHIPPED, Preset
from latentpapers.papers.diamond.public_networks import biggan_row, walk_of_weights
from latentpapers.papers.diamond.rereading import SINGLE, middle_score, readings, search_again
from latentpapers.papers.diamond.runs import RUNS, export, pixels, train
from latentpapers.papers.diamond.searching import run_file, search, search_run, share_of
from latentpapers.papers.diamond.shipped_searches import (
    dozens,
    edited_file,
    printed_search,
    searches,
    shipped_search,
    starts_of,
)
from latentpapers.papers.diamond.step import Adversarial, Inversion, shrunk, task
from latentpapers.papers.diamond.training import BUDGET, TITLES, Training, networks, recipes, stages

# (CPU seconds, MB) of each notebook, measured on one core in a process of its own
EXPECT = {
    "quick/1_derivation": (18, 1000), "quick/2_training": (20, 900), "quick/3_tables": (41, 1200),
    "quick/4_figures": (38, 1300), "quick/5_explore": (13, 1000),
    "cpu/3_tables": (212, 1350), "cpu/4_figures": (77, 1400),
}  # fmt: skip
ALLOWED = {"gpu/2_training": 525, "gpu/3_tables": 45, "gpu/4_figures": 30}  # seconds of 600

__all__ = [
    "ALLOWED", "BUDGET", "ENCODERS", "EXPECT", "KEPT", "PRESETS", "RUNS", "SHIPPED", "SINGLE",
    "TITLES", "Adversarial", "Inversion", "Preset", "Training", "attribute_vector", "biggan_row",
    "dozens", "edited_file", "export", "eyes", "latents", "least_of_all", "measured",
    "middle_score", "networks", "pair", "pixels", "printed_search", "readings", "real", "real_file",
    "recipes", "run_file", "sample", "scale_of", "search", "search_again", "search_edited",
    "search_run", "searches", "seen", "share_of", "shipped_search", "shows", "shrunk", "stages",
    "starts_of", "supervised", "task", "train", "train_from_cli", "walk_of_weights",
]  # fmt: skip
