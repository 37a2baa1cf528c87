"""Training and export of the room's runs."""

from pathlib import Path
from typing import Any

import torch

from latentpapers import config, data, models, weights
from latentpapers.papers.lsrgan.measuring import measured
from latentpapers.papers.lsrgan.pictures import pairs_for
from latentpapers.papers.lsrgan.presets import KEPT, PRESETS, SHIPPED
from latentpapers.papers.lsrgan.starts import begin_from, is_file, start_file
from latentpapers.papers.lsrgan.step import Step
from latentpapers.papers.lsrgan.training import (
    BUDGET,
    FACTOR,
    Training,
    feature_network,
    recipe,
    title_of,
)
from latentpapers.train.distributed import Group
from latentpapers.train.engine import Fit, fit
from latentpapers.train.runs import Networks as States
from latentpapers.train.runs import Progress, Runs, state_of


def _fit(
    job: Training, seed: int, path: Path, device: str, group: Group | None,
    progress: Progress | None,
) -> None:  # fmt: skip
    bank = data.PairBank(*pairs_for(job), FACTOR, device)
    step = Step(job, seed, bank, feature_network(job, device))
    digest = begin_from(step.nets, job, path)
    plan = Fit(
        steps=job.steps, batch=job.batch, seconds=job.seconds, log_every=job.log_every,
        precision=job.precision, compile=job.compile,
    )  # fmt: skip
    tickets = torch.zeros(job.batch, 1, 1, 1, dtype=torch.uint8)  # crops come from the bank
    about = {**config.as_dict(job), "start_sha256": digest}
    fit(step, tickets, plan, seed=seed, config=about, device=device, group=group,
        path=state_of(path), progress=progress)  # fmt: skip


def _card(job: Training, path: Path, images: int, nets: States) -> dict[str, Any]:
    """`images` and `budget` count those of the run it started from too; `origin` names the weights
    of others, or the file, that one began with, if any."""
    public = job.start in weights.names()
    origin = job.start if public else Path(job.start).name if is_file(job.start) else ""
    if job.start and not origin:
        first = models.load(start_file(job, path)).card
        images, origin = images + first["images"], first.get("origin", "")
    title = f"{title_of(job)} on {job.data}, crops of {job.crop} px"
    return {"title": title, "images": images, "budget": images / BUDGET, "origin": origin}


RUNS = Runs(
    "lsrgan", Training, _fit, _card, recipe,
    {"shipped": SHIPPED, **{name: preset.training for name, preset in PRESETS.items()}}, KEPT,
    measure=measured,
)  # fmt: skip
train, export = RUNS.train, RUNS.export
