"""Numbers of outputs on held-out images, and their comparison."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from latentpapers import data, models, weights
from latentpapers.losses import subspace
from latentpapers.metrics import full_reference, intervals, translation, walks
from latentpapers.metrics.protocol import Score
from latentpapers.papers.lrc_i2i.outputs import grid, job_of, targets, translate, translate_pool
from latentpapers.seeds import generator
from latentpapers.shapes import Images, PerImage


@dataclass(frozen=True)
class Measuring:
    """How translations are measured.

    Attributes:
        targets, sources: held-out targets, each with its own sources (ten in the paper).
        pool: held-out images that both come from.
        real: training images that features are compared with.
        side: pixels at which the feature network sees images; 0: its own size.
        components: principal components for the Frechet distance; 0: all features.
        crossed: sources and targets of the grid on which source similarity is measured.
    """

    targets: int = 96
    sources: int = 10
    pool: int = 192
    real: int = 960
    side: int = 64
    components: int = 32
    crossed: int = 48


@dataclass(frozen=True)
class Held:
    """Held-out images.

    Attributes:
        images: the pool on [-1, 1]; its first are the targets.
        chosen: (n, K), each target's sources, by index.
        real: training images on [-1, 1].
    """

    images: Images
    chosen: Int[Tensor, "n K"]
    real: Images


FEWER: dict[str, int] = {"churches": 320}  # images of sets that hold out less than 400


def within(how: Measuring, name: str) -> Measuring:
    """`how` with no larger a pool than a data set holds out."""
    return replace(how, pool=min(how.pool, FEWER.get(name, how.pool)))


def held_out(name: str, size: int, how: Measuring, seed: int) -> Held:
    """Targets, their sources and real images of a data set; all methods get the same ones.

    Raises:
        UserError: fewer held-out images than `pool`.
    """
    test, real = (
        data.to_float(data.load(name, size=size, split=split, n=n).pixels)
        for split, n in (("test", how.pool), ("train", how.real))
    )
    draw = generator(seed, "sources", name)
    chosen = translation.drawn_sources(how.targets, how.sources, len(test), draw)
    return Held(test, chosen, real)


def translated(
    model: models.Model, held: Held, *, once: bool | None = None
) -> Float[Tensor, "n K C H W"]:  # fmt: skip
    """Every target with its own sources at the model's own size, on the CPU; StarGAN v2's target is
    the image behind it.

    Args:
        once: encode each image of the pool once (`translate_pool`). None: on a GPU; on the CPU,
            where the blocks of committed numbers were others, pair by pair.
    """
    side, (n, k) = job_of(model).size, held.chosen.shape
    where = next(model.parts["generator"].parameters()).device
    own = held.images
    if own.shape[-1] > side:
        own = subspace.reduce(own, side)
    elif own.shape[-1] < side:
        own = nn.functional.interpolate(own, size=side, mode="bilinear")
    wanted = targets(model, data.to_bytes(own[:n]).to(where))
    if where.type != "cpu" if once is None else once:
        made = translate_pool(model, own.to(where), held.chosen, wanted)
    else:
        sources = own[held.chosen.flatten()].to(where)
        made = translate(model, sources, wanted.repeat_interleave(k, 0))
    return made.cpu().unflatten(0, (n, k))


def looker(side: int = 64, device: str = "cpu") -> nn.Module:
    """The stand-in feature network, which sees images at `side` pixels; 0: its own size."""
    net = weights.network("efficientnetlite0")
    net.size = side or net.size  # its own 224 costs twelve times as much as 64
    return net.to(device, memory_format=torch.channels_last)


def measures(
    model: models.Model, held: Held, how: Measuring, look: nn.Module | None = None
) -> dict[str, list[float]]:
    """What tables say of a network, kept so that two networks can be compared target by target.

    Args:
        held: from `held_out` with the same `how`.
        look: from `looker`; made here if None.

    Returns:
        `lr_rmse` (grey levels) and `layout`, means over sources, and `diversity` of each target;
        `fd`, `density`, `coverage` as `walks.left_out` gives them; `similarity` of each source of
        the grid (its own outputs less other sources').
    """
    look = looker(how.side) if look is None else look
    against = translation.Reference.of(translation.pooled(look, held.real), how.components)
    made = translated(model, held)
    found = numbers_of(made, held, how, look, against, job_of(model).low)
    sources, wanted = held.images.split(how.crossed)[:2]
    alike = similarity(model, sources, wanted, look, against.real.mean(0))
    return found | {"similarity": alike.tolist()}


def similarity(
    model: models.Model, sources: Images, wanted: Images, look: nn.Module,
    centre: Float[Tensor, "F"],
) -> PerImage:  # fmt: skip
    """How much of each source its outputs keep, over a grid: likeness to it, less that of the other
    sources' outputs for the same targets.

    Args:
        sources, wanted: on [-1, 1], at the model's size; the targets are reductions of `wanted`.
        look: from `looker`.
        centre: mean of real images' features.
    """
    where = next(model.parts["generator"].parameters()).device
    cells = grid(model, sources.to(where), targets(model, data.to_bytes(wanted).to(where)))
    seen = translation.pooled(look, cells.flatten(0, 1)).unflatten(0, cells.shape[:2])
    own = translation.pooled(look, sources)
    return translation.own_less_others(translation.similarities(seen, own, centre))


def numbers_of(
    made: Float[Tensor, "n K C H W"], held: Held, how: Measuring, look: nn.Module,
    against: translation.Reference, low: int,
) -> dict[str, list[float]]:  # fmt: skip
    """`measures` of outputs, whatever made them."""
    n, k = held.chosen.shape
    flat = made.flatten(0, 1)
    lows = subspace.reduce(held.images[:n], low).repeat_interleave(k, 0)
    seen = translation.pooled(look, flat).unflatten(0, (n, k))
    left = walks.left_out(n, lambda rows: against.numbers(seen, rows)).T.tolist()
    return {
        "lr_rmse": full_reference.lr_rmse((flat + 1) / 2, (lows + 1) / 2, kernel="average")
        .view(n, k)
        .mean(1)
        .tolist(),
        "layout": translation.layout(flat, lows).view(n, k).mean(1).tolist(),
        "diversity": translation.diversity(seen).tolist(),
        **dict(zip(("fd", "density", "coverage"), left, strict=True)),
    }


def measures_of_nearest(
    held: Held, how: Measuring, low: int, look: nn.Module | None = None
) -> dict[str, list[float]]:
    """`measures` of the nearest member P(X, y), which needs no network; without `similarity`."""
    look = looker(how.side) if look is None else look
    against = translation.Reference.of(translation.pooled(look, held.real), how.components)
    n, k = held.chosen.shape
    lows = subspace.reduce(held.images[:n], low).repeat_interleave(k, 0)
    made = subspace.nearest(held.images[held.chosen.flatten()], lows).clamp(-1, 1)
    return numbers_of(made.unflatten(0, (n, k)), held, how, look, against, low)


# Columns of tables, as `measures` names them
FIELDS: dict[str, str] = {
    "FD": "fd", "density": "density", "coverage": "coverage", "diversity": "diversity",
    "LR error": "lr_rmse", "source similarity": "similarity", "layout": "layout",
}  # fmt: skip


def compared(
    one: dict[str, list[float]], column: str, other: dict[str, list[float]] | None = None
) -> Score:  # fmt: skip
    """A number of `measures` with its interval over targets; with `other`, how much more it is.

    Args:
        column: of `FIELDS`.
        other: of the same targets.
    """
    a, b = (None if v is None else v[FIELDS[column]] for v in (one, other))
    if column in ("FD", "density", "coverage"):
        return translation.kept_difference(a, b or [0.0] * len(a), len(one["diversity"]))
    return intervals.bootstrap_mean(a) if b is None else intervals.paired_difference(a, b)
