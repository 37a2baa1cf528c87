"""Scores under an erratum's other readings (`REREAD`), run and read."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from latentpapers import data, models, paths, storage, tensorfile
from latentpapers.errors import Corrupt
from latentpapers.metrics import intervals
from latentpapers.metrics.protocol import Score
from latentpapers.papers.lsrgan.comparing import score_of_draws
from latentpapers.papers.lsrgan.measuring import Values, evaluate
from latentpapers.papers.lsrgan.outputs import enlarged, load_generator
from latentpapers.papers.lsrgan.presets import READINGS
from latentpapers.papers.lsrgan.scores import (
    CROPS,
    PUBLISHED_SETS,
    remaking,
    score_file,
    scored_pairs,
)
from latentpapers.seeds import numpy
from latentpapers.shapes import PerImage

# Who is compared, and where the claims that are decided look: columns and sets of each comparison
COMPARED = {"CESR against ESR": ("cesr", "esr"), "LSR against ESR": ("lsr", "esr")}
LOOKED_AT: dict[str, dict[str, tuple[str, ...]]] = {
    "CESR against ESR": {"PSNR": (*CROPS,), "SSIM": (*CROPS, *PUBLISHED_SETS[1:]),
                         "NIQE": PUBLISHED_SETS},
    "LSR against ESR": {"PSNR": (*CROPS,), "L1": (*CROPS,)},
}  # fmt: skip
# Claims that are decided and rest on a training: comparison, column, sets, limits of the claim
DECIDED: dict[str, tuple[str, str, tuple[str, ...], float, float]] = {
    "c25a": ("CESR against ESR", "PSNR", ("photos",), 0.0, math.inf),
    "c25b": ("CESR against ESR", "SSIM", ("photos",), 0.0, math.inf),
    "c25c": ("CESR against ESR", "SSIM", PUBLISHED_SETS[1:], 0.0, math.inf),
    "c25n": ("CESR against ESR", "NIQE", PUBLISHED_SETS, -math.inf, 0.0),
    "c30": ("LSR against ESR", "L1", ("photos",), -0.001, 0.001),
    "c34": ("LSR against ESR", "PSNR", ("photos",), -math.inf, 0.2),  # the range of their means
}
# erratum -> the same comparisons with other networks, or (second) with another measure of a column
REREAD: dict[str, tuple[dict[str, tuple[str, str]], dict[str, str]]] = {
    "lsrgan-e10": ({"CESR against ESR": ("cesr_tenth", "esr")}, {}),
    "lsrgan-e11": ({"CESR against ESR": ("cesr_rectified", "esr")}, {}),
    "lsrgan-e21": ({"LSR against ESR": ("lsr_plus", "esr")}, {}),
    "lsrgan-e33": ({"CESR against ESR": ("cesr", "esr")}, {"SSIM": "SSIM 11 x 11"}),
    "lsrgan-e34": (COMPARED, {"PSNR": "PSNR of RGB"}),
    "lsrgan-e45": ({"CESR against ESR": ("cesr_sum", "esr_sum"),
                    "LSR against ESR": ("lsr_sum", "esr_sum")}, {}),
}  # fmt: skip


def reading_values(name: str, folder: Path, sets: Mapping[str, list[data.Pair]]) -> Values:
    """What `score_readings` asks of a network: the columns of `LOOKED_AT`, and other measures.

    Args:
        folder: of the networks of `READINGS`; the others are the shipped ones.
        sets: pictures by the names that `LOOKED_AT` uses.

    Raises:
        Missing: no such network.
    """
    home = folder if name in READINGS else paths.checkpoints() / "lsrgan"
    net = load_generator(models.load(home / f"{name}_s0.safetensors"))
    asking = [(row, of) for by, of in REREAD.values() for row, pair in by.items() if name in pair]
    out: Values = {}
    for place, pairs in sets.items():
        looked = [(c, of) for row, of in asking for c in LOOKED_AT[row]
                  if place in LOOKED_AT[row][c]]  # fmt: skip
        if looked:
            made = enlarged(net, pairs)
            out[place] = evaluate(made, pairs, tuple(dict.fromkeys(c for c, _ in looked)))
            for other in {of[c] for c, of in looked if c in of}:
                out[place][other] = _otherwise(other, made, pairs)
    return out


def _otherwise(column: str, found: list[Tensor], pairs: list[data.Pair]) -> PerImage:
    """PSNR of all pixels of the three colours (lsrgan-e34), or SSIM with Gauss's window (e33)."""
    from latentpapers.metrics import full_reference

    both = [(x[None], pair.hr[None]) for x, pair in zip(found, pairs, strict=True)]
    if column == "SSIM 11 x 11":
        return torch.cat([full_reference.ssim_y_11x11_b4(*one) for one in both])
    errors = torch.stack([(x.double() - y.double()).square().mean() for x, y in both])
    return 20 * torch.log10(255 / errors.sqrt())


def score_readings(
    folder: Path, out: Path, measured: Callable[..., Values] = reading_values
) -> None:  # fmt: skip
    """Writes by how much each reading of `REREAD` moves the paired difference of every picture.

    Args:
        folder: of the networks of `READINGS`.
        measured: as `reading_values`.

    Raises:
        Missing, UnknownName: a network or a set that is not here.
    """
    sets = {name: scored_pairs(name) for name in (*CROPS, *PUBLISHED_SETS)}
    names = {n for by, _ in REREAD.values() for row in by for n in (*by[row], *COMPARED[row])}
    found = {name: measured(name, folder, sets) for name in sorted(names)}

    def moved(row: str, pair: tuple[str, str], column: str, other: str) -> Tensor:
        (new, old), (used_new, used_old) = ([found[n] for n in p] for p in (pair, COMPARED[row]))
        return torch.cat([
            (new[place][other] - old[place][other])
            - (used_new[place][column] - used_old[place][column])
            for place in LOOKED_AT[row][column]
        ]).float()  # fmt: skip

    tree = {
        erratum: {row: {column: moved(row, pair, column, of.get(column, column))
                        for column in LOOKED_AT[row] if not of or column in of}
                  for row, pair in by.items() if not of or of.keys() & LOOKED_AT[row].keys()}
        for erratum, (by, of) in REREAD.items()
    }  # fmt: skip
    home = paths.checkpoints() / "lsrgan"
    files = {n: (folder if n in READINGS else home) / f"{n}_s0.safetensors" for n in sorted(names)}
    card = {
        "pictures": {name: len(pairs) for name, pairs in sets.items()},
        "readings": {name: [of, changed] for name, (of, changed) in READINGS.items()},
        "networks": {n: storage.sha256_file(file) for n, file in files.items()},
        "commands": remaking((*READINGS,), 0, "readings"),
    }  # fmt: skip
    tensorfile.save(out / score_file(0, "readings").name, tree, about=card)


def reading_scores() -> dict[str, dict[str, dict[str, dict[str, PerImage]]]]:
    """erratum -> comparison -> column -> set -> what it adds to the difference of every picture.

    Raises:
        Missing, Corrupt: no such file, an altered one, or one of networks that no longer ship.
    """
    file = score_file(0, "readings")
    card, tree = tensorfile.header(file), tensorfile.load(file)
    for name, known in card["networks"].items():
        network = paths.checkpoints() / "lsrgan" / f"{name}_s0.safetensors"
        if name not in READINGS and storage.sha256_file(network) != known:
            raise Corrupt(f"{file.name} was measured with another {network.name}; measure again "
                          f"with `{'` and `'.join(card['commands'])}`.")  # fmt: skip

    def parted(places: tuple[str, ...], values: Tensor) -> dict[str, PerImage]:
        return dict(zip(places, values.split([card["pictures"][p] for p in places]), strict=True))

    return {e: {row: {c: parted(LOOKED_AT[row][c], v) for c, v in columns.items()}
                for row, columns in rows.items()} for e, rows in tree.items()}  # fmt: skip


def least_favourable(
    scores: Mapping[str, Score], changes: Mapping[str, Score], high: float
) -> Score:
    """Of several sets the number that favours a claim least, each moved by its change, if any.

    Args:
        high: up to where the claim holds; infinite: more is better.
    """
    found = [intervals.added(v, changes[k]) if changes else v for k, v in scores.items()]
    return min(found, key=lambda v: v.low if high == math.inf else -v.high)


def change_of_range(
    difference: PerImage, moved: PerImage, *, groups: intervals.Groups = None,
    resamples: int = 2000, seed: int = 0,
) -> Score:  # fmt: skip
    """By how much the range of two networks' means grows if their difference moves by `moved`."""
    x, m = (v.double().numpy() for v in (difference, moved))
    weights = intervals.drawn(groups, len(x), resamples, numpy(seed, "bootstrap", "range"))
    draws = abs(weights @ (x + m)) - abs(weights @ x)
    value = float(abs((x + m).mean()) - abs(x.mean()))
    return score_of_draws(value, draws, len(x), intervals.method(groups))
