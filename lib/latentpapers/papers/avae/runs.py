"""Training and export of the room's runs, here and from the command line."""

from pathlib import Path
from typing import Any

from latentpapers import data
from latentpapers.losses import gans
from latentpapers.papers.avae.measuring import measured
from latentpapers.papers.avae.networks import recipe, title_of
from latentpapers.papers.avae.presets import EIGHT_BIT, KEPT, PRESETS, SHIPPED
from latentpapers.papers.avae.step import task_of
from latentpapers.papers.avae.training import BUDGET, Training
from latentpapers.train import games
from latentpapers.train.distributed import Group
from latentpapers.train.engine import Fit, fit
from latentpapers.train.runs import Networks as States
from latentpapers.train.runs import Progress, Runs, state_of


def _fit(
    job: Training, seed: int, path: Path, device: str, group: Group | None,
    progress: Progress | None,
) -> None:  # fmt: skip
    pixels = data.load(job.data, size=job.size, split="train", n=job.images).pixels
    plan = Fit(
        steps=job.steps, batch=job.batch, seconds=job.seconds, log_every=job.log_every,
        flip=job.data not in ("digits", "drawn-faces"), precision=job.precision,
        compile=job.compile,
    )  # fmt: skip
    task = task_of(job, seed, device)
    if isinstance(task, games.Inference):  # its first images have the colour of the data
        bias = gans.log_odds(data.to_float(pixels[:500]))
        task.nets["decoder"].bias.data.copy_(bias)
    fit(task, pixels, plan, seed=seed, config=job, path=state_of(path), device=device,
        group=group, progress=progress)  # fmt: skip


def _card(job: Training, path: Path, images: int, nets: States) -> dict[str, Any]:
    title = f"{title_of(job.method)} on {job.data}, {job.size} px"
    return {"title": title, "budget": images / BUDGET}


RUNS = Runs(
    "avae", Training, _fit, _card, recipe,
    {"shipped": SHIPPED, **{name: preset.training for name, preset in PRESETS.items()}}, KEPT,
    eight=EIGHT_BIT, measure=measured,
)  # fmt: skip
train, export, train_from_cli = RUNS.train, RUNS.export, RUNS.train_from_cli
