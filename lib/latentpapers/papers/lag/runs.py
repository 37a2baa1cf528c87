"""Training and export of the room's runs."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from latentpapers import data
from latentpapers.nets import lag
from latentpapers.papers.lag.measuring import measured, own_errors
from latentpapers.papers.lag.presets import EIGHT, KEPT, PRESETS, SHIPPED
from latentpapers.papers.lag.step import Step
from latentpapers.papers.lag.training import Training, budget, low_side, method_of, recipe
from latentpapers.train.distributed import Group
from latentpapers.train.engine import Fit, fit
from latentpapers.train.runs import Networks as States
from latentpapers.train.runs import Progress, Runs, state_of


def _fit(
    job: Training, seed: int, path: Path, device: str, group: Group | None,
    progress: Progress | None,
) -> None:  # fmt: skip
    low_side(job)
    pixels = data.load(job.data, size=job.size, split="train", n=job.images).pixels
    plan = Fit(
        steps=job.steps, batch=job.batch, seconds=job.seconds, log_every=job.log_every,
        # an embedding belongs to one image, not to its mirror image
        flip=job.flip and method_of(job).latent != "embedding", precision=job.precision,
        compile=job.compile,
    )  # fmt: skip
    fit(Step(job, seed, device, _features(job)), pixels, plan, seed=seed, config=job,
        path=state_of(path), device=device, group=group, progress=progress)  # fmt: skip


def _features(job: Training) -> nn.Module | None:
    """SRGAN's feature network, cut at conv2_2 as in the authors' code; Missing names what to
    fetch."""
    if method_of(job).network != "srgan" or job.features == "none":
        return None
    from latentpapers import weights

    return weights.network(job.features, layer="conv2_2")


def map_weight(critic: dict[str, Tensor]) -> float:
    """Root mean square of the critic's weights on its second input, from its state dict."""
    name = next(
        n for n in critic if n.startswith("blocks.0.") and n.endswith(("weight", "original"))
    )
    return float(critic[name][:, -lag.COLOURS :].square().mean().sqrt())


def _card(job: Training, path: Path, images: int, nets: States) -> dict[str, Any]:
    title = f"{method_of(job).title} on {job.data}, {low_side(job)} to {job.size} px"
    card = {"title": title, "budget": images / budget(job.factor)}
    if "critic" in nets and method_of(job).network == "lag":
        card["critic_weight"] = map_weight(nets["critic"])
    if "embedding" in nets:
        card["own_errors"], card["central_errors"] = own_errors(job, nets)
    return card


RUNS = Runs(
    "lag", Training, _fit, _card, recipe,
    {"shipped": SHIPPED, **{name: preset.training for name, preset in PRESETS.items()}}, KEPT,
    eight=EIGHT, measure=measured,
)  # fmt: skip
train, export = RUNS.train, RUNS.export
