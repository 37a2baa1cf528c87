"""Training and export of the room's runs; what a card says of a network that ships as numbers."""

import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentpapers import config, data, models
from latentpapers.metrics import intervals, translation
from latentpapers.metrics.protocol import Score
from latentpapers.nets import spectral as sn
from latentpapers.papers.lrc_i2i.measuring import (
    Measuring,
    held_out,
    looker,
    measures,
    measures_of_nearest,
    numbers_of,
    similarity,
    translated,
)
from latentpapers.papers.lrc_i2i.presets import EIGHT, KEPT, MEASURED, PRESETS, SHIPPED, WEIGHED
from latentpapers.papers.lrc_i2i.stargan_step import StyleStep
from latentpapers.papers.lrc_i2i.step import Step
from latentpapers.papers.lrc_i2i.training import BUDGETS, Training, checked, method_of, recipe
from latentpapers.train import checkpoint
from latentpapers.train.distributed import Group
from latentpapers.train.engine import Fit, fit
from latentpapers.train.runs import Networks as States
from latentpapers.train.runs import Progress, Runs, state_of

STEPS: dict[str, type[Step]] = {"lrc": Step, "stargan_v2": StyleStep}


def _fit(
    job: Training, seed: int, path: Path, device: str, group: Group | None,
    progress: Progress | None,
) -> None:  # fmt: skip
    checked(job)
    pixels = data.load(job.data, size=job.size, split="train", n=job.images).pixels
    plan = Fit(
        steps=job.steps, batch=job.batch, seconds=job.seconds, log_every=job.log_every,
        flip=job.flip, precision=job.precision, compile=job.compile,
    )  # fmt: skip
    fit(STEPS[job.method](job, seed, device), pixels, plan, seed=seed, config=job,
        path=state_of(path), device=device, group=group, progress=progress)  # fmt: skip


def _card(job: Training, path: Path, images: int, nets: States) -> dict[str, Any]:
    title = f"{method_of(job).title} on {job.data}, {job.low} to {job.size} px"
    card: dict[str, Any] = {"title": title, "budget": images / BUDGETS[job.method]}
    name = path.name.rpartition("_s")[0]
    if name in MEASURED and job == SHIPPED[name]:
        card["measures"] = _measured(job, nets)
    if name == "churches_lrc" and job == SHIPPED[name]:
        card["averaging"] = averaging(job, path)
    if (name in MEASURED or path.stem in WEIGHED) and job.method == "lrc":
        card["critic_weights"] = map_weights(nets["discriminator"])
        card["critic_weight"] = statistics.fmean(w * w for w in card["critic_weights"]) ** 0.5
    return card


def _model(job: Training, nets: States, device: str = "cpu") -> models.Model:
    """The networks of a run that make its outputs, from their state dicts."""
    parts = {n: models.build(recipe(job, n)) for n in nets if n in ("generator", "style")}
    for name, net in parts.items():
        net.load_state_dict(nets[name])
        net.to(device).eval().requires_grad_(False)
    return models.Model(parts, {"config": config.as_dict(job)})


def _measured(job: Training, nets: States) -> dict[str, Any]:
    """`measures` of a run's networks with how they were made. Where no picture of the data ships,
    those of its nearest members too, and of cats the similarity of sources under drawn targets."""
    how = Measuring()
    held, look, model = held_out(job.data, job.size, how, 0), looker(how.side), _model(job, nets)
    found = {"how": config.as_dict(how), "ours": measures(model, held, how, look)}
    if job.data in ("cats", "churches"):
        found["nearest"] = measures_of_nearest(held, how, job.low, look)
    if job.data == "cats":
        drawn = data.load("drawn-faces", size=job.size, split="test", n=how.crossed).pixels
        centre = translation.pooled(look, held.real).mean(0)
        sources = held.images[: how.crossed]
        alike = similarity(model, sources, data.to_float(drawn), look, centre)
        found["similarity_to_drawings"] = alike.tolist()
    return found


_FEW = Measuring(48, 4, pool=96, real=384)


def averaging(
    job: Training, path: Path, how: Measuring = _FEW
) -> dict[str, list[float | None]]:  # fmt: skip
    """What averaging the weights changes (lrc_i2i-e16): the numbers of the averaged network less
    those of the last step's, for the same targets, each with the ends of its interval."""
    state, look = state_of(path), looker(how.side)
    held = held_out(job.data, job.size, how, 0)
    against = translation.Reference.of(translation.pooled(look, held.real), how.components)
    models_ = (_model(job, _networks(state, averaged=yes)) for yes in (True, False))
    a, b = (numbers_of(translated(m, held), held, how, look, against, job.low) for m in models_)
    gaps = {"fd": translation.kept_difference(a["fd"], b["fd"], how.targets)}
    for name in ("lr_rmse", "diversity"):
        gaps[name] = intervals.paired_difference(torch.tensor(a[name]), torch.tensor(b[name]))
    return {name: [gap.value, gap.low, gap.high] for name, gap in gaps.items()}


def map_weights(discriminator: dict[str, Tensor]) -> list[float]:
    """Root mean square weight on the difference map of each output channel of the convolution that
    takes it, from a state dict with its norms divided out."""
    weight = discriminator["joined.0.conv1.weight"]
    return weight[:, -3:].square().mean((1, 2, 3)).sqrt().tolist()


def _networks(path: Path, *, averaged: bool = True) -> States:
    """State dicts of a training's networks, with their norms divided out."""
    nets = checkpoint.networks(path, averaged=averaged)
    return {name: sn.folded(state) for name, state in nets.items()}


# Seconds of one core at 64 px: 160 outputs, ten for each target as for the published diversity
_ON_THE_WAY = Measuring(targets=16, sources=10, pool=64, real=192)


def measured(
    job: Training, path: Path, *, device: str = "cpu", how: Measuring = _ON_THE_WAY
) -> dict[str, Score]:
    """What a learning curve shows: how far outputs miss their targets, how real they look and how
    much those for one target differ. From the training's state: a shipped file may keep no network.

    Args:
        job, path: the run as far as it came, and its checkpoint.
        device: where networks run.
        how: few held-out images. The numbers of a curve can be compared with each other alone.
    """
    model, look = _model(job, _networks(state_of(path)), device), looker(how.side, device)
    held = held_out(job.data, job.size, how, 0)
    against = translation.Reference.of(translation.pooled(look, held.real), how.components)
    found = numbers_of(translated(model, held), held, how, look, against, job.low)
    return {
        "lr_rmse": intervals.bootstrap_mean(torch.tensor(found["lr_rmse"])),
        "fd_efficientnetlite0_small": translation.kept_difference(
            found["fd"], [0.0] * len(found["fd"]), how.targets
        ),
        "featdist_efficientnetlite0_small": intervals.bootstrap_mean(
            torch.tensor(found["diversity"])
        ),
    }


RUNS = Runs(
    "lrc_i2i", Training, _fit, _card, recipe,
    {"shipped": SHIPPED, **{name: preset.training for name, preset in PRESETS.items()}}, KEPT,
    eight=EIGHT, networks=_networks, measure=measured,
)  # fmt: skip
train, export, train_from_cli = RUNS.train, RUNS.export, RUNS.train_from_cli
