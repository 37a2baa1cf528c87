"""Numbers of outputs: the supervised boundary, the features of a Frechet distance, learning
curves, and the features of real images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from latentpapers import data, models, paths, weights
from latentpapers.latent import boundary
from latentpapers.latent.pair import Pair
from latentpapers.latent.pair import sample as starting_points
from latentpapers.metrics import projected, walks
from latentpapers.metrics.protocol import Score
from latentpapers.nets.features import folded
from latentpapers.papers.diamond.outputs import sample
from latentpapers.papers.diamond.training import Training, stages
from latentpapers.seeds import generator
from latentpapers.shapes import Features, Images
from latentpapers.train.schedule import stage_at


def supervised(
    searched: Pair, look: Callable[[Images], Features], real: Features, n: int, seed: int,
    *, device: str = "cpu",
) -> tuple[Float[Tensor, "Z"], float]:  # fmt: skip
    """Our boundary in place of the one of [30], and how well it orders other codes.

    The label is automatic: of `n` generated images the half that is nearer to real ones is good.

    Args:
        searched: whose images are labelled.
        look: images on [-1, 1] -> features; `real` are those of real images.
        n, seed: labels, of which one half teaches and the other is ordered; their stream.
        device: where codes are.
    """
    z = starting_points(n, searched.latent, generator(seed, "labels"), device=device)
    far = walks.realism(look(searched.images(z)), real)
    good, half = (far < far.median()).to(device), n // 2
    normal = boundary.normal(z[:half], good[:half], cost=1e-3)
    return normal, boundary.accuracy(z[half:], good[half:], normal)


def eyes(device: str = "cpu") -> nn.Module:
    """The stand-in that looks at many small images: EfficientNet-Lite0, its normalisations folded,
    images enlarged to 64 px (its own 224 would cost twelve times as much)."""
    net = folded(weights.network("efficientnetlite0")).to(device)
    net.size = 64
    return net


@torch.no_grad()
def seen(net: nn.Module, images: Images, *, block: int = 32) -> Features:
    """Pooled features, on the CPU, of images on [-1, 1], which are clamped.

    Args:
        net: of images on [0, 1], for example `eyes()`.
        block: images at once.
    """
    like = next(net.parameters())
    return torch.cat([net((p.to(like).clamp(-1, 1) + 1) / 2).cpu() for p in images.split(block)])


def least_of_all(scores: list[Score]) -> Score:
    """The least value, the least lower and the least upper end of several intervals, for a claim
    about *all* of them: it lies above a limit only if every one does, below it if any one does.

    Args:
        scores: with intervals, at least one.
    """
    ends = [min(getattr(s, name) for s in scores) for name in ("value", "low", "high")]
    return Score(*ends, min(s.n for s in scores), f"least of {len(scores)} pairs, end by end; each "
                 f"a {scores[0].method}")  # fmt: skip


def real_file(name: str, size: int) -> Path:
    """Where the projected features of a data set's real images are, if that cannot ship."""
    return paths.checkpoints() / "diamond" / "real" / f"{name}_{size}.safetensors"


def real(job: dict[str, Any], n: int, net: nn.Module, *, shipped: bool) -> Features:
    """Projected features (`metrics.projected`) of the first `n` training images of a network.

    Args:
        job: `config` of its card.
        n: images; a file may have fewer.
        net: `eyes()`, which looked at those in the file too.
        shipped: read the file, where there is one: the same result with and without the images.

    Raises:
        Missing: neither a file nor the images.
    """
    file = real_file(job["data"], job["size"])
    if shipped and file.is_file():
        return projected.load(file)[0][:n]
    images = data.load(job["data"], size=job["size"], split="train", n=min(n, job["images"]))
    return projected.project(seen(net, data.to_float(images.pixels)))


def measured(
    job: Training, path: Path, *, device: str = "cpu", n: int = 256
) -> dict[str, Score]:  # fmt: skip
    """What a learning curve shows: the Frechet distance of `n` draws from four times as many
    held-out images, on the stand-in's features, with a jackknife over draws. A network that is
    still growing draws at its present size.

    Args:
        job, path: the run as far as it came, and its checkpoint.
        device: where networks run.
        n: draws. Distances of other numbers of images cannot be compared.
    """
    model = models.load(path, device=device)
    net = "generator" if "generator" in model.parts else "generator_raw"
    if job.method == "pgan":
        _, stage, blend = stage_at(model.card["images"], stages(job))
        model[net].grow(stage.level, blend)
    x = sample(model, n, 0, net=net)
    held = data.load(job.data, size=job.size, split="test", n=4 * n).pixels
    net = eyes(device)
    real, made = seen(net, data.to_float(held)), seen(net, F.interpolate(x, job.size))
    sets = walks.Sets(("draws",), *walks.principal(made[None], real))
    return {"fd_efficientnetlite0_small": walks.jackknife(n, sets.distances)[0]}
