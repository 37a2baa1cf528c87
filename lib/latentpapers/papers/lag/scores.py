"""Rows of the table that ship as numbers: made from a run, read."""

from pathlib import Path

import torch
from torch import Tensor

from latentpapers import config, data, models, paths, storage, tensorfile
from latentpapers.errors import Missing
from latentpapers.metrics import frechet, possibilities, translation
from latentpapers.metrics.protocol import Score
from latentpapers.papers.lag.measuring import answered
from latentpapers.papers.lag.outputs import job_of
from latentpapers.papers.lag.presets import PRESETS
from latentpapers.shapes import Images, PerImage


def score_file(name: str, seed: int = 0) -> Path:
    """Where the numbers of a network of `AS_NUMBERS` are."""
    return paths.checkpoints() / "lag" / "scores" / f"{name}_s{seed}.safetensors"


def score(file: Path, out: Path) -> None:
    """Writes what table S1 holds of a network that does not ship: for quick and for cpu its
    columns per image, in half precision, and its Frechet distance; its card; its file's hash.

    Args:
        file: the network, as `train` writes it.
        out: folder.
    """
    from latentpapers import weights
    from latentpapers.nets.features import folded

    model, tree, fd = models.load(file), {}, {}
    job, look = job_of(model), folded(weights.network("efficientnetlite0"))
    look.size = max(job.size, 64)

    def seen(images: Images) -> Tensor:
        return translation.pooled(look, images)

    for name in ("quick", "cpu"):
        preset = PRESETS[name]
        pixels = data.load(job.data, size=job.size, split="test", n=preset.n_eval).pixels
        tree[name], drawn = answered(model, pixels, preset.n_samples, 0, {
            "perceptual distance": _perceptual})  # fmt: skip
        real = data.load(job.data, size=job.size, split="train", n=4 * preset.n_eval).pixels
        fd[name] = config.as_dict(frechet.on_components(seen(data.to_float(real)), seen(drawn)))
    packed = {name: {",".join(v): torch.stack([*v.values()]).half()} for name, v in tree.items()}
    card = {k: v for k, v in model.card.items() if k not in ("history", "parts", "bits")}
    about = {"card": card, "fd": fd, "network": storage.sha256_file(file), "seed": 0}
    tensorfile.save(out / file.name, packed, about=about)


def _perceptual(images: Images, reference: Images) -> PerImage:
    from latentpapers.nets.features import folded

    judge = folded(possibilities.efficientnet())
    pairs = zip(images.split(64), reference.split(64), strict=True)
    return torch.cat([possibilities.perceptual(a, b, judge) for a, b in pairs])


def shipped_scores(
    name: str, preset: str, n: int, seed: int = 0
) -> tuple[dict[str, PerImage], Score, models.Model]:
    """What `score` wrote for a preset: columns per image, Frechet distance, and the card.

    Args:
        name: of `AS_NUMBERS`.
        n: held-out images that the table measures.

    Raises:
        Missing: no such file, or none for this preset or this many images; it says how to make it.
        Corrupt: an altered file.
    """
    file = score_file(name, seed)
    about, tree = tensorfile.header(file), tensorfile.load(file)
    columns = {}
    for key, values in tree.get(preset, {}).items():
        columns |= dict(zip(key.split(","), values.double(), strict=True))
    if not columns or len(columns["PSNR"]) != n:
        raise Missing(
            f"{name} ships as numbers of quick's and cpu's images, not of {n:,} of {preset}; train "
            f"it: `latentpapers train lag --run {name} --out FOLDER`."
        )
    return columns, Score(**about["fd"][preset]), models.Model({}, about["card"])
