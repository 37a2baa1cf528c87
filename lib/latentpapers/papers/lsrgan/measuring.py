"""Numbers of outputs: the paper's measures image by image, the bar of the shared first stage, and
learning curves."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from latentpapers import data, models
from latentpapers.errors import Missing, UserError
from latentpapers.metrics import intervals
from latentpapers.metrics.protocol import Score
from latentpapers.papers.lsrgan.outputs import bicubic, enlarged, load_generator
from latentpapers.papers.lsrgan.pictures import TITLES, evaluation_pairs, photographs
from latentpapers.papers.lsrgan.training import Training
from latentpapers.shapes import PerImage

METRICS = {
    "PSNR": "psnr_y_b4_u8", "SSIM": "ssim_y_7x7_b4", "L1": "l1_y", "wrapped L1": "l1_y_uint8wrap",
    "NIQE": "niqe_pirm", "PI": "pi_pirm",
}  # fmt: skip
"""Columns of our tables and their protocols."""


def evaluate(found: list[Tensor], pairs: list[data.Pair], wanted: tuple[str, ...]) -> dict[
    str, PerImage
]:  # fmt: skip
    """One value per picture for each of the columns of `METRICS`.

    Args:
        found: enlarged pictures, uint8 (3, H, W), in the order of `pairs`.
        wanted: names of columns; those without a reference (NIQE, PI) take none.

    Raises:
        Missing: PI without the model of Ma et al.
    """
    from latentpapers import metrics

    mine = [x.permute(1, 2, 0) for x in found]
    real = [pair.hr.permute(1, 2, 0) for pair in pairs]
    alone = ("NIQE", "PI")
    return {
        column: metrics.values(METRICS[column], mine, None if column in alone else real)
        for column in wanted
    }


def sharpness(found: list[Tensor]) -> PerImage:
    """Mean absolute difference of neighbouring pixels of each picture (image range [-1, 1])."""
    from latentpapers.metrics.images import gradient_energy

    return torch.cat([gradient_energy(data.to_float(x[None])) for x in found])


Values = dict[str, dict[str, PerImage]]
"""Test set -> column -> one value a picture."""


def measure(
    make: Callable[[data.Pair], Tensor], sets: dict[str, list[data.Pair]], niqe: tuple[str, ...]
) -> Values:
    """Every column of every picture of every set.

    Args:
        make: gives the enlarged picture, uint8 (3, H, W), on the CPU.
        sets: pictures by set.
        niqe: sets on which NIQE, and PI where its model is present, are measured.
    """
    out: Values = {}
    for name, pairs in sets.items():
        found = [make(pair) for pair in pairs]
        wanted = ("PSNR", "SSIM", "L1", "wrapped L1")
        wanted += (("NIQE", "PI") if has_ma() else ("NIQE",)) if name in niqe else ()
        truth = sharpness([pair.hr for pair in pairs]).mean()
        out[name] = {**evaluate(found, pairs, wanted), "sharpness": sharpness(found) / truth}
    return out


def has_ma() -> bool:
    """Whether the model of Ma et al., half of PI, is on this machine."""
    from latentpapers.metrics import ma

    try:
        ma.published()
    except Missing:
        return False
    return True


def hold_bar(file: Path, name: str, device: str = "cpu") -> dict[str, float]:
    """What a first stage gains over bicubic, in dB of PSNR, on each picture of a set.

    Run between the stages: a common start below plain enlargement is no start for a comparison.

    Args:
        file: the first stage's networks.
        name: the test set.

    Raises:
        UserError: it does not gain on every picture; names those.
        Missing: networks or pictures.
    """
    pairs = evaluation_pairs(name)
    net = load_generator(models.load(file), device)
    made = enlarged(net, pairs, device), [bicubic(pair.lr) for pair in pairs]
    new, old = (evaluate(found, pairs, ("PSNR",))["PSNR"] for found in made)
    gains = {pair.name: float(g) for pair, g in zip(pairs, new - old, strict=True)}
    below = [f"{picture} ({g:+.2f} dB)" for picture, g in gains.items() if not g > 0]
    if below:
        raise UserError(
            f"the first stage in {file.name} does not beat bicubic on every picture of "
            f"{TITLES[name]}: {', '.join(below)}; no variant may start from it. Train it longer "
            "(training.psnr.steps) or from other weights (training.psnr.start)."
        )
    return gains


def measured(job: Training, path: Path, *, device: str = "cpu") -> dict[str, Score]:
    """What a learning curve of LSRGAN shows, on the crops of quick: likeness to the truth (PSNR,
    SSIM), naturalness without it (NIQE), detail (gradient energy as a share of the truth's)."""
    pairs = evaluation_pairs("photos")
    net, groups = load_generator(models.load(path), device), photographs(pairs)
    found = enlarged(net, pairs, device)
    values = evaluate(found, pairs, ("PSNR", "SSIM", "NIQE"))
    values["sharpness"] = sharpness(found) / sharpness([pair.hr for pair in pairs]).mean()
    ids = {**METRICS, "sharpness": "gradient_energy_ratio"}
    return {ids[k]: intervals.bootstrap_mean(v, groups=groups) for k, v in values.items()}
