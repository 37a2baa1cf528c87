"""The paper's protocols as printed, Tables 1 to 3, on the data that they name."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from latentpapers import data, ledger, models, weights
from latentpapers.metrics import entry, translation
from latentpapers.metrics.protocol import Score
from latentpapers.papers.lrc_i2i.outputs import job_of, targets, translate
from latentpapers.papers.lrc_i2i.presets import AFHQ, SWEEP
from latentpapers.seeds import generator
from latentpapers.shapes import Bytes, Images, Labels

# Each held-out image is the target of ten other held-out ones (lrc_i2i-e32); outputs as bytes
SOURCES = 10
# (sources on [-1, 1], the images behind their targets, classes of these) -> outputs
Maker = Callable[[Images, Bytes, Labels | None], Images]


@dataclass(frozen=True)
class Printed:
    """Which printed numbers are about a network.

    Attributes:
        tables, row: of the ledger.
        place: what its columns are called after the quantity.
        data, size: the images of these numbers; Table 3 does not print the size, nor does Table 4
            (lrc_i2i-e35).
    """

    tables: tuple[str, ...]
    row: str
    place: str
    data: str
    size: int = 128


FIRST_TABLES = ("table_1", "table_2")
PRINTED: dict[str, Printed] = {
    "faces_lrc": Printed(FIRST_TABLES, "Ours", "CelebA-HQ 128", "celeba-hq"),
    "faces_lrc_256": Printed(FIRST_TABLES, "Ours", "CelebA-HQ 256", "celeba-hq", 256),
    "faces_stargan_v2": Printed(FIRST_TABLES, "StarGAN v2", "CelebA-HQ 128", "celeba-hq"),
    **{
        name: Printed(("table_4",), f"Ours ({low}x{low} target)", "CelebA-HQ", "celeba-hq")
        for name, low in SWEEP.items()
    },
    **{
        f"{name}_{kind}": Printed(("table_3",), row, f"AFHQ {source[5:]}", source)
        for name, (source, _) in AFHQ.items()
        for kind, row in (("lrc", "Ours"), ("stargan_v2", "StarGAN v2"))
    },
}
# rows of differences: what they are called, and the two networks
VERSUS: tuple[tuple[str, str, str], ...] = (
    *(("Ours - StarGAN v2", f"{of}_lrc", f"{of}_stargan_v2") for of in ("faces", *AFHQ)),
    ("Ours at 256 px - Ours", "faces_lrc_256", "faces_lrc"),
)


@dataclass(frozen=True)
class Line:
    """A number measured by a published protocol.

    Attributes:
        id, row, column, metric: where it stands, as in the ledger.
        score: the number.
        network, seed: what it is about; of a difference the first of the two.
    """

    id: str
    row: str
    column: str
    metric: str
    score: Score
    network: str
    seed: int


def places(of: Printed) -> list[tuple[str, str, str]]:
    """(table, column, metric) of the ledger's cells that are about a network."""
    book = ledger.load("lrc_i2i")
    return [
        (table, cell.column, cell.metric)
        for table in of.tables
        for cell in book.table(table).cells
        if cell.row == of.row and cell.column.partition(" ")[2] == of.place
    ]


def as_published(
    networks: Mapping[tuple[str, int], models.Model], *, seed: int = 0, device: str = "cpu"
) -> Iterator[Line]:
    """Published numbers of those networks that are made for the paper's own images, and how much
    more one has than the other (`VERSUS`). Metrics whose weights are not here are left out.

    Args:
        networks: by name and training seed; names that are not in `PRINTED` are passed over.
        seed: of the draw of the sources.
        device: where the networks are and features are taken.
    """
    found = {}
    for (name, own), model in networks.items():
        job, of = job_of(model), PRINTED.get(name)
        if of is not None and (job.data, job.size) == (of.data, of.size):
            found[name, own] = published(maker(model), of, seed=seed, device=device)
            yield from lines_of(of, of.row, found[name, own], name, own)
    for row, a, b in VERSUS:
        for own in sorted({s for _, s in found}):
            one, other = found.get((a, own)), found.get((b, own))
            if one and other:
                gaps = {k: less(one[k], other[k]) for k in one if k in other}
                lines = lines_of(PRINTED[a], row, gaps, a, own)
                yield from (replace(line, id="differences") for line in lines)


def lines_of(
    of: Printed, row: str, scores: dict[str, Score], network: str, seed: int
) -> Iterator[Line]:
    """The lines that scores of one network fill, table by table."""
    for table, column, metric in places(of):
        if metric in scores:
            yield Line(table, row, column, metric, scores[metric], network, seed)


def less(a: Score, b: Score) -> Score:
    """a - b with half widths added in quadrature, as if the two were independent: they are of the
    same targets and sources, so the interval is rather too wide."""
    gap = a.value - b.value
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    method = f"of both numbers, in quadrature: {a.method}"
    return Score(gap, gap - below, gap + above, min(a.n, b.n), method)


def maker(model: models.Model) -> Maker:
    """A network of this project, as the protocols call it."""
    return lambda sources, behind, classes: translate(model, sources, targets(model, behind))


def published(
    make: Maker, of: Printed, *, seed: int = 0, device: str = "cpu"
) -> dict[str, Score]:  # fmt: skip
    """Published metrics of a translator, by id; those whose weights are here.

    Args:
        make: on `device`.
        of: the images, and the cells whose metrics are measured.
        seed, device: as of `as_published`.
    """
    every = list(dict.fromkeys(metric for *_, metric in places(of)))
    here = [metric for metric in every if not lacking([metric])]
    if not here:
        return {}
    made = protocol_outputs(make, of, protocol_targets(every), seed=seed, device=device)
    return {metric: protocol_score(metric, made, of, device) for metric in here}


def protocol_targets(metrics: Iterable[str]) -> int:
    """How many targets fill the sets that these metrics ask for: with ten outputs each for a
    Frechet distance, with one for density and coverage, whose intervals take images as
    independent."""
    found = [entry.find(metric) for metric in metrics]
    return max(p.n // (1 if p.k else SOURCES) for p in found if p.n)


@torch.no_grad()
def protocol_outputs(
    make: Maker, of: Printed, n: int, *, seed: int = 0, device: str = "cpu", block: int = 64
) -> Bytes:
    """(n, 10, 3, S, S): each of n held-out images is the target of ten others. On the CPU, where
    20,000 images of 256 px take 4 GB."""
    held = data.load(of.data, size=of.size, split="test", n=n)
    draw = generator(seed, "sources", of.data)
    order = translation.drawn_sources(n, SOURCES, n, draw).flatten()
    wanted = torch.arange(n).repeat_interleave(SOURCES)
    made = held.pixels.new_empty(len(order), *held.pixels.shape[1:])
    for first in range(0, len(order), block):
        part = slice(first, first + block)
        sources = data.to_float(held.pixels[order[part]]).to(device)
        classes = None if held.labels is None else held.labels[wanted[part]].to(device)
        images = make(sources, held.pixels[wanted[part]].to(device), classes)
        made[part] = data.to_bytes(images).cpu()
    return made.unflatten(0, (n, SOURCES))


def protocol_score(metric: str, made: Bytes, of: Printed, device: str = "cpu") -> Score:
    """A published metric of `protocol_outputs`, against the training images of their set; density
    and coverage take each target's first output and as many real images (lrc_i2i-e34)."""
    protocol = entry.find(metric)
    if protocol.kind == "groups":  # `score` would hold all of them as floats
        blocks = [entry.values(metric, part.to(device), layout="NCHW") for part in made.split(16)]
        return protocol.summary(torch.cat(blocks))
    fake = made[:, 0] if protocol.k else made.flatten(0, 1)
    count = protocol.n if protocol.k else None
    real = data.load(of.data, size=of.size, split="train", n=count).pixels
    return entry.score(metric, fake, real, layout="NCHW", device=device)


def lacking(metrics: Iterable[str]) -> dict[str, list[str]]:
    """Weights that are not on this machine, and which of the metrics need each."""
    out: dict[str, list[str]] = {}
    for metric in metrics:
        for name in entry.find(metric).needs:
            if not weights.available(name):
                out.setdefault(name, []).append(metric)
    return out


def unmeasured() -> str:
    """One sentence: which published metrics lack their weights, and what brings these."""
    every = {metric for of in PRINTED.values() for *_, metric in places(of)}
    missing = lacking(sorted(every))
    if not missing:
        return "The weights of all published protocols are here."
    parts = [
        f"{', '.join(metrics)} (`python -m latentpapers weights fetch {name}`)"
        for name, metrics in missing.items()
    ]
    return f"Not measured, weights are missing: {'; '.join(parts)}."
