"""Training and export of the room's runs."""

from pathlib import Path
from typing import Any

import torch

from latentpapers import data
from latentpapers.errors import UserError
from latentpapers.papers.diamond.measuring import measured
from latentpapers.papers.diamond.presets import ENCODERS, KEPT, PRESETS, SHIPPED
from latentpapers.papers.diamond.step import task
from latentpapers.papers.diamond.training import BUDGET, TITLES, Training, recipes
from latentpapers.shapes import Bytes
from latentpapers.train import checkpoint
from latentpapers.train.distributed import Group
from latentpapers.train.engine import Fit, fit
from latentpapers.train.runs import Networks as States
from latentpapers.train.runs import Progress, Runs, state_of


def pixels(job: Training) -> Bytes:
    """The training images of a run, (images, C, size, size).

    With `minority` set the first images with that attribute and the first without it, in the
    wanted proportion, are taken; their order does not matter, training shuffles.

    Raises:
        UserError: the data set cannot give that many of either kind, or has no such attribute.
    """
    if job.method == "inverter":  # it draws its own images; the engine still wants some
        return torch.zeros(job.batch, 3, 1, 1, dtype=torch.uint8)
    if not job.minority:
        return data.load(job.data, size=job.size, split="train", n=job.images).pixels
    pool = data.load(job.data, size=job.size, split="train", n=2 * job.images)
    if job.minority not in pool.attribute_names or pool.attributes is None:
        raise UserError(f"data set {job.data!r} has no attribute {job.minority!r}.")
    has = pool.attributes[:, pool.attribute_names.index(job.minority)]
    wanted = round(job.share * job.images)
    few, many = has.nonzero().flatten()[:wanted], (~has).nonzero().flatten()[: job.images - wanted]
    if len(few) + len(many) < job.images:
        raise UserError(f"{job.data!r} has too few images for {job.share:.0%} {job.minority!r}.")
    return pool.pixels[torch.cat((few, many)).sort().values]


def _fit(
    job: Training, seed: int, path: Path, device: str, group: Group | None,
    progress: Progress | None,
) -> None:  # fmt: skip
    plan = Fit(
        steps=job.steps, batch=job.batch, seconds=job.seconds, log_every=job.log_every,
        save_every=job.save_every, flip=job.data not in ("digits", "drawn-faces"),
        precision=job.precision,
    )  # fmt: skip
    fit(task(job, seed, device), pixels(job), plan, seed=seed, config=job, path=state_of(path),
        device=device, group=group, progress=progress)  # fmt: skip


def _networks(state: Path) -> States:
    """`generator` is the running average; `generator_raw` the network as trained, which the paper
    takes."""
    nets = checkpoint.networks(state)
    if "generator" in nets:
        nets["generator_raw"] = checkpoint.load(state)["nets"]["generator"]
    return nets


def _recipe(job: Training, name: str) -> dict[str, Any]:
    return recipes(job)[name.removesuffix("_raw")]


def _card(job: Training, path: Path, images: int, nets: States) -> dict[str, Any]:
    total = BUDGET[job.method]
    title = f"{TITLES[job.method]} on {job.data}, {job.size} px"
    return {"title": title, "budget": images / total if total else None}


RUNS = Runs(
    "diamond", Training, _fit, _card, _recipe,
    {"shipped": SHIPPED | ENCODERS,
     **{name: preset.training for name, preset in PRESETS.items()}}, KEPT,
    eight=frozenset({"cifar_pgan"}), networks=_networks, measure=measured,
)  # fmt: skip
train, export = RUNS.train, RUNS.export
