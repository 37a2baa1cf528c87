"""LRC-I2I: image-to-image translation with low resolution conditioning (Abid et al.).

From a high resolution source X and a tiny target y the generator makes a large image with the
source's details that reduces to y. The compared method, StarGAN v2, trains here too, on the same
data by the same engine.

====================== ==========================================================
file                   what lies there
====================== ==========================================================
`training.py`          `METHODS`; `Training`, all settings of a run; its networks
`step.py`              `Step`: the paper's losses
`stargan_step.py`      `StyleStep`: the compared method, StarGAN v2
`presets.py`           `SHIPPED` and `PRESETS`: the runs by name
`outputs.py`           targets and translations; the scale label
`measuring.py`         numbers of held-out images, and their comparison
`protocol.py`          Tables 1 to 3 as printed, on the data that they name
`published_weights.py` the authors' StarGAN v2; PULSE over StyleGAN
`runs.py`              training, export, checkpoint cards, learning curves
====================== ==========================================================

A file imports files that stand above it, never one below, nor this package.
"""

from latentpapers.papers.lrc_i2i.measuring import (
    Held,
    Measuring,
    compared,
    held_out,
    looker,
    measures,
    measures_of_nearest,
    similarity,
    translated,
    within,
)
from latentpapers.papers.lrc_i2i.outputs import (
    grid,
    grid_style,
    job_of,
    low_error,
    scale_of,
    targets,
    translate,
    translate_style,
    where_celeba,
)
from latentpapers.papers.lrc_i2i.presets import (
    ABLATIONS,
    ALONE,
    KEPT,
    MEASURED,
    PRESETS,
    READ,
    READINGS,
    REMEDIES,
    SHIPPED,
    SWEEP,
    Preset,
    of_cats,
)
from latentpapers.papers.lrc_i2i.protocol import (
    PRINTED,
    VERSUS,
    as_published,
    less,
    maker,
    places,
    protocol_outputs,
    protocol_targets,
    published,
    unmeasured,
)
from latentpapers.papers.lrc_i2i.published_weights import (
    OFFICIAL,
    authors_lines,
    authors_maker,
    authors_missing,
    authors_scale,
    pulse_space,
    stylegan_space,
)
from latentpapers.papers.lrc_i2i.runs import (
    RUNS,
    STEPS,
    averaging,
    export,
    map_weights,
    measured,
    train,
    train_from_cli,
)
from latentpapers.papers.lrc_i2i.stargan_step import StyleStep, turned
from latentpapers.papers.lrc_i2i.step import Step, sides
from latentpapers.papers.lrc_i2i.training import (
    BUDGET,
    BUDGETS,
    METHODS,
    Training,
    checked,
    method_of,
    networks,
    recipe,
)

# (CPU seconds, MB) of each notebook, measured on one core in a process of its own
EXPECT = {
    "quick/1_derivation": (23, 1100), "quick/2_training": (19, 1000), "quick/3_tables": (36, 1200),
    "quick/4_figures": (34, 1300), "quick/5_explore": (16, 1000),
    "cpu/3_tables": (175, 2400), "cpu/4_figures": (100, 1900),
}  # fmt: skip
ALLOWED = {"gpu/2_training": 540, "gpu/3_tables": 35, "gpu/4_figures": 25}  # seconds of 600

__all__ = [
    "ABLATIONS", "ALLOWED", "ALONE", "BUDGET", "BUDGETS", "EXPECT", "KEPT", "MEASURED", "METHODS",
    "OFFICIAL", "PRESETS", "PRINTED", "READ", "READINGS", "REMEDIES", "RUNS", "SHIPPED", "STEPS",
    "SWEEP", "VERSUS", "Held", "Measuring", "Preset", "Step", "StyleStep", "Training",
    "as_published", "authors_lines", "authors_maker", "authors_missing", "authors_scale",
    "averaging", "checked", "compared", "export", "grid", "grid_style", "held_out", "job_of",
    "less", "looker", "low_error", "maker", "map_weights", "measured", "measures",
    "measures_of_nearest", "method_of", "networks", "of_cats", "places", "protocol_outputs",
    "protocol_targets", "published", "pulse_space", "recipe", "scale_of", "sides", "similarity",
    "stylegan_space", "targets", "train", "train_from_cli", "translate", "translate_style",
    "translated", "turned", "unmeasured", "where_celeba", "within",
]  # fmt: skip
